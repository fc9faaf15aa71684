"""Undocumented parts of other packages that the lab uses: what each is for, and a check that it still exists.

Nothing is imported, so this fails within a second after an upgrade. Anyone who upgrades a package checks each of its
lines here, runs all tests, and then changes the version below.
"""

from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest

VERSIONS = {
    "mlflow": "3.17.2",
    "mltrainer": "0.3.6",
    "torch": "2.15.0",
    "ray": "2.60.0",
    "mads-datasets": "0.3.15",
    "ipython": "9.18.1",
}

FOLDERS = {"mads-datasets": "mads_datasets", "ipython": "IPython"}  # if its name differs from the package's

# Package, file, text that must be in it, and what depends on it.
USES = [
    (
        "mlflow",
        "store/db/utils.py",
        "def _upgrade_db(engine",
        "a store of an older MLflow is upgraded, or read in a copy",
    ),
    ("mlflow", "store/db/utils.py", "def _get_alembic_config(db_url", "a store of a newer MLflow is refused"),
    (
        "mlflow",
        "store/tracking/sqlalchemy_store.py",
        "class SqlAlchemyStore(",
        "a new store has no path of this machine in it",
    ),
    (
        "mlflow",
        "store/tracking/sqlalchemy_store.py",
        "1.7976931348623157e308",
        "the seal of a run that diverged stays right",
    ),
    (
        "mlflow",
        "store/artifact/local_artifact_repo.py",
        "class LocalArtifactRepository(",
        "artifacts open without a server",
    ),
    (
        "mlflow",
        "store/artifact/mlflow_artifacts_repo.py",
        "class MlflowArtifactsRepository(",
        "artifacts of a server open",
    ),
    (
        "mlflow",
        "store/artifact/artifact_repository_registry.py",
        "mlflow.artifact_repository",
        "the lab's artifacts are used",
    ),
    ("mlflow", "server/fastapi_app.py", "app = create_fastapi_app()", "the server starts"),
    *(
        (
            "mlflow",
            "server/constants.py",
            f'"_MLFLOW_SERVER_{name}"',
            "the server serves this folder's store and artifacts",
        )
        for name in ("FILE_STORE", "ARTIFACT_ROOT", "ARTIFACT_DESTINATION", "SERVE_ARTIFACTS")
    ),
    *(
        ("mlflow", "tracking/client.py", f"def {name}(", "a model is put beside its run")
        for name in ("create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs")
    ),
    ("mlflow", "models/model.py", "def model_uuid(", "a model knows its id"),
    ("mlflow", "server/js/build/static/js", "mlflow.sharedViewState.", "links open the shared views"),
    ("mlflow", "server/js/build/static/js", "viewStateShareKey", "links open the shared views"),
    (
        "mlflow",
        "utils/validation.py",
        "MAX_PARAM_VAL_LENGTH = 6000",
        "a prediction that is too long is refused in a sentence",
    ),
    (
        "mlflow",
        "tracking/_tracking_service/utils.py",
        "MLFLOW_TRACKING_URI.set(",
        "connect() leaves the user's own choice alone",
    ),
    ("mltrainer", "trainer.py", "self.early_stopping(test_loss, self.model)", "early stopping is mltrainer's"),
    ("torch", "fx/config.py", "do_not_emit_stack_traces = False", "no exported model names files of this machine"),
    ("ray", "_private/ray_constants.py", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "Ray's workers use this environment"),
    ("mads-datasets", "datatools.py", "requests.get(", "a download that hangs is given up"),
    ("ipython", "core/interactiveshell.py", "value._render_traceback_()", "an error in a notebook is one sentence"),
]


def skip_without(package: str) -> None:
    """Skip the test if an optional package isn't installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        assert package == "ray", f"{package} is missing: run `uv sync`"
        pytest.skip("Ray is an extra: uv sync --extra ray")


@pytest.mark.parametrize("package", VERSIONS)
def test_a_package_has_the_version_that_was_checked(package: str) -> None:
    skip_without(package)
    there = version(package).partition("+")[0]
    protected = "\n".join(f"  {file}: {text} ({what})" for name, file, text, what in USES if name == package)
    assert there == VERSIONS[package], f"{package} is {there}: look at these lines, then write it down\n{protected}"


@pytest.mark.parametrize(("package", "file", "text", "protects"), USES)
def test_what_is_used_exists(package: str, file: str, text: str, protects: str) -> None:
    skip_without(package)
    path = Path(str(distribution(package).locate_file(f"{FOLDERS.get(package, package)}/{file}")))
    files = path.rglob("*.js") if path.is_dir() else [path]
    assert any(text in one.read_text(encoding="utf-8", errors="replace") for one in files), protects
