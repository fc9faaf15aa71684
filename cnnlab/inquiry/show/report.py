"""The report: one A4 page for each student, from the records and the student's own words in the logbooks."""

import re
from datetime import UTC, datetime
from pathlib import Path

from cnnlab.inquiry import paths
from cnnlab.inquiry.design import count
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import calibrate_records
from cnnlab.inquiry.judge.review import claim_of, effect_of, labelled, outcome_of
from cnnlab.inquiry.log import log
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import Entry, entries, reflected
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.heads import my_head
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.effects import plot_calibration
from cnnlab.inquiry.show.logbook import entry_id
from cnnlab.inquiry.show.page import count_pages, render_html, write_pdf
from cnnlab.inquiry.show.predictions import failed_ids, plot_records

COUNTED = ("supported", "refuted", "practically equivalent", "inconclusive")


def report(store: Store | None = None) -> Path:
    """Write the report of this owner as Markdown and HTML, and as PDF where a browser can print it; return the HTML.

    Raises:
        LabError: there are no verdicts yet, or a field "why" in a logbook is empty: it is named.
    """
    store = store or connect()
    records = [record for record in load_records(store, owner=owner()) if record.verdicts]
    judged = [record for record in records if not record.deleted]
    if deleted := sorted({record.experiment for record in records if record.deleted}):
        log.info(f"Left out, because it was deleted in the MLflow UI: what was predicted about {', '.join(deleted)}.")
    if not judged:
        raise LabError("there is nothing to report yet: predict, run a study, and confront it.")
    words = _words(judged)
    folder = paths.experiment_log()
    name = "report-" + re.sub(r"[^A-Za-z0-9_-]+", "-", owner()).strip("-")
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    plot_records(judged, is_short=True, failed=failed_ids(store)).savefig(pictures / f"{name}-predictions.png", dpi=130)
    plot_calibration(calibrate_records(judged)).savefig(pictures / f"{name}-calibration.png", dpi=130)
    text = _markdown(judged, words, my_head(store, owner()), f"figures/{name}")
    page = folder / f"{name}.html"
    page.with_suffix(".md").write_text(text, encoding="utf-8", newline="\n")
    page.write_text(render_html(text, f"Report of {owner()}", folder), encoding="utf-8", newline="\n")
    log.info(f"Report: {folder.name}/{page.name} and .md")
    try:
        write_pdf(page, page.with_suffix(".pdf"))
        pages = count_pages(page.with_suffix(".pdf"))
        asked = "" if pages == 1 else f" has {pages} pages, and one is asked for: say it shorter in the logbooks"
        log.info(f"Report: {folder.name}/{name}.pdf{asked}")
    except LabError as error:  # the page can be printed from any browser
        log.warning(error)
    return page


def _words(judged: list[Record]) -> dict[Entry, list[int]]:
    """Return the reflections in the logbooks, each with the numbers of the predictions that it is about.

    Raises:
        LabError: a verdict has none.
    """
    ids = {entry_id(record.sha256, record.verdicts[-1].number): record for record in judged}
    words = reflected(entry for name, entry in entries().items() if name in ids)
    told: dict[Entry, list[int]] = {}
    empty = []
    for number, (name, record) in enumerate(ids.items(), start=1):
        if name in words:
            told.setdefault(words[name], []).append(number)
        elif record.verdicts[-1].content["outcome"] in COUNTED:
            empty.append(f"{record.content['contrast']} in {record.experiment}.md")
    if empty:
        raise LabError(
            f"there is no report yet: {count(len(empty), 'verdict')} without your reflection ({'; '.join(empty)}). "
            "Write why it came out so, in your own words, with reflect(...) or in experiment_log."
        )
    return told


def _markdown(judged: list[Record], words: dict[Entry, list[int]], head: str, pictures: str) -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    rows = "\n".join(_row(number, record) for number, record in enumerate(judged, start=1))
    told = "\n\n".join(_reflection(entry, numbers) for entry, numbers in words.items())
    return (
        f"# Experiments with CNNs: report of {owner()}\n\n"
        f"{now} · {count(len(judged), 'prediction')} with a verdict · head {head}\n\n"
        f"| | study | predicted (confidence) | verdict | effect, 95 % interval |\n|---|---|---|---|---|\n{rows}\n\n"
        f"![Every prediction beside what came out]({pictures}-predictions.png)\n\n"
        f"{calibrate_records(judged).sentence()}\n\n![Calibration of the predictions]({pictures}-calibration.png)\n\n"
        f"## Why, and what next\n\n{told}\n"
    )


def _row(number: int, record: Record) -> str:
    claim = f"{claim_of(record)} ({record.content['confidence']} %)"
    effect = effect_of(record).replace(", 95 % interval", "").removesuffix(" seeds")
    return f"| {number} | {record.experiment} | {claim} | {labelled(outcome_of(record), record)} | {effect} |"


def _reflection(entry: Entry, numbers: list[int]) -> str:
    more = f" **Next:** {' '.join(entry.next.split())}" if entry.next else ""
    return f"**{', '.join(map(str, numbers))}, {entry.file.stem}.** {' '.join(entry.why.split())}{more}"
