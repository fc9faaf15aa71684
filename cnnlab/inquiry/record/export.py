"""The model of a run in the store: made from what the run kept, when it is asked for."""

from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlab.inquiry.mlflow_private import has_model, log_model
from cnnlab.inquiry.params import from_params
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.runs import facts_of
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task


def export_model(store: Store, run_id: str) -> None:
    """Put the model of a run beside it in the store, unless it is there.

    Raises:
        LabError: the run's weights aren't in the store.
    """
    client = store.client
    if has_model(client, run_id):
        return
    run = client.get_run(run_id)
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        files, model = Path(folder) / "files", Path(folder) / "model"
        files.mkdir()
        kept = {name: run_file(store, run_id, name, files) for name in task().leaves(ships=False)}
        config = from_params(task().config_type, run.data.params)
        if task().export(config, facts_of(run.data.tags), kept, model):
            log_model(client, run_id, model)
