"""What a class hands in: a folder with a store per student, or a server with a workspace per student."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.elsewhere import in_workspace, look_at
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store, first_line, in_words, is_address

DATABASES = (".db", ".sqlite", ".sqlite3")
LARGEST = 2 * 2**30  # bytes that a zip may hold, unpacked; a lab with all its runs has a tenth of that
MOST_FILES = 50_000
PIECE = 2**20  # bytes
TEMPORARY = re.compile(r"(\w+:/+)?\S*[/\\]cnnlab-\w+")  # a folder that `TemporaryDirectory` makes here


class Unreadable(LabError):
    """A hand-in that can't be read: a sentence for the instructor, who has to ask its student."""


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
            Unreadable: it has no store, or it can't be read, here or in what is done with it.
        """
        try:
            if is_address(self.where):
                with in_workspace(self.workspace):
                    yield Store(self.where), None
                return
            with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as temporary:
                file = _find_store(Path(self.where), Path(temporary))
                with snapshot(str(file)) as store:
                    yield store, file.parent if _is_lab(file.parent) and file != Path(self.where) else None
        except Unreadable:
            raise
        except Exception as error:  # whatever is wrong with it, the others can be read
            raise Unreadable(self.in_words(error)) from None

    def in_words(self, error: Exception) -> str:
        """Return what went wrong with it, without advice that is meant for its owner and without temporary folders."""
        said, cause = in_words(error), error.__context__
        if isinstance(error, LabError):
            said = str(error).partition(": ")[0]
            said += f" ({first_line(cause)})" if isinstance(cause, Exception) and "(" not in said else ""
        said = TEMPORARY.sub(lambda _: self.name, said).replace(self.where, Path(self.where).name)
        if is_address(self.where):
            return f"{said}: if the others can't be read either, see to the server."
        return f"{said}: ask for it again, as a zip of the whole folder."


def find_hand_ins(where: str) -> list[HandIn]:
    """Return what is in a folder, or in the workspaces of a server, in alphabetical order.

    A file, or the folder of one lab, is the only hand-in.

    Raises:
        LabError: there is no such folder or file, it holds no stores, or the server doesn't answer.
    """
    if is_address(where):
        where = where.rstrip("/")
        found = look_at(where).workspaces
        return [HandIn(name, where, name) for name in sorted(found)] if found else [HandIn("server", where)]
    folder = Path(where).expanduser()
    if folder.is_file() or ((folder / "mlflow.db").is_file() and _is_lab(folder)):
        return [HandIn(_name(folder.resolve()), str(folder))]
    if not folder.is_dir():
        raise LabError(f"there is no folder {folder}: name one with what your students handed in, or a server.")
    files = sorted((file for file in folder.iterdir() if _is_hand_in(file)), key=lambda file: file.name.casefold())
    if not files:
        raise LabError(f"{folder} holds nothing to read: put the folders, zips or mlflow.db files of students there.")
    often = Counter(map(_name, files))
    return [HandIn(_name(file) if often[_name(file)] == 1 else file.name, str(file)) for file in files]


def unpack(file: Path, into: Path) -> None:
    """Unpack a zip that may be anybody's.

    Raises:
        Unreadable: it is damaged or encrypted, too large, or has a path that leads out of the folder.
    """
    left = LARGEST
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.namelist()) > MOST_FILES:
                raise Unreadable(f"{file.name} has more than {MOST_FILES:,} files: it isn't a folder of this lab.")
            for member in archive.infolist():
                target = into / _inner_path(file, member.filename)
                if member.is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as unpacked:
                    while piece := source.read(PIECE):  # what a zip says about its size may be wrong
                        left -= len(piece)
                        if left < 0:
                            gigabytes = LARGEST / 2**30
                            raise Unreadable(f"{file.name} unpacks to more than {gigabytes:g} GB: it wasn't read.")
                        unpacked.write(piece)
    except Unreadable:
        raise
    except Exception as error:  # each way to compress has errors of its own
        reason = TEMPORARY.sub(lambda _: file.name, first_line(error))
        raise Unreadable(f"{file.name} can't be unpacked ({reason}): ask for it again, as an ordinary zip.") from None


def _inner_path(file: Path, name: str) -> Path:
    """Return a path in a zip, which stays inside of the folder into which it is unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise Unreadable(f"{file.name} has a file that would be put elsewhere ({name}): it wasn't read.")
    return Path(*path.parts)


def _find_store(path: Path, into: Path, endings: tuple[str, ...] = (".zip", *DATABASES)) -> Path:
    """Return the database in what was handed in, which is unpacked `into` a folder if it is a zip.

    It is the mlflow.db nearest to the top of a folder. Without one, a folder may hold one zip or one database of any
    name, as a learning platform makes them; a zip may hold no other zip.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        unpack(path, into)
        return _find_store(into, into, DATABASES)
    if path.is_file():
        if path.suffix.lower() in DATABASES:
            return path
        raise Unreadable("not a zip, folder or database: ask for a zip.")
    if (file := path / "mlflow.db").is_file():
        return file
    files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in endings and _is_visible(file, path)]
    stores = [file for file in files if file.name == "mlflow.db"]
    top = min((len(file.parts) for file in stores), default=0)
    found = [file for file in stores if len(file.parts) == top] or files
    if not found:
        raise Unreadable("it has no mlflow.db: ask for the whole folder of the lab.")
    if len(found) > 1:
        names = " and ".join(file.relative_to(path).as_posix() for file in found[:2])
        raise Unreadable(f"it has {len(found)} stores, such as {names}: ask which of them counts.")
    return _find_store(found[0], into, endings)


def _is_lab(folder: Path) -> bool:
    """Return whether a folder has what belongs to a store: the files of runs, or logbooks."""
    return any((folder / name).is_dir() for name in ("models", "experiment_log"))


def _is_visible(file: Path, below: Path) -> bool:
    """Return whether a file is none of those that systems leave in folders."""
    return file.is_file() and not any(part.startswith((".", "__")) for part in file.relative_to(below).parts)


def _is_hand_in(file: Path) -> bool:
    """Return whether something in the folder of a class may be a hand-in: not what systems or instructors put there."""
    is_ours = file.suffix.lower() == ".csv" or file.stem.casefold() == "readme"
    return not is_ours and not file.name.startswith((".", "__"))


def _name(file: Path) -> str:
    return file.stem.removesuffix(".tar") if file.is_file() else file.name
