"""The checks before the first experiment pass for the lab's networks, and each fails for its mistake."""

import dataclasses

import pytest
import torch
from torch import nn

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data, Split
from cnnlab.models import NORMS, build_model
from cnnlab.sanity import CHECKS, SanityReport, sanity_checks
from cnnlab.training import fit
from tests.helpers import stripes


def failed(report: SanityReport) -> set[str]:
    return set(report.checks.index[~report.checks["passed"]])


def measured(report: SanityReport, check: str) -> str:
    return str(report.checks.loc[check, "measured"])


@pytest.mark.parametrize("norm", NORMS)
def test_the_labs_networks_pass_on_real_images(real_data: Data, norm: str) -> None:
    report = sanity_checks(replace(BASE, norm=norm), real_data)
    assert report.passed, str(report)
    assert list(report.checks.index) == list(CHECKS)
    assert "100 % of 64 after" in measured(report, "one batch")
    assert ("by BatchNorm" in measured(report, "batch statistics")) == (norm == "batch")


@pytest.mark.parametrize("kind", ["element", "spatial"])
def test_networks_with_much_dropout_pass(small: Config, small_data: Data, kind: str) -> None:
    config = replace(small, blocks=((1, 32), (1, 32)), dropout=0.5, conv_dropout=0.5, conv_dropout_kind=kind)
    report = sanity_checks(config, small_data)
    assert report.passed, str(report)


def test_few_images_are_enough(small: Config) -> None:
    report = sanity_checks(replace(small, keep="best", patience=1), Data(stripes(30, seed=1), stripes(9, seed=2)))
    assert report.passed, str(report)
    assert "100 % of 30 after" in measured(report, "one batch")


def test_the_callers_random_numbers_stay_as_they_were(small: Config, small_data: Data) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    sanity_checks(small, small_data)
    assert torch.equal(torch.rand(3), expected)


def test_the_checks_give_the_same_numbers_again(small: Config, small_data: Data) -> None:
    one, other = (sanity_checks(replace(small, dropout=0.3), small_data).checks for _ in range(2))
    assert one.equals(other)


def test_a_wrong_number_of_outputs_is_seen(small: Config, small_data: Data) -> None:
    def build(config: Config) -> nn.Module:
        model = build_model(config)
        model.head.linear = nn.Linear(8, 12)
        return model

    report = sanity_checks(small, small_data, build)
    assert "shapes" in failed(report)
    assert measured(report, "shapes") == "(1, 12), (2, 12), (7, 12)"


def test_initial_weights_that_are_too_large_are_seen(small: Config, small_data: Data) -> None:
    def build(config: Config) -> nn.Module:
        model = build_model(config)
        with torch.no_grad():
            model.head.linear.weight.mul_(30)
        return model

    report = sanity_checks(small, small_data, build)
    assert "initial loss" in failed(report)
    assert "too large" in report.checks.loc["initial loss", "otherwise"]


def test_a_network_that_was_trained_already_is_seen(small: Config, small_data: Data) -> None:
    trained = fit(replace(small, epochs=5), small_data, progress=False, device="cpu").model.state_dict()

    def build(config: Config) -> nn.Module:
        model = build_model(config)
        model.load_state_dict(trained)
        return model

    assert failed(sanity_checks(small, small_data, build)) >= {"initial loss", "same seed"}


def test_a_dead_relu_is_seen(small: Config, small_data: Data) -> None:
    def build(config: Config) -> nn.Module:
        model = build_model(config)
        nn.init.constant_(model.block2.conv1.bias, -1000)
        return model

    report = sanity_checks(small, small_data, build)
    assert failed(report) == {"one batch"}
    assert measured(report, "one batch").endswith("of 64 after 300 steps")


def test_frozen_weights_are_a_failed_check_and_not_a_traceback(small: Config, small_data: Data) -> None:
    report = sanity_checks(small, small_data, lambda config: build_model(config).requires_grad_(False))
    assert failed(report) == {"one batch", "random labels"}
    assert measured(report, "one batch").startswith("RuntimeError: element 0 of tensors does not require grad")


@dataclasses.dataclass(frozen=True)
class Painted(Split):
    """A pipeline with a mistake: before the network gets an image, its upper half shows its label in gray."""

    def __post_init__(self) -> None:
        super().__post_init__()
        x = self.x.clone()
        for image, label in zip(x, self.y.tolist(), strict=True):
            image[0, :14] = 25 * label
        object.__setattr__(self, "x", x)


def test_a_label_in_the_image_is_seen(small: Config, small_data: Data) -> None:
    leaking = Data(*(Painted(split.x, split.y) for split in (small_data.train, small_data.valid)))
    assert failed(sanity_checks(replace(small, norm="batch"), leaking)) == {"random labels"}


def test_batch_statistics_in_eval_mode_are_seen(small: Config, small_data: Data) -> None:
    def build(config: Config) -> nn.Module:
        model = build_model(config)
        model.block1.norm1 = nn.BatchNorm2d(8, track_running_stats=False)
        return model

    assert "batch statistics" in failed(sanity_checks(small, small_data, build))


def test_random_numbers_that_do_not_follow_the_seed_are_seen(small: Config, small_data: Data) -> None:
    def from_elsewhere(config: Config) -> nn.Module:
        torch.seed()
        return build_model(config)

    def always_the_same(config: Config) -> nn.Module:
        torch.manual_seed(42)
        return build_model(config)

    assert "OTHER weights" in measured(sanity_checks(small, small_data, from_elsewhere), "same seed")
    report = sanity_checks(small, small_data, always_the_same)
    assert failed(report) == {"same seed"}
    assert "SAME weights" in measured(report, "same seed")


def test_a_network_that_cannot_be_built_fails_with_the_first_line_of_its_error(small: Config, small_data: Data) -> None:
    def build(config: Config) -> nn.Module:
        raise ValueError("no <layer> fits\nand more")

    report = sanity_checks(small, small_data, build)
    assert failed(report) == set(CHECKS)
    assert measured(report, "shapes") == "ValueError: no <layer> fits"
    assert "no &lt;layer&gt; fits" in report._repr_html_()


def test_only_failed_checks_say_what_that_usually_means(small: Config, small_data: Data) -> None:
    well = sanity_checks(small, small_data)
    ill = sanity_checks(small, small_data, lambda config: torch.manual_seed(42) and build_model(config))
    meaning = CHECKS["same seed"].otherwise
    assert meaning not in str(well) + well._repr_html_()
    assert meaning in str(ill) and meaning in ill._repr_html_()
    assert str(well).endswith(f"All {len(CHECKS)} checks passed, in {well.seconds:.0f} s.")
    assert f"1 of {len(CHECKS)} checks failed (same seed)" in str(ill)
    assert all(len(line) <= 130 for line in str(well).splitlines())
