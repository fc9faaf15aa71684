"""Artifact addresses that survive a move: `mlflow-artifacts:/...`, with and without a server.

The server itself writes such addresses. MLflow loads this module (an entry point of the group
`mlflow.artifact_repository`, see pyproject.toml), so that they also work without a server: then
they refer to the folder `models/` beside the SQLite file.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from cnnlab.inquiry.mlflow_private import local_repository, server_repository

if TYPE_CHECKING:  # MLflow loads this module during its own import, so this can't import MLflow at run time
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "ArtifactRepository":
    """Return the repository behind `mlflow-artifacts:/...`: a local folder for SQLite, else MLflow's own."""
    import mlflow

    tracking_uri = tracking_uri or mlflow.get_tracking_uri()
    if not tracking_uri.startswith("sqlite:"):
        return server_repository(artifact_uri, tracking_uri, registry_uri)
    return local_repository(artifact_folder(artifact_uri, tracking_uri), tracking_uri, registry_uri)


def artifact_folder(artifact_uri: str, tracking_uri: str) -> Path:
    """Return the local folder of an artifact address, for a tracking address `sqlite:///<path>`.

    Raises:
        MlflowException: the address points outside the artifact store.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.engine import make_url

    store = Path(make_url(tracking_uri).database or "").resolve().parent / "models"
    folder = (store / unquote(urlparse(artifact_uri).path).lstrip("/")).resolve()
    if not folder.is_relative_to(store):
        raise MlflowException.invalid_parameter_value(f"{artifact_uri} is outside the artifact store {store}.")
    return folder
