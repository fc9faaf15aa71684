"""The spool of one run: its measurements are written to the local disk before anything else.

.cnnlab/spool/<id>/
    journal.jsonl   one entry per line, in the order of events
    delivered.json  how many entries are in MLflow, and the id of the run there
    files/          artifacts to be transferred: figures, weights
    model/          the model in MLflow's format, if an earlier version of the lab left one
    lock            held by the process that writes; free as soon as that process has ended
"""

import json
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cnnlab.inquiry import paths


class Spool:
    """An append-only record of one run, with its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.files = folder / "files"
        self.model = folder / "model"
        self._lock = FileLock(folder / "lock", thread_local=False)
        self._file = folder / "journal.jsonl"
        self._delivered = folder / "delivered.json"

    @classmethod
    def new(cls) -> Self:
        """Create a spool and lock it: no other process delivers it while this one lives."""
        folder = spool_folder() / uuid.uuid4().hex
        folder.mkdir(parents=True)
        spool = cls(folder)
        spool.claim()
        return spool

    def claim(self) -> bool:
        """Lock the spool; return False if the process that writes it is still alive."""
        with suppress(Timeout):
            self._lock.acquire(blocking=False)
        return self._lock.is_locked

    def release(self) -> None:
        """Unlock the spool: another process may then deliver the rest."""
        self._lock.release()

    def append(self, event: str, **content: Any) -> None:
        """Write one entry; it is on disk when this returns."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **content}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """Return all complete entries; a crash may have truncated the last one."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def delivered(self) -> tuple[int, str]:
        """The number of entries in MLflow, and the run's id there ("" before it has one)."""
        if not self._delivered.exists():
            return 0, ""
        state = json.loads(self._delivered.read_text(encoding="utf-8"))
        return state["entries"], state["run_id"]

    def mark_delivered(self, entries: int, run_id: str) -> None:
        """Save the number of entries in MLflow."""
        part = self._delivered.with_suffix(".part")
        part.write_text(json.dumps({"entries": entries, "run_id": run_id}), encoding="utf-8")
        part.replace(self._delivered)

    def remove(self) -> None:
        """Delete the spool: everything in it is in MLflow."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def spool_folder() -> Path:
    """Return the folder of all spools on this machine."""
    return paths.state_folder() / "spool"


def leftovers() -> list[Spool]:
    """Lock and return the spools that other processes left behind, oldest first."""
    journals = sorted(spool_folder().glob("*/journal.jsonl"), key=lambda journal: journal.stat().st_ctime)
    return [spool for journal in journals if (spool := Spool(journal.parent)).claim()]


def is_waiting() -> bool:
    """Return whether any spool is waiting for delivery."""
    return any(spool_folder().glob("*/journal.jsonl"))
