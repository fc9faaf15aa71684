"""Measures every repetition of every pipeline in a separate process, in turn (A B C A B C ...)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
HIDDEN = ROOT / "benchmarks" / "hidden"
OF_THE_CALLER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MLFLOW_TRACKING_URI", "CNNLAB_PROFILE")

Measured = dict[str, Any]  # numbers by name


class BenchmarkError(Exception):
    """A pipeline failed; the text is the end of its output."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    quick: bool  # tiny sizes: does the benchmark work?
    repeats: int | None  # None: the benchmark's default
    home: Path | None  # folder of the MLflow store of a resumable benchmark
    say: Callable[[str], None]  # prints a line about the progress


@dataclass(frozen=True)
class Pipeline:
    """One thing to measure: a function of a module, called with `seed` and these arguments."""

    name: str
    function: Callable[..., Measured]
    arguments: dict[str, Any] = field(default_factory=dict)


def interleave(
    pipelines: list[Pipeline], repeats: int, say: Callable[[str], None], first_seed: int = 0
) -> dict[str, list[Measured]]:
    """Measure all pipelines in turn, in `repeats` rounds; the seed is the same within a round."""
    measured: dict[str, list[Measured]] = {pipeline.name: [] for pipeline in pipelines}
    for repeat in range(repeats):
        for pipeline in pipelines:
            started = time.perf_counter()
            result = in_fresh_process(pipeline.function, seed=first_seed + repeat, **pipeline.arguments)
            measured[pipeline.name].append(result)
            say(f"  {repeat + 1}/{repeats} {pipeline.name}: {time.perf_counter() - started:.0f} s in total")
    return measured


def column(measured: list[Measured], name: str) -> list[float]:
    """Return the values of one measurement in all repetitions."""
    return [one[name] for one in measured]


def in_fresh_process(
    function: Callable[..., Measured], show: bool = False, variables: dict[str, str] | None = None, **arguments: Any
) -> Measured:
    """Call a module's function in a new Python process and return its measurements.

    `show` shows its output; `variables` are set in its environment.

    Raises:
        BenchmarkError: the process failed.
    """
    with TemporaryDirectory(prefix="cnnlab-benchmark-") as folder:
        log, answer = Path(folder) / "log", Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.alone", f"{function.__module__}:{function.__name__}"]
        command += [json.dumps(arguments), str(answer)]
        with log.open("w") as output:  # not a pipe: a leftover process would keep it open
            target = None if show else output
            done = subprocess.run(
                command, cwd=ROOT, env=environment() | (variables or {}), stdout=target, stderr=target
            )
        if done.returncode:
            tail = log.read_text(errors="replace")[-3000:]
            raise BenchmarkError(f"{function.__module__}:{function.__name__} failed with {arguments}:\n{tail}")
        measured: Measured = json.loads(answer.read_text())
        return measured


def environment() -> dict[str, str]:
    """Return the variables of a measured process: those of the caller without settings for threads and stores."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_CALLER}
    return kept | {"PYTHONPATH": str(HIDDEN)}
