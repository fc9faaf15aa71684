"""Checks whether the measured facts of a run agree with what its params promise."""

from collections import Counter
from importlib.metadata import version

import pandas as pd

from cnnlab.inquiry.params import Params, replace
from cnnlab.inquiry.record.runs import facts_of
from cnnlab.inquiry.task import task


def broken_promises(run: pd.Series) -> list[str]:
    """Return a phrase about each fact of a run that isn't what its params promise; unmeasured facts don't count.

    `run` is a row of `cnnlab.load_runs`.
    """
    measured = facts_of({str(name): value for name, value in run.items() if isinstance(value, str)})
    rules, broken = task().facts, []
    same_library = measured.get(f"version.{rules.printed_by}") == version(rules.printed_by) if rules.printed else True
    to_its_end = measured.get("outcome") == "finished"
    for name, promise in task().describe(replace(run["config"], seed=0), measured).items():
        said = measured.get(name, "")
        is_known = said and (same_library or name not in rules.printed)
        if is_known and not _keeps(said, promise) and (to_its_end or name not in rules.at_the_end):
            broken.append(_in_words(name, promise, said))
    return broken


def describes_the_same(a: Params, b: Params, fact: str) -> bool:
    """Return whether two configs promise the same value of a fact."""
    one, other = (task().describe(replace(config, seed=0), {}) for config in (a, b))
    return one.get(fact) == other.get(fact)


def _keeps(measured: str, promise: str) -> bool:
    """Return whether a fact is as promised; details may follow it, as in "last (step 469 of 469)"."""
    return measured == promise or measured.startswith(f"{promise} (")


def _in_words(name: str, promise: str, measured: str) -> str:
    if "\n" in promise:
        return f"{name} differs in {', '.join(sorted(changed_lines(promise, measured)))}"
    return f"{name} is {_short(measured)} instead of {_short(promise)}"


def changed_lines(before: str, after: str) -> set[str]:
    """Return the first words, such as Dropout, of the lines that only one of two printed modules has."""
    lines, others = (Counter(line.strip() for line in tree.splitlines()) for tree in (before, after))
    changed = [line for line in (lines - others) + (others - lines) if line != ")"]
    return {line.split(": ", 1)[-1].split("(")[0] for line in changed} or {"the order of its lines"}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
