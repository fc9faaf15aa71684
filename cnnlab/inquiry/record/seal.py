"""Seals: a SHA-256 over the content of a record, which reveals later changes."""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run

SEAL = "lab.seal"  # the tag of a run
ARRIVED = "lab.arrived"  # the tag with the time when the seal arrived in the store, maybe long after the run
# Tags that identify a run; anybody may write others, such as a note, at any time.
SEALED_TAGS = ("kind", "owner", "study", "arm", "prediction", "reused_from")


def seal_record(content: Mapping[str, str]) -> str:
    """Return the seal of a prediction or verdict, over all of its content except the seal itself."""
    return _sha256({name: value for name, value in content.items() if name != "sha256"})


def seal_run(started: int, params: Mapping[str, str], tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Return the seal of a run, over its start, params, facts, final metrics and the tags that identify it.

    started: in ms since 1970. Tags and metrics may include others; those that are not sealed are ignored.
    """
    sealed = {name: value for name, value in tags.items() if name in SEALED_TAGS or name.startswith("fact.")}
    finals = {name: _number(value) for name, value in metrics.items() if name.startswith("final/")}
    return _sha256({"started": started, "params": dict(params), "tags": sealed, "metrics": finals})


def is_sealed_right(run: Run) -> bool | None:
    """Return whether a run in MLflow still matches its seal; None if it was never sealed."""
    sealed = run.data.tags.get(SEAL)
    if not sealed:
        return None
    return sealed == seal_run(run.info.start_time, run.data.params, run.data.tags, run.data.metrics)


def _number(value: float) -> str:
    """Return a number as text, as MLflow returns it: MLflow stores infinity as the largest finite number."""
    return repr(max(-sys.float_info.max, min(float(value), sys.float_info.max)) if value == value else value)


def _sha256(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
