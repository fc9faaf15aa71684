"""Results are the same in text and in HTML, and nothing in them can be mistaken for HTML."""

import io
import logging
import re
import subprocess
import sys

import pandas as pd
import pytest

from cnnlab.inquiry.log import Collector, log
from cnnlab.inquiry.progress import progress_bar
from cnnlab.inquiry.shown import Details, Head, Part, Quote, Shown
from cnnlab.inquiry.task import find_metric
from cnnlab.terminal import say


class Example(Shown):
    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def parts(self) -> tuple[Part, ...]:
        return self._parts


def test_every_part_is_in_the_text_and_in_the_html() -> None:
    table = pd.DataFrame({"inside": [True, None], "n": [5, 12]}, index=pd.Index(["a", "<b>"], name="arm"))
    shown = Example(
        Quote("I <expect>"), Head("it held"), ["one\nline", "two"], [], table, "", "don't", Details("more", "x")
    )
    assert [" ".join(line.split()) for line in str(shown).splitlines()] == [
        "I <expect>",
        "it held",
        "one",
        "line",
        "two",
        "arm inside n",
        "─" * 15,
        "a True 5",
        "<b> None 12",
        "",
        "don't",
    ]
    html = shown._repr_html_()
    assert (
        "<blockquote>I &lt;expect&gt;</blockquote><p><b>it held</b></p><ul><li>one<br>line</li><li>two</li></ul>"
        in html
    )
    assert '<th><div style="text-align:left">&lt;b&gt;</div></th>' in html
    assert html.endswith("<hr><p>don't</p><details><summary>more</summary><pre>x</pre></details>")
    assert "<details open>" in Example(Details("more", table))._repr_html_()


def test_a_table_without_rows_or_names_is_shown() -> None:
    assert str(Example(pd.DataFrame({"outcome": []}))).splitlines()[0] == "outcome"
    assert str(Example(pd.DataFrame({"outcome": ["refuted"]}))).splitlines()[2].strip() == "refuted"


def test_large_counts_have_commas_and_no_number_is_minus_zero() -> None:
    shown = Example(pd.DataFrame({"parameters": [18_496, 320], "fits": [True, False]}, index=["conv", "head"]))
    for text in (str(shown), shown._repr_html_()):
        assert "18,496" in text and "320" in text and "True" in text
    loss = find_metric("loss/valid")
    assert (loss.say(-0.0001), loss.say(-0.0001, sign=False)) == ("0.000 nats", "0.000 nats")
    assert loss.say_interval(-0.0001, 0.01) == "[0.000, +0.010] nats"


def test_a_table_fits_the_terminal_and_breaks_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = "a long sentence about what came out, of which nothing may be lost " * 2
    table = pd.DataFrame({"effect": [said], "other": [said], "n": [1234567]}, index=["an arm with a long name"])
    text = str(Example(table))
    assert max(map(len, text.splitlines())) <= 80
    assert "1,234,567" in text and text.count("sentence") == 4


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_table_breaks_no_word_that_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    place, said = "conv_dropout_place=before_norm", "conv_dropout_place: after_norm -> before_norm, pool: first -> last"
    table = pd.DataFrame({"differs": [said, "(control)"], "runs": [8, 8], "to train": [0, 8]}, index=[place, "none"])
    lines = str(Example(table)).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    assert all(word in words for word in f"{place} {said} (control) differs runs".split())


def test_a_table_with_too_long_words_still_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = str(Example(pd.DataFrame({"a": ["x" * 70], "b": ["y" * 70], "n": [123456]})))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("x") == text.count("y") == 70 and "123,456" in text


def test_a_bar_of_80_columns_has_room_for_the_arm_and_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = print_to_a_terminal(monkeypatch)
    with progress_bar("02-dropout", 10, "images") as bar:
        bar.update(5)
        bar.set_postfix_str("dropout=0.5, seed 3: loss 0.312, accuracy 88.92 %")
    last = re.sub(r"\|.*\|", "|#|", terminal.getvalue().rstrip().rpartition("\r")[2])  # the bar takes what is left
    assert last.endswith("dropout=0.5, seed 3: loss 0.312, accuracy 88.92 %") and len(last) <= 80


def test_a_collector_gives_each_line_once() -> None:
    collector = Collector()
    for line in ("one", "two"):
        collector.handle(logging.makeLogRecord({"msg": line}))
    assert collector.take() == ("one", "two") and collector.take() == ()


def test_the_lab_can_be_silenced_before_its_first_word() -> None:
    code = "import logging, cnnlab; logging.getLogger('cnnlab').setLevel('WARNING')\n"
    code += "from cnnlab.inquiry.log import log; log.info('a word'); log.warning('a warning')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "", "a warning")
    assert log.level == logging.INFO


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def print_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make this test print to a terminal of 80 columns."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_a_line_and_a_progress_bar_do_not_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = print_to_a_terminal(monkeypatch)
    with progress_bar("a study", 10, "images") as bar:
        log.warning("a line")
        bar.update(5)
    assert re.search(r"left.*\r +\ra line\n\ra study", terminal.getvalue(), re.DOTALL)


def test_a_terminal_gets_outcomes_in_colour_and_lines_of_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = print_to_a_terminal(monkeypatch)
    text = "direction supported, confirmatory: " + 10 * "words and " + "\n  => refuted: it is supported"
    say(text)
    coloured = terminal.getvalue()
    assert coloured.startswith("\x1b[32mdirection supported\x1b[0m, ")
    assert "\n  => \x1b[31mrefuted\x1b[0m: it is supported" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    say(text)
    plain = terminal.getvalue().lstrip("\0")
    assert "\x1b" not in plain and plain.split() == text.split()
    assert max(map(len, plain.splitlines())) <= 80
