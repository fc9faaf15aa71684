"""A Config rejects what can't be run, and says why."""

import pickle

import pytest

from cnnlab.config import BASE, Config
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.params import ConfigError, from_params, replace, to_params


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"dropout": 1.0}, "less than 1"),
        ({"dropout": -0.1}, "greater than or equal to 0"),
        ({"dropout": "0.3"}, "number"),
        ({"dropot": 0.3}, "did you mean dropout"),
        ({"units": 128}, "there are: blocks"),
        ({"norm": "btach"}, "'batch'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"epochs": 2.5}, "integer"),
        ({"epochs": True}, "integer"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": float("nan")}, "finite"),
        ({"blocks": ()}, "a tuple of blocks"),
        ({"blocks": ((1, 32, 3),)}, "a tuple of blocks"),
        ({"blocks": ((0, 32),)}, "a tuple of blocks"),
        ({"kernel_size": 4}, "odd"),
        ({"norm": "group", "norm_groups": 7}, "divide the channels"),
        ({"train_images": 10, "batch_size": 64}, "at most train_images=10"),
        ({"head_norm": "group"}, "'none', 'batch' or 'layer'"),
        ({"head_norm": "batch", "train_images": 129}, "alone: change one"),  # 2 x 64 + 1
        ({"head_norm": "batch", "batch_size": 1}, "batch_size=1 leaves 1 of 55000 alone"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_an_impossible_value_is_refused_in_one_sentence(changes: dict, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        replace(BASE, **changes)
    message = str(refused.value)
    assert hint in message
    assert "\n" not in message
    assert next(iter(changes)) in message or "blocks" in message


@pytest.mark.parametrize(
    ("shape", "train_images", "hint"),
    [
        ((1, 7, 28), 55_000, r"blocks=\(\(1, 32\), \(1, 64\), \(1, 64\)\) is not possible: .* allow for 2 of them"),
        ((3, 8, 8), 54_999, "train_images=55000 is not possible: the data hold 54,999"),
    ],
)
def test_images_that_are_too_small_or_too_few_are_refused(shape: tuple[int, ...], train_images: int, hint: str) -> None:
    BASE.check_images((3, 8, 8), 55_000)
    with pytest.raises(ConfigError, match=hint):
        BASE.check_images(shape, train_images)


def test_replace_changes_only_what_is_named() -> None:
    assert differences(BASE, replace(BASE, dropout=0.3)) == {"dropout": (0.0, 0.3)}


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ConfigError, match=r"can't be changed: make another one with replace\(\.\.\., dropout=0.3\)"):
        BASE.dropout = 0.3


def test_a_single_image_in_the_last_batch_is_refused_only_where_the_head_has_batchnorm() -> None:
    for changes in ({"head_norm": "layer", "train_images": 129}, {"head_norm": "batch", "train_images": 130}):
        assert replace(BASE, **changes).batch_size == 64


def test_equal_values_are_the_same_run() -> None:
    assert Config(dropout=0) == Config() == BASE
    assert len({replace(BASE, seed=1), replace(BASE, seed=1), BASE}) == 2


def test_a_config_survives_mlflow_and_another_process() -> None:
    config = replace(BASE, blocks=((2, 16), (1, 24)), norm="group", patience=3, lr=1e-05, optimizer="sgd")
    assert from_params(Config, to_params(config)) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_params_are_exactly_the_fields() -> None:
    assert list(to_params(BASE)) == list(Config.model_fields)


def test_params_of_a_foreign_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="not the parameters of a run of this lab"):
        from_params(Config, {"lr": "0.1", "units": "128"})
