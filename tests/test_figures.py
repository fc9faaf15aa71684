"""Figures show what they name: every value is visible, every mark explained, counts are counts, and n is exact."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cnnlab.config import BASE, replace
from cnnlab.course import figures as course
from cnnlab.inquiry.claim import Claim
from cnnlab.inquiry.contrast import arm_contrast, interaction_contrast, trend_contrast
from cnnlab.inquiry.judge.calibration import COLUMNS, Calibration
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.ledger import Record
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show import figures, page, predictions
from cnnlab.inquiry.show.effects import plot_calibration, plot_effects, plot_interaction, say_outcomes
from cnnlab.inquiry.show.predictions import plot_records
from cnnlab.inquiry.show.scales import effect_label
from cnnlab.inquiry.show.style import PAPER
from cnnlab.inquiry.study import Study
from cnnlab.inquiry.task import find_metric
from tests.helpers import record_of

NAN = float("nan")
CURVES = ["arm", "seed", "metric", "epoch", "value"]
NO_STORE = cast(Store, None)
VARIED = {"norm": ("none", "batch"), "lr": (0.003, 0.03, 0.3)}
RATES = Study("own-rates", "?", replace(BASE, lr=0.03), (0, 1), vary=VARIED)
DOSES = Study("own-doses", "?", BASE, (0, 1), vary={"dropout": (0.0, 0.1, 0.5)})
GRID = Study("own-grid", "?", BASE, (0, 1), vary={"dropout": (0.0, 0.5), "norm": ("none", "batch")})
WORDS: dict[str, Any] = {"because": "this is a mechanism", "if_refuted": "it is not so", "confidence": 75}


def runs_of(study: Study, values: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]) -> pd.DataFrame:
    """Return runs with an accuracy and a loss for each seed of each arm; runs without a loss diverged."""
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "accuracy/valid": accuracy,
            "loss/valid": loss,
            "gap/loss": loss / 10,
            "gap/train_mode": -loss / 10,
            "fact.outcome": "finished" if np.isfinite(loss) else "diverged at step 3",
        }
        for arm, some, others in zip(study.arms, values, losses, strict=True)
        for seed, (accuracy, loss) in enumerate(zip(some, others, strict=True))
    )


def verdict_on(study: Study, effect: Effect | None, outcome: Any, more: dict[str, Any] | None = None) -> Verdict:
    """Return a verdict with these values, on the prediction that the loss is 0.03 to 0.15 nats higher."""
    contrast = arm_contrast(study, "dropout=0.5", "")
    claim = Claim(metric="loss/valid", direction="higher", size=(0.03, 0.15), sesoi=0.01, **WORDS)
    prediction = Prediction(study.name, contrast, claim, Record("id", study.name, {}, 0, deleted=False))
    return Verdict(prediction, outcome, (), pd.DataFrame(), (), effect=effect, **(more or {}))


def effect_of(estimate: float, half: float) -> Effect:
    ends = (estimate - half, estimate + half)
    return Effect(estimate, *ends, half, 2, ends)


def legend(figure: Figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


# Effects


def test_an_effect_has_its_axis_in_words_one_legend_and_a_title_with_the_finding() -> None:
    one = verdict_on(DOSES, effect_of(0.05, 0.01), "supported", {"on_new_images": (0.02, 0.08)})
    figure = plot_effects([one], "3")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "difference in validation loss (nats)"
    assert axes.get_title(loc="left").startswith("dropout=0.5 against dropout=0.0: ")
    assert axes.get_title(loc="left").endswith("supported, size as predicted, +0.050 nats (n = 2 seeds)")
    assert figure.get_suptitle() == "Figure 3. own-doses: prediction supported"
    assert legend(figure) == [
        *("predicted range", "too small to matter", "mean effect with its 95 % interval", "effect of one seed"),
        "interval on new images as well",
    ]
    runs = pd.DataFrame({"fact.outcome": ["finished", "diverged at step 3"]})
    averaged = plot_effects([dataclasses.replace(one, runs=runs)])
    assert averaged.axes[0].get_title(loc="left").endswith("+0.050 nats (n = 2 seeds, 1 run failed)")
    exploratory = plot_effects([dataclasses.replace(one, because=("it was known",), on_new_images=None)])
    assert ", exploratory, " in exploratory.axes[0].get_title(loc="left")
    assert "interval on new images as well" not in legend(exploratory)


@pytest.mark.parametrize("estimate", [0.05, -0.4, 5000, 0.001])
def test_bars_and_intervals_never_touch_the_frame(estimate: float) -> None:
    effect = effect_of(estimate, 0.2 * abs(estimate))
    one = verdict_on(DOSES, effect, "inconclusive", {"on_new_images": (effect.low - 1, effect.high + 1)})
    (axes,) = plot_effects([one]).axes
    low, high = axes.get_xlim()
    assert low < min(effect.low - 1, -0.01) and max(effect.high + 1, 0.15) < high


def test_a_prediction_without_a_range_has_no_bar_and_one_of_no_difference_the_band() -> None:
    one = verdict_on(DOSES, effect_of(0.05, 0.01), "supported")
    for changes, bars in (({"size": None}, []), ({"size": None, "direction": "none"}, [(-0.01, 0.02)])):
        claim = one.prediction.claim.model_copy(update=changes)
        figure = plot_effects([dataclasses.replace(one, prediction=dataclasses.replace(one.prediction, claim=claim))])
        drawn = [bar for group in figure.axes[0].containers if hasattr(group, "patches") for bar in group.patches]
        assert [(bar.get_x(), bar.get_width()) for bar in drawn] == bars
        assert ("predicted range" in legend(figure)) == bool(bars)


def test_the_axis_of_an_effect_says_which_kind_of_difference_it_is() -> None:
    accuracy, gap = find_metric("accuracy/valid"), find_metric("gap/loss")
    assert effect_label(accuracy, trend_contrast(DOSES, "dropout").kind) == (
        "change in validation accuracy from the first to the last level (pp)"
    )
    both = interaction_contrast(GRID, {"dropout": 0.5, "norm": "batch"})
    assert effect_label(accuracy, both.kind) == "validation accuracy beyond what the two effects add up to (pp)"
    assert effect_label(gap, "arm") == "difference in gap = validation - training loss in eval mode (nats)"


def test_outcomes_are_counted_in_words() -> None:
    assert say_outcomes([]) == "no verdict yet"
    assert say_outcomes(["refuted"]) == "prediction refuted"
    assert say_outcomes(["withheld", "supported", "withheld"]) == "1 of 3 predictions supported, 2 withheld"


def test_an_interaction_counts_failed_runs_keeps_them_out_of_its_means_and_says_direction_and_size() -> None:
    both = interaction_contrast(GRID, {"dropout": 0.5, "norm": "batch"})
    accuracies = [[0.9, 0.91], [0.9, 0.91], [0.9, 0.91], [0.8, 0.1]]
    one = verdict_on(DOSES, effect_of(0.5, 0.01), "supported")
    one = dataclasses.replace(one, prediction=dataclasses.replace(one.prediction, contrast=both))
    losses = [[0.3, 0.31], [0.2, 0.22], [0.4, 0.41], [2.3, NAN]]
    figure = plot_interaction(dataclasses.replace(one, runs=runs_of(GRID, accuracies, losses)))
    assert [axes.get_title() for axes in figure.axes] == ["dropout=0.5, norm=batch: n = 1 of 2, 1 failed"] * 2
    (means,) = (line.get_ydata() for line in figure.axes[0].lines if line.get_label() == "norm=batch")
    assert means[1] == pytest.approx(80)  # the mean of the run that didn't fail
    title = " ".join(figure.get_suptitle().split())
    assert "direction supported, size missed (above the range by a factor of 3.3), +0.500 nats beyond the sum" in title
    assert title.endswith("(n = 2 seeds; the effect includes 1 run that failed)")
    whole = plot_interaction(dataclasses.replace(one, runs=runs_of(GRID, accuracies, [*losses[:3], [2.3, 2.4]])))
    assert [axes.get_title() for axes in whole.axes] == ["", ""]
    assert whole.get_suptitle().endswith("(n = 2 seeds)")


# Calibration


def calibration(rows: Sequence[tuple[float, str, bool | None]]) -> Calibration:
    table = [("study", "prediction", float(sure), "confirmatory", *rest, NAN) for sure, *rest in rows]
    return Calibration(pd.DataFrame(table, columns=COLUMNS))


def test_calibration_has_counts_on_an_axis_of_counts_and_shares_in_percent() -> None:
    rows = [(80, "supported", True), (85, "supported", True), (82, "refuted", False), (60, "supported", False)]
    figure = plot_calibration(calibration([*rows, (70, "inconclusive", True)]), "17")
    counts, shares = figure.axes
    assert counts.get_ylabel() == "predictions"
    heights = {(round(bar.get_x() + 0.4), bar.get_y()): bar.get_height() for bar in counts.patches}
    assert heights == {(1, 0): 1, (3, 0): 2, (3, 2): 1}  # those that didn't come true are on top of those that did
    assert all(tick == int(tick) for tick in counts.get_yticks())
    assert shares.get_xlabel() == "share of predictions (%)" and shares.get_xlim()[1] > 100
    assert [text.get_text() for text in shares.texts] == [
        "direction: said 77 %, came true in 3 of 4",
        "size: 80 % expected, 2 of 3 ranges held",
    ]
    title = "Calibration: 3 of 4 decided predictions came true (75 %), 77 % expected"
    assert figure.get_suptitle() == f"Figure 17. {title}"
    assert "did not come true" in legend(figure)


@pytest.mark.parametrize("outcome", ["supported", "refuted"])
def test_the_interval_of_a_share_contains_the_share_even_for_one_prediction(outcome: str) -> None:
    figure = plot_calibration(calibration([(50, outcome, None)]))
    ends = figure.axes[1].collections[0].get_segments()[0][:, 0]
    share = 100.0 * (outcome == "supported")
    assert min(ends) <= share <= max(ends) and 0 <= min(ends) < max(ends) <= 100
    assert ("did not come true" in legend(figure)) == (outcome == "refuted")


def test_calibration_without_decisions_says_so() -> None:
    for rows in ([], [(60.0, "inconclusive", None)]):
        figure = plot_calibration(calibration(rows))
        assert figure.get_suptitle() == "Calibration: nothing decided yet"
        assert [text.get_text() for text in figure.axes[1].texts] == [
            "direction: nothing to count yet",
            "size: nothing to count yet",
        ]


# Every prediction


def test_every_prediction_has_a_row_in_order_with_the_predicted_direction_to_the_right() -> None:
    found = {"label": "confirmatory", "estimate": "-0.05", "low": "-0.06", "high": "-0.04", "n": "5"}
    records = [
        record_of("first", {}, found | {"outcome": "refuted"}),
        record_of("second", {"direction": "lower"}, found | {"outcome": "supported"}),
        record_of("third", {"direction": "none"}, found | {"outcome": "refuted", "label": "exploratory"}),
        record_of("fourth", {"low": "", "high": ""}, {"outcome": "withheld", "label": "confirmatory"}),
    ]
    waiting = Record("id", "own", {}, 0, deleted=False)
    figure = plot_records([*records, waiting], "18")
    (axes,) = figure.axes
    labels = [label.get_text().split("\n") for label in axes.get_yticklabels()]
    assert [one for one, _ in labels] == ["1  own: first", "2  own: second", "3  own: third", "4  own: fourth"]
    assert labels[2][1] == "loss/valid, no difference (75 %)"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # from top to bottom
    said = [text.get_text() for text in axes.texts]
    assert said == ["refuted", "supported", "refuted,\nexploratory", "withheld"]
    assert len({text.get_color() for text in axes.texts}) == 3
    effects = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert effects == pytest.approx([-5, 5, -5])  # in units of the smallest effect of interest
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for group in axes.containers for bar in group.patches]
    assert np.array(bars) == pytest.approx(np.array([(3, 15), (3, 15), (-1, 1)]))
    assert figure.get_suptitle().endswith("1 of 4 predictions supported, 2 refuted, 1 withheld")


@pytest.mark.parametrize("n", [1, 8, 9, 32])
def test_on_paper_rows_are_numbered_and_no_letter_is_smaller_than_8_points(n: int) -> None:
    last = {"outcome": "supported", "label": "exploratory", "estimate": "0.05", "low": "0.04", "high": "0.06"}
    figure = plot_records([record_of("much against none", {}, last)] * n, on_paper=True)
    assert figure.get_figwidth() == PAPER
    (room,) = re.findall(r"max-height: (\d+)mm", page.STYLE)
    assert figure.get_figheight() < int(room) / 25.4  # inches; so the page shows it at its full size
    (axes,) = figure.axes
    label, said = axes.get_yticklabels()[n - 1].get_text(), axes.texts[0].get_text()
    if n <= 8:
        assert label == f"{n}  own\nmuch against none\nloss/valid, higher (75 %)"
    else:
        assert (label, said) == (f"{n}  own (75 %)", "supported, exploratory")
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8


def test_a_row_says_which_kind_of_inconclusive_at_least_how_much_and_how_many_runs_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {
        "some": "inconclusive (a difference of unclear size)",
        "least": "supported, size missed (a little above the range)",
    }
    monkeypatch.setattr(predictions, "outcome_of", lambda record: said.get(record.content["contrast"], "inconclusive"))
    found = {"label": "confirmatory", "outcome": "inconclusive", "estimate": "0.05", "low": "0.04", "high": "0.06"}
    old = found | {"runs_1": "aa seal 0.1; bb seal 0.2", "runs_2": "cc seal 0.3"}
    records = [
        record_of("none", {}, found),
        record_of("some", {}, found | {"images_low": "0.02", "images_high": "0.08"}),
        record_of("least", {"at_least_sesoi": "True", "unit": "nats"}, old),
    ]
    figure = plot_records(records, failed={"aa", "cc", "dd"})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [
        "inconclusive",
        "inconclusive,\na difference of unclear size",
        "supported,\nsize missed, 2 runs failed",
    ]
    assert axes.get_yticklabels()[2].get_text().endswith("loss/valid, higher by at least 0.01 nats (75 %)")
    whiskers = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "|" and line.get_alpha() == 0.5]
    assert whiskers == [pytest.approx([2, 8])]
    assert "interval on new images as well" in legend(figure)
    assert "interval on new images as well" not in legend(plot_records(records[:1]))


@pytest.mark.parametrize("estimate", ["4e6", "-300", "0.0"])
def test_even_a_very_large_effect_is_visible(estimate: str) -> None:
    last = {"outcome": "inconclusive", "label": "confirmatory", "estimate": estimate, "low": estimate, "high": estimate}
    (axes,) = plot_records([record_of("one", {}, last)]).axes
    low, high = axes.get_xlim()
    assert low <= -3 and high >= 3
    assert low < 100 * float(estimate) < high
    assert 3 <= len(axes.get_xticks()) <= 13


def test_without_verdicts_there_are_no_rows() -> None:
    figure = plot_records([])
    assert figure.get_suptitle().endswith("no verdict yet") and not figure.axes[0].texts


# Runs


def test_the_n_of_a_panel_is_what_the_panel_shows_and_one_value_has_no_mean() -> None:
    runs = runs_of(DOSES, [[0.9, 0.91], [0.1, 0.1], [0.8, 0.8]], [[0.3, 0.31], [0.5, NAN], [NAN, NAN]])
    figure = figures.plot_arms(DOSES, runs)
    accuracy, loss = figure.axes
    counts = [[label.get_text().split("\n")[-1] for label in axes.get_xticklabels()] for axes in (accuracy, loss)]
    assert counts == [["n = 2", "n = 1 of 2", "n = 0 of 2"]] * 2  # the accuracy of failed runs doesn't count
    assert [len(axes.containers) for axes in (accuracy, loss)] == [1, 1]  # means with an interval
    assert legend(figure) == ["one run", "mean with its 95 % interval"]
    assert "mean validation accuracy from 10.00 % (dropout=0.1) to 90.50 % (dropout=0.0)" in " ".join(
        figure.get_suptitle().split()
    )


def test_an_arm_far_below_leaves_room_for_the_others() -> None:
    far = runs_of(DOSES, [[0.9, 0.91], [0.92, 0.93], [0.1, 0.1]], [[0.3, 0.31], [0.31, 0.32], [2.3, 2.3]])
    near = runs_of(DOSES, [[0.9, 0.91], [0.92, 0.93], [0.89, 0.9]], [[0.3, 0.31], [0.31, 0.32], [0.33, 0.34]])
    for runs, names in ((far, ["function", "log"]), (near, ["linear", "linear"])):
        all_axes = figures.plot_arms(DOSES, runs).axes
        assert [axes.get_yscale() for axes in all_axes] == names
    accuracy = figures.plot_arms(DOSES, far, ("accuracy/valid",)).axes[0]
    place = accuracy.transAxes.inverted().transform
    heights = [place(accuracy.transData.transform((0, value)))[1] for value in (10, 90, 93)]
    assert heights[0] > 0 and heights[2] < 1 and heights[2] - heights[1] > 0.08  # on a linear axis it would be 0.03
    ticks = accuracy.yaxis.get_major_locator().tick_values(5, 95)
    assert {20, 60, 80, 90} <= set(ticks) and 91 not in ticks  # round ones first, as many as fit


def test_names_without_room_are_slanted_and_a_title_stays_within_the_figure() -> None:
    arms = {f"an arm with quite a long name, number {i}": replace(BASE, dropout=i / 20) for i in range(10)}
    study = Study("own-names", "?", BASE, (0, 1), arms=arms)
    runs = runs_of(study, [[0.9, 0.91]] * 10, [[0.3, 0.31]] * 10)
    figure = figures.plot_arms(study, runs)
    assert {label.get_rotation() for axes in figure.axes for label in axes.get_xticklabels()} == {45}
    assert max(len(line) for line in figure.get_suptitle().split("\n")) <= 104


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A loss that falls steeply and ends at 0.525 and 0.595, and a gap."""
    ends = {"dropout=0.0": 0.595, "dropout=0.5": 0.525}
    found = pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": metric, "epoch": epoch, "value": scale * (end + 3 / epoch**2)}
        for arm, end in ends.items()
        for seed, scale in enumerate((0.99, 1.01))
        for metric in ("loss/valid", "gap/loss")
        for epoch in range(1, 41)
    )
    monkeypatch.setattr(figures, "load_curves", lambda *_: found)
    return found


def test_curves_have_a_scale_on_which_the_ends_differ(curves: pd.DataFrame) -> None:
    runs = runs_of(DOSES, [[0.9, 0.9]] * 3, [[0.595, 0.595], [0.54, 0.54], [0.525, 0.525]])
    figure = figures.plot_curves(DOSES, runs, NO_STORE, number="6")
    loss, gap = figure.axes
    low, high = loss.get_ylim()
    late = curves[curves["epoch"] > 10]["value"]
    assert low < late.min() and late.max() < high < curves["value"].max()
    assert (0.595 - 0.525) / (high - low) > 0.4
    assert loss.get_title() == "(higher in the first epochs)"
    assert gap.get_yscale() == "linear" and gap.get_ylim()[1] > curves["value"].max()
    assert gap.get_ylabel().replace("\n", " ") == "validation - training loss in eval mode (nats)"
    assert legend(figure) == [
        *("dropout=0.0 (n = 2)", "dropout=0.5 (n = 2)"),
        "band: lowest to highest seed, line: mean",
    ]


def test_learning_rates_are_a_line_per_norm_with_failed_runs_and_the_best_marked() -> None:
    accuracies = [[0.7, 0.72], [0.8, 0.82], [0.1, 0.1], [0.85, 0.86], [0.9, 0.91], [0.84, 0.83]]
    losses = [[0.9, 0.9], [0.5, 0.5], [NAN, NAN], [0.4, 0.4], [0.3, 0.3], [0.45, NAN]]
    runs = runs_of(RATES, accuracies, losses)
    figure = figures.plot_levels({"own-rates": (RATES, runs)}, "lr", "accuracy/valid", "9", lines="norm")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "function")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.003", "0.03", "0.3"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines if "norm=" in str(line.get_label())}
    assert lines["norm=none"] == pytest.approx([71, 81])  # nothing at 0.3, where both runs failed
    assert lines["norm=batch"] == pytest.approx([85.5, 90.5, 84])  # the run that didn't fail
    crosses = [list(line.get_ydata()) for line in axes.lines if line.get_label() == "run that failed"]
    assert crosses == [[pytest.approx(10)] * 2, [pytest.approx(83)]]
    assert figure.get_suptitle() == (
        "Figure 9. Validation accuracy over lr: best mean at 0.03 (norm=none), 0.03 (norm=batch)"
    )
    marks = ["one run", "mean with its 95 % interval", "best mean", "run that failed"]
    assert legend(figure) == ["norm=none", "norm=batch", *marks]
    assert " ".join(axes.get_title().split()) == (
        "own-rates (n = 2 per level; norm=none, lr=0.3: n = 0 of 2, 2 failed; norm=batch, lr=0.3: n = 1 of 2, 1 failed)"
    )
    (axes,) = figures.plot_levels({"own-rates": (RATES, runs)}, "lr", "loss/valid", lines="norm").axes
    failed = [line for line in axes.lines if line.get_label() == "run that failed"]
    assert [list(line.get_ydata()) for line in failed] == [[0.97], [0.97]]  # without a value: at the bad edge


def test_dose_and_response_have_their_means_at_the_levels() -> None:
    runs = runs_of(DOSES, [[0.9, 0.91]] * 3, [[0.3, 0.32], [0.29, 0.31], [0.4, 0.41]])
    figure = figures.plot_levels({"few": (DOSES, runs), "many": (DOSES, runs), "none": (DOSES, runs[:0])}, "dropout")
    assert [axes.get_title() for axes in figure.axes] == ["few\n(n = 2 per level)", "many\n(n = 2 per level)"]
    (line,) = (line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3)
    assert list(line.get_xdata()) == [0, 0.1, 0.5]
    assert figure.axes[0].get_xscale() == "linear"
    assert "best mean at 0.1 (few), 0.1 (many); each panel has its own scale" in figure.get_suptitle()


def test_a_study_without_runs_gives_empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "load_curves", lambda *_: pd.DataFrame(columns=CURVES))
    runs = pd.DataFrame(columns=["arm", "seed", "run_id"])
    for figure in (
        figures.plot_arms(DOSES, runs),
        figures.plot_curves(DOSES, runs, NO_STORE),
        course.plot_gaps(DOSES, runs),
    ):
        figure.draw_without_rendering()
        assert "no run has a " in figure.get_suptitle()


def test_one_epoch_is_a_mean_with_a_bar_for_each_arm_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"arm": arm, "seed": seed, "metric": "loss/valid", "epoch": 1, "value": 0.3 + seed / 10}
        for arm in DOSES.arms
        for seed in (0, 1)
    ]
    monkeypatch.setattr(figures, "load_curves", lambda *_: pd.DataFrame(rows))
    runs = runs_of(DOSES, [[0.9, 0.9]] * 3, [[0.3, 0.4]] * 3)
    figure = figures.plot_curves(DOSES, runs, NO_STORE, ("loss/valid",))
    (axes,) = figure.axes
    bars = [segment for group in axes.collections for segment in group.get_segments()]
    assert [bar[:, 1].tolist() for bar in bars] == [[pytest.approx(0.3), pytest.approx(0.4)]] * 3
    assert len({bar[0, 0] for bar in bars}) == 3
    assert legend(figure)[-1] == "bar: lowest to highest seed, dot: mean"


def test_one_seed_without_any_loss_still_gives_figures() -> None:
    runs = runs_of(DOSES, [[0.1], [0.1], [0.1]], [[NAN], [NAN], [NAN]])
    for figure in (
        figures.plot_arms(DOSES, runs),
        figures.plot_levels({"own": (DOSES, runs)}, "dropout"),
        course.plot_gaps(DOSES, runs),
    ):
        figure.draw_without_rendering()
    assert "no run has a gap" in course.plot_gaps(DOSES, runs).get_suptitle()


# Networks


def test_gaps_explain_their_colours_and_name_the_axis() -> None:
    runs = runs_of(DOSES, [[0.9, 0.91]] * 3, [[0.3, 0.31], [0.5, 0.6], [0.4, 0.41]])
    figure = course.plot_gaps(DOSES, runs, "4")
    marks = {"one run", "mean with its 95 % interval"}
    assert set(legend(figure)) == {*marks, "left: both in eval mode", "right: training loss in train mode"}
    assert figure.axes[0].get_ylabel() == "validation - training loss (nats)"


def test_probes_explain_bands_and_say_between_which_values_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["variance_ratio/block1.norm1", "variance_ratio/block2.norm1"]
    found = pd.DataFrame(
        {"arm": "dropout=0.0", "seed": seed, "metric": name, "epoch": epoch, "value": 1 / epoch + place}
        for place, name in enumerate(names)
        for seed in (0, 1)
        for epoch in (1, 4)
    )
    monkeypatch.setattr(course, "_probe_names", lambda _, __, *probes: names if "variance_ratio" in probes else [])
    monkeypatch.setattr(course, "load_curves", lambda _, __, names: found[found["metric"].isin(names)])
    figure = course.plot_probes(DOSES, pd.DataFrame(), NO_STORE, "variance_ratio")
    assert figure.axes[0].get_ylabel().startswith("variance in eval mode")
    assert [axes.get_title() for axes in figure.axes] == ["layer block1.norm1", "layer block2.norm1"]
    assert "from 0.25 (block1.norm1, dropout=0.0) to 1.25 (block2.norm1" in " ".join(figure.get_suptitle().split())
    assert "band: lowest to highest seed, line: mean" in legend(figure)
    assert "live" not in " ".join(legend(figure))
    assert figure.get_suptitle().endswith("in runs of older versions, a dead channel counts as 1")


def test_a_variance_ratio_is_shown_with_its_quartiles_and_the_number_of_live_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"variance_ratio": 0.5, "variance_ratio_low": 0.4, "variance_ratio_high": 0.7, "live_channels": 12}
    found = pd.DataFrame(
        [
            ("dropout=0.0", seed, f"{name}/head.norm", 1, value + seed)
            for name, value in values.items()
            for seed in (0, 1)
        ],
        columns=CURVES,
    )
    monkeypatch.setattr(course, "_probe_names", lambda _, __, *probes: [f"{probe}/head.norm" for probe in probes])
    monkeypatch.setattr(course, "load_curves", lambda _, __, names: found[found["metric"].isin(names)])
    figure = course.plot_probes(DOSES, pd.DataFrame(), NO_STORE, "variance_ratio")
    (axes,) = figure.axes
    assert axes.get_title() == "layer head.norm\n12 to 13 live channels"
    quartiles = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "_" and line.get_linewidth() < 1]
    assert quartiles == pytest.approx([0.9, 1.2])  # means over the seeds
    assert legend(figure)[1:] == [
        "bar: lowest to highest seed, dot: mean",
        "thin lines: quartiles over the live channels",
    ]
    assert "older" not in figure.get_suptitle()
