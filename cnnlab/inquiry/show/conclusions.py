"""The conclusions of an owner's studies in one table with a row per study, from the records."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from cnnlab.inquiry.design import Design, count
from cnnlab.inquiry.judge.review import claim_of, effect_of, outcome_of
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.entries import entries, entry_id, reflected
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import task

COLUMNS = ["Question", "Expected", "Found (95 % interval)", "Why (your words)", "What it does not show"]


@dataclass(frozen=True, repr=False)
class Conclusions(Shown):
    """A table with a row per study that has verdicts: its question, the expected and found effects, why, and limits."""

    table: pd.DataFrame

    def parts(self) -> list[Part]:
        """Return the parts to show."""
        return ["There are no verdicts yet." if self.table.empty else self.table]


def conclusions(studies: Iterable[Design], store: Store | None = None) -> Conclusions:
    """Return what this owner asked, expected and found in studies, from the last verdict on each prediction.

    Raises:
        LabError: the store doesn't answer.
    """
    records = [one for one in load_records(store or default_store(), owner=owner()) if one.verdicts and not one.deleted]
    words = reflected(entries().values())
    rows = {}
    for study in studies:
        judged = [record for record in records if record.experiment == study.name]
        whys = {words[name].why: 0 for record in judged if (name := _last_entry(record)) in words}
        if judged:
            cells = [
                study.question,
                _listed([f"{claim_of(record)} ({record.content['confidence']} %)" for record in judged]),
                _listed([f"{outcome_of(record)}: {effect_of(record, is_short=True)}" for record in judged]),
                _listed(list(whys)) or "?",
                _limits(study, judged),
            ]
            rows[study.name] = dict(zip(COLUMNS, cells, strict=True))
    return Conclusions(pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS))


def _listed(lines: list[str]) -> str:
    """Number the lines if there are several; return a single one unchanged."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1)) if len(lines) > 1 else "".join(lines)


def _last_entry(record: Record) -> str:
    return entry_id(record.sha256, record.verdicts[-1].number)


def _limits(study: Design, judged: list[Record]) -> str:
    """Return sentences about what the verdicts on a study leave open."""
    sizes = " or ".join(dict.fromkeys(task().size(config) for config in study.arms.values()))
    seeds = count(int(judged[-1].verdicts[-1].content.get("n", len(study.seeds))), "seed")
    said = [f"Anything beyond {sizes}, {seeds} and these validation images."]
    if any(record.verdicts[-1].content["outcome"] == "inconclusive" for record in judged):
        said.append("Inconclusive does not mean that there is no effect.")
    if any(record.verdicts[-1].content["label"] == "exploratory" for record in judged):
        said.append("What is exploratory has yet to be tested with fresh seeds.")
    return " ".join(said)
