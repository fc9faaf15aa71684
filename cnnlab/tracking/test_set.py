"""Reading the test set, on the record."""

from collections.abc import Callable

from cnnlab.data import Split, read_test
from cnnlab.tracking.environment import environment_facts, owner
from cnnlab.tracking.store import Store

EXPERIMENT = "test-set"


def read_test_set(store: Store, reason: str, say: Callable[[str], None] = print) -> Split:
    """Return the official 10,000 test images, after a run of kind "test-reading" has recorded who reads them and why.

    The reason is a param of that run: MLflow doesn't let params be changed.

    Raises:
        LabError: no reason was given.
        Exception: the record could not be written; the test set then stays closed.
    """

    def record(reason: str) -> None:
        facts = {f"fact.{name}": value for name, value in environment_facts().items()}
        tags = {"kind": "test-reading", "owner": owner(), "mlflow.user": owner(), "mlflow.source.name": "cnnlab"}
        run = store.client.create_run(store.experiment_id(EXPERIMENT), tags=tags | facts, run_name="test set read")
        store.client.log_param(run.info.run_id, "reason", reason)
        store.client.set_terminated(run.info.run_id)

    return read_test(record, reason, say)
