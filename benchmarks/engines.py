"""The same study in local workers and with Ray on this machine."""

from benchmarks.measure import Measured, Options, Pipeline, column
from benchmarks.study import WARM_UP, Size, lab, warm_and_measure
from benchmarks.table import Report, Table, ratio, spread

FULL, QUICK = Size(4, 10_000, 3, repeats=3), WARM_UP
GOAL = 0.10  # more time than with local workers
LOCAL, RAY = "local workers, 1 thread each", "Ray on this machine, 1 thread each"


def run(options: Options) -> Report:
    """Measure both engines."""
    size = QUICK if options.quick else FULL
    measured, repeats = warm_and_measure(_pipelines, size, options)
    local_s, local_after_s = column(measured[LOCAL], "total_s"), _after_start(measured[LOCAL])
    rows = []
    for name, results in measured.items():
        total_s, start_s, after_s = column(results, "total_s"), column(results, "start_s"), _after_start(results)
        cells = (
            spread(total_s),
            ratio(total_s, local_s),
            spread(start_s),
            spread(after_s),
            ratio(after_s, local_after_s),
        )
        rows.append((name, str(results[0]["slots"]), *cells))
    columns = ("engine", "runs at a time", "seconds in all", "÷ local", "start-up, s", "after it, s", "÷ local")
    return Report(
        "Engines",
        size.describe(repeats),
        [Table(f"Goal: Ray needs at most {GOAL:.0%} more time than local workers.", columns, rows)],
        ["Start-up is the time until the first run begins: a new MLflow store, the workers and what they import."],
    )


def _pipelines(size: Size) -> list[Pipeline]:
    return [
        Pipeline(LOCAL, lab, size.arguments | {"engine": "workers"}),
        Pipeline(RAY, lab, size.arguments | {"engine": "ray"}),
    ]


def _after_start(results: list[Measured]) -> list[float]:
    return [one["total_s"] - one["start_s"] for one in results]
