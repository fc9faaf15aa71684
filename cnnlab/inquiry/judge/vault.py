"""The test vault: the test images are looked at once, at the end, on the record.

The final claim has two intervals. Over seeds: what to expect when the networks are trained again and tested on the same
images. Over seeds and images: what to expect on new images as well. A third interval is about selection: the validation
images may have had a part in choosing an arm, the test images had none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.identity import in_words
from cnnlab.inquiry.judge.new_images import contrast_by_image
from cnnlab.inquiry.judge.statistics import Effect, crossed_interval, optimism, t_interval
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.runs import trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import (
    Recorded,
    accuracies,
    load_vault,
    num_readings,
    read_test_set,
    record_test_result,
)
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import Data, Kept, task


class Claim(NamedTuple):
    """The difference of an arm from the first one in test accuracy, in pp, positive if the arm is better.

    effect: over the seeds in common. on_new_images: its interval over seeds and images. selection: validation - test
    of the arm, less that of the first arm, over seeds and both sets of images; None if the runs didn't keep their
    result for each validation image. differs: how the arm differs from the first.
    """

    effect: Effect
    on_new_images: tuple[float, float]
    selection: Effect | None
    differs: str


@dataclass(frozen=True, repr=False)
class Opening(Shown):
    """The result of opening the vault. Printed, or shown in a notebook, it is a table with sentences.

    number: of this owner's openings; from the second on they are post-hoc. arms: one row each, with `n`, and in percent
    or percentage points `test, test_sd, valid, valid - test`. images: the number of test images. claims: one per arm
    except the first.
    """

    number: int
    reason: str
    arms: pd.DataFrame
    images: int
    claims: dict[str, Claim]

    @property
    def is_post_hoc(self) -> bool:
        """Whether the test images had been looked at before."""
        return self.number > 1

    def lines(self) -> list[str]:
        """Return the sentences, one per line."""
        control = self.arms.index[0]
        said = [f"Opening {self.number} of the test vault: {self.reason}"]
        if self.is_post_hoc:
            said.append("POST-HOC: the test images had been looked at before, so they are no longer unseen.")
        for arm, claim in self.claims.items():
            e, (low, high) = claim.effect, claim.on_new_images
            said.append(
                f"{arm} - {control}: {e.estimate:+.2f} pp on the test images; 95 % interval [{e.low:+.2f}, "
                f"{e.high:+.2f}] over seeds (trained again, same images), [{low:+.2f}, {high:+.2f}] over seeds and "
                f"images (n = {e.n} seeds, {self.images:,} images). What differs: {claim.differs}."
            )
            if claim.selection:
                said.append(_selection_in_words(arm, control, claim.selection))
        return said

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [accuracies(self.arms), *self.lines()]


@checked
@stopping("Stopped. If the test images had already been read, that is on record.")
def open_vault(
    arms: Mapping[str, tuple[Design, str]],
    reason: str,
    store: Store | None = None,
) -> Opening | Recorded:
    """Evaluate the trained networks of some arms on the test images, and record when, why and the result.

    The same call again returns what was recorded, and opens nothing.

    `arms` are the studies and their arms by the names they get here, first the one that the others are compared with:
    `{"baseline": (baseline, "baseline"), "batch norm": (norms, "norm=batch")}`. All runs of an arm take part. The test
    images are Fashion-MNIST's official ones, or those of the studies' own data.

    Raises:
        LabError: no reason; an arm without at least two finished runs, without two seeds in common with the first, on
            other images, or without weights in the store. In these cases, the test images are not looked at.
    """
    store = store or connect()
    runs = {name: _runs_of(name, *where, store) for name, where in arms.items()}
    if not runs:
        raise LabError("name at least one arm, such as {'baseline': (baseline, 'baseline')}.")
    pairs = {name: _common_seeds(runs, name) for name in list(runs)[1:]}
    ids = {name: list(some["run_id"]) for name, some in runs.items()}
    for known in load_vault(store, owner()):
        if known.is_about(reason, ids):
            return known
    data = _data_of({name: study for name, (study, _) in arms.items()})
    own = data.test if data else None
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        kept = {name: _files_of(store, some, Path(folder)) for name, some in runs.items()}
        number = num_readings(store, own) + 1
        images = read_test_set(store, reason, own)
        correct = {name: task().evaluate(runs[name]["config"], kept[name], data, images) for name in runs}
    table = _table(runs, correct)
    claims = {name: _claim(runs, correct, name, seeds, store) for name, seeds in pairs.items()}
    opening = Opening(number, reason, table, next(iter(correct.values())).shape[1], claims)
    record_test_result(store, reason, number, "\n".join(opening.lines()), table, correct, ids)
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
    """Return the data that all arms were developed on, with test images; None for the task's own."""
    first, *others = studies.items()
    for name, study in others:
        if study.images != first[1].images or _test_of(study) != _test_of(first[1]):
            raise LabError(f"{name} is about images other than {first[0]}'s: they can't be compared.")
    data = first[1].data
    if data is None or (data.test is None and data.sha256() == task().own_data):
        return None
    if data.test is None:
        raise LabError(f"{first[0]}: {first[1].name} is about images without test images: give Data(..., test=...).")
    return data


def _test_of(study: Design) -> str:
    """Return the fingerprint of the test images of a study's own data, "" if it has none."""
    return str(study.data.test.sha256()) if study.data and study.data.test is not None else ""


def _files_of(store: Store, runs: pd.DataFrame, folder: Path) -> list[Kept]:
    """Return the kept files of each run.

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
    return table.assign(**{"valid - test": table["valid"] - table["test"]})


def _common_seeds(runs: dict[str, pd.DataFrame], name: str) -> list[int]:
    """Return the seeds that an arm has in common with the first one."""
    control = next(iter(runs))
    seeds = sorted(set(runs[name]["seed"]) & set(runs[control]["seed"]))
    if len(seeds) < 2:
        raise LabError(f"{name} and {control} have fewer than two seeds in common: they can't be compared.")
    return seeds


def _claim(
    runs: dict[str, pd.DataFrame], correct: dict[str, np.ndarray], name: str, seeds: list[int], store: Store
) -> Claim:
    """Return the claim about an arm, from the seeds that it has in common with the first one."""
    control = next(iter(runs))
    both = {arm: runs[arm]["seed"].isin(seeds) for arm in (control, name)}
    test = 100 * (correct[name][both[name]].astype(float) - correct[control][both[control]])
    used = pd.concat([runs[arm][mine].assign(arm=arm) for arm, mine in both.items()], ignore_index=True)
    valid = contrast_by_image(task().metrics[0], used, {control: -1.0, name: 1.0}, store)
    first, config = (replace(runs[arm]["config"].iloc[0], seed=0) for arm in both)
    return Claim(
        effect=t_interval(test.mean(axis=1)),
        on_new_images=crossed_interval(test),
        selection=None if valid is None else optimism(valid, test),
        differs=in_words(first, config) or "the random numbers",
    )


def _selection_in_words(arm: str, control: str, found: Effect) -> str:
    """Say how much more the validation images flatter an arm than they flatter the first one, which was not
    selected."""
    said = "no sign of selection"
    if found.low > 0 or found.high < 0:
        said = f"the validation images flatter {arm if found.low > 0 else control}"
    return (
        f"Selection optimism: validation - test of {arm} less that of {control} is {found.estimate:+.2f} pp, 95 % "
        f"interval [{found.low:+.2f}, {found.high:+.2f}] over seeds and images: {said}."
    )
