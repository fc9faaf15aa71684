"""The record in MLflow: where it is, how one run gets into it, and how runs come back as a table.

    RunLogger ─► spool on the local disk ─► courier (a thread) ─► MLflow

A run is written into a spool first, which can't fail for a network's sake; a thread carries the spool into MLflow.
What a crash or a lost server leaves behind is carried there by the next command.
"""

from cnnlab.inquiry.server import require_mlflow

require_mlflow()
