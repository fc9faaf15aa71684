"""The reference results at a glance, read from the store: a table of verdicts, a figure of accuracies, the vault.

The README shows them between two marks; `cnnlab results --write` puts them there.
"""

from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnlab.course.profiles import PROFILES
from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.review import labelled, outcome_of, recorded_effect
from cnnlab.inquiry.prediction import Prediction, say_claim
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import Recorded, accuracies, load_vault
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.show.figures import MEAN, legend_below, mean_interval, say_means, titled
from cnnlab.inquiry.show.predictions import failed_ids, plot_predictions, with_failures
from cnnlab.inquiry.show.scales import error_scale
from cnnlab.inquiry.show.sentences import came_out
from cnnlab.inquiry.show.style import BLUE, GREY, WIDTH, LabFigure
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.study import Study
from cnnlab.task import METRICS

# How older openings of the vault described optimism, and the note they get now.
OLD_OPTIMISM = "Selection optimism: validation is at most"
OLD_OPENING = (
    "This is how it was recorded. The interval on new images came from a bootstrap that is too cautious: it covers "
    "the truth in 96 to 100 % of simulated studies, not in 95 %."
)
BEGIN, END = "<!-- results: written by `cnnlab results --write` -->", "<!-- end of results -->"


class Results(Shown):
    """The reference results: the records of all predictions with a verdict, and the openings of the test vault."""

    def __init__(self, store: Store) -> None:
        """Read them.

        Raises:
            LabError: the store has none.
        """
        records = [record for record in load_records(store, owner=OWNER) if record.verdicts and not record.deleted]
        if not records:
            raise LabError("this store has no reference results: see your own with `cnnlab verdict`.")
        self.records = records
        self.openings = load_vault(store, OWNER)
        self.failed = failed_ids(store)

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        shown: list[Part] = [_table(_short_row(record, self.failed) for record in self.records)]
        for opening in self.openings:
            shown += ["", accuracies(opening.arms), "", *_said(opening)]
        return shown

    def markdown(self) -> str:
        """Return them as the README has them, folded away."""
        lines = ["<details><summary>What was predicted, and what came out</summary>", ""]
        lines += _markdown_table(_table(_row(record, self.failed) for record in self.records))
        for opening in self.openings:
            lines += ["", *_markdown_table(accuracies(opening.arms)), "", *(f"{line}  " for line in _said(opening))]
        return "\n".join([*lines, "", "</details>"])


def _table(rows: Iterable[dict[str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.set_axis([str(number) for number in range(1, len(table) + 1)])


def _short_row(record: Record, failed: Container[str]) -> dict[str, str]:
    """Return what fits into a terminal."""
    row, effect, prediction = _row(record, failed), recorded_effect(record), Prediction.from_record(record)
    compared = f"{record.experiment}, {prediction.contrast.text}: "
    interval = row["95 % interval"].replace(" ", "\N{NO-BREAK SPACE}")
    found = [prediction.metric.say(effect.estimate), interval, f"n = {effect.n}"] if effect else []
    return {
        "verdict": row["verdict"],
        "predicted (how sure)": row["predicted (how sure)"].replace(f"{record.experiment}: ", compared),
        "effect": "\n".join(found),
    }


def _row(record: Record, failed: Container[str]) -> dict[str, str]:
    effect, metric = recorded_effect(record), Prediction.from_record(record).metric
    words = labelled(outcome_of(record), record).removeprefix("direction ")
    return {
        "verdict": with_failures(words, record, failed),
        "what came out": came_out(record),
        "95 % interval": metric.say_interval(effect.low, effect.high).partition("]")[0] + "]" if effect else "",
        "n": str(effect.n) if effect else "",
        "predicted (how sure)": f"{record.experiment}: {say_claim(record.content)} ({record.content['confidence']} %)",
    }


def _said(opening: Recorded) -> list[str]:
    """Return what an opening of the vault said; of optimism, only what still holds."""
    said = opening.said.splitlines()
    if not any(line.startswith(OLD_OPTIMISM) for line in said):
        return said
    return [*(line for line in said if not line.startswith(OLD_OPTIMISM)), OLD_OPENING]


def _markdown_table(table: pd.DataFrame) -> list[str]:
    head = [table.index.name or "", *table.columns]
    rows = [[str(name), *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def plot_overview(store: Store) -> Figure:
    """Return the validation accuracy of every arm that was trained in full: each run, mean and 95 % interval.

    The axis is logarithmic in the error, so that one arm far below leaves room for the differences among the others.
    """
    rows = _shared_once(store)
    lines = np.array([1 + 0.6 * name.count("\n") for name, _ in rows])
    places = lines.cumsum() - lines / 2
    figure = LabFigure(figsize=(WIDTH, 1.5 + 0.26 * lines.sum()), layout="constrained")
    axes = figure.subplots()
    for y, (_, values) in zip(places, rows, strict=True):
        mean, low, high = mean_interval(values)
        axes.plot(values, np.full(len(values), y), "o", color=GREY, alpha=0.5, ms=3, label="one run")
        error = [[mean - low], [high - mean]]
        axes.errorbar(mean, y + 0.25, xerr=error, fmt="D", color=BLUE, capsize=3, ms=4, label=MEAN)
    axes.set_yticks(places, [name for name, _ in rows], fontsize=8)
    error_scale(axes, "x")
    axes.set_xlabel(
        "validation accuracy (%)\nequal steps divide the error, 100 % - accuracy, by equal factors", fontsize=9
    )
    axes.set_ylim(lines.sum(), -0.1)
    axes.grid(alpha=0.3)
    legend_below(figure)
    profile = PROFILES["full"]
    found = say_means(METRICS[0], {name.partition(" (")[0]: values for name, values in rows})
    size = f"{profile.train_images:,} images, {profile.epochs} epochs unless stated"
    return titled(figure, f"Reference runs, {size}: {found}")


def _shared_once(store: Store) -> list[tuple[str, pd.Series]]:
    """Return the accuracies (%) of every arm by its name; an arm that two studies share has both names."""
    names: list[list[str]] = []
    accuracies: list[pd.Series] = []
    for study in _full_studies(store):
        for arm, some in results(study, store, OWNER).groupby("arm", sort=False):
            values = pd.Series(100 * some["accuracy/valid"].to_numpy(), index=trained(some))
            longer = f", {epochs} epochs" if (epochs := study.arms[str(arm)].epochs) != study.base.epochs else ""
            name = f"{study.name.removeprefix(f'{study.name[:2]}-')}: {arm}{longer} (n = {len(values)})"
            same = [row for row, known in enumerate(accuracies) if set(known.index) & set(values.index)]
            if same:
                names[same[0]].append(name)
                accuracies[same[0]] = values.combine_first(accuracies[same[0]])
            else:
                names.append([name])
                accuracies.append(values)
    return [("\n= ".join(shared), values) for shared, values in zip(names, accuracies, strict=True)]


def _full_studies(store: Store) -> list[Study]:
    """Return the reference studies that train as the baseline does, including the confirmation of the search."""
    studies = dict(reference_studies())
    for record in load_records(store, owner=OWNER):
        if record.experiment not in studies:
            contrast = Prediction.from_record(record).contrast
            base = contrast.arms[contrast.control]
            studies[record.experiment] = Study(record.experiment, "?", base, contrast.seeds, arms=contrast.arms)
    profile = PROFILES["full"]
    size = profile.train_images, profile.epochs
    return [study for study in studies.values() if (study.base.train_images, study.base.epochs) == size]


def write_results(store: Store, readme: Path) -> None:
    """Put the results between the two marks of a README, and their figures into `experiment_log/figures`.

    Raises:
        LabError: the file has no such marks, or the store has no results.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise LabError(f"{readme.name} has no place for the results: put {BEGIN} and {END} on lines of their own.")
    block = f"{BEGIN}\n\n{Results(store).markdown()}\n\n{END}"
    pictures = paths.experiment_log() / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    plot_overview(store).savefig(pictures / "results.png", dpi=120)
    plot_predictions(store, of=OWNER).savefig(pictures / "predictions.png", dpi=120)
    readme.write_text(f"{before}{block}{after}", encoding="utf-8", newline="\n")
