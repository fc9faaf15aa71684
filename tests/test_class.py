"""A class on one server: each student has a workspace, the lab works in it, and the database keeps the times."""

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url

from cnnlab import doctor
from cnnlab.cli import cli
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.classroom import look_at_class
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.mlflow_private import accounts
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.elsewhere import look_at
from cnnlab.inquiry.record.hand_ins import find_hand_ins
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.received import load_received
from cnnlab.inquiry.record.roster import Account, enroll, read_roster
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.classroom import ClassShown, to_csv
from tests.class_server import DATABASE_PASSWORD, PASSWORD, PROJECT, ClassServer, class_server

NAMES = ["ada", "ben", "cleo", "dana"]
# What each student does: predict, train, confront.
DAY = """
from cnnlab import BASE, confront, my_seeds, predict, replace
from tests.helpers import small_study
small = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
study = small_study("tiny-class", "Does dropout help?", small, my_seeds(2), vary={"dropout": (0.0, 0.5)})
predict(study, arm="dropout=0.5", metric="loss/valid", direction="higher", confidence=70,
        because="it takes features away", if_refuted="it takes nothing away")
study.run(engine="here", progress=False)
print(confront(study).verdicts[0].label)
"""
# A prediction by a client whose clock is ten days behind.
DATED_BACK = """
import datetime, time
now = time.time
time.time = lambda: now() - 10 * 86_400
class Behind(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
from cnnlab.inquiry.record import ledger
ledger.datetime = Behind
""" + DAY.partition("study.run")[0]
# The rest of the lab, on the real images.
REST = """
import sys
from cnnlab import confront, connect, open_vault, reflect
from cnnlab.cli import cli
from cnnlab.course.profiles import find_profile
from cnnlab.course.studies import lab_studies
from cnnlab.inquiry.show.report import report
from cnnlab.inquiry.show.text import links
cli(["run", "baseline", "--profile", "tiny", "--epochs", "1", "--engine", "workers", "--workers", "2", "--quiet"],
    standalone_mode=False)
study = lab_studies(find_profile("tiny"))["tiny-01-baseline"]
confront(study)
reflect(study, why="two arms that differ only by chance")
print(open_vault({arm: (study, arm) for arm in study.arms}, "to try it in a workspace"))
print(report(connect()).name)
print(links(connect()))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClassServer]:
    with class_server(tmp_path_factory.mktemp("class")) as running:
        yield running


@pytest.fixture(scope="module")
def students(server: ClassServer) -> dict[str, Account]:
    with pytest.MonkeyPatch.context() as patch:
        log_in(patch, "admin", PASSWORD)
        return {account.name: account for account in enroll(NAMES, server.address)}


def log_in(patch: pytest.MonkeyPatch, user: str, password: str, workspace: str = "") -> None:
    """Be a user of a server, in this process."""
    patch.setenv("MLFLOW_TRACKING_USERNAME", user)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    patch.setenv("MLFLOW_WORKSPACE", workspace) if workspace else patch.delenv("MLFLOW_WORKSPACE", raising=False)


def of(account: Account, server: ClassServer, home: Path) -> dict[str, str]:
    """The environment of a student, as the roster gives it."""
    lines = account.environment(server.address).replace("export ", "").split()
    given = dict(line.split("=", 1) for line in lines)
    return os.environ | given | {"CNNLAB_HOME": str(home), "PYTHONPATH": str(PROJECT)}


def call(account: Account, server: ClassServer, home: Path, *arguments: str) -> str:
    """What Python prints that a student starts."""
    done = subprocess.run(
        [sys.executable, *arguments], env=of(account, server, home), capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def worked(server: ClassServer, students: dict[str, Account], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four students at once predict, run and judge; what each of them was told at the end."""

    def day(account: Account) -> str:
        return call(account, server, tmp_path_factory.mktemp(account.name), "-c", DAY).splitlines()[-1]

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(day, students.values()))


def test_four_students_at_once_predict_run_and_judge(
    server: ClassServer, students: dict[str, Account], worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worked == 4 * ["confirmatory"]
    received = load_received(server.database)
    for name in NAMES:
        log_in(monkeypatch, "admin", PASSWORD, workspace=name)  # who sees all of them
        found = review(Store(server.address), received=received)
        assert found.problems == [] and found.runs == 4 and list(found.heads) == [name]


def test_nobody_reads_writes_or_deletes_what_is_anothers(
    server: ClassServer, students: dict[str, Account], worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD, workspace="ada")
    (experiment,) = MlflowClient(server.address).search_experiments()
    run = MlflowClient(server.address).search_runs([experiment.experiment_id])[0].info.run_id
    for workspace in ("ben", "ada"):
        log_in(monkeypatch, "ben", students["ben"].password, workspace)
        client, some_id = MlflowClient(server.address), experiment.experiment_id
        assert client.search_runs([some_id]) == []
        for refused in (
            partial(client.get_run, run),
            partial(client.set_tag, run, "owner", "ben"),
            partial(client.log_metric, run, "final/loss/valid", 0),
            partial(client.delete_run, run),
            partial(client.create_run, some_id),
            partial(client.rename_experiment, some_id, "mine"),
        ):
            with pytest.raises(MlflowException, match=r"403|404|not found|Not found|does not exist"):
                refused()
    with pytest.raises(LabError, match="ben is no administrator of"):
        list(enroll(["eve"], server.address))


def test_a_record_of_a_client_whose_clock_was_set_back_is_named(
    server: ClassServer, students: dict[str, Account], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    (zoe,) = enroll(["zoe"], server.address)
    call(zoe, server, tmp_path, "-c", DATED_BACK)
    log_in(monkeypatch, "admin", PASSWORD, workspace="zoe")
    (record,) = load_records(Store(server.address))
    assert review(Store(server.address)).problems == []  # two clocks of the client agree
    (problem,) = review(Store(server.address), received=load_received(server.database)).problems
    assert f"prediction {record.sha256[:12]} of zoe in tiny-class: it says " in problem
    assert ", but the server received it at " in problem


def test_the_class_has_a_line_per_workspace_and_every_seed_counts(
    server: ClassServer, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    list(enroll(["frank"], server.address))  # who hasn't begun
    hand_ins = [one for one in find_hand_ins(server.address) if one.name in (*NAMES, "frank", "default")]
    roster = {name: {"name": name} for name in (*NAMES, "frank")}
    found = look_at_class(hand_ins, roster, received=load_received(server.database))
    assert [one.name for one in found.students] == NAMES and found.absent == ["frank"]
    text, rows = str(ClassShown(found)), list(csv.DictReader(io.StringIO(to_csv(found))))
    assert (
        "(?: without a logbook, as on a server, where reflections stay with the students); last: when the server"
        in text
    )
    for row in rows[: len(NAMES)]:
        said, kept = (datetime.fromisoformat(row[f"last_{name}_utc"]) for name in ("said", "received"))
        assert abs(said - kept).total_seconds() < 60
    assert all(one.is_intact and one.records for one in found.students) and found.copies == []
    late = look_at_class(hand_ins, deadline=datetime(2020, 1, 1, tzinfo=UTC), received=load_received(server.database))
    assert [one.late for one in late.students] == 4 * [6]  # a prediction, four runs, a verdict
    (question,) = found.questions
    assert question.effect and question.effect.n == 8 and question.seeds == (8, 8)


def test_in_a_workspace_the_records_of_another_owner_are_a_problem_and_not_theirs(
    server: ClassServer, students: dict[str, Account], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    una, vic = enroll(["una", "vic"], server.address)
    call(una, server, tmp_path, "-c", "import os; os.environ['CNNLAB_OWNER'] = 'vic'\n" + DAY.partition("study.run")[0])
    log_in(monkeypatch, "admin", PASSWORD)
    hand_ins = [one for one in find_hand_ins(server.address) if one.name in (una.name, vic.name)]
    found = look_at_class(hand_ins, {"una": {}, "vic": {}})
    (student,) = found.students
    assert student.name == "una" and student.problems == ["its records name another owner: vic."]
    assert found.absent == ["vic"] and student.records == [] and not student.answers


def test_all_of_the_lab_works_in_a_workspace(
    server: ClassServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    (yan,) = enroll(["yan"], server.address)
    given = ["--arm", "baseline again", "--metric", "accuracy/valid", "--direction", "none", "--confidence", "60"]
    given += ["--because", "only chance differs", "--if-refuted", "the seeds are not random"]
    call(yan, server, tmp_path, "-m", "cnnlab", "predict", "baseline", "--profile", "tiny", "--epochs", "1", *given)
    said = call(yan, server, tmp_path, "-c", REST)
    assert "baseline again - baseline" in said and "report-yan" in said
    assert f"{server.address}/#/experiments/" in said and "viewStateShareKey=table" in said
    assert "Intact: 1 prediction" in call(yan, server, tmp_path, "-m", "cnnlab", "review")
    search = [str(PROJECT / "03_mlflow.py"), "--profile", "tiny", "--max-evals", "2", "--epochs", "1"]
    assert "2 trials" in call(yan, server, tmp_path, *search)


def test_a_roster_again_changes_nothing(
    server: ClassServer, students: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    assert list(enroll([*NAMES, "eve"], server.address))[:4] == [Account(name, "") for name in NAMES]
    assert len({account.password for account in students.values()}) == 4


def test_the_doctor_and_every_command_say_what_is_wrong_with_the_way_to_a_server(
    home: Path, server: ClassServer, students: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    def line() -> str:
        (found,) = [said for _, said in doctor.examine() if said.split()[1] == "tracking"]
        return found

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    ada = students["ada"].password
    for user, password, workspace, said in (
        ("ada", "wrong", "ada", "doesn't know the user 'ada' with this password"),
        ("ada", ada, "", "keeps runs in workspaces, and MLFLOW_WORKSPACE is not set. Yours: ada."),
        ("ada", ada, "ben", "keeps runs in workspaces, and MLFLOW_WORKSPACE is 'ben'. Yours: ada."),
        ("", "", "", "asks for a user and a password"),
    ):
        log_in(monkeypatch, user, password, workspace)
        assert said in line()
        with pytest.raises(LabError, match=said):
            connect()
    log_in(monkeypatch, "ada", ada, "ada")
    assert "user ada, workspace ada, clock accurate to" in line()
    assert connect().uri == server.address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\nada\n\nAda\n", "line 4: Ada is there twice"),
        ("name,id\n,7\n", "'' can't be the name of an owner: .* Correct line 2 of "),
        ("sep=;\nname;id\nada/ben;7\n", "'ada/ben' can't be the name of an owner: .* Correct line 3 of "),
        ("name\nLovelace, Ada\n", "line 2: there are more cells than titles"),
        ("student\nada\n", 'needs a first line with one column "name"'),
        ("name,Name\nada,ben\n", 'needs a first line with one column "name"'),
        ("name\n,\n", "and one line per student"),
        ("", 'needs a first line with one column "name"'),
        ("name\n\x81\n".encode("latin-1"), "can't be read .*: name a CSV file in UTF-8"),
    ],
)
def test_a_roster_that_can_not_be_used_says_why(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "roster.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LabError, match=said):
        read_roster(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "text",
    [
        "name,email\n Ada Lovelace ,a@x.org\nCleo Möller,c@x.org\n",
        " Name ;E-mail\r\nAda Lovelace;a@x.org\r\nCleo Möller;c@x.org\r\n;\r\n",
        "sep=;\r\nE-mail;NAME;\r\na@x.org;Ada Lovelace;\r\nc@x.org;Cleo Möller;\r\n;;\r\n\r\n",
        "id\tname\r1\tAda Lovelace\r\r2\tCleo Möller",
        'name,group\n"Ada Lovelace","a, b"\n"Cleo Möller"',
    ],
)
def test_a_roster_is_read_as_any_spreadsheet_writes_it(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / "roster.csv"
    file.write_bytes(text.encode(encoding))
    assert list(read_roster(file)) == ["Ada Lovelace", "Cleo Möller"]


def test_the_other_columns_of_a_roster_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "roster.csv"
    file.write_text("Name;ID\nada;7\nben\n", encoding="utf-8")
    assert read_roster(file) == {"ada": {"name": "ada", "id": "7"}, "ben": {"name": "ben", "id": ""}}


def test_names_that_no_workspace_can_have_are_all_named_before_anything_is_made() -> None:
    said = r"'Ada Lovelace', 'admin', 'x-' can't be the name of a workspace: use 1 to 63 small letters"
    with pytest.raises(LabError, match=said):
        list(enroll(["ada", "Ada Lovelace", "admin", "x-"], "http://127.0.0.1:9"))


@pytest.fixture
def roster_command(server: ClassServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`cnnlab class roster`, by the administrator."""
    log_in(monkeypatch, "admin", PASSWORD)

    def call(name: str, *options: str) -> Result:
        (tmp_path / "roster.csv").write_text(f"name\n{name}\n", encoding="utf-8")
        command = ["class", "roster", str(tmp_path / "roster.csv"), "--server", f"{server.address}/", *options]
        return CliRunner().invoke(cli, command)

    return call


def test_nobody_gets_an_account_whose_password_can_not_be_written(
    server: ClassServer, roster_command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("something")
    for out in ("file", "file/accounts"):
        said = str(roster_command("gus", "--out", str(tmp_path / out)).exception)
        assert "can't hold the files" in said and "name another folder after --out." in said
    assert "gus:\nexport MLFLOW_TRACKING_URI=" in roster_command("gus").output  # now, and not before


def test_a_forgotten_password_is_replaced_and_only_its_owner_can_read_the_file(
    server: ClassServer, roster_command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def word() -> str:
        assert os.name == "nt" or file.stat().st_mode & 0o777 == 0o600
        return re.findall("MLFLOW_TRACKING_PASSWORD=(.*)", file.read_text())[0]

    file, out = tmp_path / "accounts" / "hal.env", ["--out", str(tmp_path / "accounts")]
    assert roster_command("hal", *out).output == f"hal: {file}\n"
    first = word()
    file.chmod(0o644)
    assert "its password is unchanged" in roster_command("hal", *out).output
    assert roster_command("hal", *out, "--reset", "hal").output == f"hal: {file}\n"
    log_in(monkeypatch, "hal", word(), "hal")
    assert look_at(server.address).workspaces == ["hal"]
    log_in(monkeypatch, "hal", first, "hal")
    with pytest.raises(LabError, match="doesn't know the user 'hal' with this password"):
        look_at(server.address)


def test_a_password_that_can_not_be_replaced_or_written_says_what_to_do(
    roster_command: Callable[..., Result], tmp_path: Path
) -> None:
    assert "ida isn't in" in str(roster_command("hal", "--reset", "ida").exception)
    assert "has no user ida: run this without --reset" in str(roster_command("ida", "--reset", "ida").exception)
    assert "'admin' can't be the name of a workspace" in str(roster_command("admin", "--reset", "admin").exception)
    (tmp_path / "ida.env").mkdir()
    failed = roster_command("ida", "--out", str(tmp_path))
    assert "ida.env can't be written" in str(failed.exception) and "again with --reset ida." in str(failed.exception)
    assert "ida:\nexport" in roster_command("ida", "--reset", "ida").output


def test_an_account_works_when_its_password_is_shown(server: ClassServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, "admin", PASSWORD)
    jo = next(enroll(["jo", "kim"], server.address))
    log_in(monkeypatch, "jo", jo.password, "jo")
    assert look_at(server.address).workspaces == ["jo"]


def test_nobody_becomes_an_administrator_or_enters_the_workspace_of_another(
    server: ClassServer, students: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ben, without the lab."""
    log_in(monkeypatch, "admin", PASSWORD)
    users = accounts(server.address)
    for method, path, given in (
        ("PATCH", "2.0/mlflow/users/update-admin", {"username": "ben", "is_admin": True}),
        ("POST", "2.0/mlflow/users/create", {"username": "lee", "password": "a-long-password", "is_admin": True}),
        ("PATCH", "2.0/mlflow/users/update-password", {"username": "ada", "password": "a-long-password"}),
        ("PATCH", "2.0/mlflow/users/update-password", {"username": "admin", "password": "a-long-password"}),
        ("DELETE", "2.0/mlflow/users/delete", {"username": "ada"}),
        *(
            ("POST", "3.0/mlflow/roles/assign", {"username": "ben", "role_id": role.id})
            for role in users.list_roles("ada")
        ),
        ("POST", "3.0/mlflow/roles/create", {"workspace": "ada", "name": "mine"}),
    ):
        for api in ("api", "ajax-api"):
            url, ben = f"{server.address}/{api}/{path}", ("ben", students["ben"].password)
            assert requests.request(method, url, json=given, auth=ben, timeout=30).status_code == 403, url
    assert not users.get_user("ben").is_admin and {own.workspace for own in users.list_user_roles("ben")} == {"ben"}
    log_in(monkeypatch, "ada", students["ada"].password, "ada")
    assert look_at(server.address).workspaces == ["ada"]


def test_the_password_of_the_database_can_be_in_the_environment_or_in_a_file(
    server: ClassServer, worked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = make_url(server.database).port
    for name, value in (
        ("HOST", "127.0.0.1"),
        ("PORT", str(port)),
        ("USER", "mlflow"),
        ("PASSWORD", DATABASE_PASSWORD),
    ):
        monkeypatch.setenv(f"PG{name}", value)
    log_in(monkeypatch, "admin", PASSWORD, workspace="ada")
    done = CliRunner().invoke(cli, ["review", server.address, "--database", "postgresql+psycopg:///mlflow"])
    assert done.exit_code == 0 and "Intact: 1 prediction" in done.output
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(LabError, match=r"can't be read .*: set PGHOST, PGUSER and PGPASSWORD"):
        load_received("postgresql+psycopg:///mlflow")
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"  # in the place of ~/.pgpass
    file.touch(0o600)
    file.write_text(f"127.0.0.1:*:*:mlflow:{DATABASE_PASSWORD}\n")
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert load_received("postgresql+psycopg:///mlflow") == load_received(server.database)


def test_git_takes_none_of_the_files_that_the_page_about_a_class_makes() -> None:
    ignored = (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    made = ("accounts/", "roster.csv", "class/.env", "class-files/", "class.csv", "class.html", "lab.zip")
    assert [name for name in made if f"/{name}" not in ignored] == []
