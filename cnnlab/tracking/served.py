"""What the MLflow server runs: MLflow's own app, on a store whose tables fit it."""

import importlib

from cnnlab import paths
from cnnlab.errors import LabError
from cnnlab.server import NOTE
from cnnlab.tracking.schema import keep_up_to_date

try:
    keep_up_to_date(paths.database(), lambda line: print(f"{NOTE}{line}", flush=True))
except LabError as error:
    raise SystemExit(f"Error: {error}") from None

app = importlib.import_module("mlflow.server.fastapi_app").app
