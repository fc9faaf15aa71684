"""Reads the test set, and records each reading and its results."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.environment import environment_facts, owner
from cnnlab.inquiry.record.ledger import LONGEST, NOTE
from cnnlab.inquiry.record.runs import search_runs
from cnnlab.inquiry.record.store import Store, answering
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import task

EXPERIMENT = "test-set"
DESCRIPTION = (
    "Each opening of the locked test set. "
    'A run named "test set read" records who opened it and why, before any test image was read; '
    'a run named "test vault" holds the result.'
)
EARLIER = {"optimism": "valid - test"}  # former names of columns
TEST_IMAGES = "test_sha256"  # the tag with the fingerprint of the test images of other data


def read_test_set(store: Store, reason: str, own: Any = None) -> Any:
    """Return the test images, after recording in a run of kind "test-reading" who reads them and why.

    This is the only way to read those of the task. The reason is a param of that run. `own` are the test images of
    other data; if given, these are returned.

    Raises:
        LabError: no reason was given, or the record isn't writable; the test set then stays closed.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise LabError("the test set is locked: say why you open it, such as reason='the final claim'.")
    facts = {f"fact.{name}": value for name, value in environment_facts().items()}
    with answering(store, "the test set stays closed, since its reading can't be recorded now"):
        run_id = _create(store, "test-reading", "test set read", facts | _which(own))
        store.client.log_param(run_id, "reason", reason)
        store.client.set_terminated(run_id)
    return task().test_images() if own is None else own


def num_readings(store: Store, own: Any = None) -> int:
    """Return how often this owner has read a test set, including deleted records."""
    runs = search_runs(store, "tags.kind = 'test-reading'", EXPERIMENT, deleted=True)
    wanted = {"owner": owner(), TEST_IMAGES: None} | _which(own)
    return sum(all(run.data.tags.get(name) == value for name, value in wanted.items()) for run in runs)


def _which(own: Any) -> dict[str, str]:
    """Return the tag that identifies the test images that were read; there is none for the task's own."""
    return {TEST_IMAGES: own.sha256()} if own is not None else {}


def record_test_result(
    store: Store,
    reason: str,
    opening: int,
    said: str,
    arms: pd.DataFrame,
    correct: Mapping[str, np.ndarray],
    runs: Mapping[str, list[str]],
) -> str:
    """Record the results of a reading, as a run of kind "vault"; return its id.

    `arms` has one row per arm; its columns become metrics. `correct`: for each arm, whether each image was classified
    correctly, bool (seeds, images), stored as a file. `runs`: the ids of the runs of each arm, in the same order.
    """
    stamp = {"stamp": "post-hoc" if opening > 1 else "first opening"}
    run_id = _create(store, "vault", f"test vault, opening {opening}", stamp)
    content = {"reason": reason, "opening": str(opening), "arms": ", ".join(arms.index), "said": said}
    content |= {f"runs/{_plain(arm)}": ", ".join(ids) for arm, ids in runs.items()}
    for name, value in content.items():
        store.client.log_param(run_id, name, value[:LONGEST])
    for arm, row in arms.iterrows():
        for column, value in row.items():
            store.client.log_metric(run_id, f"{column}/{_plain(str(arm))}", float(value))
    store.client.set_tag(run_id, NOTE, said)
    with tempfile.TemporaryDirectory(prefix="cnnlab-") as folder:
        file = Path(folder) / "test_correct.npz"
        arrays: dict[str, Any] = {_plain(arm): values for arm, values in correct.items()}
        np.savez_compressed(file, **arrays)
        store.client.log_artifact(run_id, str(file))
    store.client.set_terminated(run_id)
    return run_id


@dataclass(frozen=True, repr=False)
class Recorded(Shown):
    """The recorded results of a reading of the test set: see `record_test_result`."""

    reason: str
    said: str
    arms: pd.DataFrame
    runs: dict[str, list[str]]  # the ids of each arm's runs; empty in older records

    def is_about(self, reason: str, runs: Mapping[str, list[str]]) -> bool:
        """Return whether the reading had this reason and these runs."""
        named = {_plain(arm): ids for arm, ids in runs.items()}
        unknown: dict[str, list[str]] = {arm: [] for arm in named}
        return self.reason == reason and list(self.runs) == list(named) and self.runs in (named, unknown)

    def parts(self) -> list[Part]:
        """Return the parts to show."""
        again = "This is already on record: the vault stayed closed."
        return [accuracies(self.arms), *self.said.splitlines(), again]


def accuracies(arms: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a reading for display: columns with units, and two decimals."""
    names = {"test": "test (%)", "test_sd": "SD (pp)", "valid": "validation (%)", "valid - test": "difference (pp)"}
    return arms.map("{:.2f}".format).assign(n=arms["n"].map("{:.0f}".format)).rename(columns=names).rename_axis("arm")


def load_vault(store: Store, owner: str) -> list[Recorded]:
    """Return the results of an owner's readings of the test set, oldest first."""
    found = []
    for run in search_runs(store, "tags.kind = 'vault'", EXPERIMENT):
        if run.data.tags.get("owner") == owner:
            rows: dict[str, dict[str, float]] = {}
            for name, value in run.data.metrics.items():
                column, _, arm = name.partition("/")
                rows.setdefault(arm, {})[column] = value
            arms = [_plain(arm) for arm in run.data.params["arms"].split(", ")]
            table = pd.DataFrame.from_dict({arm: rows[arm] for arm in arms}, orient="index").rename(columns=EARLIER)
            named = {arm: run.data.params.get(f"runs/{arm}") for arm in arms}
            runs = {arm: ids.split(", ") if ids else [] for arm, ids in named.items()}
            found.append(Recorded(run.data.params["reason"], run.data.params["said"], table, runs))
    return found


def _create(store: Store, kind: str, name: str, tags: Mapping[str, str]) -> str:
    own = {"kind": kind, "owner": owner(), "mlflow.user": owner(), "mlflow.source.name": "cnnlab"}
    experiment_id = store.experiment_id(EXPERIMENT)
    store.client.set_experiment_tag(experiment_id, NOTE, DESCRIPTION)
    run = store.client.create_run(experiment_id, tags=own | dict(tags), run_name=name)
    return str(run.info.run_id)


def _plain(name: str) -> str:
    """Return a name without the characters that MLflow doesn't allow in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name)
