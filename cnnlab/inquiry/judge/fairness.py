"""Is a comparison fair? What differs between two arms besides the declared factor, from measured facts only.

A run must be what its params describe: every fact that follows from them is derived from the config and compared with
what was measured. So two arms differ only in their configs, and those may differ only in declared fields. What the
params don't say, the images and the environment, has to be the same. Any other difference is either unfair, and then
there is no verdict, or harmless, and then it is noted.
"""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.promises import broken_promises, describes_the_same
from cnnlab.inquiry.shown import Details, Part, Shown
from cnnlab.inquiry.task import task

HARMLESS = ("threads", "system", "processor", "git_commit")  # facts, and versions of other packages
RELEASE = "the lab's release"  # of the code that trains
COMMIT = 7  # characters of a git commit that are shown


@dataclass(repr=False)
class Fairness(Shown):
    """Reasons against a verdict, what can't be known, harmless differences, and the diff of the networks."""

    unfair: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tree_diff: str = ""

    @property
    def is_fair(self) -> bool:
        """Whether there is no reason against a verdict."""
        return not self.unfair and not self.unknown

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        found = {"Unfair": self.unfair, "Can't know": self.unknown, "Noted": self.notes}
        lines = [f"{name}: {line}" for name, some in found.items() for line in some]
        return [lines or "Only what was declared differs.", *self.details()]

    def details(self) -> list[Details]:
        """Return what differs in the networks."""
        summary = "What differs in the networks (- control, + arm)"
        return [Details(summary, self.tree_diff)] if self.tree_diff else []


Pairs = list[tuple[pd.Series, pd.Series]]  # of the control's run and an arm's run, of the same seed


def check_fairness(runs: pd.DataFrame, control: str, factors: Iterable[str], nuisances: Iterable[str]) -> Fairness:
    """Return what differs between the control and the other arms among `runs`, seed by seed.

    `runs` has the columns of `cnnlab.results`: `arm, seed, config`, and facts as `fact.<name>`. `factors` are the
    fields that the question is about, `nuisances` those that are declared to differ as well.
    """
    found = Fairness()
    declared = [*factors, *nuisances]
    _check_missing_facts(found, runs)
    _check_promises(found, runs)
    _check_data(found, runs)
    by_arm = {arm: group.set_index("seed") for arm, group in runs.groupby("arm", sort=False)}
    control_runs = by_arm.pop(control)
    for arm, arm_runs in by_arm.items():
        seeds = [seed for seed in arm_runs.index if seed in control_runs.index]
        pairs = [(control_runs.loc[seed], arm_runs.loc[seed]) for seed in seeds]
        if pairs:
            _check_configs(found, str(arm), pairs, declared)
            _check_what_was_built(found, str(arm), pairs)
            _check_environment(found, str(arm), pairs, declared)
            _note_early_ends(found, str(arm), pairs)
            _show_networks(found, str(arm), pairs[0])
    settings = [name for name in nuisances if name != "seed"]
    found.notes += [f"{name} differs between the arms, as the study declares." for name in settings]
    _note_source(found, runs)
    return found


def _check_missing_facts(found: Fairness, runs: pd.DataFrame) -> None:
    for name in task().facts.needed:
        if without := _facts(runs, name).count(""):
            found.unknown.append(f"{name} was not measured in {without} of {len(runs)} runs.")


def _check_promises(found: Fairness, runs: pd.DataFrame) -> None:
    """Compare every run with what its params describe."""
    broken = Counter((run["arm"], what) for _, run in runs.iterrows() for what in broken_promises(run))
    for (arm, what), count in broken.items():
        n = int((runs["arm"] == arm).sum())
        found.unfair.append(f"{arm}: {count} of {n} runs are not what their params describe: {what}.")


def _check_what_was_built(found: Fairness, arm: str, pairs: Pairs) -> None:
    """Compare what two runs were built of, if their params describe the same, whatever torch version built them."""
    for name in task().facts.printed:
        alike = [(a, b) for a, b in pairs if describes_the_same(a["config"], b["config"], name)]
        for before, after in dict.fromkeys((_fact(a, name), _fact(b, name)) for a, b in alike):
            if before and after and before != after:
                found.unfair.append(f"{arm}: {name} differs too ({_short(before)} -> {_short(after)}).")


def _check_data(found: Fairness, runs: pd.DataFrame) -> None:
    """Check that all runs have the same data, and the same random draws where they should."""
    for name in task().facts.data:
        if len(values := sorted(set(_facts(runs, name)) - {""})) > 1:
            found.unfair.append(f"{name} is not the same in all runs ({', '.join(_short(value) for value in values)}).")
    for name, fields in task().facts.drawn.items():
        drawn: dict[str, set[str]] = {}
        for config, value in zip(runs["config"], _facts(runs, name), strict=True):
            drawn.setdefault(", ".join(f"{field}={getattr(config, field)}" for field in fields), set()).add(value)
        unlike = [settings for settings, values in drawn.items() if len(values - {""}) > 1]
        found.unfair += [f"{name} is not the same in all runs with {settings}." for settings in unlike]


def _check_configs(found: Fairness, arm: str, pairs: Pairs, declared: list[str]) -> None:
    differing = {name: values for a, b in pairs for name, values in differences(a["config"], b["config"]).items()}
    for name, (before, after) in sorted(differing.items()):
        if name not in (*declared, "seed"):
            found.unfair.append(f"{arm}: {name} differs too ({before} -> {after}), and isn't declared.")


def _check_environment(found: Fairness, arm: str, pairs: Pairs, declared: list[str]) -> None:
    """Check that machine and software are the same within each seed; differences between seeds are balanced."""
    versions = [str(name).removeprefix("fact.") for name in pairs[0][0].index if str(name).startswith("fact.version.")]
    decisive = task().facts.decisive
    for name in dict.fromkeys([*decisive, *HARMLESS, *versions]):
        if name in declared:
            continue
        values = [(_fact(a, name), _fact(b, name)) for a, b in pairs]
        differing = [(a, b) for a, b in values if a and b and a != b]
        known = sorted({value for pair in values for value in pair} - {""})
        if differing:
            before, after = (_short(value, name) for value in differing[0])
            seeds = f"{len(differing)} of {len(pairs)} seeds"
            line = f"{name} differs in {seeds} between the control and {arm} ({before} -> {after})."
            (found.unfair if name in decisive else found.notes).append(line)
        elif name in decisive and len(known) > 1:
            said = ", ".join(_short(value, name) for value in known)
            line = f"{name} is not the same for all seeds ({said}), but the same in both arms."
            found.notes += [line] if line not in found.notes else []


def _note_early_ends(found: Fairness, arm: str, pairs: Pairs) -> None:
    """Note runs that did fewer steps because they diverged or stopped early."""
    ends = [[end for run in pair if (end := _fact(run, "outcome")) not in ("", "finished")] for pair in pairs]
    if outcomes := sorted({end for pair in ends for end in pair}):
        found.notes.append(
            f"in {sum(map(bool, ends))} of {len(pairs)} seeds a run of the control or of {arm} ended early "
            f"({', '.join(outcomes)}), so steps and images differ as a result of its settings."
        )


def _show_networks(found: Fairness, arm: str, pair: tuple[pd.Series, pd.Series]) -> None:
    for name in task().facts.printed:
        before, after = (_fact(run, name) for run in pair)
        if before and after and before != after and "\n" in before:
            lines = difflib.ndiff(before.splitlines(), after.splitlines())
            diff = "\n".join(line for line in lines if line[:2] in ("- ", "+ "))
            found.tree_diff += f"{arm}:\n{diff}\n"


def _note_source(found: Fairness, runs: pd.DataFrame) -> None:
    if changed := sum(source not in ("", RELEASE) for source in _facts(runs, "source_sha256")):
        found.notes.append(f"the code that trained {changed} of {len(runs)} runs is not that of the lab's release.")


def _facts(runs: pd.DataFrame, name: str) -> list[str]:
    """Return a fact of all runs; "" where it wasn't measured."""
    return [_text(name, fact) for fact in runs.get(f"fact.{name}", [None] * len(runs))]


def _fact(run: pd.Series, name: str) -> str:
    return _text(name, run.get(f"fact.{name}"))


def _text(name: str, value: object) -> str:
    """Return a fact as text; all released code counts as the same, whichever fingerprint a run has."""
    text = value if isinstance(value, str) else ""
    return RELEASE if name == "source_sha256" and text in task().released else text


def _short(text: str, name: str = "") -> str:
    if name == "git_commit":
        commit, plus, rest = text.partition("+")
        return commit[:COMMIT] + plus + rest
    return text[:12] if name == "source_sha256" and text != RELEASE else text if len(text) <= 60 else f"{text[:57]}..."
