"""The MLflow UI in a real browser: the shared views show what an instructor looks for.

Without Chromium these tests are skipped; where `CNNLAB_BROWSER` names one (as in CI), they have to run.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from cnnlab import server
from cnnlab.config import Config
from cnnlab.data import Data
from cnnlab.studies.runner import run_study
from cnnlab.studies.study import Study
from cnnlab.tracking.store import connect
from cnnlab.tracking.views import view_links

BROWSER = os.environ.get("CNNLAB_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium found; set CNNLAB_BROWSER to one")


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 2200, "height": 1400})
        browser.close()


def test_the_shared_views_show_arms_columns_and_bands(home: Path, small: Config, small_data: Data, page: Page) -> None:
    study = Study("quick-02-dropout", "What does dropout change?", small, (0, 1, 2), {"dropout": (0.0, 0.5)})
    runs = run_study(study, small_data, connect(quiet), quiet, progress=False)
    best = runs.loc[runs["accuracy/valid"].idxmax()]
    address = server.start(quiet)
    try:
        links = view_links(connect(quiet), address)["quick-02-dropout"]
        page.goto(links["table"])
        expect(page.get_by_text("6 matching runs")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("What does dropout change?").first).to_be_visible()
        headers = page.locator(".ag-header-cell").all_inner_texts()
        for column in ("final/accuracy/valid", "final/loss/valid", "dropout", "seed", "arm", "owner"):
            assert column in [header.strip() for header in headers]
        assert "Dataset" not in headers
        first = page.locator(
            '.ag-center-cols-container [row-index="0"], .ag-pinned-left-cols-container [row-index="0"]'
        )
        expect(first.first).to_contain_text(best["name"])  # sorted: the best run is on top

        page.goto("about:blank")
        page.goto(links["curves"])
        expect(page.get_by_text("accuracy/valid").first).to_be_visible(timeout=60_000)
        chart = page.locator(".js-plotly-plot").first
        expect(chart.locator(".scatterlayer .trace")).not_to_have_count(0, timeout=60_000)
        names = page.evaluate("""() => [...document.querySelectorAll('.js-plotly-plot')]
            .flatMap(plot => plot.data.map(trace => [trace.name ?? '', trace.fill ?? '']))""")
        assert {name for name, _ in names if name} >= {"dropout=0.0", "dropout=0.5"}
        assert any(fill in ("toself", "tonexty", "tozerox") for _, fill in names)  # the band over the seeds
    finally:
        server.stop(quiet)


def test_a_run_shows_its_question_figures_and_facts(home: Path, small: Config, small_data: Data, page: Page) -> None:
    study = Study("quick-01-baseline", "How well does the plain network do?", small, (0,))
    runs = run_study(study, small_data, connect(quiet), quiet, progress=False)
    address = server.start(quiet)
    try:
        experiment = connect(quiet).experiment_id(study.name)
        run = f"{address}/#/experiments/{experiment}/runs/{runs['run_id'][0]}"
        page.goto(run)
        expect(page.get_by_text("fact.outcome").first).to_be_visible(timeout=60_000)
        expect(page.get_by_text("one_cycle").first).to_be_visible()
        page.goto(f"{run}/artifacts/figures/confusion_matrix.png")
        expect(page.locator('img[alt="confusion_matrix.png"]').first).to_be_visible(timeout=60_000)
    finally:
        server.stop(quiet)
