"""What a class hands in: a folder with a store per student, or a server with a workspace per student."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.elsewhere import in_workspace, look_at
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store, is_address

DATABASES = (".db", ".sqlite", ".sqlite3")
LARGEST = 2 * 2**30  # bytes that a zip may hold, unpacked; a lab with all its runs has a tenth of that
MOST_FILES = 50_000
PIECE = 2**20  # bytes


@dataclass(frozen=True)
class HandIn:
    """What one student handed in. where: a folder, a zip, a database file, or the address of a server."""

    name: str
    where: str
    workspace: str = ""

    @contextmanager
    def opened(self) -> Iterator[tuple[Store, Path | None]]:
        """Yield its store, for reading, and the project folder that it belongs to, where there is one.

        Raises:
            LabError: it has no store, or can't be read.
        """
        if is_address(self.where):
            with in_workspace(self.workspace):
                yield Store(self.where), None
            return
        with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as temporary:
            path = Path(self.where)
            if path.suffix.lower() == ".zip":
                unpack(path, Path(temporary))
                path = Path(temporary)
            file = _database(path) if path.is_dir() else path
            with snapshot(str(file)) as store:
                yield store, file.parent if path.is_dir() else None


def find_hand_ins(where: str) -> list[HandIn]:
    """Return what is in a folder, or in the workspaces of a server, in alphabetical order.

    Raises:
        LabError: there is no such folder, it holds no stores, or the server doesn't answer.
    """
    if is_address(where):
        where = where.rstrip("/")
        found = look_at(where).workspaces
        return [HandIn(name, where, name) for name in sorted(found)] if found else [HandIn("server", where)]
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise LabError(f"there is no folder {folder}: name one with what your students handed in, or a server.")
    files = sorted(folder.iterdir(), key=lambda file: file.name.casefold())
    hand_ins = [HandIn(file.stem if file.is_file() else file.name, str(file)) for file in files if _is_hand_in(file)]
    if not hand_ins:
        raise LabError(f"{folder} holds nothing to read: put the folders, zips or mlflow.db files of students there.")
    return hand_ins


def unpack(file: Path, into: Path) -> None:
    """Unpack a zip that may be anybody's.

    Raises:
        LabError: it is damaged or encrypted, too large, or has a path that leads out of the folder.
    """
    left = LARGEST
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.namelist()) > MOST_FILES:
                raise LabError(f"{file.name} has more than {MOST_FILES:,} files: it isn't a folder of this lab.")
            for member in archive.infolist():
                target = into / _inner_path(file, member.filename)
                if member.is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as unpacked:
                    while piece := source.read(PIECE):  # what a zip says about its size may be wrong
                        left -= len(piece)
                        if left < 0:
                            raise LabError(f"{file.name} unpacks to more than {LARGEST / 2**30:g} GB: it wasn't read.")
                        unpacked.write(piece)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise LabError(f"{file.name} can't be unpacked ({error}): ask for it again, as an ordinary zip.") from None


def _inner_path(file: Path, name: str) -> Path:
    """Return a path in a zip, which stays inside of the folder into which it is unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise LabError(f"{file.name} has a file that would be put elsewhere ({name}): it wasn't read.")
    return Path(*path.parts)


def _database(folder: Path) -> Path:
    """Return the mlflow.db of a folder: that nearest to its top."""
    if (file := folder / "mlflow.db").is_file():
        return file
    found = sorted(folder.rglob("mlflow.db"), key=lambda file: len(file.parts))
    if not found:
        raise LabError("it has no mlflow.db: ask for the whole folder of the lab.")
    return found[0]


def _is_hand_in(file: Path) -> bool:
    if file.name.startswith((".", "__")):  # what systems leave in folders
        return False
    return file.is_dir() or file.suffix.lower() in (".zip", *DATABASES)
