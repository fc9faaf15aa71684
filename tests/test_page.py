"""A report becomes a self-contained HTML file and, printed by a real browser, an A4 page in PDF."""

import os
import re
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.show.page import find_browser, render_html, write_pdf

needs_browser = pytest.mark.skipif(
    not os.environ.get("CNNLAB_BROWSER") and find_browser() is None,
    reason="no Chromium found; set CNNLAB_BROWSER to one",
)

TEXT = """# Does dropout help? ½

A student, 3 runs

| prediction | value | verdict |
|---|--:|---|
| the gap shrinks | -0.02 | **confirmed** |

![curves](my%20figures/curves.png)

> I was sure & right.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose path has a space, with one small figure."""
    folder = tmp_path / "my report"
    (folder / "my figures").mkdir(parents=True)
    Figure(figsize=(3, 2)).savefig(folder / "my figures" / "curves.png")
    (folder / "report.html").write_text(render_html(TEXT, "Report", folder), encoding="utf-8")
    return folder


def count_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def printed(text: str, folder: Path) -> bytes:
    page, pdf = folder / "report.html", folder / "out" / "report.pdf"
    page.write_text(render_html(text, "Report", folder), encoding="utf-8")
    write_pdf(page, pdf)
    assert list(pdf.parent.iterdir()) == [pdf]  # nothing is left behind
    return pdf.read_bytes()


def test_tables_headings_quotes_and_images_are_rendered(folder: Path) -> None:
    html = render_html(TEXT, "A <title>", folder)
    assert "<title>A &lt;title&gt;</title>" in html
    assert "<h1>Does dropout help? ½</h1>" in html and '<meta charset="utf-8">' in html
    assert "<strong>confirmed</strong></td>" in html and '<td style="text-align:right">-0.02</td>' in html
    assert "<blockquote>\n<p>I was sure &amp; right.</p>" in html
    assert '<img src="data:image/png;base64,iVBOR' in html and 'alt="curves"' in html


def test_the_page_is_self_contained(folder: Path) -> None:
    html = render_html(TEXT, "Report", folder)
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html)
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<script", html)
    assert "default-src 'none'" in html  # a browser would refuse it too


def test_html_in_a_students_words_is_shown_as_text(folder: Path) -> None:
    words = 'so <script>alert(1)</script>\n\n<img src="https://a.b/c.png" onerror="x()">\n\n[me](javascript:alert(2))'
    html = render_html(words, "Report", folder)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not re.search(r"<script|<img|<a\b", html)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("no%20such.png", "image no such.png is not in .*my report: save the figure there first"),
        ("https://example.org/a.png", "is on the network: save it in"),
        ("notes.txt", "image notes.txt is of an unknown type: use .png"),
        ("", "image .* is not in"),
    ],
)
def test_an_image_that_cannot_be_embedded_is_named(folder: Path, image: str, problem: str) -> None:
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(LabError, match=problem):
        render_html(f"![figure]({image})", "Report", folder)


@pytest.mark.browser
@needs_browser
def test_a_short_report_is_one_page_of_a4(folder: Path) -> None:
    pdf = printed(TEXT, folder)
    assert count_pages(pdf) == 1
    (box,) = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", pdf)
    assert [round(float(side)) for side in box] == [595, 842]  # points


@pytest.mark.browser
@needs_browser
def test_a_long_report_continues_on_the_next_page(folder: Path) -> None:
    assert count_pages(printed(TEXT + "\nA line.\n" * 60, folder)) == 2


@pytest.mark.browser
@needs_browser
def test_a_rule_ends_a_page(folder: Path) -> None:
    assert count_pages(printed(TEXT + "\n---\n\nA line.\n", folder)) == 2


def test_without_a_browser_the_error_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNLAB_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if find_browser() is not None:
        pytest.skip("this machine has a browser in /Applications")
    with pytest.raises(LabError, match=r"no PDF: neither .*report\.html in any browser and print it from there \(A4\)"):
        write_pdf(folder / "report.html", folder / "report.pdf")


def test_a_missing_page_is_an_error(folder: Path) -> None:
    with pytest.raises(LabError, match=r"none\.html doesn't exist"):
        write_pdf(folder / "none.html", folder / "report.pdf")


def test_a_missing_browser_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_BROWSER", "/no/such/browser")
    with pytest.raises(LabError, match="CNNLAB_BROWSER=/no/such/browser doesn't exist"):
        write_pdf(folder / "report.html", folder / "report.pdf")


def test_a_browser_that_prints_nothing_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_BROWSER", sys.executable)  # a program, but not one that prints
    with pytest.raises(LabError, match=r"ended with code \d+ and printed nothing. Open .*report.html"):
        write_pdf(folder / "report.html", folder / "report.pdf")
    assert not (folder / "report.pdf").exists()
