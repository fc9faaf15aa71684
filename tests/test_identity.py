"""What identifies a run: every field of its config that has an effect, and its images."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from cnnlab.config import BASE, Config
from cnnlab.data import Data, Split
from cnnlab.device import has_bf16
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.verdict import verdict
from cnnlab.inquiry.params import ConfigError, from_params, replace, to_params
from cnnlab.inquiry.promises import broken_promises
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.environment import environment_facts
from cnnlab.inquiry.record.runs import images_of, load_runs
from cnnlab.inquiry.study import Study
from cnnlab.models import ACTIVATIONS
from cnnlab.task import DATA_SHA256, LAB, VALID_SHA256, described
from cnnlab.training import Result, fit
from tests.helpers import SMALL_DATA, predicted, small_study

pytestmark = pytest.mark.usefixtures("light")

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01, precision="float32")
TREE = {"module_tree", "module_tree_sha256"}
COUNTED = TREE | {"num_parameters"}
STEPS = {"steps", "schedule", "kept"}

# When the network memorizes images, the validation loss rises: the best epoch is never the last.
BY_HEART = {"train_images": 10, "batch_size": 10, "epochs": 10, "lr": 0.05, "schedule": "constant"}

# For every field: settings under which it has an effect, another value, and the facts that it changes.
FIELDS = {
    "blocks": ({}, ((1, 8), (1, 16)), COUNTED),
    "kernel_size": ({}, 5, COUNTED),
    "activation": ({}, "gelu", TREE),
    "norm": ({}, "batch", COUNTED),
    "norm_groups": ({"norm": "group"}, 4, TREE),
    "residual": ({}, True, TREE),
    "head_norm": ({}, "layer", COUNTED),
    "dropout": ({}, 0.5, TREE),
    "conv_dropout": ({}, 0.2, TREE),
    "conv_dropout_kind": ({"conv_dropout": 0.2}, "spatial", TREE),
    "conv_dropout_place": ({"conv_dropout": 0.2}, "before_norm", TREE),
    "pool": ({"norm": "batch"}, "first", TREE),
    "train_images": ({}, 160, STEPS | {"num_train", "train_sha256", "images_seen"}),
    "epochs": ({}, 3, STEPS | {"images_seen"}),
    "batch_size": ({}, 16, STEPS | {"batch_size"}),
    "optimizer": ({}, "sgd", {"optimizer"}),
    "lr": ({}, 0.02, {"optimizer", "schedule"}),
    "weight_decay": ({}, 0.5, {"optimizer"}),
    "momentum": ({"optimizer": "sgd", "schedule": "constant"}, 0.5, {"optimizer"}),
    "label_smoothing": ({}, 0.2, {"loss"}),
    "schedule": ({}, "constant", {"schedule"}),
    "keep": (BY_HEART, "best", {"kept"}),
    "patience": ({"epochs": 8, "lr": 0.3}, 1, {"early_stopping", "steps", "images_seen", "kept", "outcome"}),
    "precision": ({}, "bf16", {"precision"}),
    "seed": ({}, 1, {"train_sha256"}),
}


def trained(config: Config) -> Result:
    return fit(config, SMALL_DATA, progress=False, device="cpu", probes=False)


def changed_facts(a: Result, b: Result) -> set[str]:
    assert a.facts.keys() == b.facts.keys()
    return {name for name, value in a.facts.items() if value != b.facts[name]}


def same_weights(a: Result, b: Result) -> bool:
    one, other = a.model.state_dict(), b.model.state_dict()
    return one.keys() == other.keys() and all(map(torch.equal, one.values(), other.values()))


def as_row(result: Result) -> pd.Series:
    facts = {f"fact.{name}": value for name, value in (result.facts | environment_facts()).items()}
    return pd.Series({"config": result.config, **facts})


def test_the_table_has_every_field() -> None:
    assert set(FIELDS) == set(Config.model_fields)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_weights_and_just_the_facts_that_follow_from_it(field: str) -> None:
    settings, value, facts = FIELDS[field]
    if value == "bf16" and not has_bf16("cpu"):
        pytest.skip("this processor has to emulate bf16")
    before = trained(replace(SMALL, **settings))
    after = trained(replace(SMALL, **settings, **{field: value}))
    assert changed_facts(before, after) == facts
    assert not same_weights(before, after)
    assert broken_promises(as_row(before)) == broken_promises(as_row(after)) == []
    assert differences(before.config, after.config).keys() == {field}


def test_sgd_without_momentum_gets_none_from_the_schedule() -> None:
    with_it, without = (trained(replace(SMALL, optimizer="sgd", momentum=m)) for m in (0.9, 0.0))
    assert changed_facts(with_it, without) == {"optimizer", "schedule"}
    assert not same_weights(with_it, without)


# Two ways to write the same run: settings, and changes without effect.
IDLE = [
    ({}, {"norm_groups": 4}),
    ({"norm": "batch"}, {"norm_groups": 4}),
    ({}, {"conv_dropout_kind": "spatial"}),
    ({"norm": "batch"}, {"conv_dropout_place": "before_norm"}),
    ({}, {"pool": "first"}),
    ({"norm": "batch"}, {"pool": "last"}),
    ({"norm": "batch", "conv_dropout": 0.2, "conv_dropout_place": "before_norm"}, {"pool": "last"}),
    ({"conv_dropout": 0.2}, {"pool": "first", "conv_dropout_place": "before_norm"}),
    ({"conv_dropout": 0.2, "pool": "last"}, {"conv_dropout_place": "before_norm"}),
    ({"conv_dropout": 0.2, "pool": "last", "blocks": ((2, 8), (1, 8))}, {"conv_dropout_place": "before_norm"}),
    ({}, {"momentum": 0.5}),
    ({"optimizer": "sgd"}, {"momentum": 0.5}),
    ({"epochs": 1}, {"keep": "best"}),
    ({"epochs": 4, "lr": 0.3}, {"patience": 3}),
    ({"blocks": ((1, 8), (1, 16))}, {"residual": True}),
    ({"norm": "layer"}, {"norm": "group", "norm_groups": 1}),
    ({"weight_decay": 0.0}, {"optimizer": "adam"}),
]


@pytest.mark.parametrize(("settings", "idle"), IDLE, ids=[", ".join(f"{k}={v}" for k, v in i.items()) for _, i in IDLE])
def test_fields_without_effect_are_the_same_run_to_the_last_bit(settings: dict, idle: dict) -> None:
    plain = replace(SMALL, **settings)
    other = replace(plain, **idle)
    assert other != plain
    assert LAB.canonical(other) == LAB.canonical(plain)
    one, two = trained(plain), trained(other)
    assert same_weights(one, two)
    assert one.final["loss/valid"] == two.final["loss/valid"]


# Places of pooling and dropout, and the settings with which two of them are different networks.
APART = [
    ({"norm": "batch", "conv_dropout": 0.2}, {"pool": "first"}),
    ({"norm": "batch", "conv_dropout": 0.2}, {"pool": "last"}),
    ({"norm": "batch", "conv_dropout": 0.2, "pool": "first"}, {"conv_dropout_place": "before_norm"}),
    ({"conv_dropout": 0.2}, {"pool": "last"}),
    ({"activation": "gelu"}, {"pool": "last"}),
    ({"residual": True, "conv_dropout": 0.2, "pool": "last"}, {"conv_dropout_place": "before_norm"}),
]


@pytest.mark.parametrize(("settings", "place"), APART)
def test_another_place_is_another_network_where_it_makes_a_difference(settings: dict, place: dict) -> None:
    one = replace(SMALL, blocks=((2, 8), (1, 8)), **settings)
    other = replace(one, **place)
    assert LAB.canonical(other) != LAB.canonical(one)
    assert not same_weights(trained(one), trained(other))


def test_a_canonical_config_is_its_own_canonical_form() -> None:
    for settings, idle in IDLE:
        once = LAB.canonical(replace(SMALL, **(settings | idle)))
        assert LAB.canonical(once) == once


# Fields that come and go


class Longer(Config):
    """A config with one more field, off by default."""

    alpha_dropout: float = 0.0


def test_a_field_that_a_record_lacks_gets_its_default() -> None:
    old = to_params(replace(BASE, dropout=0.3))
    assert from_params(Longer, old) == Longer(dropout=0.3)


def test_an_unknown_field_is_refused_by_name() -> None:
    newer = to_params(Longer(alpha_dropout=0.5))
    with pytest.raises(ConfigError, match="Config has no field 'alpha_dropout'"):
        from_params(Config, newer)
    with pytest.raises(ConfigError, match="seed is missing"):
        from_params(Config, {"lr": "0.1"})


def test_runs_that_cannot_be_read_are_counted_and_reported(
    home: Path, small: Config, caplog: pytest.LogCaptureFixture
) -> None:
    store = connect()
    study = predicted(small_study("tiny", "?", small, (0, 1), {"dropout": (0.0, 0.5)}))
    study.run(store, progress=False)
    run_id = load_runs(store)["run_id"].iloc[0]
    store.client.log_param(run_id, "alpha_dropout", "0.3")
    caplog.clear()
    assert len(study.results(store)) == 3
    assert "left out: 1" in caplog.text and "Config has no field 'alpha_dropout'" in caplog.text


# Images


def test_the_fingerprints_of_the_lab_are_those_of_fashion_mnist(real_data: Data) -> None:
    assert real_data.sha256() == DATA_SHA256
    assert real_data.valid.sha256() == VALID_SHA256


def test_old_records_with_the_right_validation_images_count_as_fashion_mnist() -> None:
    assert images_of({"fact.valid_sha256": VALID_SHA256}) == DATA_SHA256
    assert images_of({"fact.valid_sha256": "another"}) == ""
    assert images_of({"fact.valid_sha256": VALID_SHA256, "fact.data_sha256": "augmented"}) == "augmented"


def test_a_network_that_the_code_now_builds_differently_is_named_and_not_mixed(
    home: Path, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    study = predicted(small_study("tiny", "?", small, (0, 1), {"dropout": (0.0, 0.5)}))
    study.run(store, progress=False)
    monkeypatch.setitem(ACTIVATIONS, "relu", torch.nn.ELU)  # a layer repaired after the first run
    described.cache_clear()
    try:
        with pytest.raises(LabError, match=r"aren't what the code makes of their params now: .*ELU, ReLU"):
            study.run(store, progress=False)
        other = predicted(small_study("other", "?", small, (0, 1), {"dropout": (0.0, 0.5)}))
        again = other.run(store, engine="here", progress=False)
        assert (again["reused_from"] == "").all()
        assert verdict(other, store)[0].outcome not in ("withheld", "waiting")
    finally:
        described.cache_clear()


def test_a_run_that_was_changed_is_never_taken_over(home: Path, small: Config) -> None:
    store, arms = connect(), {"dropout": (0.0, 0.5)}
    runs = predicted(small_study("tiny", "?", small, (0, 1), arms)).run(store, progress=False)
    store.client.log_metric(runs["run_id"].iloc[0], "final/accuracy/valid", 0.99, step=99)
    again = predicted(small_study("other", "?", small, (0, 1), arms)).run(store, progress=False)
    assert list(again["reused_from"] == "") == [True, False, False, False]
    assert list(again["accuracy/valid"]) == list(runs["accuracy/valid"])


def test_runs_are_named_by_the_place_of_their_seed(home: Path, small: Config) -> None:
    study = predicted(small_study("tiny", "?", small, (70, 7), {"dropout": (0.0, 0.5)}))
    runs = study.run(connect(), progress=False)
    assert list(runs["name"]) == [f"dropout={rate}, seed {place} of 2" for place in (1, 2) for rate in (0.0, 0.5)]
    assert [config.seed for config in runs["config"]] == [70, 70, 7, 7]
    assert (runs["fact.data_sha256"] == SMALL_DATA.sha256()).all()


def test_facts_about_the_images_that_nobody_can_read_are_not_what_was_promised() -> None:
    row = as_row(trained(SMALL))
    for fact, value in (("fact.image_shape", "banana"), ("fact.num_classes", "9" * 20)):
        (said,) = [line for line in broken_promises(pd.Series(row.to_dict() | {fact: value})) if fact[5:] in line]
        assert said == f"{fact[5:]} is {value} instead of something that can be read"


def test_a_residual_connection_around_the_first_convolution_has_an_effect() -> None:
    images = torch.randint(0, 256, (40, 8, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Data(Split(images[:20], torch.arange(20) % 10), Split(images[20:], torch.arange(20) % 10))
    base = replace(BASE, blocks=((1, 8), (1, 16)), train_images=20, batch_size=10, residual=True)
    with pytest.raises(LabError, match=r"residual=True is not possible with images of 8 channels"):
        Study("my-bands", "?", base, (0, 1), {"dropout": (0.0, 0.5)}, data=data)
