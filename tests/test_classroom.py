"""What a class handed in: every student has a line, copies are found, and honest students are not."""

import csv
import io
import shutil
import sqlite3
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cnnlab.config import BASE, replace
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.classroom import Classroom, Student, class_effect, find_copies, look_at_class
from cnnlab.inquiry.paths import database
from cnnlab.inquiry.record import hand_ins
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.hand_ins import HandIn, find_hand_ins
from cnnlab.inquiry.record.ledger import VERDICT, load_records
from cnnlab.inquiry.record.runs import load_raw
from cnnlab.inquiry.record.seal import seal_record, seal_run
from cnnlab.inquiry.seeds import my_seeds
from cnnlab.inquiry.show.classroom import ClassShown, to_csv
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.logbook import reflect
from tests.helpers import Cnnlab, crowd, predicted, settle, small_study, spare_figures

SMALL = replace(BASE, blocks=((1, 8),), train_images=320, epochs=2, batch_size=32, lr=0.01)
WHY = "Dropout takes features away, and with so few images there is nothing to gain from that."
HONEST = ("ada", "ben", "cleo")


def work(owner: str) -> None:
    """What a student does: predict, run, confront, reflect."""
    study = small_study("tiny-class", "Does dropout help?", SMALL, my_seeds(2, of=owner), vary={"dropout": (0.0, 0.5)})
    predicted(study).run(connect(), progress=False)
    confront(study)
    if owner == "ada":
        reflect(study, why=WHY)


def rename(home: Path, owner: str) -> None:
    """Make a lab somebody else's, with all seals right: what a determined copycat does with the lab's own functions."""
    store = connect()
    _execute("UPDATE params SET value = ? WHERE key = 'owner'", owner)
    _execute("UPDATE tags SET value = ? WHERE key = 'owner'", owner)
    (record,) = load_records(store)
    seal = seal_record(record.content)
    _execute("UPDATE params SET value = ? WHERE key = 'sha256'", seal)
    _execute("UPDATE tags SET value = ? WHERE value = ?", seal, record.sha256)
    logbook = home / "experiment_log" / "tiny-class.md"
    text = logbook.read_text(encoding="utf-8")
    logbook.write_text(text.replace(record.sha256[:12], seal[:12]), encoding="utf-8")
    (last,) = record.verdicts
    content = last.content | {"previous": seal}
    for run in load_raw(store):
        if run.seal:
            resealed = seal_run(run.started, run.params, run.tags, run.metrics)
            _execute("UPDATE tags SET value = ? WHERE value = ?", resealed, run.seal)
            content = {name: value.replace(run.seal, resealed) for name, value in content.items()}
    for name, value in (content | {"sha256": seal_record(content)}).items():
        _execute("UPDATE params SET value = ? WHERE key = ?", value, f"{VERDICT}1_{name}")


def _execute(statement: str, *values: str) -> None:
    with closing(sqlite3.connect(database())) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three honest students, a copy of one of them under another name, a zip, and what can't be read."""
    handed_in = tmp_path_factory.mktemp("handed in")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        for name in (*HONEST, "eve"):
            settle(patch, handed_in / name, name)
            work(name)
        shutil.copytree(handed_in / "ada", handed_in / "dana")
        settle(patch, handed_in / "dana", "dana")
        rename(handed_in / "dana", "dana")
    shutil.make_archive(str(handed_in / "eve"), "zip", handed_in, "eve")
    shutil.rmtree(handed_in / "eve")
    (handed_in / "frank").mkdir()
    with zipfile.ZipFile(handed_in / "grace.zip", "w") as archive:
        archive.writestr("../../escaped.txt", "out of the folder")
    (handed_in / "heidi.db").write_text("not a database at all")
    return handed_in


@pytest.fixture(scope="module")
def found(folder: Path) -> Classroom:
    return look_at_class(find_hand_ins(str(folder)), roster=[*HONEST, "dana", "eve", "ivan"])


def test_every_student_has_a_line(found: Classroom) -> None:
    readable = {one.name: one for one in found.students if not one.unreadable}
    assert sorted(readable) == ["ada", "ben", "cleo", "dana", "eve"]
    for one in readable.values():
        assert one.problems == [], one.name
        assert len(one.records) == 1 and one.outcomes.total() == 1 and one.head
    assert readable["ada"].empty == 0 and readable["ben"].empty == 1
    assert found.absent == ["ivan"]
    assert "5 students handed in, and the records of 5 are intact. 3 hand-ins can't be read." in str(ClassShown(found))


def test_what_cant_be_read_has_a_sentence(found: Classroom, folder: Path) -> None:
    said = {one.name: one.unreadable for one in found.students if one.unreadable}
    assert said["frank"] == "it has no mlflow.db: ask for the whole folder of the lab."
    assert said["grace"] == "grace.zip has a file that would be put elsewhere (../../escaped.txt): it wasn't read."
    assert "heidi.db" in said["heidi"] and "not" in said["heidi"]
    assert not list(folder.parent.parent.rglob("escaped.txt"))


def test_a_zip_that_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_ins, "LARGEST", 10_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mlflow.db", bytes(20_000_000))
    (student,) = look_at_class(find_hand_ins(str(tmp_path))).students
    assert student.unreadable.startswith("bomb.zip unpacks to more than")


def test_a_copied_folder_is_found_and_honest_students_are_not(found: Classroom) -> None:
    (pair,) = found.copies
    assert sorted(pair.students) == ["ada", "dana"]
    assert pair.shared["run ids"] == 5  # a prediction and four runs
    assert pair.shared["training times"] == 4 and pair.shared["seeds"] == 2
    assert pair.shared["record times"] == 1 and pair.shared["reflections"] == 1


def test_one_equal_record_time_is_chance_and_two_are_not() -> None:
    """In a class of thirty at once, two students did predict in the same millisecond."""
    ada, ben = (Student(name, name, marks={"run ids": {name}, "record times": {"10:00", name}}) for name in ("a", "b"))
    assert find_copies([ada, ben]) == []
    for one in (ada, ben):
        one.marks["record times"].add("10:01")
    assert [pair.shared for pair in find_copies([ada, ben])] == [{"record times": 2}]


def test_the_same_owner_in_two_hand_ins_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("ben", "somebody"):
        shutil.copytree(folder / "ben", tmp_path / name)
    shutil.copytree(folder / "ada", tmp_path / "ada")
    found = look_at_class(find_hand_ins(str(tmp_path)))
    (pair,) = found.copies
    assert sorted(pair.students) == ["ben (ben)", "ben (somebody)"]
    (question,) = found.questions
    assert question.seeds == (4, 4) and all(one.is_intact for one in found.students)  # ben counts once


def test_the_class_is_a_replication_with_every_seed_once(found: Classroom) -> None:
    (question,) = found.questions
    assert question.seeds == (8, 10)  # dana's are ada's
    honest = [effect for name, own in question.effects.items() if name != "dana" for effect in own.values()]
    assert question.effect and question.effect.n == 8
    assert question.effect.estimate == pytest.approx(np.mean(honest))
    assert question.came_out("higher").total() == 5
    text = str(ClassShown(found))
    assert "n = 8 seeds (8 distinct of 10, 5 students)" in text


def test_a_students_effect_is_that_of_the_recorded_verdict(found: Classroom) -> None:
    (question,) = found.questions
    for name, by_seed in question.effects.items():
        recorded = float(question.predictions[name].record.verdicts[-1].content["estimate"])
        assert np.mean(list(by_seed.values())) == pytest.approx(recorded)
        if name != "dana":
            assert list(by_seed) == sorted(my_seeds(2, of=name))


def test_where_machines_differ_the_students_count() -> None:
    effects = {"a": {1: 0.0, 2: 2.0}, "b": {3: 4.0, 4: 6.0}, "c": {1: 0.0, 5: 9.0}, "d": {2: 2.0}}
    alike, different = class_effect(effects, same_machines=True), class_effect(effects, same_machines=False)
    assert alike and alike.n == 5 and alike.estimate == pytest.approx(21 / 5)
    assert different and different.n == 3 and different.estimate == pytest.approx((1 + 5 + 9) / 3)
    assert class_effect({"a": {1: 0.5}}, same_machines=True) is None


def test_a_changed_store_is_not_intact_and_doesnt_count(folder: Path, tmp_path: Path) -> None:
    for name in HONEST:
        shutil.copytree(folder / name, tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "ben" / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE latest_metrics SET value = 0.99 WHERE key = 'final/accuracy/valid'")
        connection.execute("UPDATE metrics SET value = 0.99 WHERE key = 'final/accuracy/valid'")
    seen = look_at_class(find_hand_ins(str(tmp_path)))
    assert [bool(one.problems) for one in seen.students] == [False, True, False]
    assert list(seen.questions[0].effects) == ["ada", "cleo"]
    assert "  ben: " in str(ClassShown(seen))


def test_records_after_the_deadline_are_late(folder: Path) -> None:
    hand_in = HandIn("ada", str(folder / "ada"))
    for hours, late in ((-1, 6), (1, 0)):  # a prediction, four runs, a verdict
        deadline = datetime.now(UTC) + timedelta(hours=hours)
        (student,) = look_at_class([hand_in], deadline=deadline).students
        assert student.late == late


def test_the_table_for_a_learning_platform_has_counts_and_flags(found: Classroom) -> None:
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(to_csv(found)))}
    assert list(rows) == ["ada", "ben", "cleo", "dana", "eve", "frank", "grace", "heidi", "ivan"]
    assert rows["ada"]["intact"] == "yes" and rows["ada"]["shares_with"] == "dana"
    assert rows["frank"]["intact"] == "no" and rows["ivan"]["handed_in"] == "no"
    assert rows["ben"]["predictions"] == "1" and rows["ben"]["empty_reflections"] == "1"
    assert len(rows["ben"]["head"]) == 64


def test_a_hundred_owners_take_less_than_two_hundred_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, tmp_path)
    crowd(connect(), [f"student-{i:03}" for i in range(100)], {"0.5": "supported"})
    monkeypatch.setenv("COLUMNS", "80")
    text = str(ClassShown(look_at_class([HandIn("all", str(tmp_path / "mlflow.db"))])))
    assert len(text.splitlines()) < 200 and text.count("\nstudent-") == 100
    assert max(len(line) for line in text.splitlines() if line.startswith("student-")) <= 80


def test_the_command_prints_the_table_and_writes_it(folder: Path, tmp_path: Path, here: Cnnlab) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text("name\nada\nivan\n", encoding="utf-8")
    options = ["--roster", str(roster), "--deadline", "2020-01-01", "--csv", str(tmp_path / "out.csv")]
    done = here("class", str(folder), *options, "--html", str(tmp_path / "class.html"))
    assert done.returncode == 0, done.stderr
    assert "Missing from the roster: ivan." in done.stdout
    assert "ada and dana: run ids (5), " in done.stdout
    assert "ivan" in (tmp_path / "out.csv").read_text(encoding="utf-8")
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 9 and "<svg" in page and "ada and dana" in page


def test_a_folder_without_hand_ins_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no folder"):
        find_hand_ins(str(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("to do")
    with pytest.raises(LabError, match="holds nothing to read"):
        find_hand_ins(str(tmp_path))
