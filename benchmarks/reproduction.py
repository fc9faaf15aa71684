"""How much do the results of a run differ between two kinds of processor, with the same seed and initial weights?

The other processor is this one, restricted to AVX2 and float32 like an older laptop.
"""

import json
from contextlib import nullcontext
from dataclasses import replace as replace_fields
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import ROOT, Measured, Options, in_fresh_process
from benchmarks.precision import METRICS, Metric
from benchmarks.table import Report, Table
from cnnlab.config import Config, replace
from cnnlab.course.profiles import PROFILES
from cnnlab.course.studies import lab_studies
from cnnlab.fashion_mnist import load_data
from cnnlab.inquiry.judge.reproduce import bound, is_stable
from cnnlab.task import LAB
from cnnlab.training import fit

JUDGED, WIDEST = tuple(LAB.bounds), LAB.bounds
STORE = ROOT / "benchmarks" / "store"
PROFILE = replace_fields(PROFILES["quick"], lrs=(0.03, 0.1, 0.3))
SEEDS = 8


class Kind(NamedTuple):
    """A kind of run: an arm of a study of the lab, at the size of the quick profile."""

    study: str
    arm: str

    def config(self, seed: int, precision: str, is_quick: bool) -> Config:
        """Return the config of one run."""
        config = lab_studies(PROFILE)[PROFILE.experiment(self.study)].arms[self.arm]
        return replace(config, seed=seed, precision=precision, **({"train_images": 320} if is_quick else {}))


class Processor(NamedTuple):
    """How to train: the precision, and variables that restrict torch and oneDNN to older instructions."""

    name: str
    precision: str
    variables: dict[str, str]


KINDS = (
    Kind("02-dropout", "dropout=0.0"),
    Kind("02-dropout", "dropout=0.5"),
    Kind("03-normalization", "norm=layer"),
    Kind("03-learning-rates", "norm=none, lr=0.03"),
    Kind("03-learning-rates", "norm=none, lr=0.1"),
    Kind("03-learning-rates", "norm=none, lr=0.3"),
    Kind("03-learning-rates", "norm=batch, lr=0.3"),
    Kind("03-tiny-batches", "no norm"),
    Kind("03-tiny-batches", "batch norm in the head"),
    Kind("04-combined", "dropout, then norm"),
    Kind("02-dropout-long", "dropout=0.0"),
)
HERE = Processor("as it is", "auto", {})
FLOAT32 = Processor("float32", "float32", {})
AVX2 = Processor("float32, AVX2", "float32", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"})


def run(options: Options) -> Report:
    """Train the missing runs, and compare seed by seed."""
    kinds, seeds = (KINDS[:1], 2) if options.quick else (KINDS, max(options.repeats or SEEDS, 2))
    with TemporaryDirectory() if options.quick and not options.home else nullcontext(options.home or STORE) as folder:
        file = Path(folder) / "reproduction.jsonl"
        for processor in (HERE, AVX2, FLOAT32):
            wanted = [(*kind, seed) for seed in range(seeds) for kind in kinds]
            how = {"processor": processor.name, "precision": processor.precision, "is_quick": options.quick}
            in_fresh_process(train, True, processor.variables, file=str(file), wanted=wanted, **how)
        finals = read(file)
    tables = [table(finals, kinds, one, seeds) for one in (HERE, FLOAT32) for table in (distances, verdicts)]
    return Report(
        "The same run on another kind of processor",
        f"n = {seeds} seeds; every seed is trained on each processor, on one thread.",
        tables,
        [f'"{name}": {", ".join(group.unique())}.' for name, group in finals["on"].groupby(level="processor")],
    )


def distances(finals: pd.DataFrame, kinds: tuple[Kind, ...], one: Processor, seeds: int) -> Table:
    """Return the differences between two processors for the same seed, beside the spread over seeds."""
    return Table(
        f'"{AVX2.name}" against "{one.name}": SD of the seeds, and how far apart the two are for the same seed.',
        ("what", "n", "SD of the seeds", "median", "95 % quantile", "largest", "largest / SD"),
        [row(kind, metric, *_pair(finals, kind, one, seeds)) for kind in kinds for metric in METRICS],
    )


def row(kind: Kind, metric: Metric, one: pd.DataFrame, other: pd.DataFrame) -> tuple[str, ...]:
    """Return the cells about one metric: the spread over seeds, and the differences on another processor."""
    off = metric.scale * (other[metric.column] - one[metric.column]).abs().to_numpy()
    sd = metric.scale * one[metric.column].std(skipna=False)
    numbers = (sd, np.median(off), np.quantile(off, 0.95), off.max())
    cells = [f"{number:.{metric.digits}f}" if np.isfinite(number) else "diverged" for number in numbers]
    ratio = f"{off.max() / sd:.2f}" if np.isfinite(off.max() / sd) else "-"
    return f"{', '.join(kind)}: {metric.name}, {metric.unit}", str(len(off)), *cells, ratio


def verdicts(finals: pd.DataFrame, kinds: tuple[Kind, ...], one: Processor, seeds: int) -> Table:
    """Return how often the bound of `cnnlab reproduce` held, and how often another seed would have been inside it."""
    most, rows = seeds - 1, []
    for kind in kinds:
        recorded, now = _pair(finals, kind, one, seeds)
        same = [share_of_verdicts(recorded, now, others, is_same=True) for others in (most, min(2, most))]
        another = share_of_verdicts(recorded, now, most, is_same=False)
        rows.append((", ".join(kind), *map(_percent, same), f"{100 * another[0]:.0f}"))
    widest = f"{100 * WIDEST['accuracy/valid']:g} pp and {WIDEST['loss/valid']:g} nats"
    return Table(
        f'"{AVX2.name}" against "{one.name}" and the bound of `cnnlab reproduce`, at most {widest}: within it / beyond '
        "it, in an unstable arm / beyond it, in a stable arm; in percent.",
        ("kind", f"{most} other seeds on record", "2 on record (mean of all pairs)", "another seed within it"),
        rows,
    )


def share_of_verdicts(recorded: pd.DataFrame, now: pd.DataFrame, others: int, is_same: bool) -> tuple[float, ...]:
    """Return the shares of results within the bound, beyond it in an unstable arm, and beyond it in a stable arm.

    The shares are over all ways to have `others` other seeds on record. A seed on record is compared with the same seed
    on the other processor or, if `is_same` is false, with every other seed, which represents the result of a wrong run.
    """
    counts = [0, 0, 0]
    for seed in recorded.index:
        claimed = [seed] if is_same else recorded.index.drop(seed)
        for known in combinations(recorded.index.drop(seed), others):
            arm = recorded.loc[list(known)]
            bounds = np.array([bound(metric, arm[metric]) for metric in JUDGED])
            beyond = 2 if all(is_stable(metric, arm[metric]) for metric in JUDGED) else 1
            off = (now.loc[claimed, list(JUDGED)] - recorded.loc[seed, list(JUDGED)]).abs()
            for within in (off <= bounds).all(axis=1):
                counts[0 if within else beyond] += 1
    return tuple(count / sum(counts) for count in counts)


def _percent(shares: tuple[float, ...]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def read(file: Path) -> pd.DataFrame:
    """Return the final metrics of the runs trained so far, by processor, study, arm and seed."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    runs = pd.MultiIndex.from_tuples([tuple(one["run"]) for one in lines], names=["processor", "study", "arm", "seed"])
    return pd.DataFrame([one["final"] | {"on": ", ".join(one["on"])} for one in lines], runs).sort_index()


def _pair(finals: pd.DataFrame, kind: Kind, one: Processor, seeds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs of a kind on one processor and on the other, by seed."""
    here, there = (finals.loc[(processor.name, *kind)].loc[: seeds - 1] for processor in (one, AVX2))
    return here, there


# In a separate process


def train(file: str, wanted: list[tuple[str, str, int]], processor: str, precision: str, is_quick: bool) -> Measured:
    """Train the missing runs, one after another on one thread; each result is saved when the run ends."""
    torch.set_num_threads(1)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    done, data = set(read(Path(file)).index), load_data()
    for study, arm, seed in wanted:
        run_name = (processor, study, arm, seed)
        if run_name in done:
            continue
        config = Kind(study, arm).config(seed, precision, is_quick)
        result = fit(config, data, device="cpu", progress=False, probes=False)
        line = {"run": run_name, "final": result.final, "on": [result.facts["device"], result.facts["precision"]]}
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
        print(f"  {', '.join(map(str, run_name))}: {result.final['time/total_s']:.0f} s", flush=True)
    return {}
