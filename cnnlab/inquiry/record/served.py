"""What the MLflow server runs: MLflow's own app, on a store whose tables fit it."""

import importlib
import logging

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log
from cnnlab.inquiry.mlflow_private import SERVER_APP
from cnnlab.inquiry.record.schema import keep_up_to_date
from cnnlab.inquiry.server import NOTE

for handler in log.handlers:
    handler.setFormatter(logging.Formatter(f"{NOTE}%(message)s"))
try:
    keep_up_to_date(paths.database())
except LabError as error:
    raise SystemExit(f"Error: {error}") from None

app = importlib.import_module(SERVER_APP).app
