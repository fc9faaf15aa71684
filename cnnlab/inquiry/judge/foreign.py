"""What can be said about runs that this lab did not make: what differs, what is repeated, and what can't be known."""

from collections import Counter
from collections.abc import Iterable

from cnnlab.inquiry.design import count
from cnnlab.inquiry.record.runs import RawRun

SEEDS = ("seed", "random_state")  # part of the usual names: seed, random_seed, torch_seed, random_state
SHOWN = 8  # of the configurations of an experiment


def describe_foreign(runs: list[RawRun]) -> list[str]:
    """Return what can be said about runs without this lab's tags, some lines per experiment."""
    lines: list[str] = []
    for experiment in sorted({run.experiment for run in runs}):
        some = [run for run in runs if run.experiment == experiment]
        deleted = sum(run.deleted for run in some)
        also = f", {deleted} of them deleted in the MLflow UI" if deleted else ""
        lines.append(f"{experiment}: {count(len(some), 'run')} that this lab did not make{also}.")
        lines += [f"  {line}" for line in _describe(some)]
    return lines


def _describe(runs: list[RawRun]) -> Iterable[str]:
    logged = [run for run in runs if run.params]
    if not logged:
        yield "They have no params: what differs between them can't be known."
        return
    if len(logged) < len(runs):
        yield f"{len(runs) - len(logged)} of them have no params: what they were can't be known."
    groups = Counter(_settings(run) for run in logged)
    varied = [name for name in _names(logged) if len({run.params.get(name) for run in logged}) > 1]
    fixed = ", ".join(name for name in varied if not _is_seed(name)) or "nothing"
    yield f"Typed params that vary: {fixed}. Whether the networks that ran had these values can't be known."
    yield from _repeats(logged, sorted(groups.values()))
    yield from _nearest(logged)
    yield "Can't know: the networks themselves, steps and images seen, the images they were validated on, precision."


def _repeats(runs: list[RawRun], repeats: list[int]) -> Iterable[str]:
    """Say how often each configuration was run, and whether with different random numbers."""
    configurations = count(len(repeats), "configuration")
    if repeats[-1] == 1:
        each = "Each of them" if len(repeats) > 1 else "It"
        yield f"{configurations}. {each} was run once: no difference can be told from chance."
    else:
        often = f"{repeats[0]} to {repeats[-1]}" if repeats[0] != repeats[-1] else f"{repeats[0]}"
        yield f"{configurations}, each run {often} times; more than one run is needed for an interval."
    if not any(_is_seed(name) for name in _names(runs)):
        yield "No seed was logged: whether repeated runs differ in their random numbers can't be known."
    elif again := len(runs) - len({tuple(sorted(run.params.items())) for run in runs}):
        yield f"Params and seed of {count(again, 'run')} are the same as another run's: that is not a repetition."


def _nearest(runs: list[RawRun]) -> Iterable[str]:
    """Say for each configuration which other one differs least, and in what: the pair to compare, if any."""
    configurations = list(dict.fromkeys(_settings(run) for run in runs))
    for settings in configurations[1:SHOWN]:
        differences = [compare_settings(dict(other), dict(settings)) for other in configurations if other != settings]
        closest = min(differences, key=len)
        if len(closest) > 1:
            yield (
                f"Unfair: no other run differs from {_short(settings)} in one param only; the nearest differs in "
                f"{len(closest)}: {', '.join(closest)}."
            )
    if len(configurations) > SHOWN:
        yield f"({count(len(configurations) - SHOWN, 'more configuration')}, not looked at.)"


def compare_settings(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Return in which params two runs differ, such as "lr: 0.1 -> 0.2"."""
    names = [*a, *(name for name in b if name not in a)]
    return [f"{name}: {a.get(name, '-')} -> {b.get(name, '-')}" for name in names if a.get(name) != b.get(name)]


def _settings(run: RawRun) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in run.params.items() if not _is_seed(name)))


def _is_seed(name: str) -> bool:
    return any(part in name.lower() for part in SEEDS)


def _names(runs: list[RawRun]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.params))


def _short(settings: tuple[tuple[str, str], ...]) -> str:
    text = ", ".join(f"{name}={value}" for name, value in settings)
    return text if len(text) <= 80 else f"{text[:77]}..."
