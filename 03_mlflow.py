"""A search for a better network, every trial a run in MLflow, with an honest ending.

    uv run 03_mlflow.py                               # 20 trials of the quick profile
    uv run 03_mlflow.py --max-evals 50 --seed 1       # more of them, in another random order
    uv run 03_mlflow.py --engine ray                  # several trials at a time, with Ray Tune (uv sync --extra ray)

What to take from here into your own experiments:

1. One parent run stands for the search, and every trial is a run below it.
2. Params say what was chosen, metrics what was measured, once per epoch; nothing is typed by hand.
3. The search goes on where it was interrupted: the trials are in a file, and trial k draws its random numbers
   from (seed, k), so that an interruption changes nothing.
4. The score of the winner is not its result. The best of many noisy scores is partly luck, so the winner is trained
   again with fresh seeds, beside the baseline, after a prediction is on record. What it loses on the way is the
   winner's curse.
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

from cnnlab import Study, build_model, confront, connect, find_profile, fit, load_data, my_seeds, predict, replace
from cnnlab.config import BASE, Config
from cnnlab.course.profiles import Profile
from cnnlab.data import Data
from cnnlab.facts import num_parameters
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.params import from_params, to_params
from cnnlab.inquiry.paths import state_folder
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.show.figures import mean_interval

# What is tried: the width of the first block (doubled in each of the next two), the depth of every block, ...
SPACE = {
    "width": hp.choice("width", [8, 12, 16]),
    "depth": hp.choice("depth", [1, 2]),
    "norm": hp.choice("norm", ["none", "batch", "layer", "group"]),
    "dropout": hp.quniform("dropout", 0.0, 0.5, 0.1),
    "lr": hp.loguniform("lr", math.log(1e-3), math.log(3e-2)),
}
RANDOM_TRIALS = 8  # before TPE has seen enough to suggest anything
FIRST_FRESH_SEED = 100  # the place of the confirmation's first one among your seeds; no trial has used it
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
    score = {"loss": result.final["loss/valid"], "accuracy": result.final["accuracy/valid"]}
    return score | {"status": STATUS_OK, "params": to_params(config)}


def search_here(objective: Any, max_evals: int, seed: int, file: Path) -> list[dict[str, Any]]:
    """Try `max_evals` points one after another with TPE (Bergstra et al. 2011); `file` keeps what is done."""
    trials = pickle.loads(file.read_bytes()) if file.exists() else Trials()
    if len(trials):
        click.echo(f"{min(len(trials), max_evals)} trials are in {file.name} already.")
    for k in range(len(trials), max_evals):
        fmin(
            objective,
            SPACE,
            algo=partial(tpe.suggest, n_startup_jobs=RANDOM_TRIALS),
            max_evals=k + 1,
            trials=trials,
            rstate=np.random.default_rng([seed, k]),
            show_progressbar=False,
            verbose=False,
        )
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(trials))
        part.replace(file)  # whole, or not at all
    return list(trials.results[:max_evals])


def search_on_ray(objective: Any, max_evals: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Try `max_evals` points with the same algorithm, as many at a time as there are CPUs; `folder` keeps the state."""
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
            SPACE, metric="loss", mode="min", n_initial_points=RANDOM_TRIALS, random_state_seed=seed
        )
        at_a_time = max(1, int(ray.cluster_resources()["CPU"]))
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(search_alg=ConcurrencyLimiter(tpe_search, at_a_time), num_samples=max_evals),
            run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0),
        )
    results = tuner.fit()
    ray.shutdown()
    finished = [result.metrics for result in results if result.metrics and "params" in result.metrics]
    if not finished:
        raise LabError(f"none of the {max_evals} trials came to its end: their errors are below {folder}.")
    return finished


def parent_run(experiment_id: str, seed: int, engine: str, key: str) -> str:
    """Return the id of the run that stands for this search; its trials that were killed get an end."""
    client = mlflow.MlflowClient()
    searches = client.search_runs([experiment_id], f"tags.search = '{key}'")
    known = [run for run in searches if run.data.tags.get("owner") == owner()]
    if not known:
        tags = {"kind": "search", "owner": owner(), "search": key, **SOURCE}
        with mlflow.start_run(run_name=f"search, seed {seed}", tags=tags) as run:
            mlflow.log_params({"seed": seed, "engine": engine, "algorithm": "TPE", "random_trials": RANDOM_TRIALS})
            mlflow.log_text(str(as_apply(SPACE)), "space.txt")
        return str(run.info.run_id)
    parent_id = str(known[0].info.run_id)
    below = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.status = 'RUNNING'"
    for trial in client.search_runs([experiment_id], below):
        client.set_terminated(trial.info.run_id, "KILLED")
    return parent_id


def confirm(
    results: list[dict[str, Any]], base: Config, n: int, experiment: str, parent_id: str, engine: str | Engine
) -> Study:
    """Train winner and baseline with `n` fresh seeds, show what is left of the winner's score; return that study."""
    best = min(results, key=lambda result: result["loss"])
    base, winner = replace(base, seed=0), replace(from_params(Config, best["params"]), seed=0)
    size = f"{num_parameters(build_model(winner)):,} parameters"
    click.echo(f"\nBest of {len(results)} trials: {winner.blocks}, {winner.norm}, dropout {winner.dropout}, "
               f"lr {winner.lr} ({size})\n")  # fmt: skip
    study = Study(
        experiment,
        "Is the winner of the search better than the baseline, with seeds that the search has not seen?",
        base,
        seeds=my_seeds(n, first=FIRST_FRESH_SEED),
        arms={"baseline": base, "winner": winner},
    )
    # The search is exploration. What it found is a prediction now, and fresh seeds can refute it.
    prediction = predict(
        study,
        arm="winner",
        metric="loss/valid",
        direction="lower",
        size=(0.005, 0.5),
        confidence=80,
        because=f"it had the lowest validation loss of {len(results)} trials, some of which will be more than luck",
        if_refuted="the winner of the search was lucky, and its settings are no better than those of the baseline",
        builds_on=f"search {parent_id}",
    )
    click.echo(f"{prediction}\n")
    runs = study.run(engine=engine).set_index("seed")
    arms = {arm: runs[runs["arm"] == arm] for arm in study.arms}
    click.echo(f"\n{'':40}{'accuracy':>10}{'loss':>10}")
    show(f"winner, in the search (best of {len(results)})", best["accuracy"], best["loss"])
    show(f"winner, fresh seeds (mean, n = {n})", *arms["winner"][["accuracy/valid", "loss/valid"]].mean())
    show(f"baseline, fresh seeds (n = {n})", *arms["baseline"][["accuracy/valid", "loss/valid"]].mean())

    curse = best["loss"] - arms["winner"]["loss/valid"].mean()  # on the scale that the search selected by
    gain = 100 * (arms["winner"]["accuracy/valid"] - arms["baseline"]["accuracy/valid"])
    mean, low, high = mean_interval(gain)
    change = f"{abs(curse):.3f} nats {'higher' if curse < 0 else 'lower'}"
    click.echo(f"\nThe winner's curse: with fresh seeds its loss is {change} than in the search.")
    click.echo(f"Winner - baseline: {mean:+.2f} pp, 95 % interval [{low:+.2f}, {high:+.2f}] over {n} pairs of runs.")
    click.echo(f"\n{confront(study)}")
    with mlflow.start_run(run_id=parent_id):
        mlflow.log_metrics({"search/best_accuracy": best["accuracy"], "search/best_loss": best["loss"]})
        mlflow.log_metrics({"confirmed/curse_nats": curse, "confirmed/gain_pp": mean})
        mlflow.log_metrics({"confirmed/gain_low_pp": low, "confirmed/gain_high_pp": high})
    return study


def show(what: str, accuracy: float, loss: float) -> None:
    """Print one row of the table."""
    click.echo(f"{what:40}{100 * accuracy:>8.2f} %{loss:>10.4f}")


def search(
    size: Profile, max_evals: int, seed: int, trials: str, fresh_seeds: int, engine: str | Engine = "auto"
) -> Study:
    """Search for a network with a smaller validation loss than the baseline, confirm the winner, return that study.

    trials: "here" or "ray", where they are tried. engine: that of `study.run`, for the confirmation.
    """
    base = replace(BASE, train_images=size.train_images, epochs=size.epochs, seed=my_seeds(1)[0])
    experiment = size.experiment("05-search")
    experiment_id = connect().experiment_id(experiment)
    mlflow.set_experiment(experiment_id=experiment_id)
    data = load_data()

    # A search is known by its space, its size and its seed: if one of them changes, it is another one.
    space = hashlib.sha256(f"{as_apply(SPACE)}{base}{owner()}".encode()).hexdigest()[:8]
    key = f"{experiment}-{trials}-seed{seed}-{space}"
    folder = state_folder() / "searches"
    folder.mkdir(exist_ok=True)
    parent_id = parent_run(experiment_id, seed, trials, key)
    objective = partial(run_trial, base=base, data=data, experiment_id=experiment_id, parent_id=parent_id)
    if trials == "here":
        results = search_here(objective, max_evals, seed, folder / f"{key}.trials")
    else:
        results = search_on_ray(objective, max_evals, seed, folder / f"{key}-{max_evals}")
    return confirm(results, base, fresh_seeds, experiment, parent_id, engine)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--max-evals", type=click.IntRange(1), default=20, show_default=True, help="Trials in all.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search.")
@click.option("--engine", type=click.Choice(["here", "ray"]), default="here", show_default=True)
@click.option("--fresh-seeds", type=click.IntRange(2), default=5, show_default=True, help="For the confirmation.")
@click.option("--profile", help="tiny, quick or full: how much every trial trains.  [default: quick]")
def main(max_evals: int, seed: int, engine: str, fresh_seeds: int, profile: str | None) -> None:
    """Search for a network with a smaller validation loss than the baseline, then confirm the winner."""
    search(find_profile(profile), max_evals, seed, engine, fresh_seeds)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        raise SystemExit(f"Error: {error}") from None
