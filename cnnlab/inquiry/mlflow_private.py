"""The undocumented parts of MLflow that the lab uses. tests/test_contract.py explains the purpose of each.

No part of MLflow is imported before it is needed.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from requests import Response
    from sqlalchemy import Engine

SERVER_APP = "mlflow.server.fastapi_app"  # the module with MLflow's own web app
# The variables through which `mlflow server` and `mlflow ui` pass their options on to it.
STORE, ROOT, FOLDER, SERVES = (
    f"_MLFLOW_SERVER_{name}" for name in ("FILE_STORE", "ARTIFACT_ROOT", "ARTIFACT_DESTINATION", "SERVE_ARTIFACTS")
)
SHARED_VIEW = "mlflow.sharedViewState."  # prefix of the experiment tags in which the UI stores shared views
ROOT_URI = "mlflow-artifacts:/"  # prefix of the artifact addresses that a server serves
# What the UI stores in a browser if the user chooses model training and closes everything about language models.
FIRST_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.home.getting-started.collapsed_v1": "true",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}
ASSISTANT = "[data-assistant-ui]"  # the button, on every page, that opens a chat with a language model


def create_tables(uri: str) -> None:
    """Create MLflow's tables in a new database, without paths of this machine in them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes a second, and is rarely needed

    SqlAlchemyStore(uri, ROOT_URI)


def upgrade_tables(engine: "Engine") -> None:
    """Upgrade a database to the tables of the installed MLflow."""
    from mlflow.store.db.utils import _upgrade_db

    _upgrade_db(engine)


@cache
def known_revisions() -> list[str]:
    """Return the revisions of all tables that the installed MLflow knows, newest first."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config(""))
    return [revision.revision for revision in script.walk_revisions()]


def local_repository(folder: Path, *uris: str | None) -> "ArtifactRepository":
    """Return the artifacts in a folder of this machine."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return LocalArtifactRepository(folder.as_uri(), *uris)


def server_repository(artifact_uri: str, *uris: str | None) -> "ArtifactRepository":
    """Return the artifacts that a server serves."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    return MlflowArtifactsRepository(artifact_uri, *uris)


def ask_server(uri: str, path: str) -> "Response":
    """Return a server's response to a GET, sent with the user, password and certificates of MLflow's clients."""
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    creds = get_default_host_creds(uri)
    answer: Response = http_request(creds, path, "GET", max_retries=0, retry_codes=(), raise_on_status=False, timeout=5)
    return answer


def accounts(uri: str) -> "AuthServiceClient":
    """Return the users and roles of a server that runs with `--app-name basic-auth`."""
    with catch_warnings(action="ignore"):  # this imports MLflow's whole server, with its deprecated parts
        from mlflow.server.auth.client import AuthServiceClient

    return AuthServiceClient(uri)


def has_model(client: "MlflowClient", run_id: str) -> bool:
    """Return whether a run has a model in the store."""
    outputs = client.get_run(run_id).outputs
    return bool(outputs and outputs.model_outputs)


def log_model(client: "MlflowClient", run_id: str, folder: Path) -> None:
    """Add a model from a folder in MLflow's format to its run, with the run's params and final metrics."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    run = client.get_run(run_id)
    model = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    description: Any = Model.load(str(folder))
    description.model_id = description.model_uuid = model.model_id
    description.run_id = run_id
    description.artifact_path = model.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    # With the same time and step as in the run, these are the same points.
    points = [
        p for name in run.data.metrics if name.startswith("final/") for p in client.get_metric_history(run_id, name)
    ]
    finals = [Metric(p.key, p.value, p.timestamp, p.step, model_id=model.model_id, run_id=run_id) for p in points]
    client.log_batch(run_id, metrics=finals)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=max((p.step for p in points), default=0))])


def index_page() -> str:
    """Return the start page of MLflow's UI."""
    from mlflow.server import app

    return (Path(str(app.static_folder)) / "index.html").read_text(encoding="utf-8")
