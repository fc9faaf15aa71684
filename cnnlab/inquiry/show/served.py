"""What the MLflow server runs: MLflow's own app on a store whose tables fit it, with a front door for model training.

MLflow opens with its pages for language models. The browser keeps what its user chose instead; where it has kept
nothing yet, the page begins with model training.
"""

import gc
import importlib
import json
import logging
from functools import lru_cache
from html import escape
from threading import Thread
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log
from cnnlab.inquiry.mlflow_private import ASSISTANT, FIRST_CHOICES, SERVER_APP, index_page
from cnnlab.inquiry.record.schema import keep_up_to_date
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.server import NOTE

FIRST = """<script>
for (const [name, value] of Object.entries({choices}))
  if (localStorage.getItem(name) === null) localStorage.setItem(name, value);
if (!location.hash) location.replace("#/experiments");
</script>
<style>{assistant} {display: none !important}</style>"""


def front_door(request: Request) -> HTMLResponse:
    """Return MLflow's page, which makes the first choices before its own scripts look for them."""
    first = FIRST.replace("{choices}", json.dumps(FIRST_CHOICES)).replace("{assistant}", ASSISTANT)
    return HTMLResponse(index_page().replace("<head>", f"<head>{first}", 1))


@lru_cache(maxsize=100)
def page(owner: str, changed: tuple[int, ...]) -> str:
    """Return the page of the lab, made once for each time at which the store and the logbooks were `changed`."""
    from cnnlab.inquiry.show.lab_page import lab_page

    store = Store(f"sqlite:///{paths.database().as_posix()}")  # the file itself: this process is its server
    return lab_page(store, owner)


@lru_cache(maxsize=1)
def class_page(changed: tuple[int, ...]) -> str:
    """Return the page of all owners as a class; see `page`."""
    from cnnlab.inquiry.judge.classroom import look_at_class
    from cnnlab.inquiry.record.hand_ins import HandIn
    from cnnlab.inquiry.record.snapshot import snapshot
    from cnnlab.inquiry.show.classroom import ClassShown

    with snapshot(str(paths.database())) as store:
        return ClassShown(look_at_class([HandIn("server", str(paths.project_root()))]), store).page()


def lab(request: Request) -> HTMLResponse:
    """Return the page of the lab about the owner that is asked for, or about all as a class; it only reads."""
    try:
        files = [paths.database(), *sorted(paths.experiment_log().glob("*.md"))]
        changed = tuple(file.stat().st_mtime_ns for file in files)
        is_class = request.url.path.endswith("/class")
        return HTMLResponse(class_page(changed) if is_class else page(request.query_params.get("owner", ""), changed))
    except (LabError, FileNotFoundError) as error:  # the store may have been moved away
        return HTMLResponse(f"<p>{escape(str(error))}</p>", status_code=503)


def mlflow_app() -> Any:
    """Return MLflow's app with the pages of the lab in front of it.

    Raises:
        SystemExit: the store can't be opened.
    """
    for handler in log.handlers:
        handler.setFormatter(logging.Formatter(f"{NOTE}%(message)s"))
    try:
        keep_up_to_date(paths.database())
    except LabError as error:
        raise SystemExit(f"Error: {error}") from None
    app = importlib.import_module(SERVER_APP).app
    app.router.routes[:0] = [Route("/", front_door), Route("/lab", lab), Route("/lab/class", lab)]
    # The server answers before matplotlib is imported, which takes a second.
    Thread(target=importlib.import_module, args=["cnnlab.inquiry.show.lab_page"], daemon=True).start()
    gc.freeze()  # the collector skips what was imported: a page with many runs takes a tenth less time
    return app


app = mlflow_app()
