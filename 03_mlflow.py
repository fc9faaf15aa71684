"""A search for a better network, every trial a run in MLflow.

    uv run 03_mlflow.py                               # 10 trials of the quick profile
    uv run 03_mlflow.py --max-evals 50 --seed 1       # more of them, in another random order
    uv run 03_mlflow.py --engine ray                  # several trials at a time, with Ray Tune (uv sync --extra ray)

What to take from here into your own experiments:

1. One parent run stands for the search, and every trial is a run below it.
2. Params say what was chosen, metrics what was measured, once per epoch; nothing is typed by hand.
3. An interrupted search resumes: what was tried is in a file. With `--engine here`, trial k draws its random numbers
   from (seed, k), so an interruption changes nothing. With `--engine ray`, several trials run at the same time, and
   what is tried next depends on which of them ends first.
4. The score of the winner is not its result. The best of many noisy scores is partly luck. So you record a prediction
   of your own, and the winner is trained again with fresh seeds, beside the baseline. By how much its loss is then
   higher is the winner's curse: the loss is what the search selected by.
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

# What is tried: the width of the first block (doubled in each of the next two), the depth of every block, ...
SPACE = {
    "width": hp.choice("width", [8, 12, 16]),
    "depth": hp.choice("depth", [1, 2]),
    "norm": hp.choice("norm", ["none", "batch", "layer", "group"]),
    "dropout": hp.quniform("dropout", 0.0, 0.5, 0.1),
    "lr": hp.loguniform("lr", math.log(1e-3), math.log(3e-2)),
}
RANDOM_SHARE = 0.4  # of a profile's trials are random: before, TPE has seen too few to suggest anything
SOURCE = {"mlflow.source.name": "03_mlflow.py"}  # else MLflow writes down where this file is on your machine


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
    """Sends what was measured after each epoch to the run that is active in MLflow."""

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Log all metrics of an epoch with one call; the step is the epoch."""
        mlflow.log_metrics({"loss/train": train_loss, **metric_dict}, step=epoch)


def run_trial(point: dict[str, Any], base: Config, data: Data, experiment_id: str, parent_id: str) -> dict[str, Any]:
    """Train one network as a run below the parent; return its loss, which the search makes small."""
    config = to_config(point, base)
    name = f"width {point['width']}, depth {point['depth']}, {config.norm}, dropout {config.dropout}, lr {config.lr}"
    tags = {"kind": "trial", "owner": owner(), **SOURCE}
    with mlflow.start_run(experiment_id=experiment_id, parent_run_id=parent_id, nested=True, run_name=name, tags=tags):
        mlflow.log_params(to_params(config))
        result = fit(config, data, [EpochsToMlflow()], progress=name, probes=False)  # only the score counts here
        mlflow.log_metrics({f"final/{name}": value for name, value in result.final.items()}, step=config.epochs)
        mlflow.set_tags({f"fact.{name}": value for name, value in result.facts.items()})
    # MLflow 3 asks for an example: mlflow.pytorch.log_model(result.model, name="model", input_example=x[:2].numpy())
    return {"loss": result.final["loss/valid"], "status": STATUS_OK}


def search_here(objective: Any, max_evals: int, random_trials: int, seed: int, file: Path) -> None:
    """Try `max_evals` points one after another with TPE (Bergstra et al. 2011); `file` keeps what is done."""
    trials = pickle.loads(file.read_bytes()) if file.exists() else Trials()
    if len(trials):
        click.echo(f"{min(len(trials), max_evals)} trials are in {file.name} already.")
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
        part.replace(file)  # whole, or not at all


def search_on_ray(objective: Any, max_evals: int, random_trials: int, seed: int, folder: Path) -> None:
    """Try `max_evals` points with TPE too, but as many at a time as there are CPUs, so that others are tried.

    `folder` keeps the state.
    """
    from cnnlab.inquiry.run.ray_cluster import ray, start_ray  # says how to install Ray where it is missing

    start_ray()
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.hyperopt import HyperOptSearch

    def trainable(point: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        default_store()  # points the MLflow of this worker process at the store
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
        raise LabError(f"none of the {max_evals} trials came to its end: see their errors in {folder}.")


def parent_run(experiment_id: str, seed: int, random_trials: int, engine: str, key: str) -> str:
    """Return the id of the run that stands for this search; its interrupted trials are marked KILLED."""
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
    """Log the scores of the best trial at its parent, print them, and return its config."""
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

    # A search is known by its space, its size and its seed: if one of them changes, it is another one.
    space = hashlib.sha256(f"{as_apply(SPACE)}{base}{owner()}".encode()).hexdigest()[:8]
    key = f"{experiment}-{engine}-seed{seed}-{space}"
    folder = state_folder() / "searches"
    folder.mkdir(exist_ok=True)
    random_trials = round(RANDOM_SHARE * size.trials)  # not of max_evals: more trials continue the same search
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
            "search of yours found it with a lower loss. To test this one as well, give it a study of its own."
        )
    return study


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--max-evals", type=click.IntRange(1), help="Trials in all.  [default: as many as the profile has]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search.")
@click.option("--engine", type=click.Choice(["here", "ray"]), default="here", show_default=True)
@click.option("--profile", help="tiny, quick or full: how much every trial trains.  [default: quick]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs per trial, other than the profile's.")
@click.option("--seeds", type=click.IntRange(2), help="Fresh seeds for the winner, other than the profile's.")
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
    click.echo("After that, the command of this search shows what is left of the winner's score.")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        raise SystemExit(f"Error: {error}") from None
