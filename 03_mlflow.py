"""A search for a better network, every trial a run in MLflow.

    uv run 03_mlflow.py                               # 10 trials of the quick profile
    uv run 03_mlflow.py --max-evals 50 --seed 1       # more trials, in another random order
    uv run 03_mlflow.py --engine ray                  # several trials at a time, with Ray Tune (uv sync --extra ray)

What to take from here into your own experiments:

1. One parent run represents the search, and every trial is a child run of it.
2. Params record the choices, metrics the measurements after each epoch; nothing is typed by hand.
3. An interrupted search resumes, since a file contains its trials. With `--engine here`, trial k draws its random
   numbers from (seed, k), so an interruption changes nothing. With `--engine ray`, several trials run at the same
   time, and the next one depends on which of them ends first.
4. The score of the winner is not its result. The best of many noisy scores is partly luck. So you record your own
   prediction, and train the winner and the baseline with fresh seeds. The increase in the winner's loss is called the
   winner's curse: it arises because the search selected the winner by its loss.
"""

import hashlib
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import click
import mlflow
import numpy as np
import torch
from hyperopt import STATUS_OK, Trials, fmin, hp, tpe
from hyperopt.pyll import as_apply
from mltrainer.trainer import Reporter

from cnnlab import Study, connect, find_profile, fit, load_data, my_seeds, replace, winners_curse
from cnnlab.config import BASE, Config
from cnnlab.course.profiles import Profile
from cnnlab.course.search import NAME, search_study
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import in_words
from cnnlab.inquiry.params import from_params, to_params
from cnnlab.inquiry.paths import state_folder
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner

# The search space: the width of the first block (doubled in each of the next two), the depth of every block, ...
SPACE = {
    "width": hp.choice("width", [8, 12, 16]),
    "depth": hp.choice("depth", [1, 2]),
    "norm": hp.choice("norm", ["none", "batch", "layer", "group"]),
    "dropout": hp.quniform("dropout", 0.0, 0.5, 0.1),
    "lr": hp.loguniform("lr", math.log(1e-3), math.log(3e-2)),
}
RANDOM_SHARE = 0.4  # of a profile's trials are random: TPE needs some results before it can suggest anything
SOURCE = {"mlflow.source.name": "03_mlflow.py"}  # otherwise MLflow records the path of this file on your machine


def to_config(point: dict[str, Any], base: Config) -> Config:
    """Return the config of one point of the space."""
    width, depth = point["width"], point["depth"]
    return replace(
        base,
        blocks=((depth, width), (depth, 2 * width), (depth, 4 * width)),
        norm=point["norm"],
        norm_groups=4,
        dropout=round(point["dropout"], 1),
        lr=float(f"{point['lr']:.3g}"),
    )


class EpochsToMlflow(Reporter):
    """Sends the metrics of each epoch to the active run in MLflow."""

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Log all metrics of an epoch with one call; the step is the epoch."""
        mlflow.log_metrics({"loss/train": train_loss, **metric_dict}, step=epoch)


def run_trial(point: dict[str, Any], base: Config, data: Data, experiment_id: str, parent_id: str) -> dict[str, Any]:
    """Train one network as a child run of the parent; return its loss, which the search minimizes."""
    config = to_config(point, base)
    name = f"width {point['width']}, depth {point['depth']}, {config.norm}, dropout {config.dropout}, lr {config.lr}"
    tags = {"kind": "trial", "owner": owner(), **SOURCE}
    with mlflow.start_run(experiment_id=experiment_id, parent_run_id=parent_id, nested=True, run_name=name, tags=tags):
        mlflow.log_params(to_params(config))
        result = fit(config, data, [EpochsToMlflow()], progress=name, probes=False)  # only the score matters here
        mlflow.log_metrics({f"final/{name}": value for name, value in result.final.items()}, step=config.epochs)
        mlflow.set_tags({f"fact.{name}": value for name, value in result.facts.items()})
    # MLflow 3 asks for an example: mlflow.pytorch.log_model(result.model, name="model", input_example=x[:2].numpy())
    return {"loss": result.final["loss/valid"], "status": STATUS_OK}


def search_here(objective: Any, max_evals: int, random_trials: int, seed: int, file: Path) -> None:
    """Try `max_evals` points one after another with TPE (Bergstra et al. 2011); `file` stores the finished trials."""
    trials = pickle.loads(file.read_bytes()) if file.exists() else Trials()
    if len(trials):
        click.echo(f"{min(len(trials), max_evals)} trials are already in {file.name}.")
    for k in range(len(trials), max_evals):
        fmin(
            objective,
            SPACE,
            algo=partial(tpe.suggest, n_startup_jobs=random_trials),
            max_evals=k + 1,
            trials=trials,
            rstate=np.random.default_rng([seed, k]),
            show_progressbar=False,
            verbose=False,
        )
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(trials))
        part.replace(file)  # all or nothing


def search_on_ray(objective: Any, max_evals: int, random_trials: int, seed: int, folder: Path) -> None:
    """Try `max_evals` points with TPE, as many at a time as there are CPUs; so the points differ from `search_here`.

    `folder` stores the state.
    """
    from cnnlab.inquiry.run.ray_cluster import ray, start_ray  # if Ray is missing, its error says how to install it

    start_ray()
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.hyperopt import HyperOptSearch

    def trainable(point: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        default_store()  # makes MLflow in this worker process use the store
        return objective(point)

    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, restart_errored=True)
    else:
        tpe_search = HyperOptSearch(
            SPACE, metric="loss", mode="min", n_initial_points=random_trials, random_state_seed=seed
        )
        at_a_time = max(1, int(ray.cluster_resources()["CPU"]))
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(search_alg=ConcurrencyLimiter(tpe_search, at_a_time), num_samples=max_evals),
            run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0),
        )
    results = tuner.fit()
    ray.shutdown()
    if not any(result.metrics and "loss" in result.metrics for result in results):
        raise LabError(f"none of the {max_evals} trials finished: see their errors in {folder}.")


def parent_run(experiment_id: str, seed: int, random_trials: int, engine: str, key: str) -> str:
    """Return the id of the parent run of this search; mark its interrupted trials as KILLED."""
    client = mlflow.MlflowClient()
    searches = client.search_runs([experiment_id], f"tags.search = '{key}'")
    known = [run for run in searches if run.data.tags.get("owner") == owner()]
    if not known:
        tags = {"kind": "search", "owner": owner(), "search": key, **SOURCE}
        with mlflow.start_run(run_name=f"search, seed {seed}", tags=tags) as run:
            mlflow.log_params({"seed": seed, "engine": engine, "algorithm": "TPE", "random_trials": random_trials})
            mlflow.log_text(str(as_apply(SPACE)), "space.txt")
        return str(run.info.run_id)
    parent_id = str(known[0].info.run_id)
    below = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.status = 'RUNNING'"
    for trial in client.search_runs([experiment_id], below):
        client.set_terminated(trial.info.run_id, "KILLED")
    return parent_id


def log_best(experiment_id: str, parent_id: str) -> Config:
    """Log the scores of the best trial in the parent run, print them, and return its config."""
    below = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.status = 'FINISHED'"
    trials = mlflow.MlflowClient().search_runs([experiment_id], below, order_by=["metrics.`final/loss/valid` ASC"])
    name, best = trials[0].info.run_name, trials[0].data
    loss, accuracy = best.metrics["final/loss/valid"], best.metrics["final/accuracy/valid"]
    with mlflow.start_run(run_id=parent_id):
        mlflow.log_metrics({"search/best_loss": loss, "search/best_accuracy": accuracy})
    click.echo(f"\nBest of {len(trials)} trials: {name}, {best.tags['fact.num_parameters']} parameters")
    click.echo(f"Its validation loss is {loss:.4f}, its accuracy {100 * accuracy:.2f} %.")
    return from_params(Config, best.params)


def search(size: Profile, max_evals: int, seed: int, engine: str) -> Study:
    """Search for a network with a smaller validation loss than the baseline; return the study that tests the winner."""
    store = connect()
    base = replace(BASE, train_images=size.train_images, epochs=size.epochs, seed=my_seeds(1)[0])
    experiment = size.experiment(NAME)
    experiment_id = store.experiment_id(experiment)
    mlflow.set_experiment(experiment_id=experiment_id)
    data = load_data()

    # A search is identified by its space, its size and its seed: if one of them changes, it is another search.
    space = hashlib.sha256(f"{as_apply(SPACE)}{base}{owner()}".encode()).hexdigest()[:8]
    key = f"{experiment}-{engine}-seed{seed}-{space}"
    folder = state_folder() / "searches"
    folder.mkdir(exist_ok=True)
    random_trials = round(RANDOM_SHARE * size.trials)  # not of max_evals: then more trials can continue the same search
    parent_id = parent_run(experiment_id, seed, random_trials, engine, key)
    objective = partial(run_trial, base=base, data=data, experiment_id=experiment_id, parent_id=parent_id)
    if engine == "here":
        search_here(objective, max_evals, random_trials, seed, folder / f"{key}.trials")
    else:
        search_on_ray(objective, max_evals, random_trials, seed, folder / f"{key}-{max_evals}")

    best, study = log_best(experiment_id, parent_id), search_study(size, store)
    if other := in_words(best, replace(study.arms["winner"], seed=best.seed)):
        click.echo(
            f"The winner in {study.name} is another trial ({other}): you have predicted something about it, or another "
            "search of yours found it with a lower loss. To test this one as well, create a separate study for it."
        )
    return study


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--max-evals", type=click.IntRange(1), help="Total number of trials.  [default: the profile's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the search.")
@click.option("--engine", type=click.Choice(["here", "ray"]), default="here", show_default=True)
@click.option("--profile", help="tiny, quick or full: how much every trial trains.  [default: quick]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs per trial.  [default: the profile's]")
@click.option("--seeds", type=click.IntRange(2), help="Number of fresh seeds for the winner.  [default: the profile's]")
def main(max_evals: int | None, seed: int, engine: str, **size: Any) -> None:
    """Search for a network with a smaller validation loss than the baseline, then say how to test the winner."""
    profile = find_profile(size["profile"], size["epochs"], size["seeds"])
    study = search(profile, max_evals or profile.trials, seed, engine)
    if len(study.results()) == len(study.runs()):
        click.echo(f"\n{winners_curse(study)}")
        return
    options = "".join(f" --{name} {value}" for name, value in size.items() if value)
    click.echo("\nNext, record your own prediction about the winner, and train winner and baseline with fresh seeds:\n")
    click.echo(f"    uv run cnnlab predict search{options}\n    uv run cnnlab run search{options}\n")
    click.echo("Then repeat the command of this search: it shows how much of the winner's score remains.")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        raise SystemExit(f"Error: {error}") from None
