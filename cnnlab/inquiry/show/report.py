"""The report: one A4 page per student from the records, and an annex with the student's own words."""

import re
import textwrap
from collections import Counter
from collections.abc import Container
from datetime import UTC, datetime
from pathlib import Path

from cnnlab.inquiry import paths
from cnnlab.inquiry.design import count
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import Calibration, calibrate_records
from cnnlab.inquiry.judge.outcome import DECIDED
from cnnlab.inquiry.judge.review import claim_of, effect_of, labelled, outcome_of
from cnnlab.inquiry.judge.statistics import proportion_interval
from cnnlab.inquiry.log import log
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import Entry, entries, entry_id, reflected
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.heads import my_head
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.effects import plot_calibration, say_outcomes
from cnnlab.inquiry.show.logbook import logbook_file
from cnnlab.inquiry.show.page import count_pages, render_html, write_pdf
from cnnlab.inquiry.show.predictions import failed_ids, plot_records, with_failures
from cnnlab.inquiry.show.scales import shortened
from cnnlab.inquiry.show.style import PAPER

COUNTED = (*DECIDED, "inconclusive")
LINE = 80  # letters in a line of a terminal
SPACE = "\N{NO-BREAK SPACE}"


def report(store: Store | None = None) -> Path:
    """Write the report of this owner as Markdown and HTML, and as PDF if a browser can print it; return the HTML.

    Page one has three sentences, all predictions beside their outcomes, and the calibration. The annex has the table of
    the predictions and the reflections. Every verdict needs a "why", unless it was withheld; one below the last
    verdict of a study is enough for the whole study.

    Raises:
        LabError: there are no verdicts yet, or a field "why" in a logbook is empty; the message gives file and line.
    """
    store = store or connect()
    predicted = load_records(store, owner=owner())
    records = [record for record in predicted if record.verdicts]
    judged = [record for record in records if not record.deleted]
    if deleted := sorted({record.experiment for record in records if record.deleted}):
        log.info(f"Left out, because they were deleted in the MLflow UI: predictions about {', '.join(deleted)}.")
    if not judged and (waiting := sorted({record.experiment for record in predicted if not record.deleted})):
        raise LabError(f"there is nothing to report yet: run and confront {', '.join(waiting)}, which you predicted.")
    if not judged:
        raise LabError("there is nothing to report yet: make a prediction, run the study, and confront it.")
    words = _words(judged)
    folder = paths.experiment_log()
    name = "report-" + re.sub(r"[^A-Za-z0-9_-]+", "-", owner()).strip("-")
    failed = failed_ids(store)
    _draw(judged, failed, folder / "figures", name)
    text = _page_one(judged, f"figures/{name}") + _annex(judged, words, my_head(store, owner()), failed)
    text = re.sub(r"(?<=[\d\]]) (?=%|pp\b|nats\b)", SPACE, text).replace("n = ", f"n{SPACE}={SPACE}")
    page = folder / f"{name}.html"
    page.with_suffix(".md").write_text(text, encoding="utf-8", newline="\n")
    page.write_text(render_html(text, f"Report of {owner()}", folder), encoding="utf-8", newline="\n")
    log.info(f"Report: {folder.name}/{page.name} and .md")
    try:
        write_pdf(page, page.with_suffix(".pdf"))
        annex = count(count_pages(page.with_suffix(".pdf")) - 1, "page")
        log.info(f"Report: {folder.name}/{name}.pdf, 1 page and an annex of {annex}")
    except LabError as error:  # any browser can print the page
        log.warning(error)
    return page


def _draw(judged: list[Record], failed: Container[str], folder: Path, name: str) -> None:
    """Draw the figures of page one, as wide as its text."""
    folder.mkdir(parents=True, exist_ok=True)
    calibration = plot_calibration(calibrate_records(judged))
    calibration.set_size_inches(PAPER, 2.0)
    calibration.savefig(folder / f"{name}-calibration.png", dpi=200)
    predictions = plot_records(judged, on_paper=True, failed=failed)
    predictions.savefig(folder / f"{name}-predictions.png", dpi=200)


def _words(judged: list[Record]) -> dict[Entry, list[int]]:
    """Return the reflections in the logbooks, each with the numbers of its predictions.

    Raises:
        LabError: a verdict has no reflection.
    """
    ids = {entry_id(record.sha256, record.verdicts[-1].number): record for record in judged}
    known = {name: entry for name, entry in entries().items() if name in ids}
    words = reflected(known.values())
    told: dict[Entry, list[int]] = {}
    empty = []
    for number, (name, record) in enumerate(ids.items(), start=1):
        if name in words:
            told.setdefault(words[name], []).append(number)
        elif record.verdicts[-1].content["outcome"] in COUNTED:
            empty.append(_where(record, known.get(name)))
    if empty:
        lacking = "1 verdict lacks" if len(empty) == 1 else f"{len(empty)} verdicts lack"
        raise LabError(
            f'there is no report yet: {lacking} your "why".\n'
            "Write it on these lines, or once for a study, below its last verdict:\n"
            + "\n".join(empty)
            + '\nIn the notebook: reflect(study, why="...", next="...")'
        )
    return told


def _where(record: Record, entry: Entry | None) -> str:
    """Return one line with the place of a missing "why", as file:line, and the prediction."""
    file = entry.file if entry else logbook_file(record.experiment)
    place = f"{file.parent.name}/{file.name}{f':{entry.line}' if entry else ' (confront it again)'}"
    claim = f": {record.content['metric']}"
    room = LINE - len(f"{place}  {claim}")
    return f"{place}  {textwrap.shorten(record.content['contrast'], max(20, room), placeholder=' ...')}{claim}"


def _page_one(judged: list[Record], pictures: str) -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    sentences = "\n".join(f"- {sentence}" for sentence in summary(judged))
    return (
        f"# Experiments with CNNs: report of {owner()}\n\n"
        f"{now} · {count(len(judged), 'prediction')} with a verdict\n\n"
        f"{sentences}\n\n"
        f"![Every prediction beside what came out]({pictures}-predictions.png)\n\n"
        f"![Calibration of the predictions]({pictures}-calibration.png)\n\n"
        f"{calibrate_records(judged).sentence()}\n\n---\n\n"
    )


def summary(judged: list[Record]) -> list[str]:
    """Return three sentences on predictions: their outcomes, the most confident wrong one, and the confidence."""
    return [_outcomes(judged), _surprise(judged), _worth(calibrate_records(judged))]


def _outcomes(judged: list[Record]) -> str:
    """Return a sentence with the number of each outcome, and of verdicts that don't test a prediction."""
    last = [record.verdicts[-1].content for record in judged]
    said = say_outcomes(one["outcome"] for one in last)
    labels = Counter(one["label"] for one in last if one["label"] != "confirmatory")
    rest = ", ".join(f"{number} {label}" for label, number in labels.items())
    return f"{said[0].upper()}{said[1:]}{f' ({rest})' if rest else ''}."


def _surprise(judged: list[Record]) -> str:
    """Return a sentence about the wrong prediction with the highest confidence."""
    wrong = [
        (float(record.content["confidence"]), -number, record)
        for number, record in enumerate(judged, start=1)
        if record.verdicts[-1].content["outcome"] in DECIDED and record.verdicts[-1].content["outcome"] != "supported"
    ]
    if not wrong:
        return "No prediction was refuted."
    sure, number, record = max(wrong, key=lambda one: one[:2])
    claim, outcome = shortened(claim_of(record), 150), labelled(outcome_of(record), record)
    return f"The most confident wrong prediction is number {-number}, {sure:g} % sure: {claim}. It came out {outcome}."


def _worth(found: Calibration) -> str:
    """Return a sentence that compares the share of predictions that came true with the stated confidence."""
    said, true = found.decided["confidence"].mean(), found.decided["supported"]
    if true.empty:
        return "The confidence can't be judged yet: no confirmatory verdict has decided a prediction."
    low, high = (100 * end for end in proportion_interval(int(true.sum()), len(true)))
    fits = "more than expected" if said < low else "fewer than expected" if said > high else "as expected"
    return (
        f"At a mean confidence of {said:.0f} %, {true.sum()} of {count(len(true), 'prediction')} that a "
        "confirmatory verdict decided came true: "
        f"{fits} (95 % interval of the share: {low:.0f} to {high:.0f} %)."
    )


def _annex(judged: list[Record], words: dict[Entry, list[int]], head: str, failed: Container[str]) -> str:
    rows = "\n".join(_row(number, record, failed) for number, record in enumerate(judged, start=1))
    told = "\n\n".join(_reflection(entry, numbers) for entry, numbers in words.items())
    return (
        "## Annex: the predictions\n\n"
        "| | study | predicted (confidence) | verdict, and effect with its 95 % interval |\n|--:|---|---|---|\n"
        f"{rows}\n\n"
        f"## Why, and what next\n\n{told}\n\nHead of the records: {head}\n"
    )


def _row(number: int, record: Record, failed: Container[str]) -> str:
    claim = f"{claim_of(record)} ({record.content['confidence']} %)"
    effect = effect_of(record, is_short=True)
    words = with_failures(labelled(outcome_of(record), record), record, failed)
    verdict = words + (f": {effect}" if effect else "")
    return f"| {number} | {record.experiment} | {claim} | {verdict} |"


def _reflection(entry: Entry, numbers: list[int]) -> str:
    more = f" **Next:** {' '.join(entry.next.split())}" if entry.next else ""
    return f"**{', '.join(map(str, numbers))}, {entry.file.stem}.** {' '.join(entry.why.split())}{more}"
