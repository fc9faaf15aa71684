"""The response times of the lab: for its import, its help, and a finished study."""

import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.measure import ROOT, BenchmarkError, Options, environment, in_fresh_process
from benchmarks.project import project_environment
from benchmarks.reopen import again_s, write_runs
from benchmarks.table import Report, Table, ratio, spread

HELP_GOAL_S, REOPEN_GOAL_S = 1.0, 3.0
PEERS = ("import mlflow", "import torch")
CHECK = (
    "import sys; from cnnlab.cli import cli; cli(['--help'], standalone_mode=False); "
    "print([name for name in ('torch', 'mlflow') if name in sys.modules])"
)


class Size(NamedTuple):
    """The number of runs of the finished study, and of repetitions."""

    runs: int
    repeats: int


FULL, QUICK = Size(runs=100, repeats=10), Size(runs=10, repeats=1)


def run(options: Options) -> Report:
    """Time all commands, each in a new process."""
    size = QUICK if options.quick else FULL
    repeats = options.repeats or size.repeats
    with TemporaryDirectory(prefix="cnnlab-benchmark-", ignore_cleanup_errors=True) as folder:
        options.say(f"  writing {size.runs} runs")
        in_fresh_process(write_runs, folder=folder, runs=size.runs)
        reopen = f"reopen a finished study of {size.runs} runs"
        commands = {f'`python -c "{code}"`': ["-c", code] for code in (*PEERS, "import cnnlab")}
        commands |= {
            "`cnnlab --help`": ["-m", "cnnlab", "--help"],
            reopen: ["-c", f"from benchmarks.reopen import results; assert len(results({size.runs})) == {size.runs}"],
        }
        times = _time_all(commands, folder, repeats, options)
        seconds = [in_fresh_process(again_s, folder=folder, runs=size.runs)["again_s"] for _ in range(repeats)]
    peers = [times[f'`python -c "{code}"`'] for code in PEERS]
    rows = [(name, spread(s, digits=2), *(ratio(peer, s) for peer in peers)) for name, s in times.items()]
    rows.append((f"{reopen}, again in the same process", spread(seconds, digits=2), *("" for _ in PEERS)))
    goals = f"Goals: `cnnlab --help` under {HELP_GOAL_S:g} s, the finished study under {REOPEN_GOAL_S:g} s."
    columns = ("what", "seconds", *(f"time of `{code}` ÷ this" for code in PEERS))
    return Report(
        "Start-up",
        f"Each in a new Python process, from its start to its end, after one that does not count; n = {repeats} "
        "repetitions in turn. Median (smallest to largest).",
        [Table(goals, columns, rows)],
        [f"After `cnnlab --help`, of torch and mlflow {_imported_by_help(folder) or 'neither'} is imported."],
    )


def _time_all(commands: dict[str, list[str]], folder: str, repeats: int, options: Options) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, arguments in commands.items():
            started = time.perf_counter()
            _python(arguments, folder)
            if repeat:  # the first round loads the files into the system's cache
                times[name].append(time.perf_counter() - started)
        options.say(f"  {repeat}/{repeats}")
    return times


def _python(arguments: list[str], folder: str) -> str:
    """Run Python with these arguments in a project folder and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment() | project_environment(folder),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchmarkError(f"python {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _imported_by_help(folder: str) -> str:
    """Return which of the slow packages `cnnlab --help` imports; "" if none."""
    return _python(["-c", CHECK], folder).splitlines()[-1].strip("[]")
