"""The test vault: the test images are looked at once, at the end, on the record.

Two intervals belong to the final claim. Over seeds: what to expect when the networks are trained again and tested on
the same images. Over seeds and images: what to expect on new images as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.identity import in_words
from cnnlab.inquiry.judge.statistics import Effect, contrast_effect, crossed_interval
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.runs import trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import num_readings, read_test_set, record_test_result
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import Data, Kept, task


@dataclass(frozen=True, repr=False)
class Opening(Shown):
    """What came out of the vault. Printed, or shown in a notebook, it is a table with sentences.

    number: which opening of this owner it was; from the second on it is post-hoc. arms: one row each, `n`, and in
    percent or percentage points `test, test_sd, valid, optimism` (valid - test). claims: for each arm but the first,
    the difference of its test accuracy to the first, in pp, over seeds, and the interval over seeds and images.
    differs: what each of them has other than the first.
    """

    number: int
    reason: str
    arms: pd.DataFrame
    claims: dict[str, tuple[Effect, tuple[float, float]]]
    differs: dict[str, str]

    @property
    def is_post_hoc(self) -> bool:
        """Whether the test images had been looked at before."""
        return self.number > 1

    def lines(self) -> list[str]:
        """Return what there is to say, a sentence a line."""
        control = self.arms.index[0]
        said = [f"Opening {self.number} of the test vault: {self.reason}"]
        if self.is_post_hoc:
            said.append("POST-HOC: the test images had been looked at before, so these are no unseen images any more.")
        for arm, (e, (low, high)) in self.claims.items():
            said.append(
                f"{arm} - {control}: {e.estimate:+.2f} pp on the test images; 95 % interval "
                f"[{e.low:+.2f}, {e.high:+.2f}] if trained again (n = {e.n} seeds), "
                f"[{low:+.2f}, {high:+.2f}] if trained again and on new images. What differs: {self.differs[arm]}."
            )
        worst = self.arms["optimism"].max()
        said.append(f"Selection optimism: validation is at most {worst:+.2f} pp above test.")
        return said

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [self.arms.round(2), *self.lines()]


@checked
@stopping("Stopped. If the test images had been read by then, that is on record.")
def open_vault(
    arms: Mapping[str, tuple[Design, str]],
    reason: str,
    store: Store | None = None,
) -> Opening:
    """Evaluate the trained networks of some arms on the test images, and record when, why and the result.

    `arms` are the studies and their arms by the names they shall have here, the one to compare with first:
    `{"baseline": (baseline, "baseline"), "batch norm": (norms, "norm=batch")}`. All runs of an arm take part. The test
    images are Fashion-MNIST's official ones, or those of the studies' own data.

    Raises:
        LabError: no reason; an arm without at least two finished runs, without two seeds in common with the first, on
            other images, or without weights in the store. The test images are then not looked at.
    """
    store = store or connect()
    runs = {name: _runs_of(name, *where, store) for name, where in arms.items()}
    if not runs:
        raise LabError("name at least one arm, such as {'baseline': (baseline, 'baseline')}.")
    pairs = {name: _common_seeds(runs, name) for name in list(runs)[1:]}
    data = _data_of({name: study for name, (study, _) in arms.items()})
    own = data.test if data else None
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        kept = {name: _files_of(store, some, Path(folder)) for name, some in runs.items()}
        number = num_readings(store, own) + 1
        images = read_test_set(store, reason, own)
        correct = {name: task().evaluate(runs[name]["config"], kept[name], data, images) for name in runs}
    table = _table(runs, correct)
    opening = Opening(number, reason, table, _claims(runs, correct, pairs), _differences(runs))
    record_test_result(store, reason, number, "\n".join(opening.lines()), table, correct)
    return opening


def _runs_of(name: str, study: Design, arm: str, store: Store) -> pd.DataFrame:
    if arm not in study.arms:
        raise LabError(f"{name}: {study.name} has no arm {arm!r}: choose from {', '.join(study.arms)}.")
    runs = results(study, store)
    runs = runs[runs["arm"] == arm].sort_values("seed", ignore_index=True)  # arms are compared seed by seed
    runs["trained"] = trained(runs)  # where the weights are
    if not runs["sealed_right"].eq(True).all():
        raise LabError(f"{name}: runs of {arm} in {study.name} aren't what was sealed; `cnnlab review` names them.")
    if len(runs) < 2:
        raise LabError(f"{name}: {len(runs)} finished runs of {arm} in {study.name}; a claim needs at least two seeds.")
    return runs


def _data_of(studies: dict[str, Design]) -> Data | None:
    """Return the data that all arms were developed on and that have test images; None for the task's own."""
    first, *others = studies.items()
    for name, study in others:
        if study.images != first[1].images or _test_of(study) != _test_of(first[1]):
            raise LabError(f"{name} is about other images than {first[0]}: they can't be compared.")
    data = first[1].data
    if data is None or (data.test is None and data.sha256() == task().own_data):
        return None
    if data.test is None:
        raise LabError(f"{first[0]}: {first[1].name} is about images without test images: give Data(..., test=...).")
    return data


def _test_of(study: Design) -> str:
    """Return the fingerprint of the test images of a study's own data, "" where it has none."""
    return str(study.data.test.sha256()) if study.data and study.data.test is not None else ""


def _files_of(store: Store, runs: pd.DataFrame, folder: Path) -> list[Kept]:
    """Return what each run kept.

    Raises:
        LabError: a run's weights aren't in the store.
    """
    found: list[Kept] = []
    for run_id in runs["trained"]:
        own = folder / run_id
        own.mkdir(exist_ok=True)
        found.append({name: run_file(store, run_id, name, own) for name in task().leaves(ships=False)})
    return found


def _table(runs: dict[str, pd.DataFrame], correct: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = {}
    for name, some in runs.items():
        test, valid = 100 * correct[name].mean(axis=1), 100 * some[task().metrics[0].name]
        rows[name] = {"n": len(some), "test": test.mean(), "test_sd": test.std(ddof=1), "valid": valid.mean()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(optimism=table["valid"] - table["test"])


def _common_seeds(runs: dict[str, pd.DataFrame], name: str) -> list[int]:
    """Return the seeds that an arm has in common with the first one."""
    control = next(iter(runs))
    seeds = sorted(set(runs[name]["seed"]) & set(runs[control]["seed"]))
    if len(seeds) < 2:
        raise LabError(f"{name} and {control} have fewer than two seeds in common: they can't be compared.")
    return seeds


def _differences(runs: dict[str, pd.DataFrame]) -> dict[str, str]:
    control, *others = ((name, replace(some["config"].iloc[0], seed=0)) for name, some in runs.items())
    return {name: in_words(control[1], config) or "the random numbers" for name, config in others}


def _claims(
    runs: dict[str, pd.DataFrame], correct: dict[str, np.ndarray], pairs: dict[str, list[int]]
) -> dict[str, tuple[Effect, tuple[float, float]]]:
    control, claims = next(iter(runs)), {}
    for name, seeds in pairs.items():
        pair = {arm: correct[arm][runs[arm]["seed"].isin(seeds)] for arm in (control, name)}
        accuracy = pd.DataFrame({arm: 100 * values.mean(axis=1) for arm, values in pair.items()})
        effect = contrast_effect(accuracy, {control: -1.0, name: 1.0})
        differences = 100 * (pair[name].astype(float) - pair[control].astype(float))
        claims[name] = effect, crossed_interval(differences)
    return claims
