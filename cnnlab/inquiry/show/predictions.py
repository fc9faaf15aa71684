"""One figure of all of an owner's predictions, each beside its outcome, from the records."""

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.review import labelled, outcome_of
from cnnlab.inquiry.prediction import say_direction
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.effects import EFFECT, IMAGES, RANGE, SMALL, say_outcomes
from cnnlab.inquiry.show.figures import legend_below, titled
from cnnlab.inquiry.show.scales import shortened
from cnnlab.inquiry.show.style import GREY, OUTCOME_COLOURS, PAPER, WIDTH, YELLOW, LabFigure
from cnnlab.inquiry.task import find_metric

NONE: Mapping[str, str] = MappingProxyType({})
SIGNS = {"higher": 1, "lower": -1, "none": 1}
TICKS = (1, 3, 10, 30, 100, 300)
FEW = 8  # rows on a page that have room for three lines each
FAR_TICKS = (1, 100, 10_000, 1_000_000)  # if there are effects larger than that


def plot_predictions(store: Store, number: str = "", of: str = "") -> Figure:
    """Plot every prediction of an owner that has a verdict, beside its outcome; see `plot_records`.

    `of` is the owner (default: this one).

    Raises:
        LabError: the store doesn't answer.
    """
    return plot_records(load_records(store, owner=of or owner()), number, failed=failed_ids(store))


def failed_ids(store: Store) -> frozenset[str]:
    """Return the ids of all failed runs in a store.

    Raises:
        LabError: the store doesn't answer.
    """
    runs = load_runs(store, deleted=True, kind=None)
    return frozenset(runs.loc[failed_runs(runs), "run_id"])


def plot_records(
    records: Sequence[Record],
    number: str = "",
    on_paper: bool = False,
    failed: Container[str] = (),
    pending: Mapping[str, str] = NONE,
    links: Mapping[str, str] = NONE,
) -> Figure:
    """Plot one row per prediction that has a verdict: its range as a bar, the effect with its 95 % interval, and the
    outcome in words.

    All are in units of their smallest effect of interest, so that pp and nats fit one axis, which is logarithmic beyond
    1; the predicted direction is to the right. Nothing is recomputed: the figure shows the last verdict on record. A
    thin whisker is the interval over seeds and images, if it was recorded. `on_paper` is for an A4 page with a table of
    the predictions and a sentence that counts them: no letter is smaller than 8 points, and many rows have only study,
    confidence and outcome. `failed` are the ids of failed runs: an effect that includes some is marked. `pending` has
    texts for predictions without a verdict, by id; these are shown in gray. `links` are the link targets of the names
    of rows in SVG, by the same ids.
    """
    shown = [one for one in records if not one.deleted and (one.verdicts or one.run_id in pending)]
    is_short = on_paper and len(shown) > FEW
    height = 0.13 if is_short else 0.43 if on_paper else 0.29
    size = 8 if on_paper else 7
    figure = LabFigure(figsize=(PAPER if on_paper else WIDTH, 1.1 + height * max(2, len(shown))), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-1, 1, color=GREY, alpha=0.2, lw=0)
    axes.axvline(0, color=GREY, lw=1)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "weight": "bold"}
    for row, record in enumerate(shown):
        _draw_row(axes, row, record)
        words = _outcome(record, failed, is_short) if record.verdicts else pending[record.run_id]
        words = words if is_short else words.replace(", ", ",\n", 1)
        axes.text(1.01, row, words, color=_colour(record), fontsize=size, linespacing=1.1, **beside)
    _scale(axes)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    labels = [_on_paper(n, one, is_short) if on_paper else _label(n, one) for n, one in enumerate(shown, start=1)]
    axes.set_yticks(range(len(shown)), labels, fontsize=size)
    for tick, record in zip(axes.get_yticklabels(), shown, strict=False):
        tick.set_url(links.get(record.run_id))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "left", "right"]].set_visible(False)
    judged = [record.verdicts[-1].content for record in shown if record.verdicts]
    images = [IMAGES] if any("images_low" in verdict for verdict in judged) else []
    legend_below(figure, [RANGE, SMALL, EFFECT, *images])
    outcomes = [verdict.get("outcome", "?") for verdict in judged]
    found = "" if on_paper else f": {say_outcomes(outcomes)}"
    return titled(figure, f"What was predicted, and what came out{found}", number)


def _colour(record: Record) -> str:
    """Return the color of the outcome; gray if there is none yet."""
    return OUTCOME_COLOURS.get(record.verdicts[-1].content.get("outcome", ""), "black") if record.verdicts else GREY


def _draw_row(axes: Axes, row: int, record: Record) -> None:
    content, last = record.content, record.verdicts[-1].content if record.verdicts else {}
    colour = _colour(record)
    unit = _number(content, "sesoi") or find_metric(content["metric"]).sesoi
    low, high = (_number(content, end) for end in ("low", "high"))
    if content.get("direction") == "none":
        low, high = -unit, unit
    if low is not None and high is not None:
        bar = YELLOW if record.verdicts else GREY
        axes.barh(row, (high - low) / unit, left=low / unit, height=0.6, color=bar, alpha=0.6)
    sign = SIGNS.get(content.get("direction", ""), 1)
    effect = _number(last, "estimate")
    for names, look in (
        (("images_low", "images_high"), {"lw": 1, "ms": 10, "alpha": 0.5}),
        (("low", "high"), {"lw": 2, "ms": 7}),
    ):
        ends = [sign * end / unit for name in names if (end := _number(last, name)) is not None]
        if effect is not None and len(ends) == 2:
            axes.plot(sorted(ends), [row, row], "|-", color=colour, **look)
    if effect is not None:
        axes.plot(sign * effect / unit, row, "D", color=colour, ms=5)


def _scale(axes: Axes) -> None:
    """Make the horizontal axis logarithmic on both sides of the band from -1 to 1, which is always visible."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.use_sticky_edges = False
    low, high = min(axes.get_xlim()[0], -3), max(axes.get_xlim()[1], 3)
    sizes = TICKS if max(-low, high) < 1000 else FAR_TICKS
    ticks = [tick for tick in (*(-size for size in reversed(sizes)), 0, *sizes) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
    axes.set_xlim(low, high)
    axes.set_xlabel("effect in the predicted direction, in units of the smallest effect of interest", fontsize=8)


def _outcome(record: Record, failed: Container[str], is_short: bool) -> str:
    """Return the outcome in a few words, such as "supported, size missed, exploratory"; a short one omits the size."""
    said = outcome_of(record).removeprefix("direction ").replace(" (", ", ").rstrip(")").split(", ")
    return with_failures(labelled(", ".join(said[: 1 if is_short else 2]), record), record, failed)


def with_failures(words: str, record: Record, failed: Container[str]) -> str:
    """Return words for the last verdict with the number of failed runs that its effect includes, if there are any."""
    last = record.verdicts[-1].content
    named = [one for name, some in last.items() if name.startswith("runs_") for one in some.split("; ")]
    failures = sum(one.partition(" ")[0] in failed for one in named) if "estimate" in last else 0
    return f"{words}, {count(failures, 'run')} failed" if failures else words


def _label(number: int, record: Record) -> str:
    """Return the numbered label of a prediction's row, on two lines."""
    about = f"{number}  {record.experiment}: {record.content.get('contrast', '?')}"
    return f"{shortened(about, 74)}\n{_claim(record)}"


def _on_paper(number: int, record: Record, is_short: bool) -> str:
    """Return the same for a page of paper, on one short line or on three lines."""
    if is_short:
        return f"{number}  {record.experiment} ({record.content.get('confidence', '?')} %)"
    return f"{number}  {record.experiment}\n{shortened(record.content.get('contrast', '?'), 44)}\n{_claim(record)}"


def _claim(record: Record) -> str:
    content = record.content
    direction = say_direction(content.get("direction", "?"))
    if content.get("at_least_sesoi") == "True":
        direction += f" by at least {content.get('sesoi', '?')} {content.get('unit', '')}".rstrip()
    return f"{content.get('metric', '?')}, {direction} ({content.get('confidence', '?')} %)"


def _number(content: dict[str, str], name: str) -> float | None:
    try:
        return float(content[name])
    except (KeyError, ValueError):
        return None
