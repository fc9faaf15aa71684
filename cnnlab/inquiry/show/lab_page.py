"""The page of the lab, /lab on its MLflow server: what an owner predicted and what came out, and everybody's verdicts.

It only reads the store, and is made again whenever something changed.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment

from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.review import claim_of, effect_of, labelled, outcome_of
from cnnlab.inquiry.record.entries import Entry, entries, entry_id, reflected
from cnnlab.inquiry.record.environment import SHIPPED
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import search_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.views import view_links
from cnnlab.inquiry.show.predictions import failed_ids, plot_records, with_failures
from cnnlab.inquiry.show.style import OUTCOME_COLOURS, svg

TEMPLATE = Path(__file__).with_name("lab.html")
RUNNING = "in progress"


@dataclass(frozen=True)
class Row:
    """One prediction as the page shows it; links lead into MLflow."""

    study: str
    claim: str
    confidence: str
    outcome: str
    look: str  # the class of its outcome in the page, by which it has its colour
    effect: str
    reflection: str
    link: str
    views: dict[str, str]  # those of its experiment; without runs there are none yet


def lab_page(store: Store, owner: str = "") -> str:
    """Return the page as HTML: about an owner, or without one about who predicted last, and everybody's verdicts.

    Raises:
        LabError: the store doesn't answer.
    """
    asked = owner
    records = [record for record in load_records(store, owner=asked or None) if not record.deleted]
    owner = asked or (records[-1].owner if records else "")
    own = [record for record in records if record.owner == owner]
    own.sort(key=lambda record: not record.sha256)  # the figure has no row for those that were cut short
    students = [record for record in records if record.owner not in SHIPPED]  # their studies alone fit the window
    states = {record.run_id: _state(store, record) for record in own if not record.verdicts}
    whole = [record for record in own if record.sha256]
    ids = {one.name: one.experiment_id for one in store.client.search_experiments()}
    links = {one.run_id: f"/#/experiments/{ids.get(one.experiment, '')}/runs/{quote(one.run_id)}" for one in own}
    views = view_links(store, "")
    failed = failed_ids(store) if whole else frozenset()
    written = entries()
    covered = reflected(written.values())
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        asked=asked,
        owner=owner,
        rows=[_row(one, states, links[one.run_id], views, _reflection(one, written, covered), failed) for one in own],
        figure=svg(plot_records(whole, failed=failed, pending=states, links=links)) if whole else "",
        is_running=any(RUNNING in state for state in states.values()),
        studies=sorted({record.experiment for record in students}),
        owners=_by_owner(students),
        colours=OUTCOME_COLOURS,
    )


def _by_owner(records: Sequence[Record]) -> dict[str, dict[str, Counter[tuple[str, str]]]]:
    """Return by owner and study how often each outcome came out, each with its class in the page."""
    found: dict[str, dict[str, Counter[tuple[str, str]]]] = {}
    for record in records:
        outcome = _outcome(record)
        words = labelled(outcome, record) if outcome else "not judged yet"
        found.setdefault(record.owner, {}).setdefault(record.experiment, Counter())[words, _look(outcome)] += 1
    return dict(sorted(found.items()))


def _row(
    record: Record,
    states: Mapping[str, str],
    link: str,
    views: Mapping[str, dict[str, str]],
    reflection: str,
    failed: Container[str],
) -> Row:
    state = states.get(record.run_id, "")
    outcome = state or labelled(outcome_of(record).removeprefix("direction "), record)
    return Row(
        study=record.experiment,
        claim=claim_of(record),
        confidence=record.content.get("confidence", "?"),
        outcome=with_failures(outcome, record, failed) if record.verdicts else outcome,
        look="running" if RUNNING in state else _look(_outcome(record)),
        effect=effect_of(record),
        reflection=reflection,
        link=link,
        views=views.get(record.experiment, {}),
    )


def _outcome(record: Record) -> str:
    """Return the outcome of the last verdict in one word; "" without a verdict."""
    return record.verdicts[-1].content.get("outcome", "?") if record.verdicts else ""


def _look(outcome: str) -> str:
    return outcome.replace(" ", "-") if outcome in OUTCOME_COLOURS else "pending"


def _reflection(record: Record, written: Mapping[str, Entry], covered: Mapping[str, Entry]) -> str:
    """Return whether the logbook of this folder has a reflection on the last verdict; "" without a verdict."""
    if not record.verdicts:
        return ""
    name = entry_id(record.sha256, record.verdicts[-1].number)
    return "written" if name in covered else "EMPTY" if name in written else "not in this logbook"


def _state(store: Store, record: Record) -> str:
    """Return how far the runs that were made under a prediction without a verdict are."""
    if not record.sha256:
        return "only partly written: it doesn't count"
    rule = f"tags.kind = 'run' and tags.prediction LIKE '%{record.sha256}%'"
    found = Counter(run.info.status for run in search_runs(store, rule, record.experiment))
    if not found:
        return "predicted, not run yet"
    running = f", {found['RUNNING']} {RUNNING}" if found["RUNNING"] else ""
    return f"{count(found['FINISHED'], 'run')} finished{running}, not judged yet"
