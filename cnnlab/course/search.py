"""The search of `03_mlflow.py`, started from a notebook, and the study that trains its winner with fresh seeds."""

import runpy
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cnnlab.config import BASE, replace
from cnnlab.course.profiles import Profile
from cnnlab.course.trials import NoTrials, finished_trials
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.statistics import Effect, t_interval
from cnnlab.inquiry.log import log
from cnnlab.inquiry.prediction import load_predictions
from cnnlab.inquiry.record.connection import connect, default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.seeds import my_seeds
from cnnlab.inquiry.shown import Head, Part, Shown
from cnnlab.inquiry.study import Study
from cnnlab.task import METRICS

SCRIPT = Path(__file__).resolve().parents[2] / "03_mlflow.py"
NAME = "05-search"
FIRST_FRESH_SEED = 100  # its place among an owner's seeds; no trial has used it
ACCURACY, LOSS = METRICS[:2]


def run_search(profile: Profile) -> Study:
    """Run the search of `03_mlflow.py` here, at the size of a profile, and return its `search_study`.

    It prints what the script prints. An interrupted search resumes; a finished one is not repeated.

    Raises:
        LabError: the script isn't there, or it raises one.
    """
    if not SCRIPT.is_file():
        raise LabError(f"{SCRIPT.name} isn't beside the package: download the whole project folder.")
    store = connect()
    with suppress(NoTrials):
        if (done := len(finished_trials(store, profile.experiment(NAME)))) >= profile.trials:
            log.info(f"{done} trials are on record: the search is finished.")
            return search_study(profile, store)
    script = runpy.run_path(str(SCRIPT))
    with stopping("Stopped. What was measured is kept; run_search() continues from here."):
        study: Study = script["search"](profile, profile.trials, 0, "here")
    return study


def search_study(profile: Profile, store: Store) -> Study:
    """Return the study that compares the winner of this owner's search with the baseline, with fresh seeds.

    The winner is the trial with the lowest validation loss. Once you have predicted something about a winner, it stays
    the winner, whatever later trials find.

    Raises:
        NoTrials: the search hasn't been run.
        LabError: the store doesn't answer.
    """
    name = profile.experiment(NAME)
    base = replace(BASE, train_images=profile.train_images, epochs=profile.epochs)
    arms = [one.contrast.arms for one in load_predictions(store, name, owner())]
    winners = [of["winner"] for of in arms if "winner" in of]
    winner = winners[0] if winners else finished_trials(store, name).sort_values(LOSS.name)["config"].iloc[0]
    return Study(
        name,
        "Is the winner of the search better than the baseline, with seeds that the search has not seen?",
        base,
        seeds=my_seeds(profile.seeds, first=FIRST_FRESH_SEED),
        arms={"baseline": base, "winner": replace(winner, seed=0)},
    )


@dataclass(frozen=True, repr=False)
class WinnersCurse(Shown):
    """What is left of a winner's score with fresh seeds. It is shown as a table with two sentences.

    table: loss and accuracy of the winner in the search, and of winner and baseline with fresh seeds. curse: how much
    higher the winner's loss is with fresh seeds, in nats. gain: winner - baseline, in pp, seed by seed.
    """

    table: pd.DataFrame
    curse: Effect
    gain: Effect

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        curse, gain = self.curse, self.gain
        change = f"{LOSS.say(abs(curse.estimate), sign=False)} {'higher' if curse.estimate > 0 else 'lower'}"
        return [
            self.table,
            Head(
                f"The winner's curse: with fresh seeds its loss is {change} than in the search, 95 % interval "
                f"{LOSS.say_interval(curse.low, curse.high)}, n = {curse.n} seeds."
            ),
            f"Winner - baseline: {ACCURACY.say(gain.estimate)}, 95 % interval "
            f"{ACCURACY.say_interval(gain.low, gain.high)}, n = {gain.n} seeds.",
        ]


@checked
def winners_curse(study: Study, store: Store | None = None) -> WinnersCurse:
    """Compare the winner's score in the search with its scores in a `search_study`; log the result and return it.

    Raises:
        LabError: the study isn't one of a search, or runs are missing or failed.
    """
    store = store or default_store()
    trials = finished_trials(store, study.name)
    trial, runs = _trial_of_winner(study, trials), _complete(study, store)
    loss, accuracy = (one.scale * runs.pivot(index="seed", columns="arm", values=one.name) for one in (LOSS, ACCURACY))
    curse = t_interval((loss["winner"] - trial[LOSS.name]).to_numpy())
    gain = t_interval((accuracy["winner"] - accuracy["baseline"]).to_numpy())
    arms, n = ["winner", "baseline"], len(study.seeds)
    table = pd.DataFrame(
        {
            "loss (nats)": [trial[LOSS.name], *loss[arms].mean()],
            "accuracy (%)": [100 * trial[ACCURACY.name], *accuracy[arms].mean()],
        },
        index=[
            f"winner, in the search (one of {len(trials)} trials)",
            *(f"{arm}, fresh seeds (mean, n = {n})" for arm in arms),
        ],
    )
    _log(store, trial["run_id"], curse, gain)
    return WinnersCurse(table.round({"loss (nats)": 4, "accuracy (%)": 2}), curse, gain)


def _trial_of_winner(study: Study, trials: pd.DataFrame) -> pd.Series:
    winner = study.arms.get("winner", study.base)
    found = trials[[set(differences(winner, config)) <= {"seed"} for config in trials["config"]]]
    if found.empty or set(study.arms) != {"baseline", "winner"}:
        raise LabError(f"{study.name} has no winner among the trials on record: give the study of run_search().")
    return found.iloc[0]


def _complete(study: Study, store: Store) -> pd.DataFrame:
    """Return the runs of a study.

    Raises:
        LabError: some are missing, or failed.
    """
    runs = study.results(store)
    well = runs[~failed_runs(runs)]
    if missing := len(study.runs()) - len(well):
        raise LabError(
            f"{missing} of {len(study.runs())} runs of {study.name} are missing or failed: after your prediction, "
            "study.run() trains what is missing, or in a terminal `uv run cnnlab run search`."
        )
    return well


def _log(store: Store, trial_id: str, curse: Effect, gain: Effect) -> None:
    """Log the numbers in the run of the search that a trial belongs to."""
    search_id = store.client.get_run(trial_id).data.tags["mlflow.parentRunId"]
    numbers = {"curse_nats": curse.estimate, "gain_pp": gain.estimate}
    numbers |= {"gain_low_pp": gain.low, "gain_high_pp": gain.high}
    for name, value in numbers.items():
        store.client.log_metric(search_id, f"confirmed/{name}", value)
