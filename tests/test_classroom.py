"""What a class handed in: every student has a line, copies are found, and honest students are not."""

import csv
import io
import json
import re
import shutil
import sqlite3
import textwrap
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path

import numpy as np
import pytest

from cnnlab.config import BASE, replace
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import calibrate_records
from cnnlab.inquiry.judge.classroom import Classroom, Student, answers, class_effect, find_copies, look_at_class
from cnnlab.inquiry.judge.reference import Reference
from cnnlab.inquiry.judge.review import Contents, review_contents
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.params import ConfigError
from cnnlab.inquiry.paths import database
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record import hand_ins
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.hand_ins import HandIn, find_hand_ins
from cnnlab.inquiry.record.heads import heads
from cnnlab.inquiry.record.ledger import VERDICT, load_records
from cnnlab.inquiry.record.received import load_received
from cnnlab.inquiry.record.runs import load_raw
from cnnlab.inquiry.record.seal import seal_record, seal_run
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.seeds import my_seeds
from cnnlab.inquiry.show.classroom import ClassShown, plot_question, short_names, to_csv
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.logbook import reflect
from cnnlab.inquiry.show.style import LabFigure, svg
from tests.helpers import Cnnlab, crowd, predicted, record_of, settle, small_study, spare_figures

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
    return look_at_class(find_hand_ins(str(folder)), {name: {} for name in (*HONEST, "eve", "ivan")})


def test_every_student_has_a_line(found: Classroom) -> None:
    readable = {one.name: one for one in found.students if not one.unreadable}
    assert sorted(readable) == ["ada", "ben", "cleo", "dana", "eve"]
    for one in readable.values():
        assert one.problems == [], one.name
        assert len(one.records) == 1 and one.outcomes.total() == 1 and one.head
    assert readable["ada"].empty == 0 and readable["ben"].empty == 1
    text = str(ClassShown(found))
    assert "5 students handed in, and the records of 5 are intact. 3 hand-ins can't be read." in text
    assert "Nothing from: ivan. Not in the roster: dana, frank, grace and heidi." in text


def test_what_cant_be_read_has_a_sentence(found: Classroom, folder: Path) -> None:
    said = {one.name: one.unreadable for one in found.students if one.unreadable}
    assert said["frank"] == "it has no mlflow.db: ask for the whole folder of the lab."
    assert said["grace"] == "grace.zip has a file that would be put elsewhere (../../escaped.txt): it wasn't read."
    again = "ask for it again, as a zip of the whole folder."
    assert said["heidi"] == f"heidi.db can't be read as an MLflow store (file is not a database): {again}"
    assert not list(folder.parent.parent.rglob("escaped.txt"))


def test_a_zip_that_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_ins, "LARGEST", 10_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mlflow.db", bytes(20_000_000))
    (student,) = look_at_class(find_hand_ins(str(tmp_path))).students
    assert student.unreadable.startswith("bomb.zip unpacks to more than")


def test_a_copied_folder_is_found_and_honest_students_are_not(found: Classroom) -> None:
    (pair,) = found.copies
    assert [one.name for one in pair.students] == ["ada", "dana"]
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
    text, rows = str(ClassShown(found)), list(csv.DictReader(io.StringIO(to_csv(found))))
    assert (
        "ben (ben) and ben (somebody) share run ids (5), " in text and "ben (somebody)</td>" in ClassShown(found).page()
    )
    assert [row["shares_with"] for row in rows] == ["", "ben (somebody)", "ben (ben)"]
    (question,) = found.questions
    assert question.seeds == (4, 4) and all(one.is_intact for one in found.students)  # ben counts once, here
    assert "2 students handed in, and the records of 2 are intact." in text and len(found.calibration.table) == 2


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
    assert rows["frank"]["predictions"] == rows["frank"]["withheld"] == rows["frank"]["records"] == ""
    assert rows["ben"]["predictions"] == "1" and rows["ben"]["empty_reflections"] == "1"
    assert rows["ben"]["confirmatory"] == rows["ben"]["not_withheld"] == "1" and rows["ben"]["late_records"] == ""
    assert rows["ben"]["last_said_utc"].endswith("+00:00") and rows["ben"]["last_received_utc"] == ""
    assert len(rows["ben"]["head"]) == 64
    assert [rows[name]["in_roster"] for name in ("ada", "dana", "frank", "ivan")] == ["yes", "no", "no", "yes"]


def test_ids_and_addresses_of_the_roster_are_carried_over(found: Classroom) -> None:
    roster = {"ada": {"name": "ada", "email": "a@x.org", "head": "of the table"}, "ivan": {"name": "ivan", "id": "7"}}
    rows = list(csv.DictReader(io.StringIO(to_csv(with_changes(found, roster=roster)))))
    known = {row["student"]: (row["id"], row["email"], row["head"][:6]) for row in rows}
    assert known["ada"][:2] == ("", "a@x.org") and len(known["ada"][2]) == 6 and known["ivan"] == ("7", "", "")
    assert "id" not in to_csv(found).partition("\n")[0].split(",")


def test_the_heads_are_on_the_page_and_a_line_of_the_terminal_has_no_room_for_them(found: Classroom) -> None:
    head = found.students[0].head
    assert head and head.sha256[:12] in ClassShown(found).page() and head.sha256[:12] not in str(ClassShown(found))


def lines_at(text: str, width: int = 80) -> int:
    """The number of lines that a terminal of this width needs."""
    return sum(len(textwrap.wrap(line, width)) or 1 for line in text.splitlines())


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> HandIn:
    """A store of a hundred owners with long names."""
    home = tmp_path_factory.mktemp("hundred")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, home)
        crowd(connect(), [f"Student Number {i:03} Longsurname" for i in range(100)], {"0.5": "supported"})
    return HandIn("all", str(home / "mlflow.db"))


@pytest.fixture(scope="module")
def hundred(crowded: HandIn) -> Classroom:
    return look_at_class([crowded])


def test_a_hundred_owners_are_read_and_shown_within_a_minute(crowded: HandIn) -> None:
    begin = time.monotonic()
    shown = ClassShown(look_at_class([crowded]))
    assert str(shown) and shown.page() and time.monotonic() - begin < 60


def test_a_hundred_long_names_take_less_than_two_hundred_lines(
    hundred: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for one in hundred.students:
        one.problems = [f"prediction 0123456789ab of {one.name}: {'something is wrong with it ' * 20}"]
    text = str(ClassShown(with_changes(hundred, roster={f"absent {i}": {} for i in range(100)})))
    rows = re.findall(r"^Student\sNumber\s\d{3}.*$", text, re.MULTILINE)
    assert len({row[:20] for row in rows}) == 100 and max(map(len, rows)) <= 80
    assert lines_at(text) < 165 and "90 more: on the page (--html)" in text  # without copies and questions
    assert "Nothing from: absent 0, absent 1, absent 2, absent 3, absent 4 and 95 more." in text


def test_thirty_who_handed_in_one_store_take_less_than_two_hundred_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (ben,) = look_at_class([HandIn("ben", str(folder / "ben"))]).students
    for same_owner in (True, False):
        names = [f"Student Number {i:03} Longsurname" for i in range(30)]
        copies = [with_changes(ben, name="ben" if same_owner else name, hand_in=name) for name in names]
        text = str(ClassShown(Classroom(copies)))
        assert lines_at(text) < 200 and text.count(" and 28 more share run ids (5), ") == 1


def test_a_class_of_groups_that_handed_in_one_store_each_is_cut(hundred: Classroom) -> None:
    thirty = hundred.students[:30]
    text = str(ClassShown(Classroom([with_changes(one, hand_in=f"of {i}") for i in range(30) for one in thirty])))
    assert lines_at(text) < 200 and "800 more rows: on the page (--html) and in the CSV (--csv)." in text
    assert "30 students handed in" in text


def test_names_that_are_cut_alike_stay_distinct() -> None:
    names = ["ada", *(f"a name that is far too long {i}" for i in range(12)), "another long name, of ben"]
    short = short_names(names, 14)
    assert len(set(short)) == len(names) and max(map(len, short)) == 14 and short[0] == "ada"


def test_the_command_prints_the_table_and_writes_it(folder: Path, tmp_path: Path, here: Cnnlab) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text("name\nada\nivan\n", encoding="utf-8")
    options = ["--roster", str(roster), "--deadline", "2020-01-01", "--csv", str(tmp_path / "out.csv")]
    done = here("class", str(folder), *options, "--html", str(tmp_path / "class.html"))
    assert done.returncode == 0, done.stderr
    assert "Nothing from: ivan. Not in the roster: ben, cleo, dana, eve, frank and 2 more." in done.stdout
    assert "ada and dana share run ids (5), " in done.stdout
    assert "last: the time that the last record gives, UTC; late: records after 2020-01-01 23:59:59 " in done.stdout
    assert "ivan" in (tmp_path / "out.csv").read_text(encoding="utf-8")
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 9 and "<svg" in page and "ada and dana" in page


def test_a_folder_without_hand_ins_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no folder"):
        find_hand_ins(str(tmp_path / "nowhere"))
    for name in ("README.txt", "roster.csv", ".DS_Store"):
        (tmp_path / name).write_text("to do")
    with pytest.raises(LabError, match="holds nothing to read"):
        find_hand_ins(str(tmp_path))


@pytest.mark.parametrize("name", ["ada.tar.gz", "ada.7z", "ada.rar", "ada.pdf", "ada"])
def test_what_can_be_no_hand_in_has_a_line_that_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("something")
    (student,) = look_at_class(find_hand_ins(str(tmp_path)), {"ada": {}}).students
    assert student.name == "ada" and student.unreadable == "not a zip, folder or database: ask for a zip."


def test_the_folders_of_a_learning_platform_are_read(folder: Path, tmp_path: Path) -> None:
    for name in ("Ada L_1_file", "Ben_2_file", "Cleo_3_file", "Dana_4_file"):
        (tmp_path / name).mkdir()
    shutil.make_archive(str(tmp_path / "Ada L_1_file" / "my lab"), "zip", folder, "ada")
    shutil.copyfile(folder / "ben" / "mlflow.db", tmp_path / "Ben_2_file" / "ben.sqlite")
    shutil.copytree(folder / "cleo", tmp_path / "Cleo_3_file" / "lab")
    for name in ("one", "two"):
        shutil.copytree(folder / "dana", tmp_path / "Dana_4_file" / name)
    students = look_at_class(find_hand_ins(str(tmp_path))).students
    assert [one.name for one in students] == ["ada", "ben", "cleo", "Dana_4_file"]
    assert [(one.is_intact, one.has_files) for one in students[:3]] == [(True, True), (True, False), (True, True)]
    said = "it has 2 stores, such as one/mlflow.db and two/mlflow.db: ask which of them counts."
    assert students[3].unreadable == said


def test_a_zip_of_zips_is_not_unpacked_any_deeper(folder: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "inner" / "ada"), "zip", folder, "ada")
    shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "inner")
    (student,) = look_at_class(find_hand_ins(str(tmp_path / "outer.zip"))).students
    assert student.unreadable == "it has no mlflow.db: ask for the whole folder of the lab."


@pytest.mark.parametrize("what", ["eve.zip", "ben/mlflow.db", "ada"])
def test_one_hand_in_can_be_named(folder: Path, what: str) -> None:
    (student,) = look_at_class(find_hand_ins(str(folder / what))).students
    assert student.is_intact and student.records


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_has_a_sentence(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "ada.zip", "w", method) as archive:
        archive.writestr("mlflow.db", bytes(range(256)) * 1000)
    content = (tmp_path / "ada.zip").read_bytes()
    (tmp_path / "ada.zip").write_bytes(content[:50] + bytes(200) + content[250:])
    (tmp_path / "ben.zip").write_bytes(content.replace(b"mlflow.db", b"mlflow\0db"))
    for student in look_at_class(find_hand_ins(str(tmp_path))).students:
        assert student.unreadable.startswith((f"{student.name}.zip can't be unpacked (", "it has no mlflow.db")), (
            student
        )


def test_sentences_for_the_owner_of_a_store_dont_reach_the_instructor(folder: Path, tmp_path: Path) -> None:
    for name, statement in (
        ("newer", "UPDATE alembic_version SET version_num = 'from the future'"),
        ("without", "DROP TABLE experiments"),
        ("empty", "DROP TABLE runs"),
    ):
        shutil.copytree(folder / "ben", tmp_path / name / "ben")
        change(tmp_path / name / "ben" / "mlflow.db", statement)
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name)
        shutil.rmtree(tmp_path / name)
    for student in look_at_class(find_hand_ins(str(tmp_path))).students:
        assert student.unreadable.endswith(": ask for it again, as a zip of the whole folder.")
        assert not re.search("cnnlab-|/tmp|Restore|Nothing is lost|doctor", student.unreadable), student.unreadable


def change(file: Path, statement: str, *values: object) -> None:
    """Change a database behind MLflow's back."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement, values)


# What a student, or a damaged disk, may write where a number, a time or a text belongs.
NONSENSE = ["abc", "", "2026-11-29T10:00:00", "1e999", "nan", "[]", "{[]: 1}", "-1", "9" * 30, "$a$\\foo$b", "(" * 2000]
COLUMNS = {
    "runs": ["start_time", "end_time", "status", "name", "artifact_uri", "lifecycle_stage"],
    "latest_metrics": ["value", "is_nan"],
    "experiments": ["name"],
}
NUMBERS = [2**62, -(2**62), None, "abc", 1]


def changes(file: Path) -> Iterator[tuple[str, object, object]]:
    """Every key of a store, each with a kind of nonsense, as a statement with its values; then the columns."""
    number = 0
    with closing(sqlite3.connect(file)) as connection:
        for table in ("params", "tags"):
            for (key,) in connection.execute(f"SELECT DISTINCT key FROM {table} ORDER BY key"):
                number += 1
                yield f"UPDATE {table} SET value = ? WHERE key = ?", NONSENSE[number % len(NONSENSE)], key
    for table, names in COLUMNS.items():
        for name in names:
            number += 1
            yield f"UPDATE OR IGNORE {table} SET {name} = ? WHERE ?", NUMBERS[number % len(NUMBERS)], 1


NAMED = [  # that made the table of the whole class impossible
    ("params", "abc", "seed"),
    ("params", "abc", "confidence"),
    ("params", "nan", "confidence"),
    ("params", "2026-11-29T10:00:00", "time"),
    ("params", "2026-11-29T10:00:00", "verdict_1_time"),
    ("tags", "2026-11-29T10:00:00", "lab.arrived"),
]


def test_whatever_is_wrong_with_one_hand_in_the_others_are_shown(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "ben" / "mlflow.db"
    shutil.copytree(folder / "ben", tmp_path / "ben")
    whole = store.read_bytes()
    (ada,) = look_at_class([HandIn("ada", str(folder / "ada"))]).students
    alone = outputs(Classroom([ada]))
    named = [(f"UPDATE {table} SET value = ? WHERE key = ?", value, key) for table, value, key in NAMED]
    named.append(("UPDATE runs SET start_time = ? WHERE ?", 2**62, 1))
    tried = [*named, *changes(store)]
    assert len(tried) > 100
    for statement, *values in tried:
        store.write_bytes(whole)
        change(store, statement, *values)
        students = look_at_class([HandIn("ben", str(tmp_path / "ben"))]).students
        assert outputs(Classroom([ada, *students])) == alone, (statement, values)


def test_an_effect_that_is_none_is_a_problem_also_if_it_is_sealed(folder: Path) -> None:
    with snapshot(str(folder / "ben")) as store:
        contents = Contents.read(store)
    (record,) = contents.records
    (last,) = record.verdicts
    for field, value in (("low", "99"), ("high", "1e999"), ("estimate", "nan"), ("runs_1", "")):
        verdict = with_changes(last, content=last.content | {field: value})
        student = Student("ben", "ben", records=[with_changes(record, verdicts=(verdict,))])
        student.runs = {run.run_id: run for run in contents.runs}
        (answer,) = answers(student).values()
        assert answer.by_seed == {} and student.problems == [
            "The effect in its verdict on tiny-class, dropout=0.5 against dropout=0.0 can't be read."
        ]


@pytest.mark.parametrize("weights", [[], {"dropout=0.0": "x", "dropout=0.5": 1}, {"dropout=0.0": None}])
def test_a_prediction_with_weights_that_are_no_numbers_cant_be_read(folder: Path, weights: object) -> None:
    """What asks the same as another student's would else be compared with the reference runs."""
    with snapshot(str(folder / "ben")) as store:
        (record,) = load_records(store)
    design = json.dumps(json.loads(record.content["design"]) | {"weights": weights})
    with pytest.raises(ConfigError, match="not the contrast of a prediction of this lab"):
        Prediction.from_record(with_changes(record, content=record.content | {"design": design}))


def outputs(found: Classroom) -> list[str]:
    """Ada's lines in the table, the CSV and the page of a class."""
    shown = ClassShown(found)
    page = next(line for line in shown.page().splitlines() if "<td>ada</td>" in line)
    lines = [line for text in (str(shown), to_csv(found)) for line in text.splitlines() if re.match(r"ada[\s,]", line)]
    return [re.sub(r"\s+", " ", line).strip() for line in (*lines, page)]


def test_a_time_without_a_time_zone_is_utc_and_nonsense_is_no_time(folder: Path) -> None:
    with snapshot(str(folder / "ben")) as store:
        contents = Contents.read(store)
        (record,) = contents.records
        said = record.content["time"]
        for text, first in ((said.removesuffix("+00:00"), record.time), ("0001-01-01T00:00+14:00", None)):
            changed = with_changes(record, content=record.content | {"time": text})
            assert heads("ben", [changed], [])[0].time == (first or datetime(1970, 1, 1, tzinfo=UTC))
        far = with_changes(contents, runs=[with_changes(run, started=2**62) for run in contents.runs])
        assert "9999-" in str(review_contents(far, store, None, {}).timeline["time"].tolist())


def test_what_cant_be_read_is_left_out_of_the_calibration() -> None:
    last = {"label": "confirmatory", "outcome": "supported"}
    good = record_of("dropout=0.5 against dropout=0.0", {}, last)
    bad = [record_of("x", {"confidence": text}, last) for text in ("abc", "nan", "1e999", "")]
    bad += [record_of("x", {}, {}), record_of("x", {"sesoi": "0"}, last)]
    assert len(calibrate_records([good, *bad]).table) == 2  # the last one has no score, but a verdict
    assert calibrate_records([good, *bad]).brier == pytest.approx(0.25**2)


def test_a_run_without_an_owner_makes_no_student(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ben", tmp_path / "ben")
    store = tmp_path / "ben" / "mlflow.db"
    of_runs = "run_uuid IN (SELECT run_uuid FROM latest_metrics)"
    change(store, f"DELETE FROM tags WHERE key IN ('owner', 'mlflow.user') AND {of_runs}")
    assert [one.name for one in look_at_class(find_hand_ins(str(tmp_path))).students] == ["ben"]


def test_a_run_that_the_server_received_before_it_began_or_was_predicted_is_named(folder: Path) -> None:
    with snapshot(str(folder / "ben")) as store:
        contents = Contents.read(store)
        times = {(run.run_id, "run"): float(run.started) for run in contents.runs}
        assert review_contents(contents, store, None, times).problems == []
        late = {(run.run_id, "run"): run.started + 3_600_000.0 for run in contents.runs if run.kind == "run"}
        assert review_contents(contents, store, None, times | late).problems == []  # the spool kept them
        first = next(run for run in contents.runs if run.kind == "run")
        early = times | {(first.run_id, "run"): first.started - 3_600_000.0}
        began, predicted = review_contents(contents, store, None, early).problems
    assert began.startswith(f"{first.label}: it says that it began ") and "and the server received it " in began
    assert predicted.startswith(f"{first.label}: the server received it ") and ", and its prediction only " in predicted


def test_a_database_that_isnt_postgresql_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match="'sqlite' isn't PostgreSQL, and no other database has the table cnnlab_received"
    ):
        load_received(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_what_cant_be_written_is_said_before_the_work(tmp_path: Path, here: Cnnlab) -> None:
    nowhere = tmp_path / "nowhere" / "x"
    for option, file in (("--csv", nowhere), ("--html", nowhere), ("--html", tmp_path)):
        done = here("class", str(tmp_path / "not even a folder"), option, str(file))
        assert done.returncode == 2 and f"{file} can't be written: give a file in a folder that exists" in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2026-12-01", datetime(2026, 12, 1, 23, 59, 59).astimezone()),
        ("2026-12-01 18:00", datetime(2026, 12, 1, 18).astimezone()),
        ("2026-12-01T18:00:30", datetime(2026, 12, 1, 18, 0, 30).astimezone()),
        ("2026-12-01T18:00+05:00", datetime(2026, 12, 1, 13, tzinfo=UTC)),
        ("2026-12-01T18:00Z", datetime(2026, 12, 1, 18, tzinfo=UTC)),
    ],
)
def test_a_deadline_is_local_time_and_a_date_lasts_until_its_end(
    folder: Path, here: Cnnlab, given: str, meant: datetime
) -> None:
    done = here("class", str(folder / "ben"), "--deadline", given)
    assert done.returncode == 0 and f"late: records after {meant.astimezone():%Y-%m-%d %H:%M:%S %z}." in done.stdout


def test_a_deadline_that_is_no_time_gets_a_sentence(folder: Path, here: Cnnlab) -> None:
    for given in ("tomorrow", "2026-13-01"):
        done = here("class", str(folder / "ben"), "--deadline", given)
        assert done.returncode == 2 and f"{given!r} is no time: give one such as 2026-12-01" in done.stderr


def test_names_in_figures_are_no_formulas(found: Classroom) -> None:
    name = "a$\\foo$b"
    (question,) = found.questions
    one = with_changes(question.first, study=name)
    strange = with_changes(
        question,
        first=one,
        effects={name: question.effects["ada"], "ben": question.effects["ben"]},
        predictions={name: question.predictions["ada"], "ben": question.predictions["ben"]},
    )
    drawn = svg(plot_question(strange, None))
    assert drawn.count(name) >= 2  # the row and the title
    figure = LabFigure()
    axes = figure.subplots()
    axes.bar([name], [1], label=name)
    axes.set(title=name, xlabel=name, xticks=[0])
    axes.legend()
    assert svg(figure).count(name) >= 3


def test_the_figure_of_the_class_has_the_interval_of_the_reference(found: Classroom) -> None:
    (question,) = found.questions
    figure = plot_question(question, Reference(Effect(1.5, 1.25, 1.75, nan, 5, ()), "50 epochs"))
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*question.effects, "class", "reference runs"]
    intervals = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert [[1.25, len(labels) - 1], [1.75, len(labels) - 1]] in [segment.tolist() for segment in intervals]


def test_the_share_of_confirmatory_verdicts_leaves_out_those_that_are_withheld() -> None:
    labels = [("supported", "confirmatory"), ("refuted", "exploratory"), ("withheld", "confirmatory")]
    records = [record_of("x", {}, {"outcome": outcome, "label": label}) for outcome, label in labels]
    student = Student("ada", "ada", records=[*records, with_changes(records[0], verdicts=())])
    assert student.confirmatory == (1, 2) and " 1/2 " in str(ClassShown(Classroom([student])))
