"""The registry: the model of one run under a name that anybody can load, `models:/fashion-cnn@champion`."""

from mlflow.exceptions import MlflowException

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import Store, first_line

MODEL, ALIAS = "fashion-cnn", "champion"
ADDRESS = f"models:/{MODEL}@{ALIAS}"


def model_of(store: Store, run_id: str) -> str:
    """Return the id of the model that a run logged.

    Raises:
        LabError: the store has no such run, or the run no model.
    """
    try:
        outputs = store.client.get_run(run_id).outputs
    except MlflowException as error:
        raise LabError(
            f"the store has no run {run_id!r} ({first_line(error)}): its id stands in the MLflow UI."
        ) from None
    models = outputs.model_outputs if outputs else []
    if not models:
        raise LabError(f"the run {run_id} has no model in the store: choose one that was finished and kept its model.")
    return str(models[0].model_id)


def register(store: Store, run_id: str, card: str) -> str:
    """Make the model of a run the champion: a new version of the registered model, with its card; return the version.

    Raises:
        LabError: the run has no model in the store.
    """
    model_id, client = model_of(store, run_id), store.client
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    version = client.create_model_version(MODEL, f"models:/{model_id}", run_id, description=card, model_id=model_id)
    client.update_registered_model(MODEL, card)
    client.set_registered_model_alias(MODEL, ALIAS, version.version)
    return str(version.version)
