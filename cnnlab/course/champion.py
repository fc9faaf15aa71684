"""The champion: a model under a name by which anybody can load it, with a card written from the record.

The card follows Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.config import BASE, Config
from cnnlab.data import Data, mean_and_sd
from cnnlab.fashion_mnist import CLASSES, load_data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.statistics import t_interval
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.record.files import export_model, run_file
from cnnlab.inquiry.record.runs import find_run, load_runs, same_arm
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import load_vault
from cnnlab.one_run import CORRECT

MODEL, ALIAS = "fashion-cnn", "champion"
ADDRESS = f"models:/{MODEL}@{ALIAS}"


def register_champion(run_id: str, store: Store, data: Data | None = None) -> str:
    """Register the model of a run as `models:/fashion-cnn@champion`, with its card; return the card.

    Raises:
        LabError: the store has no such finished run, or lacks its weights.
    """
    runs = load_runs(store)
    run = find_run(runs, run_id)
    origin = str(run["reused_from"] or run_id)
    data = data or load_data()
    if run["identity"].images != data.sha256():
        raise LabError(f"the run {run_id} was trained on images other than the champion's.")
    export_model(store, origin)
    card = _card(run, runs, store, data)
    client = store.client
    outputs: Any = client.get_run(origin).outputs
    model_id = outputs.model_outputs[0].model_id
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    version = client.create_model_version(MODEL, f"models:/{model_id}", origin, description=card, model_id=model_id)
    client.update_registered_model(MODEL, card)
    client.set_registered_model_alias(MODEL, ALIAS, version.version)
    return card


def _card(run: pd.Series, runs: pd.DataFrame, store: Store, data: Data) -> str:
    """Return the card of a run's model as Markdown: what it is, what it is for, how good it is, its limits.

    A paragraph is one line, since the MLflow UI breaks lines where the text does.
    """
    config: Config = run["config"]
    differing = differences(BASE, replace(config, seed=BASE.seed)).items()
    changed = ", ".join(f"{name}={new}" for name, (_, new) in differing) or "nothing"
    mean, sd = (float(value) for value in mean_and_sd(data.train))
    experiment = store.client.get_experiment(store.client.get_run(run["run_id"]).info.experiment_id).name
    return f"""# {ADDRESS}

A convolutional network that tells ten kinds of clothing apart in greyscale images of 28 x 28 pixels.

**Origin.** Run `{run["run_id"]}` ("{run["name"]}" of {experiment}, owner {run["owner"]}), \
{int(run["fact.num_parameters"]):,} parameters. Differences from the lab's baseline: {changed}. \
Trained for {config.epochs} epochs on {config.train_images:,} images of Fashion-MNIST's training set \
(Xiao, Rasul & Vollgraf 2017, MIT licence), seed {config.seed}, on {run["fact.device"]} in {run["fact.precision"]}. \
Pixel values are only shifted and scaled.

**What it does.** float32 (B, 1, 28, 28), pixels as (x / 255 - {mean:.4f}) / {sd:.4f} (`Data.normaliser`), to \
logits (B, 10) in the order {", ".join(CLASSES)}.

    import cnnlab, mlflow
    cnnlab.connect()
    x = (pixels / 255 - {mean:.4f}) / {sd:.4f}  # pixels: uint8 (B, 1, 28, 28)
    model = mlflow.pyfunc.load_model("{ADDRESS}")  # mlflow.pytorch gives the network itself
    logits = model.predict(x.astype("float32"))  # NumPy's default, float64, is refused

**How good it is.** {_measured(run, same_arm(runs, run))} {_tested(run, store)}\
{_classes(run, store, data)}

**For** teaching, and as a result to beat. **Not for** photographs, other clothes, or decisions about anything. \
It answers with one of the ten classes, whatever an image shows, and was only tested on centred items on black.
"""


def _measured(run: pd.Series, seeds: pd.DataFrame) -> str:
    """Return what the run scored, and what the runs that differ from it only in their seed scored."""
    accuracy, loss = 100 * run["accuracy/valid"], run["loss/valid"]
    own = f"On the 5,000 validation images: accuracy {accuracy:.2f} %, loss {loss:.4f} nats."
    if len(seeds) < 2:
        return f"{own} It is the only run of its kind, so nobody knows how much of that is luck."
    e = t_interval(100 * seeds["accuracy/valid"].to_numpy())
    return (
        f"{own} It was chosen among {e.n} runs that differ only in their seed, so expect what they reach on average: "
        f"{e.estimate:.2f} % (95 % interval of the mean [{e.low:.2f}, {e.high:.2f}], SD {e.sd:.2f} pp). Where settings "
        "were chosen on these images too, expect a little less on others."
    )


def _tested(run: pd.Series, store: Store) -> str:
    """Return what the vault says about the run's arm, if it was opened for it."""
    for number, opening in enumerate(load_vault(store, run["owner"]), start=1):
        for arm, ids in opening.runs.items():
            if run["run_id"] in ids:
                row, stamp = opening.arms.loc[arm], "post-hoc: these images had been looked at before"
                said = f"On the official test images, {row.n:.0f} such runs reached {row.test:.2f} % on average"
                return f"{said} ({stamp}). " if number > 1 else f"{said}. "
    return ""


def _classes(run: pd.Series, store: Store, data: Data) -> str:
    """Return the classes on which the run was right most and least often, on the validation images."""
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        correct = np.load(run_file(store, run["reused_from"] or run["run_id"], CORRECT, Path(folder)))
    share = pd.Series(100 * correct).groupby([CLASSES[y] for y in data.valid.y.tolist()]).mean().sort_values()
    worst, best = share.index[0], share.index[-1]
    return f"It is right least often on {worst} ({share[worst]:.1f} %), most often on {best} ({share[best]:.1f} %)."
