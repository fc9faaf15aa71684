"""The record in MLflow: where it is, how one run gets into it, and how runs come back as a table.

    RunLogger ─► journal on the local disk ─► courier (a thread) ─► MLflow

Training writes into a journal, which can't fail for a network's sake; a thread carries the journal into
MLflow. What a crash or a lost server leaves behind is carried there by the next command.
"""

from collections.abc import Callable

from cnnlab.server import require_mlflow

require_mlflow()


def leave_nothing_behind(say: Callable[[str], None] = print) -> None:
    """Deliver to MLflow what an earlier command could not; MLflow is imported only if there is something."""
    from cnnlab.tracking.journal import spool_folder

    if any(spool_folder().glob("*/journal.jsonl")):
        from cnnlab.tracking.courier import deliver_leftovers

        deliver_leftovers(say)
