"""Heads: one hash for everything that an owner has on record at a moment: predictions, runs and verdicts.

The seals of an owner's records are chained in the order in which they arrived in the store: each head is a SHA-256 over
the previous head and the next seal. Later records extend the chain and leave its beginning unchanged. So an honest
store still contains a head that was handed in, however much was added later. A store in which anything before that head
was changed, removed or inserted doesn't contain it. If an owner uses several machines, their clocks must agree.
"""

import hashlib
from datetime import datetime
from typing import NamedTuple

from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import RawRun, load_raw
from cnnlab.inquiry.record.seal import ARRIVED
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.times import EPOCH, time_at, time_in


class Head(NamedTuple):
    """A head, with the time (UTC) and the number of its last record."""

    sha256: str
    time: datetime
    number: int


def heads(owner: str, records: list[Record], runs: list[RawRun]) -> list[Head]:
    """Return the heads of an owner, one per record, oldest first; deleted records count like all others."""
    theirs = [record for record in records if record.owner == owner and record.sha256]
    contents = [content for record in theirs for content in (record.content, *(one.content for one in record.verdicts))]
    sealed = [(time_in(content.get("time", "")) or EPOCH, content.get("sha256", "")) for content in contents]
    sealed += [(_arrived(run), run.seal) for run in runs if run.owner == owner and run.seal]
    chain, found = "", list[Head]()
    for number, (time, seal) in enumerate(sorted(sealed), start=1):
        chain = hashlib.sha256(f"{chain}{seal}".encode()).hexdigest()
        found.append(Head(chain, time, number))
    return found


def my_head(store: Store, owner: str) -> str:
    """Return the last head of an owner in words; "" if nothing is on record yet."""
    found = heads(owner, load_records(store, owner=owner), load_raw(store))
    return f"{found[-1].sha256} ({found[-1].number} records)" if found else ""


def _arrived(run: RawRun) -> datetime:
    """Return when the seal of a run arrived in the store; for older runs, which lack this time, when they ended."""
    arrived = run.tags.get(ARRIVED) or run.tags.get("fact.ended", "")
    return time_in(arrived) or EPOCH if arrived else time_at(run.ended or run.started)
