"""The commands for instructors: a class, its server, and what it handed in."""

import os
from contextlib import nullcontext
from datetime import date, datetime, time
from pathlib import Path
from tempfile import TemporaryFile

import click

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.terminal import InOrder, say


class _Deadline(click.ParamType):
    """A moment; a date is the end of that day, and without an offset local time is meant."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> datetime:
        try:
            try:
                moment = datetime.combine(date.fromisoformat(value), time(23, 59, 59))
            except ValueError:
                moment = datetime.fromisoformat(value)
            return moment.astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: give one such as 2026-12-01, 2026-12-01T18:00 or 2026-12-01T18:00+01:00.")


class _NewFile(click.ParamType):
    """A file that can be written, which is found out before the work and not after it."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> Path:
        file = Path(value).expanduser()
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            self.fail(f"{value} can't be written: give a file in a folder that exists and that you may write to.")
        return file


class _Classroom(InOrder):
    """A group whose commands may be left out: `cnnlab class FOLDER` is `cnnlab class table FOLDER`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["table", *args]
        return super().parse_args(context, args)


@click.group("class", cls=_Classroom, short_help="For instructors: what a class handed in, and its server.")
def classroom() -> None:
    """For instructors: look at a class, hand out the lab, and enroll students on a server.

    `cnnlab class HAND-INS` is short for `cnnlab class table HAND-INS`.
    """


@classroom.command(short_help="Show what a class handed in, and what it found.")
@click.argument("hand_ins")
@click.option("--roster", "names", type=click.Path(path_type=Path), help="Roster (CSV): shows who handed in nothing.")
@click.option("--deadline", type=_Deadline(), help="Such as 2026-12-01T18:00; see above.")
@click.option("--csv", "csv_file", type=_NewFile(), help="Write a row per student here.")
@click.option("--html", "html_file", type=_NewFile(), help="Write a page with figures here.")
@click.option("--database", help="The server's PostgreSQL database, if it logs when records arrived.")
def table(
    hand_ins: str,
    names: Path | None,
    deadline: datetime | None,
    csv_file: Path | None,
    html_file: Path | None,
    database: str | None,
) -> None:
    """Show a line per student, pairs that copied, and for each question what the class predicted and found.

    HAND-INS is a folder with the folders, zips or mlflow.db files of students, one of these, or the address of a
    server. On a server with workspaces, log in as its administrator (MLFLOW_TRACKING_USERNAME,
    MLFLOW_TRACKING_PASSWORD). It only reads.

    Records after the deadline are late. It may be a date, which lasts until its end, or a time with or without seconds
    and an offset such as +01:00; without one it is your local time. All times shown are UTC.

    The page and the CSV also have each student's last head, and all names and lines that the terminal has no room for.
    Columns "id" and "email" of the roster are carried over into the CSV.
    """
    from cnnlab.inquiry.judge.classroom import look_at_class
    from cnnlab.inquiry.record.hand_ins import find_hand_ins
    from cnnlab.inquiry.record.received import load_received
    from cnnlab.inquiry.record.roster import read_roster
    from cnnlab.inquiry.record.snapshot import snapshot
    from cnnlab.inquiry.show.classroom import ClassShown, to_csv

    roster = read_roster(names) if names else {}
    received = load_received(database) if database else None
    found = look_at_class(find_hand_ins(hand_ins), roster, deadline, received)
    with snapshot(str(paths.database())) if paths.database().is_file() else nullcontext() as own:
        shown = ClassShown(found, own)
        say(shown)
        if html_file:
            html_file.write_text(shown.page(), "utf-8", "backslashreplace", "\n")
    if csv_file:
        csv_file.write_text(to_csv(found), "utf-8", "backslashreplace", "\n")


@classroom.command(short_help="Write the lab for students, without the reference results.")
@click.argument("file", type=click.Path(path_type=Path))
def handout(file: Path) -> None:
    """Write the lab without the reference results into FILE, a zip.

    It has no runs, no logbooks, no finished notebook and no solutions; its store has the empty experiments of the
    studies. The two commands of its README work as they do here.
    """
    from cnnlab.course.handout import hand_out

    say(f"{file}: {hand_out(file)} files. Students unpack it, and follow its README.")


@classroom.command(short_help="Give each student of a roster a user and a workspace on a server.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--server", "address", required=True, help="The MLflow server, such as https://mlflow.school.example.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a file per student here, instead of printing.")
@click.option("--reset", metavar="NAME", help="Only give this student of FILE a new password.")
def roster(file: Path, address: str, out: Path | None, reset: str | None) -> None:
    """Give each student of FILE, a CSV with the column "name", a user and a workspace on a server.

    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are the administrator's. Passwords are generated, and shown
    once. Existing accounts stay unchanged, and nobody is removed.
    """
    from cnnlab.inquiry.record.roster import enroll, read_roster, reset_password

    names, server = list(read_roster(file)), address.rstrip("/")
    if reset and reset not in names:
        raise LabError(f"{reset} isn't in {file}: name a student of the roster after --reset.")
    if out:
        _make_folder(out)
    for account in [reset_password(reset, server)] if reset else enroll(names, server):
        if not account.password:
            say(f"{account.name} already has an account; its password is unchanged.")
        elif out:
            _write_secret(out / f"{account.name}.env", account.environment(server))
            say(f"{account.name}: {out / account.name}.env")
        else:
            say(f"{account.name}:\n{account.environment(server)}")


def _make_folder(folder: Path) -> None:
    """Make sure that files can be written into a folder, before anybody gets a password that would be lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise LabError(f"{folder} can't hold the files ({error.strerror}): name another folder after --out.") from None


def _write_secret(file: Path, text: str) -> None:
    """Write a file that nobody else on this machine can read."""
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)  # of a file that was there already, too
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LabError(
            f"{file} can't be written ({error.strerror}): fix that, then run this again with --reset {file.stem}."
        ) from None
