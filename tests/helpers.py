"""Helpers for several test files."""

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cnnlab.data import Data, Split
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.ledger import Record, VerdictRecord, record_prediction, record_verdict
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.study import Study
from cnnlab.one_run import WEIGHTS

Cnnlab = Callable[..., subprocess.CompletedProcess[str]]  # calls the command line with these arguments


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spare_figures(patch: pytest.MonkeyPatch) -> None:
    """Make runs of this process draw no figures and save no models, for tests that need neither.

    Both take longer than training a small network.
    """
    patch.setattr("cnnlab.one_run.run_figures", lambda *_: {})
    patch.setattr("cnnlab.inquiry.run.runner.export_model", lambda *_: None)


def settle(patch: pytest.MonkeyPatch, folder: Path, owner: str = "a student") -> None:
    """Make this process use a project folder, an owner, and an unused port."""
    for name in ("MLFLOW_TRACKING_URI", "CNNLAB_PROFILE"):
        patch.delenv(name, raising=False)
    patch.setenv("CNNLAB_HOME", str(folder))
    patch.setenv("CNNLAB_OWNER", owner)
    patch.setenv("MLFLOW_PORT", str(free_port()))


def wait_for(happened: Callable[[], bool], seconds: float = 120) -> None:
    """Return as soon as `happened()` is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s"
        time.sleep(0.05)


def epochs_in(journal: Path) -> int:
    """Return the number of epochs in a run's journal; 0 if the journal is gone."""
    try:
        return journal.read_text(encoding="utf-8").count('"event": "metrics"')
    except FileNotFoundError:
        return 0


def stripes(n: int, seed: int) -> Split:
    """Noisy images of ten easy classes: bright rows or columns at one of five distances."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 10
    x = torch.randint(0, 60, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        lines = image[0] if label < 5 else image[0].T
        lines[:: label % 5 + 2] += 150
    return Split(x, y)


SMALL_DATA = Data(stripes(640, seed=1), stripes(203, seed=2))  # ten easy classes


def small_study(*args: Any, **kwargs: Any) -> Study:
    """Return a study on `SMALL_DATA`."""
    return Study(*args, data=SMALL_DATA, **kwargs)


def predicted(study: Study, seeds: tuple[int, ...] = (0, 1)) -> Study:
    """Record some prediction about a study, with at least these seeds, so that it can be run; return the study."""
    arm = next(name for name in study.arms if name != study.control)
    predict(
        replace(study, seeds=tuple(study.seeds) if len(study.seeds) > 1 else seeds),
        arm=arm,
        metric="accuracy/valid",
        direction="higher",
        size=(0.5, 5),
        confidence=60,
        because="somebody has to predict something here",
        if_refuted="the other way round is right",
    )
    return study


def record_of(contrast: str, content: dict[str, str], last: dict[str, str]) -> Record:
    """Return a prediction with its last verdict, as if read from a store."""
    whole = {"study": "s", "contrast": contrast, "metric": "loss/valid", "direction": "higher", "sesoi": "0.01"}
    whole |= {"low": "0.03", "high": "0.15", "confidence": "75", "sha256": 64 * "0"} | content
    whole = {name: value for name, value in whole.items() if value}
    return Record("id", "own", whole, 0, deleted=False, verdicts=(VerdictRecord(1, last),))


def load_weights(store: Store, run_id: str) -> dict[str, torch.Tensor]:
    """Return the saved weights of a run, by the names of the network's parameters."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return load_file(run_file(store, run_id, WEIGHTS, Path(folder)))


OUTCOMES = {"0.1": "supported", "0.3": "refuted", "0.5": ""}  # by dropout rate; "": not judged yet


def crowd(store: Store, owners: Sequence[str], outcomes: Mapping[str, str] = OUTCOMES) -> None:
    """Record for each of some owners a prediction about each dropout rate, and a verdict on it."""
    for owner in owners:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CNNLAB_OWNER", owner)
            for arm, outcome in outcomes.items():
                content = record_of(f"dropout={arm} against dropout=0.0", {"sha256": ""}, {}).content
                record = record_prediction(store, "02-dropout", content, f"prediction: dropout={arm}", "loss higher")
                if outcome:
                    found = {
                        "outcome": outcome,
                        "label": "confirmatory",
                        "estimate": "0.05",
                        "low": "0.04",
                        "high": "0.06",
                    }
                    record_verdict(store, record, found | {"n": "5"}, outcome)
