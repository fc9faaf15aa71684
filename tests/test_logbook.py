"""The logbook only grows, a student's words stay in it, and figures are stored with the prediction."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cnnlab.config import BASE, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import calibrate_records
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import empty_reflections, entries, reflected
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.confront import Confrontation, confront
from cnnlab.inquiry.show.effects import plot_calibration, plot_effects, plot_interaction
from cnnlab.inquiry.show.logbook import logbook_file, reflect
from tests.helpers import settle, small_study, spare_figures

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
ARMS = {
    "none": SMALL,
    "some": replace(SMALL, dropout=0.3),
    "much": replace(SMALL, dropout=0.5),
    "norm": replace(SMALL, norm="batch"),
    "both": replace(SMALL, dropout=0.5, norm="batch"),
}
STUDY = small_study("it's my study, übung", "What do dropout and norm change?", SMALL, (0, 1), arms=ARMS)
WORDS = {"confidence": 70, "because": "a mechanism,\nin two lines", "if_refuted": "it is not so"}
WHY = "Größere Schritte | *weniger* Rauschen.\n\n- Punkt eins\n- `code`, and <b>HTML</b>\n\n![x](y.png)"
NEXT = "Mehr Seeds: 10 → 20."


class Story(NamedTuple):
    """The texts after each step of a story."""

    store: Store
    waiting: Confrontation
    first: Confrontation
    fresh: str  # the logbook after the first verdicts
    note: str  # of the experiment at that time
    written: str  # the logbook with the student's words
    again: str  # the logbook after confronting once more
    note_after_rerun: str
    more: Confrontation  # with more seeds
    grown: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, tmp_path_factory.mktemp("my lab"))
        store = connect()
        changes = {"dropout": 0.5, "norm": "batch"}
        predict(STUDY, interaction=changes, metric="loss/valid", direction="additive", sesoi=0.03, **WORDS)
        predict(STUDY, trend="dropout", metric="accuracy/valid", direction="lower", size=(1, 30), **WORDS)
        predict(STUDY, arm="much", metric="gap/train_mode", direction="lower", size=(0.01, 2), **WORDS)
        predict(STUDY, arm="norm", metric="variance_ratio", direction="none", **WORDS)  # not measured in the control
        waiting = confront(STUDY, store)
        STUDY.run(store, progress=False)
        first = confront(STUDY, store, "2.1")
        fresh, note = text(), note_of(store)
        write(fresh)
        written = text()
        confront(STUDY, store)
        again = text()
        STUDY.run(store, progress=False)
        note_after_rerun = note_of(store)
        longer = dataclasses.replace(STUDY, seeds=(0, 1, 2))
        longer.run(store, progress=False)
        more = confront(longer, store)
        yield Story(store, waiting, first, fresh, note, written, again, note_after_rerun, more, text())


def text() -> str:
    return logbook_file(STUDY.name).read_text(encoding="utf-8")


def write(fresh: str) -> None:
    """Fill the fields of the first entry, as a student would in an editor."""
    filled = fresh
    for name, words in (("why", WHY), ("next", NEXT)):
        before, mark, rest = filled.partition(f"<!-- {name} ")
        number, end, after = rest.partition(" -->\n")
        filled = f"{before}{mark}{number}{end}{words}{after}"
    logbook_file(STUDY.name).write_text(filled, encoding="utf-8")


def note_of(store: Store) -> str:
    return str(store.client.get_experiment_by_name(STUDY.name).tags["mlflow.note.content"])


def test_before_the_runs_nothing_is_written(story: Story) -> None:
    assert [one.outcome for one in story.waiting] == ["waiting"] * 4
    assert story.waiting.logbook is None
    assert set(story.waiting.figures) == {"effects"}
    assert "Your reflection" not in str(story.waiting)


def test_an_entry_has_prediction_plan_runs_figure_and_verdict(story: Story) -> None:
    assert story.fresh.startswith(f"# {STUDY.name}\n\n{STUDY.question}\n")
    assert story.fresh.count("\n## ") == 4
    assert "> interaction of dropout=0.5 and norm=batch: I am " in story.fresh
    assert "> Because: a mechanism,\n>\n> in two lines\n" in story.fresh
    assert "| much | dropout: 0.0 -> 0.5 | seeds [0](http://127.0.0.1:" in story.fresh
    for one in story.first:
        assert f"**Verdict 1: {one.headline()}**" in story.fresh
    folder = logbook_file(STUDY.name).parent
    pictures = [line.split("(")[1].rstrip(")") for line in story.fresh.splitlines() if line.startswith("![Effect")]
    assert len(set(pictures)) == 4
    for picture in pictures:
        assert " " not in picture  # Markdown would show no picture
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert str(folder) not in story.fresh


def test_a_name_that_cannot_be_a_file_name_is_changed(story: Story) -> None:
    assert logbook_file(STUDY.name).name == "it-s-my-study-übung.md"
    assert logbook_file("tiny-02-dropout").name == "tiny-02-dropout.md"


def test_what_a_student_wrote_stays_and_nothing_is_written_twice(story: Story) -> None:
    assert story.written != story.fresh
    assert story.again == story.written
    assert story.grown.startswith(story.written)


def test_more_seeds_are_a_new_verdict_and_a_new_entry(story: Story) -> None:
    assert story.grown.count("\n## ") == 8
    assert story.grown.count("**Verdict 2: ") == 4
    assert "exploratory" in story.grown[len(story.written) :]
    assert {one.effect.n for one in story.more if one.effect} == {3}
    assert [len(record.verdicts) for record in load_records(story.store)] == [2] * 4


def test_a_students_words_are_read_back(story: Story) -> None:
    record = load_records(story.store)[0]
    found = entries()
    assert len(found) == 8
    assert (found[f"{record.sha256[:12]}-1"].why, found[f"{record.sha256[:12]}-1"].next) == (WHY, NEXT)
    assert found[f"{record.sha256[:12]}-2"].why == ""
    assert found[f"{record.sha256[:12]}-1"].file == logbook_file(STUDY.name)


@pytest.fixture
def journal(story: Story) -> Iterator[Path]:
    """The logbook after the first verdicts, with a student's words in its first entry; put back afterwards."""
    file = logbook_file(STUDY.name)
    file.write_bytes(story.written.replace("\n", "\r\n").encode("utf-8-sig"))
    yield file
    file.write_text(story.grown, encoding="utf-8", newline="\n")


def test_a_reflection_from_the_notebook_counts_for_all_verdicts_of_the_study(story: Story, journal: Path) -> None:
    found = list(entries().values())
    assert empty_reflections(journal.parent) == [f"{journal.name} (3)"]
    for _ in range(2):  # the second time changes nothing
        reflect(STUDY, why="The last one, with <!-- end --> in it.", next="More seeds than two.", store=story.store)
        read = list(entries().values())
        assert [one.why for one in read] == [found[0].why, "", "", "The last one, with &lt;!-- end --> in it."]
        assert read[0] == found[0] and read[-1].next == "More seeds than two."
        assert empty_reflections(journal.parent) == []
    assert set(reflected(read)) == {one.id for one in read}
    assert {entry.id for entry in reflected(read).values()} == {read[0].id, read[-1].id}
    reflect(STUDY, why="On second thought, it was chance.", store=story.store)
    assert list(entries().values())[-1].why.endswith("in it.\n\nOn second thought, it was chance.")


def test_a_blank_or_early_reflection_is_refused_in_a_sentence(story: Story, journal: Path) -> None:
    open_field: Any = ...
    for call, sentence in (
        ({"why": open_field, "next": open_field}, "still open: why, next"),
        ({"why": "chance"}, "why='chance' is too short"),
    ):
        with pytest.raises(LabError, match=sentence):
            reflect(STUDY, store=story.store, **call)
    journal.write_bytes(story.fresh.encode("cp1252"))
    with pytest.raises(LabError, match="isn't in UTF-8"):
        reflect(STUDY, why="it was all chance", store=story.store)
    journal.unlink()
    with pytest.raises(LabError, match="no verdict on it's my study, übung to reflect on yet"):
        reflect(STUDY, why="it was all chance", store=story.store)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_words_from_any_editor_are_read(tmp_path: Path, story: Story, encoding: str) -> None:
    file = tmp_path / "x.md"
    file.write_bytes(story.written.replace("\n", "\r\n").encode(encoding))
    assert next(iter(entries(tmp_path).values())).why == WHY
    file.write_bytes(story.written.encode("cp1252", errors="replace"))  # from an editor without UTF-8
    assert next(iter(entries(tmp_path).values())).why.endswith("![x](y.png)")


def test_a_deleted_end_mark_costs_only_its_own_field(tmp_path: Path, story: Story) -> None:
    (tmp_path / "x.md").write_text(story.written.replace("<!-- end -->", "", 1), encoding="utf-8")
    found = entries(tmp_path)
    assert len(found) == 4
    first = next(iter(found.values()))
    assert first.why.startswith(WHY)
    assert first.next == NEXT


def test_the_experiments_note_has_question_and_verdicts_and_keeps_them(story: Story) -> None:
    assert story.note.startswith("1 of 4 predictions supported, 2 inconclusive, 1 withheld. " + STUDY.question)
    for one in story.first:
        p = one.prediction
        said = one.headline().replace(f", confirmatory: {p.metric.name}", ":") if one.effect else "withheld: "
        assert f"- {p.contrast.text}, {p.metric.name}: {said}" in story.note
    assert story.note_after_rerun == story.note


def test_figures_are_artifacts_of_the_prediction(story: Story) -> None:
    names = []
    for record in load_records(story.store):
        names.append({file.path for file in story.store.client.list_artifacts(record.run_id, "figures")})
    assert names == [{"figures/effect.png", "figures/interaction.png"}, *[{"figures/effect.png"}] * 3]


def test_figures_render_for_every_kind_of_verdict(story: Story, tmp_path: Path) -> None:
    interaction, trend, arm, withheld = story.first
    assert interaction.effect and trend.effect and arm.effect
    assert withheld.outcome == "withheld" and withheld.effect is None
    outcomes = ("supported", "refuted", "practically equivalent", "inconclusive")
    figures = {
        "all": plot_effects(list(story.first), "2.1"),
        "none": plot_effects([withheld]),
        "nothing": plot_effects([]),
        "interaction": plot_interaction(interaction, "2.2"),
        "calibration": plot_calibration(calibrate_records(load_records(story.store))),
        "no calibration": plot_calibration(calibrate_records([])),
    }
    figures |= {outcome: plot_effects([dataclasses.replace(arm, outcome=outcome)]) for outcome in outcomes}
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    assert len(figures["all"].axes) == 3
    assert set(story.first.figures) == {"effects", interaction.prediction.contrast.text}


def test_a_verdict_without_numbers_is_withheld_and_on_record_as_what_it_rests_on(story: Story) -> None:
    withheld = list(story.first)[3]
    assert "variance_ratio is missing in 2 runs" in str(withheld) or "was measured in none" in str(withheld)
    content = load_records(story.store)[3].verdicts[0].content
    assert content["outcome"] == "withheld"
    assert content["runs_1"].count("nan") == 2
