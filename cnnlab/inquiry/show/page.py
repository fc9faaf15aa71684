"""A page for A4: converts Markdown to a self-contained HTML file, and this to PDF."""

import base64
import html
import mimetypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from markdown_it import MarkdownIt

from cnnlab.inquiry.errors import LabError

PDF_TIMEOUT_S = 120  # for a browser's first start on a slow disk
ON_PATH = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge", "msedge")
ON_MACOS = ("Google Chrome", "Chromium", "Microsoft Edge")
ON_WINDOWS = (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")

STYLE = """
@page { size: A4; margin: 14mm 16mm; }
* { box-sizing: border-box; }
body { margin: 0; color: #1a1a1a; font: 10pt/1.38 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
       overflow-wrap: break-word; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
h1 { margin: 0; font-size: 17pt; line-height: 1.2; }
h1 + p { margin: 1mm 0 4mm; padding-bottom: 2mm; border-bottom: 0.4pt solid #999; color: #555; font-size: 9pt; }
h2 { margin: 4.5mm 0 1.2mm; font-size: 12pt; }
h3 { margin: 3mm 0 1mm; font-size: 10pt; }
h1, h2, h3 { break-after: avoid; }
p, ul, ol { margin: 0 0 2mm; }
ul, ol { padding-left: 5mm; }
table { width: 100%; margin: 1mm 0 3mm; border-collapse: collapse; font-size: 9pt;
        font-variant-numeric: tabular-nums; border-top: 0.8pt solid #333; border-bottom: 0.8pt solid #333; }
th { text-align: left; vertical-align: bottom; border-bottom: 0.4pt solid #333; }
td { vertical-align: top; border-bottom: 0.3pt solid #ddd; }
th, td { padding: 0.8mm 3mm 0.8mm 0; }
:is(th, td):last-child { width: 40%; padding-right: 0; }
tr, img, blockquote { break-inside: avoid; }
img { display: block; max-width: 100%; max-height: 135mm; margin: 2mm auto; }
hr { margin: 6mm 0; border: 0; border-top: 0.4pt solid #999; }
blockquote { margin: 1mm 0 2.5mm; padding: 0.5mm 0 0.5mm 3mm; border-left: 1.5pt solid #0072B2; }
blockquote > :last-child { margin-bottom: 0; }
pre, code { font: 9pt/1.35 ui-monospace, Consolas, Menlo, monospace; }
pre { padding: 1.5mm 2mm; background: #f4f4f4; white-space: pre-wrap; }
a { color: inherit; }
@media print { hr { margin: 0; border: 0; break-after: page; } }
@media screen { body { max-width: 186mm; margin: 16mm auto; padding: 0 4mm; } }
"""
# A browser may load only what the page itself contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_html(markdown_text: str, title: str, folder: Path) -> str:
    """Convert Markdown (CommonMark and tables) to one HTML file for A4 that includes its images.

    Image paths are relative to `folder`. HTML in the text is shown as text. A rule (`---`) ends a printed page. A
    paragraph right below the first-level heading is a line about the page: who, when. `title` is the title of the
    browser's tab and of the PDF.

    Raises:
        LabError: an image is missing, of an unknown type, or on the network.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(markdown_text)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                child.attrSet("src", _embedded(str(child.attrGet("src")), folder))
    body = markdown.renderer.render(tokens, markdown.options, {})
    head = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    head += f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{body}</body>\n</html>\n'


def _embedded(source: str, folder: Path) -> str:
    """Return an image as a data URI."""
    if source.startswith("data:"):
        return source
    if "://" in source or source.startswith("//"):
        raise LabError(f"image {source} is on the network: save it in {folder} and name the file instead.")
    file = folder / unquote(source)
    if not file.is_file():
        raise LabError(f"image {unquote(source)} is not in {folder}: save the figure there first, or correct its name.")
    kind, _ = mimetypes.guess_type(file.name)
    if not (kind or "").startswith("image/"):
        raise LabError(f"image {unquote(source)} is of an unknown type: use .png, .svg or .jpg.")
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def write_pdf(html_file: Path, pdf_file: Path) -> None:
    """Print an HTML file to PDF with a headless Chrome, Chromium or Edge on this machine.

    Raises:
        LabError: there is no such browser, or it printed nothing; any other browser can print the HTML.
    """
    if not html_file.is_file():  # a browser would print its own error page
        raise LabError(f"no PDF: {html_file} doesn't exist; write the page first.")
    way_out = f"Open {html_file} in any browser and print it from there (A4)."
    browser = find_browser()
    if browser is None:
        raise LabError(f"no PDF: neither Chrome, Chromium nor Edge was found (CNNLAB_BROWSER may name one). {way_out}")
    pdf_file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the PDF: a sandboxed browser, such as Ubuntu's, can read its user's files but not those in /tmp.
    with TemporaryDirectory(prefix="print-", dir=pdf_file.parent, ignore_cleanup_errors=True) as folder:
        printed = Path(folder).resolve() / "page.pdf"
        try:
            command = [browser, *_options(printed), html_file.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, timeout=PDF_TIMEOUT_S)
            if not printed.exists():
                raise LabError(f"no PDF: {browser} ended with code {done.returncode} and printed nothing. {way_out}")
            printed.replace(pdf_file)  # in one step: a PDF is complete or doesn't exist
        except subprocess.TimeoutExpired:
            raise LabError(f"no PDF: {browser} took more than {PDF_TIMEOUT_S} s. {way_out}") from None
        except OSError as error:  # not a program, or the PDF is open in a viewer that locks it
            raise LabError(f"no PDF: {error}. {way_out}") from None


def count_pages(pdf_file: Path) -> int:
    """Return the number of pages of a PDF printed by a browser: each page is an object in the file."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf_file.read_bytes()))


def _options(printed: Path) -> list[str]:
    # a separate profile: otherwise a browser that is already open would receive the command, and print nothing
    options = ["--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={printed.parent / 'profile'}"]
    if sys.platform == "linux" and os.geteuid() == 0:
        options.append("--no-sandbox")  # with a sandbox, Chromium refuses to start for root
    return [*options, "--no-pdf-header-footer", f"--print-to-pdf={printed}"]


def find_browser() -> str | None:
    """Return a browser that can print: that of `CNNLAB_BROWSER`, or one in a usual location.

    Raises:
        LabError: the program in `CNNLAB_BROWSER` doesn't exist.
    """
    if named := os.environ.get("CNNLAB_BROWSER"):
        if found := shutil.which(named):
            return found
        raise LabError(
            f"CNNLAB_BROWSER={named} doesn't exist: name the program of Chrome, Chromium or Edge, or unset it."
        )
    on_macos = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ON_MACOS]
    roots = [os.environ.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
    on_windows = [f"{root}\\{name}" for root in roots if root for name in ON_WINDOWS]
    return next(filter(None, map(shutil.which, [*ON_PATH, *on_macos, *on_windows])), None)
