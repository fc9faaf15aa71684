"""The logbook of a study: `experiment_log/<study>.md`, which only grows, and in which a student reflects.

Every verdict gets an entry: the prediction word for word, the plan, the runs, the figure, the verdict, and two fields
for the student alone: why it came out this way, and what to do next. `reflect` fills these fields; a student's text is
never removed.
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

from cnnlab.inquiry import paths, server
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.claim import FEWEST_WORDS
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.reference import Reference
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.log import log
from cnnlab.inquiry.prediction import say_direction
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.entries import entries, entry_id, fill, read_entries
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import VerdictRecord, load_records
from cnnlab.inquiry.record.store import Store

FIELDS = {"why": "Why did it come out so? (your own words)", "next": "What next?"}


def logbook_file(study: str) -> Path:
    """Return the logbook of a study."""
    return paths.experiment_log() / f"{_plain(study)}.md"


@checked
def reflect(study: Design, *, why: str, next: str = "", store: Store | None = None) -> None:
    """Write in the logbook, in your own words, why a study came out the way it did, and what to do next.

    The texts go to the entry of your last verdict on the study, and also count for the earlier ones. A text that one
    of its entries already contains changes nothing; any other is added to the existing texts.

    Raises:
        LabError: there is a blank (`...`), a text is too short, or there is no verdict yet.
    """
    for name, text in {"why": why, "next": next}.items():
        if len(text.split()) < FEWEST_WORDS and (text or name == "why"):
            raise LabError(f"{name}={text!r} is too short: write a sentence.")
    records = load_records(store or default_store(), study.name, owner())
    own = {entry_id(record.sha256, verdict.number) for record in records for verdict in record.verdicts}
    known = [entry for entry in entries().values() if entry.id in own]
    if not known:
        raise LabError(f"there is no verdict on {study.name} to reflect on yet: run it, then confront(study).")
    if not any(why.strip() in one.why and next.strip() in one.next for one in known):
        fill(known[-1].file, known[-1].id, {"why": why, "next": next})
    log.info(f"Written into {known[-1].file.parent.name}/{known[-1].file.name}.")


def add_entry(study: Design, one: Verdict, figure: Figure, store: Store, reference: Reference | None) -> None:
    """Add a recorded verdict to the logbook of its study, unless it is already there."""
    assert one.recorded is not None
    entry = entry_id(one.prediction.record.sha256, one.recorded.number)
    file = logbook_file(study.name)
    text = read_entries(file) if file.exists() else ""
    if f" {entry} -->" in text:
        return
    picture = paths.experiment_log() / "figures" / _picture(study, entry)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    with file.open("a", encoding="utf-8", newline="\n") as entries:
        if not text:
            entries.write(f"# {study.name}\n\n{study.question}\n")
        entries.write(_entry(study, one, one.recorded, entry, store, reference))


def _entry(
    study: Design, one: Verdict, recorded: VerdictRecord, entry: str, store: Store, reference: Reference | None
) -> str:
    p = one.prediction
    time = recorded.content["time"][:16].replace("T", " ")
    quoted = "\n>\n".join(f"> {line}" for line in str(p).splitlines())
    arms = {arm: study.differs(arm) or "control" for arm in p.contrast.arms}
    rows = "\n".join(f"| {arm} | {differs} | {_runs(one, arm, store)} |" for arm, differs in arms.items())
    lines = [*one.lines()[1:], *([reference.sentence(p)] if reference else [])]
    said = "\n".join(f"- {line}" for line in lines)
    fields = "\n".join(f"**{title}**\n\n<!-- {name} {entry} -->\n\n<!-- end -->\n" for name, title in FIELDS.items())
    return (
        f"\n## {time} UTC, {p.record.owner}: {p.metric.name} {say_direction(p.claim.direction)}, {p.contrast.text}\n\n"
        f"**Predicted**\n\n{quoted}\n\n"
        f"**Plan and runs** ({study.describe()})\n\n| arm | differs | runs |\n|---|---|---|\n{rows}\n\n"
        f"![Effect, predicted size and smallest effect of interest](figures/{_picture(study, entry)})\n\n"
        f"**Verdict {recorded.number}: {one.headline()}**\n\n{said}\n\n{fields}"
    )


def _runs(one: Verdict, arm: str, store: Store) -> str:
    """Return links to the runs of an arm, labeled with their seeds."""
    address = server.address() if store.kind == "embedded" else store.uri
    experiment = store.experiment_id(one.prediction.study)
    runs = one.runs[one.runs["arm"] == arm].sort_values("seed")
    links = [
        f"[{seed}]({address}/#/experiments/{experiment}/runs/{run_id})"
        for seed, run_id in zip(runs["seed"], runs["run_id"], strict=True)
    ]
    return f"seeds {', '.join(links)}"


def _picture(study: Design, entry: str) -> str:
    """Return the file name of an entry's figure."""
    return f"{_plain(study.name)}-{entry}.png"


def _plain(name: str) -> str:
    """Return a name in a form that works as a file name and in a Markdown link."""
    return re.sub(r"[^\w.-]+", "-", name)
