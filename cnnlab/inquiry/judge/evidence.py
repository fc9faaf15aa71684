"""Do the things that a run left behind agree? Anyone who changes a result would have to change them all to match."""

from collections.abc import Iterable
from functools import partial

from cnnlab.inquiry.params import ConfigError, from_params
from cnnlab.inquiry.record.files import Files
from cnnlab.inquiry.record.runs import RawRun
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task


def check_evidence(runs: Iterable[RawRun], store: Store, files: Files) -> tuple[list[str], list[str]]:
    """Return the contradictions in what finished runs left behind, and what can't be verified, one line per run."""
    wrong: list[str] = []
    missing: list[str] = []

    def history(run: RawRun, metric: str) -> list[float]:
        points = store.client.get_metric_history(run.run_id, metric)
        return [point.value for point in sorted(points, key=lambda point: point.step)]

    for run in runs:
        try:
            config = from_params(task().config_type, run.params)
        except ConfigError:
            continue  # counted elsewhere
        leaves = task().leaves(ships=run.seal in task().shipped)
        kept = {name: files(run, name) for name in {*task().leaves(ships=False), *task().by_image.values()}}
        said = task().check_result(config, run, partial(history, run), kept)
        wrong += [f"{run.label}: {line}." for line in said]
        if lacks := [name for name in leaves if kept[name] is None]:
            missing.append(f"{run.label}: no {', no '.join(lacks)}")
    return wrong, missing


def check_drawn(runs: Iterable[RawRun]) -> list[str]:
    """Return the runs of different seeds that have the same random draws, which is impossible."""
    first: dict[tuple[str, str], RawRun] = {}
    found = []
    for run in runs:
        for name, fields in task().facts.drawn.items():
            drawn = run.tags.get(f"fact.{name}")
            twin = first.setdefault((name, drawn), run) if drawn else run
            if "seed" in fields and twin.params.get("seed") != run.params.get("seed"):
                found.append(f"{run.label}: its {name} is that of another seed ({twin.label}).")
    return found
