"""The reference results at a glance, read from the store: a table of verdicts, a figure of accuracies, the vault.

The README shows them between two marks; `cnnlab results --write` puts them there.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnnlab.course.profiles import PROFILES
from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.review import claim_of, effect_of, outcome_of
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import load_vault
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.show.figures import mean_interval
from cnnlab.inquiry.show.style import BLUE, GREY, WIDTH
from cnnlab.inquiry.study import Study

BEGIN, END = "<!-- results: written by `cnnlab results --write` -->", "<!-- end of results -->"


def results_text(store: Store) -> str:
    """Return the reference results as Markdown: predictions with their verdicts, and what the vault gave.

    Raises:
        LabError: the store has none.
    """
    records = [record for record in load_records(store, owner=OWNER) if record.verdicts and not record.deleted]
    if not records:
        raise LabError("this store has no reference results: they ship with the lab, in its mlflow.db.")
    rows = [_row(number, record) for number, record in enumerate(records, start=1)]
    head = "| | study | predicted | sure | verdict | effect |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows, *_vault_lines(store)])


def _row(number: int, record: Record) -> str:
    last = record.verdicts[-1].content
    sure = f"{record.content['confidence']} %"
    label = "" if last["label"] == "confirmatory" else f", {last['label']}"
    verdict = f"{outcome_of(record)}{label}"
    return f"| {number} | {record.experiment} | {claim_of(record)} | {sure} | {verdict} | {effect_of(record)} |"


def _vault_lines(store: Store) -> list[str]:
    lines: list[str] = []
    for opening in load_vault(store, OWNER):
        lines += ["", "| test set | n | test accuracy, mean (SD) | validation |", "|---|---|---|---|"]
        lines += [
            f"| {arm} | {row.n:.0f} | {row.test:.2f} % ({row.test_sd:.2f} pp) | {row.valid:.2f} % |"
            for arm, row in opening.arms.iterrows()
        ]
        lines += ["", *(f"{line}  " for line in opening.said.splitlines())]
    return lines


def plot_overview(store: Store) -> Figure:
    """Return the validation accuracy of every arm that was trained in full: each run, mean and 95 % interval.

    The axis is logarithmic in the error, so that one arm far below leaves room for the differences among the others.
    """
    rows = [
        (f"{study.name.removeprefix(f'{study.name[:2]}-')}: {arm}", 100 * some["accuracy/valid"])
        for study in _full_studies(store)
        for arm, some in results(study, store, OWNER).groupby("arm", sort=False)
    ]
    figure = Figure(figsize=(WIDTH, 1.1 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, (_, values) in enumerate(rows):
        mean, low, high = mean_interval(values)
        axes.plot(values, np.full(len(values), y), "o", color=GREY, alpha=0.5, ms=3)
        axes.errorbar(mean, y + 0.25, xerr=[[mean - low], [high - mean]], fmt="D", color=BLUE, capsize=3, ms=4)
    axes.set_yticks(range(len(rows)), [f"{name} (n = {len(values)})" for name, values in rows], fontsize=8)
    axes.set_xscale("function", functions=(lambda x: -np.log(np.maximum(100 - x, 0.01)), lambda y: 100 - np.exp(-y)))
    low, high = axes.get_xlim()
    axes.set_xticks([x for x in (*range(10, 90, 5), *range(90, 100)) if low <= x <= high])
    axes.set(xlabel="validation accuracy (%), logarithmic in the error", ylim=(len(rows) - 0.4, -0.6))
    axes.grid(alpha=0.3)
    profile = PROFILES["full"]
    figure.suptitle(
        f"Reference runs, {profile.train_images:,} images, {profile.epochs} epochs: "
        "each run (dot), mean and 95 % interval of the mean (diamond)",
        fontsize=9,
    )
    return figure


def _full_studies(store: Store) -> list[Study]:
    """Return the reference studies that train as the baseline does, the confirmation of the search among them."""
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
    """Put the results between the two marks of a README, and the figure into `experiment_log/figures`.

    Raises:
        LabError: the file has no such marks, or the store no results.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise LabError(f"{readme.name} has no place for the results: put {BEGIN} and {END} on lines of their own.")
    picture = paths.experiment_log() / "figures" / "results.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_overview(store).savefig(picture, dpi=120)
    readme.write_text(f"{before}{BEGIN}\n\n{results_text(store)}\n\n{END}{after}", encoding="utf-8", newline="\n")
