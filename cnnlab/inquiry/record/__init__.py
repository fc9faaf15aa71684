"""The record in MLflow: where it is, how a run is written to it, and how runs are read back as a table.

    RunLogger ─► spool on the local disk ─► courier (a thread) ─► MLflow

A run is first written to a spool, which doesn't depend on a network; a thread then transfers the spool to MLflow.
After a crash or the loss of a server, the next command transfers the rest.
"""

from cnnlab.inquiry.server import require_mlflow

require_mlflow()
