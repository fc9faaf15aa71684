"""The report is one page from the records and an annex with the student's own words, which it requires."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlab.cli import cli
from cnnlab.config import Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import Record
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.logbook import logbook_file
from cnnlab.inquiry.show.page import count_pages, find_browser, render_html, write_pdf
from cnnlab.inquiry.show.report import report, summary
from cnnlab.inquiry.study import Study
from tests.golden import copy_what_ships
from tests.helpers import record_of, small_study

SPACE = "\N{NO-BREAK SPACE}"
WORDS = {"because": "only the random numbers differ", "if_refuted": "something else differs too"}


@pytest.fixture
def confronted(home: Path, small: Config, small_data: Data) -> Study:
    """A study with two verdicts in the logbook, without reflections."""
    arms = {"A": small, "A again": replace(small, seed=1000)}
    study = small_study("tiny-01-baseline", "How much is chance?", small, (0, 1), arms=arms)
    for metric in ("accuracy/valid", "loss/valid"):
        predict(study, arm="A again", metric=metric, direction="none", confidence=70, **WORDS)
    study.run(connect(), progress=False)
    confront(study)
    return study


def test_there_is_no_report_before_there_are_verdicts(home: Path) -> None:
    with pytest.raises(LabError, match="nothing to report yet: make a prediction, run the study, and confront it"):
        report(connect())


def test_what_was_predicted_and_waits_for_its_runs_is_named(home: Path, small: Config) -> None:
    study = small_study("tiny-01-baseline", "?", small, (0, 1), arms={"A": small, "again": replace(small, seed=1000)})
    predict(study, arm="again", metric="accuracy/valid", direction="none", confidence=70, **WORDS)
    with pytest.raises(LabError, match="run and confront tiny-01-baseline, which you predicted"):
        report(connect())
    elsewhere = CliRunner().invoke(cli, ["verdict", "--profile", "quick"])
    assert "at this size, but about tiny-01-baseline: give the --profile" in str(elsewhere.exception)


def test_where_a_why_is_missing_is_listed_and_the_words_of_the_student_are_in_the_annex(
    confronted: Study, said: list[str]
) -> None:
    store, logbook = connect(), logbook_file(confronted.name)
    with pytest.raises(LabError) as refused:
        report(store)
    first, what, *places, last = str(refused.value).splitlines()
    assert first == 'there is no report yet: 2 verdicts lack your "why".'
    assert "below its last verdict" in what and 'reflect(study, why="...", next="...")' in last
    assert max(map(len, str(refused.value).splitlines())) <= 80
    lines = logbook.read_text(encoding="utf-8").splitlines()
    for place, metric in zip(places, ("accuracy/valid", "loss/valid"), strict=True):
        found = re.fullmatch(rf"experiment_log/{logbook.name}:(\d+)  A again .*: {metric}", place)
        assert found and lines[int(found[1]) - 1] == ""
        assert lines[int(found[1]) - 2].startswith("<!-- why ")
        lines[int(found[1]) - 1] = f"Größer als <ich> dachte: | {metric}."
    logbook.write_text("\n".join(lines), encoding="utf-8")
    page = report(store)
    html = page.read_text(encoding="utf-8")
    front, annex = html.split("<hr />")
    assert "report of a student" in front and front.count("<li>") == 3 and front.count("<img") == 2
    for metric, m in (("accuracy/valid", "0.3 pp"), ("loss/valid", "0.01 nats")):
        assert f"Größer als &lt;ich&gt; dachte: | {metric}." in annex
        assert f"A again against A: {metric} differs by less than {m.replace(' ', SPACE)} (70{SPACE}%)" in annex
    assert "http" not in re.sub(r"data:[^\"]*", "", html.split("<body>")[1])
    assert page.with_suffix(".md").exists()


def test_a_missing_logbook_is_named(confronted: Study) -> None:
    logbook_file(confronted.name).unlink()
    with pytest.raises(LabError, match=r"experiment_log/tiny-01-baseline.md \(confront it again\)  A again"):
        report(connect())


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium found")
def test_page_one_is_one_page_even_with_many_predictions(
    home: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The reference has more than thirty predictions, and long reflections."""
    copy_what_ships(home)
    monkeypatch.setenv("CNNLAB_OWNER", "reference")
    page = report(connect())
    front, annex = page.with_suffix(".md").read_text(encoding="utf-8").split("\n---\n")
    for part, text in {"front": front, "annex": annex}.items():
        alone = page.with_name(f"{part}.html")
        alone.write_text(render_html(text, part, page.parent), encoding="utf-8")
        write_pdf(alone, alone.with_suffix(".pdf"))
    assert count_pages(page.with_name("front.pdf")) == 1
    pages = count_pages(page.with_name("annex.pdf"))
    assert pages > 1 and count_pages(page.with_suffix(".pdf")) == 1 + pages
    assert said[-1] == f"Report: experiment_log/report-reference.pdf, 1 page and an annex of {pages} pages"


def judged(outcome: str, confidence: int = 75, label: str = "confirmatory") -> Record:
    return record_of(
        f"{outcome} at {confidence}", {"confidence": str(confidence)}, {"outcome": outcome, "label": label}
    )


def test_the_sentences_hold_for_one_prediction_whatever_came_out() -> None:
    refuted = "The most confident wrong prediction is number 1, 75 % sure: {}: loss/valid higher by 0.03 to 0.15. "
    refuted += "It came out {}."
    for outcome, second in (
        ("supported", "No prediction was refuted."),
        ("refuted", refuted.format("refuted at 75", "refuted")),
        ("practically equivalent", refuted.format("practically equivalent at 75", "practically equivalent")),
        ("inconclusive", "No prediction was refuted."),
        ("withheld", "No prediction was refuted."),
    ):
        first, surprise, worth = summary([judged(outcome)])
        assert first == f"Prediction {outcome}." and surprise == second
        is_open = outcome in ("inconclusive", "withheld")
        assert worth.startswith("The confidence can't be judged yet" if is_open else "At a mean confidence of 75 %, ")
    assert worth.endswith("no confirmatory verdict has decided a prediction.")
    first, surprise, worth = summary([judged("refuted", label="exploratory")])
    assert first == "Prediction refuted (1 exploratory)." and surprise.endswith("It came out refuted, exploratory.")
    assert worth.startswith("The confidence can't be judged yet")


def test_the_biggest_surprise_is_the_surest_wrong_one_and_confidence_is_compared_with_the_share() -> None:
    some = [judged("supported", 95), judged("refuted", 60), judged("refuted", 90), judged("refuted", 90)]
    first, surprise, worth = summary([*some, judged("withheld", 99), judged("inconclusive", 98)])
    assert first == "1 of 6 predictions supported, 3 refuted, 1 withheld, 1 inconclusive."
    assert surprise.startswith("The most confident wrong prediction is number 3, 90 % sure: refuted at 90")
    interval = "(95 % interval of the share: 5 to 70 %)"
    came_true = "predictions that a confirmatory verdict decided came true"
    assert worth == f"At a mean confidence of 84 %, 1 of 4 {came_true}: fewer than expected {interval}."
    assert "came true: as expected (" in summary([judged("supported", 80)] * 5)[2]
    assert f"20 of 20 {came_true}: more than expected" in summary([judged("supported", 60)] * 20)[2]
