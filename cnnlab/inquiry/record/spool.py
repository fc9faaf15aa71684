"""The spool of one run: what was measured, written to the local disk before anything else happens to it.

.cnnlab/spool/<id>/
    journal.jsonl   one entry per line, in the order of events
    delivered.json  how many entries are in MLflow, and the id of the run there
    files/          artifacts on their way: figures, weights
    model/          the model in MLflow's format, where an earlier version of the lab left one
    lock            held by the process that writes; free as soon as that process is gone
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
    """An append-only record of one run, with the files that belong to it."""

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
        """Begin a spool and hold it: no other process delivers it while this one lives."""
        folder = spool_folder() / uuid.uuid4().hex
        folder.mkdir(parents=True)
        spool = cls(folder)
        spool.claim()
        return spool

    def claim(self) -> bool:
        """Take hold of the spool; False if the process that writes it is alive."""
        with suppress(Timeout):
            self._lock.acquire(blocking=False)
        return self._lock.is_locked

    def release(self) -> None:
        """Let go of the spool: another process may deliver what is left."""
        self._lock.release()

    def append(self, event: str, **content: Any) -> None:
        """Write one entry; it is on the disk when this returns."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **content}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries that were written whole; a crash may have cut the last one short."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def delivered(self) -> tuple[int, str]:
        """How many entries are in MLflow, and the run's id there ("" before it has one)."""
        if not self._delivered.exists():
            return 0, ""
        state = json.loads(self._delivered.read_text(encoding="utf-8"))
        return state["entries"], state["run_id"]

    def mark_delivered(self, entries: int, run_id: str) -> None:
        """Remember how many entries are in MLflow."""
        part = self._delivered.with_suffix(".part")
        part.write_text(json.dumps({"entries": entries, "run_id": run_id}), encoding="utf-8")
        part.replace(self._delivered)

    def remove(self) -> None:
        """Delete the spool: everything in it is in MLflow."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def spool_folder() -> Path:
    """The folder of all spools on this machine."""
    return paths.state_folder() / "spool"


def leftovers() -> list[Spool]:
    """Return the spools that a process left behind, oldest first, now held by this process."""
    journals = sorted(spool_folder().glob("*/journal.jsonl"), key=lambda journal: journal.stat().st_ctime)
    return [spool for journal in journals if (spool := Spool(journal.parent)).claim()]


def is_waiting() -> bool:
    """Return whether something waits for its delivery."""
    return any(spool_folder().glob("*/journal.jsonl"))
