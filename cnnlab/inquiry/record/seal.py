"""Seals: a SHA-256 over what a record says, so that a later change shows."""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run

SEAL = "lab.seal"  # the tag of a run
ARRIVED = "lab.arrived"  # the tag that says when the seal came into the store, which may be long after the run
# Tags that say what a run is; others, such as a note, may be written by anybody at any time.
SEALED_TAGS = ("kind", "owner", "study", "arm", "prediction", "reused_from")


def seal_record(content: Mapping[str, str]) -> str:
    """Return the seal of a prediction or verdict: over all of its content but the seal itself."""
    return _sha256({name: value for name, value in content.items() if name != "sha256"})


def seal_run(started: int, params: Mapping[str, str], tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Return the seal of a run: over its start, params, facts and final metrics, and what it belongs to.

    started: in ms since 1970. Tags and metrics may be all there are; those that are not sealed are left out.
    """
    sealed = {name: value for name, value in tags.items() if name in SEALED_TAGS or name.startswith("fact.")}
    finals = {name: _number(value) for name, value in metrics.items() if name.startswith("final/")}
    return _sha256({"started": started, "params": dict(params), "tags": sealed, "metrics": finals})


def is_sealed_right(run: Run) -> bool | None:
    """Return whether a run in MLflow is what was sealed; None where it never was."""
    sealed = run.data.tags.get(SEAL)
    if not sealed:
        return None
    return sealed == seal_run(run.info.start_time, run.data.params, run.data.tags, run.data.metrics)


def _number(value: float) -> str:
    """Return a number as text, the way MLflow gives it back: it stores an infinite one as the largest there is."""
    return repr(max(-sys.float_info.max, min(float(value), sys.float_info.max)) if value == value else value)


def _sha256(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
