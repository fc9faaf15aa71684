"""The report is one page from the records and the student's own words, and not before those are there."""

import re
from pathlib import Path

import pytest

from cnnlab.config import Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.logbook import logbook_file
from cnnlab.inquiry.show.page import count_pages, find_browser
from cnnlab.inquiry.show.report import report
from cnnlab.inquiry.study import Study
from tests.helpers import small_study

WORDS = {"because": "only the random numbers differ", "if_refuted": "something else differs too"}


@pytest.fixture
def confronted(home: Path, small: Config, small_data: Data) -> Study:
    """A study with two verdicts in the journal, about which nothing was written yet."""
    arms = {"A": small, "A again": replace(small, seed=1000)}
    study = small_study("tiny-01-baseline", "How much is chance?", small, (0, 1), arms=arms)
    for metric in ("accuracy/valid", "loss/valid"):
        predict(study, arm="A again", metric=metric, direction="none", confidence=70, **WORDS)
    study.run(connect(), progress=False)
    confront(study)
    return study


def test_there_is_no_report_before_there_are_verdicts(home: Path) -> None:
    with pytest.raises(LabError, match="nothing to report yet: predict, run a study, and confront it"):
        report(connect())


def test_an_empty_why_is_named_and_the_words_of_the_student_are_on_the_page(confronted: Study, said: list[str]) -> None:
    store, journal = connect(), logbook_file(confronted.name)
    with pytest.raises(LabError, match=r"2 verdicts without your reflection \(A again .* in tiny-01-baseline"):
        report(store)
    written = iter(["Größer als <ich> dachte: | chance.", "Only two seeds."])
    text = re.sub(
        r"(<!-- why \S+ -->\n)\n", lambda field: f"{field[1]}{next(written)}\n", journal.read_text(encoding="utf-8")
    )
    journal.write_text(text, encoding="utf-8")
    said.clear()
    page = report(store)
    html = page.read_text(encoding="utf-8")
    for words in ("report of a student", "Größer als &lt;ich&gt; dachte: | chance.", "Only two seeds."):
        assert words in html
    assert "A again against A: accuracy/valid differs by less than 0.3 pp (70 %)" in html
    assert "A again against A: loss/valid differs by less than 0.01 nats (70 %)" in html
    assert "http" not in re.sub(r"data:[^\"]*", "", html.split("<body>")[1])
    assert page.with_suffix(".md").exists()
    if find_browser():
        assert count_pages(page.with_suffix(".pdf")) == 1
        assert any(line.endswith(".pdf") for line in said)
        journal.write_text(
            journal.read_text(encoding="utf-8").replace("Only two", "Only two " * 2000), encoding="utf-8"
        )
        report(store)
        assert "pages, and one is asked for" in said[-1]
