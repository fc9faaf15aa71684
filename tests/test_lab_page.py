"""The page of the lab: what an owner predicted and what came out, and everybody's verdicts; it only reads."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from cnnlab.inquiry import server
from cnnlab.inquiry.paths import database
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.lab_page import lab_page
from tests.helpers import crowd, settle

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which 20 owners predicted something, and one with a script for a name began to."""
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, tmp_path_factory.mktemp("my lab"))
        store = connect()
        crowd(store, [f"student-{i:02}" for i in range(20)])
        cut_short(store, SCRIPT)  # the lab allows no such name, but MLflow does
        yield store


def cut_short(store: Store, owner: str) -> None:
    """Write the beginning of a prediction, as where a process is killed while it writes."""
    tags = {"kind": "prediction", "owner": owner}
    run = store.client.create_run(store.experiment_id("02-dropout"), tags=tags, run_name="prediction")
    store.client.log_param(run.info.run_id, "owner", owner)


def test_every_owner_has_a_row_in_the_matrix_and_a_link(store: Store) -> None:
    page = lab_page(store)
    assert page.count('<tr><th><a href="?owner=') == 21
    assert "1&nbsp;supported" in page and "1&nbsp;refuted" in page and "1&nbsp;not judged yet" in page


def test_an_owners_name_is_text_and_never_code(store: Store) -> None:
    for page in (lab_page(store), lab_page(store, SCRIPT)):
        assert SCRIPT not in page and "&lt;script&gt;" in page
    assert f'href="?owner={quote(SCRIPT)}"' in lab_page(store)


def test_a_page_about_one_owner_leads_to_everybody(store: Store) -> None:
    page = lab_page(store, "student-03")
    assert "Predictions of student-03" in page and "student-04" not in page
    assert 'href="/lab#everybody"' in page


def test_where_there_is_one_owner_there_is_no_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, tmp_path)
    own = connect()
    crowd(own, ["ada"])
    assert "verybody" not in lab_page(own)


def test_a_record_that_was_cut_short_is_shown_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, tmp_path)
    own = connect()
    cut_short(own, "ada")
    assert not load_records(own)[0].sha256
    assert "only partly written: it doesn&#39;t count" in lab_page(own, "ada")


def test_a_store_that_was_moved_away_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, tmp_path)
    server.start()
    try:
        assert answer("/lab")[0] == 200
        database().rename(tmp_path / "elsewhere.db")
        status, said = answer("/lab")
        assert status == 503 and b"mlflow.db" in said and b"Traceback" not in said
    finally:
        server.stop()


def answer(path: str) -> tuple[int, bytes]:
    """Return the status and the body with which the server answers."""
    with closing(http.client.HTTPConnection(server.HOST, server.port(), timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
