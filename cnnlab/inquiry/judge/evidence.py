"""Does what a run left behind agree with itself? Whoever changes a result would have to change all of it alike."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cnnlab.inquiry.params import ConfigError, from_params
from cnnlab.inquiry.record.files import Files
from cnnlab.inquiry.record.runs import RawRun
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task


@dataclass
class Evidence:
    """What doesn't agree, and what can't be verified, each a sentence about a run."""

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def check_evidence(runs: Iterable[RawRun], store: Store, files: Files) -> Evidence:
    """Return what the finished runs of a store say of themselves."""
    found, client = Evidence(), store.client

    def history(run: RawRun, metric: str) -> list[float]:
        points = client.get_metric_history(run.run_id, metric)
        return [point.value for point in sorted(points, key=lambda point: point.step)]

    for run in runs:
        try:
            config = from_params(task().config_type, run.params)
        except ConfigError:
            continue  # counted elsewhere
        leaves = task().leaves(ships=run.seal in task().shipped)
        kept = {name: files(run, name) for name in task().leaves(ships=False)}
        said = task().check_result(config, run, lambda metric, run=run: history(run, metric), kept)  # type: ignore[misc]
        found.wrong += [f"{run.label}: {line}." for line in said]
        if missing := [name for name in leaves if kept[name] is None]:
            found.missing.append(f"{run.label}: no {', no '.join(missing)}")
    return found


def check_drawn(runs: Iterable[RawRun]) -> list[str]:
    """Return which runs of different seeds have the very same random draws: no two can."""
    first: dict[tuple[str, str], RawRun] = {}
    found = []
    for run in runs:
        for name, fields in task().facts.drawn.items():
            drawn = run.tags.get(f"fact.{name}")
            twin = first.setdefault((name, drawn), run) if drawn else run
            if "seed" in fields and twin.params.get("seed") != run.params.get("seed"):
                found.append(f"{run.label}: its {name} is that of another seed ({twin.label}).")
    return found
