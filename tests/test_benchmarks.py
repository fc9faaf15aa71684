"""The benchmarks measure what they claim, in separate processes, and their arithmetic is right."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import precision, reproduction
from benchmarks.configs import FACTORS, design, screening
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.facts import num_parameters
from cnnlab.models import build_model

ROOT = Path(__file__).parents[1]


def test_a_benchmark_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "overhead", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "these numbers mean nothing" in done.stdout
    assert "Share of the run that is not the bare loop" in done.stdout
    assert "nan" not in done.stdout
    assert "Measured on" in done.stdout


def test_the_benchmarks_explain_themselves() -> None:
    command = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in (
        "throughput",
        "study",
        "overhead",
        "accuracy",
        "startup",
        "engines",
        "probes",
        "precision",
        "reproduction",
    ):
        assert name in done.stdout


def test_ratios_are_those_of_each_round() -> None:
    assert ratio([10.0, 30.0, 20.0], [5.0, 10.0, 10.0]) == "2.00 (2.00 to 3.00)"
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert spread([float("inf"), 1.0, 2.0]) == "2.0 (1.0 to never)"


def test_two_precisions_are_equivalent_only_if_the_whole_interval_says_so() -> None:
    size, accuracy = precision.FULL[0], precision.METRICS[0]
    # mean 3, SD sqrt(2.5), t(0.975, 4) = 2.7764
    cells = precision.row(size, accuracy, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert cells[1:] == ("5", "+3.00", "1.58", "+1.04 to +4.96", "±0.3", "not shown")
    assert precision.row(size, accuracy, [-0.01, 0.0, 0.01])[-1] == "yes"
    assert precision.row(size, accuracy, [-0.6, 0.0, 0.6])[-1] == "not shown"  # no difference, but far too few seeds


def seeds_with(*losses: float) -> pd.DataFrame:
    """Return runs of an arm by seed, with equal accuracy."""
    return pd.DataFrame({"accuracy/valid": 0.8, "loss/valid": losses}, index=range(len(losses)))


def test_a_processor_is_compared_with_the_same_seed_and_the_spread_is_that_of_the_seeds() -> None:
    recorded, now = seeds_with(0.500, 0.510, 0.520), seeds_with(0.501, 0.506, 0.522)
    cells = reproduction.row(reproduction.KINDS[0], precision.METRICS[1], recorded, now)
    assert cells == ("02-dropout, dropout=0.0: loss, nats", "3", "0.0100", "0.0020", "0.0038", "0.0040", "0.40")
    diverged = reproduction.row(reproduction.KINDS[0], precision.METRICS[1], seeds_with(0.5, float("nan")), now[:2])
    assert diverged[2:] == ("diverged", "diverged", "diverged", "diverged", "-")


def test_beyond_the_bound_it_counts_whether_the_arm_is_stable() -> None:
    close, wide = seeds_with(0.500, 0.501, 0.502), seeds_with(0.5, 0.7, 0.9)
    for recorded, off, shares in ((close, 0.019, (1, 0, 0)), (close, 0.05, (0, 0, 1)), (wide, 0.05, (0, 1, 0))):
        assert reproduction.share_of_verdicts(recorded, recorded.add([0, off]), 2, is_same=True) == shares
    assert reproduction.share_of_verdicts(close, close, 2, is_same=False) == (1, 0, 0)  # another seed is no further off
    assert reproduction.share_of_verdicts(wide, wide, 2, is_same=False) == (0, 1, 0)


def test_what_is_trained_is_kept_and_not_trained_again(tmp_path: Path) -> None:
    file, kind = tmp_path / "store" / "runs.jsonl", reproduction.KINDS[0]
    for seeds in ((0,), (0, 1), (0, 1)):
        wanted = [(*kind, seed) for seed in seeds]
        reproduction.train(str(file), wanted, "float32", "float32", is_quick=True)
        assert list(reproduction.read(file).index) == [("float32", *kind, seed) for seed in seeds]


def test_a_report_is_a_markdown_table() -> None:
    text = Report("Speed", "n = 2", [Table("Caption:", ("what", "s"), [("ours", "1.0")])], ["A note."]).markdown(
        False, 0.5
    )
    assert "| what | s |\n| --- | ---: |\n| ours | 1.0 |" in text
    assert "mean nothing" not in text


def test_every_pair_of_factors_is_balanced_in_the_screening() -> None:
    """The effects of a Plackett-Burman design are independent, since all pairs of levels occur equally often."""
    columns = np.array(design()).T
    for one, other in combinations(columns, 2):
        for levels in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert ((one == levels[0]) & (other == levels[1])).sum() == 3


def test_the_screening_stays_below_the_limit_of_parameters() -> None:
    arms = screening().arms
    assert len(arms) == 12
    assert max(num_parameters(build_model(config)) for config in arms.values()) < 100_000
    assert {config.blocks for config in arms.values()} == set(FACTORS["blocks"])
