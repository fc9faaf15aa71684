"""The MLflow UI in a real browser: the shared views show what an instructor looks for.

Without Chromium these tests are skipped; where `CNNLAB_BROWSER` names one (as in CI), they have to run.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cnnlab.config import BASE, replace
from cnnlab.data import Data
from cnnlab.inquiry import server
from cnnlab.inquiry.judge.review import effect_of
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import FOUND, load_records
from cnnlab.inquiry.record.views import VIEWS, view_links
from cnnlab.inquiry.show.confront import confront
from tests.helpers import crowd, predicted, settle, small_study

BROWSER = os.environ.get("CNNLAB_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found; set CNNLAB_BROWSER to one"),
]
WIDTH = 1440  # pixels
ARMS = {"dropout=0.0", "dropout=0.5"}
STUDY = small_study(
    "quick-02-dropout",
    "What does dropout change?",
    replace(BASE, blocks=((1, 8),), train_images=320, epochs=3, batch_size=32, lr=0.01),
    (0, 1, 2),
    {"dropout": (0.0, 0.5)},
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[tuple[str, pd.DataFrame]]:
    """A study of two arms and three seeds on a running server: its address, and the runs."""
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, tmp_path_factory.mktemp("my lab"))
        address = server.start()
        try:
            yield address, predicted(STUDY).run(connect(), progress=False)
        finally:
            server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never been at MLflow, on a laptop's screen."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield page
    context.close()


def expect_model_training(page: Page) -> None:
    """Nothing on a page, which is loaded by now, is about language models, an assistant, or telemetry."""
    for other in ("AI Gateway", "Traces 0", "Detect Issues", "MLflow Assistant", "telemetry"):
        expect(page.get_by_text(other).filter(visible=True)).to_have_count(0, timeout=5_000)
    expect(page.locator("[data-assistant-ui]").first).to_be_hidden()


def test_the_table_shows_every_run_with_the_right_columns_best_first(
    shown: tuple[str, pd.DataFrame], page: Page
) -> None:
    address, runs = shown
    page.goto(view_links(connect(), address)["quick-02-dropout"]["table"])
    expect(page.get_by_text("6 matching runs")).to_be_visible()
    expect(page.get_by_text("What does dropout change?").first).to_be_visible()
    headers = {header.strip() for header in page.locator(".ag-header-cell").all_inner_texts()}
    wanted = {"final/accuracy/valid", "final/loss/valid", "final/gap/loss", "dropout", "seed", "arm", "owner"}
    assert wanted <= headers
    assert not {"Dataset", "epochs", "batch_size", "lr"} & headers
    shown_runs = page.locator('[role="row"] a[href*="/runs/"]').all_inner_texts()
    best_first = runs.sort_values("accuracy/valid", ascending=False)
    assert len(shown_runs) == 6
    accuracy = dict(zip(runs["name"], runs["accuracy/valid"], strict=True))
    assert [accuracy[name.strip()] for name in shown_runs] == list(best_first["accuracy/valid"])


def test_the_curves_show_the_mean_of_each_arm_with_a_band(shown: tuple[str, pd.DataFrame], page: Page) -> None:
    address, _ = shown
    page.goto(view_links(connect(), address)["quick-02-dropout"]["curves"])
    chart = page.locator(".js-plotly-plot").first
    expect(chart.locator(".js-fill")).to_have_count(len(ARMS))  # a band for each arm
    for arm in ARMS:
        expect(page.get_by_text(f"{arm} (loss/valid)").first).to_be_visible()
    for title in ("loss/valid", "accuracy/valid", "gap/loss"):
        expect(page.get_by_text(title, exact=True).first).to_be_attached()
    traces = chart.evaluate("plot => plot.data.map(trace => [trace.fill ?? '', trace.x?.length ?? 0])")
    lines = [points for fill, points in traces if not fill and points]
    assert len(lines) >= len(ARMS)
    assert set(lines) == {3}  # a point for each epoch


def test_a_run_shows_its_params_facts_and_figures(shown: tuple[str, pd.DataFrame], page: Page) -> None:
    address, runs = shown
    experiment = connect().experiment_id("quick-02-dropout")
    run = f"{address}/#/experiments/{experiment}/runs/{runs['run_id'][0]}"
    page.goto(run)
    expect(page.get_by_text("fact.outcome").first).to_be_attached()
    expect(page.get_by_text("one_cycle").first).to_be_attached()
    page.goto(f"{run}/artifacts/figures/confusion_matrix.png")
    expect(page.get_by_alt_text("figures/confusion_matrix.png").first).to_be_visible()


def test_the_predictions_are_shown_with_their_verdicts(shown: tuple[str, pd.DataFrame], page: Page) -> None:
    address, _ = shown
    store = connect()
    confront(STUDY, store)
    (record,) = load_records(store, owner="a student")
    outcome = record.verdicts[-1].content["outcome"]
    page.goto(view_links(store, address)["quick-02-dropout"]["predictions"])
    expect(page.get_by_text("1 matching run", exact=False).first).to_be_visible()
    expect(page.get_by_text(f"{outcome}: accuracy/valid higher, dropout=0.5").first).to_be_attached()
    expect(page.get_by_text(f"Prediction {outcome}. {STUDY.question}").first).to_be_attached()  # above the table
    expect(page.get_by_text(effect_of(record)).first).to_be_visible()
    cell = page.locator(f'.ag-cell[col-id*="{FOUND}"]').first
    box = cell.bounding_box()
    assert box and box["x"] + box["width"] <= WIDTH  # the verdict isn't cut off
    expect_model_training(page)


def test_a_newcomer_sees_the_experiments_and_nothing_about_language_models(
    shown: tuple[str, pd.DataFrame], page: Page
) -> None:
    address, _ = shown
    page.goto(address)
    page.get_by_role("link", name="quick-02-dropout").click()
    expect(page.get_by_text("Run Name").first).to_be_visible()
    expect_model_training(page)
    page.locator('[role="row"] a[href*="/runs/"]').first.click()
    expect(page.get_by_text("final/loss/valid").first).to_be_attached()
    expect_model_training(page)
    page.goto(f"{address}/#/")
    expect(page.get_by_text("Recent Experiments")).to_be_visible()
    expect_model_training(page)


@pytest.mark.parametrize("view", VIEWS)
def test_no_shared_view_opens_the_pages_for_language_models(
    shown: tuple[str, pd.DataFrame], page: Page, view: str
) -> None:
    address, _ = shown
    page.goto(view_links(connect(), address)["quick-02-dropout"][view])
    expect(page.get_by_text("matching run").or_(page.locator(".js-plotly-plot")).first).to_be_visible()
    expect_model_training(page)


def test_the_page_of_the_lab_shows_what_was_predicted_and_what_came_out(
    shown: tuple[str, pd.DataFrame], page: Page
) -> None:
    address, _ = shown
    page.goto(f"{address}/lab")
    expect(page.get_by_role("heading", name="Predictions of a student")).to_be_visible()
    (record,) = load_records(connect(), owner="a student")
    claim = page.get_by_role("link", name=record.content["contrast"]).first
    expect(claim).to_have_attribute("href", re.compile(record.run_id))
    page.goto(f"{address}/lab?owner=<script>alert(1)</script>")
    expect(page.get_by_role("heading", name="<script>alert(1)</script>")).to_be_visible()


def test_the_page_of_the_lab_shows_a_hundred_owners_within_the_window(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch, tmp_path)
    crowd(connect(), [f"student-{i:03}" for i in range(100)], {"0.5": "supported"})
    try:
        page.goto(f"{server.start()}/lab")
        expect(page.get_by_role("heading", name="Predictions of student-099")).to_be_visible()
        expect(page.locator("tbody th")).to_have_count(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
        page.get_by_role("link", name="student-042", exact=True).click()
        expect(page.get_by_role("heading", name="Predictions of student-042")).to_be_visible()
        page.get_by_role("link", name="everybody").click()
        expect(page.get_by_role("heading", name="Everybody")).to_be_visible()
        page.get_by_role("link", name="The class").click()
        expect(page.get_by_text("100 students handed in")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(100)
    finally:
        server.stop()


def test_the_curves_of_two_owners_are_never_mixed(
    shown: tuple[str, pd.DataFrame], page: Page, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = shown
    monkeypatch.setenv("CNNLAB_OWNER", "another student")
    predicted(STUDY).run(connect(), progress=False)
    page.goto(view_links(connect(), address)["quick-02-dropout"]["curves"])
    expect(page.locator(".js-plotly-plot").first.locator(".js-fill")).to_have_count(2 * len(ARMS))
    for owner in ("a student", "another student"):
        expect(page.get_by_text(f"arm: dropout=0.5, owner: {owner} (loss/valid)").first).to_be_attached()
