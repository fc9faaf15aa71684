"""What was known before a prediction was made, and what else was predicted about the same runs.

Results that were known make a verdict exploratory. Anything else that could have been learned before, from runs without
a prediction or from runs of other owners in the same store, is noted beside the verdict.
"""

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from cnnlab.inquiry.design import count
from cnnlab.inquiry.identity import Identity, differences
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.task import task

FALSE_SUPPORT = 2.5  # percent: where there is no effect, at most this share of studies has a claim "supported"
NAMED = 3  # of the other owners, at most


def standing(predictions: list[Prediction], runs: pd.DataFrame) -> list[Prediction]:
    """Return the predictions of one owner, oldest first, without those that a later one replaced: one about the same
    question, in any study, that was made before any result was known."""
    return [
        one
        for i, one in enumerate(predictions)
        if not any(later.question == one.question and not seen_before(later, runs) for later in predictions[i + 1 :])
    ]


def seen_before(prediction: Prediction, runs: pd.DataFrame) -> list[str]:
    """Return the ids of runs whose results existed before the prediction: runs of its new arms and seeds in any study
    or search, measured at least once, even if they failed later. Runs whose images aren't known count."""
    contrast = prediction.contrast
    wanted = _new_runs(prediction)
    theirs = _earlier(prediction, runs)
    theirs = theirs[theirs["owner"] == prediction.record.owner].drop_duplicates("identity")
    alike = [contrast.look_alike(identity) for identity in theirs["identity"]]
    known = [Identity(one.config, one.images or contrast.images) in wanted for one in alike]
    return list(theirs.loc[known, "run_id"])


def _earlier(prediction: Prediction, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that were measured before a prediction."""
    before: pd.DataFrame = runs[(runs["started"] < prediction.record.time.timestamp() * 1000) & runs["measured"]]
    return before


def what_was_known(prediction: Prediction, runs: pd.DataFrame) -> list[str]:
    """Return what a reader should know beside a verdict, one sentence each: whether it is about other images, and what
    was known before the prediction from runs other than its own."""
    earlier = _earlier(prediction, runs)
    own, free = earlier["owner"] == prediction.record.owner, earlier["prediction"] == ""
    lines = (
        "" if prediction.contrast.images == task().own_data else f"it is about {task().other_data}.",
        _explored(prediction, earlier[own], free),
        _tried(prediction, earlier[own & ~free]),
        _seen_by_others(prediction, earlier[~own]),
    )
    return [line for line in lines if line]


def _explored(prediction: Prediction, earlier: pd.DataFrame, free: pd.Series) -> str:
    """Say which of its factors had been varied before in runs without a prediction (`free`)."""
    contrast = prediction.contrast
    control = task().canonical(contrast.arms[contrast.control])
    varied = {}
    for name in contrast.factors:
        values = pd.Series([getattr(identity.config, name) for identity in earlier["identity"]], earlier.index, object)
        others = earlier[(values != getattr(control, name)) & free.loc[earlier.index]]
        if values.nunique() > 1:  # a field that was the same in all of them wasn't varied
            varied[name] = [identity.config.seed for identity in others["identity"]]
    return _varied("runs without a prediction", varied, prediction.n)


def _tried(prediction: Prediction, predicted: pd.DataFrame) -> str:
    """Say how often its factors had been varied before in runs of other predictions, with all else equal."""
    contrast = prediction.contrast
    control, asked = contrast.arms[contrast.control], set(contrast.factors)
    seeds = [
        identity.config.seed
        for identity in predicted["identity"].drop_duplicates()
        if set(differences(control, identity.config)) - ({"seed", *task().negligible} - asked) == asked
    ]
    return _varied("runs of other predictions", {" and ".join(sorted(asked)): seeds}, prediction.n)


def _varied(runs: str, seeds: dict[str, list[int]], n: int) -> str:
    """Say which fields such runs had varied, given the seed of each run; "" if none had."""
    said = [
        f"{name} ({count(len(some), 'run')}, {count(len(set(some)), 'seed')})" for name, some in seeds.items() if some
    ]
    return f"before it, {runs} had varied {', '.join(said)}; the prediction has {count(n, 'seed')}." if said else ""


def _seen_by_others(prediction: Prediction, others: pd.DataFrame) -> str:
    """Say which other owners of the store had run its new arms before, with any seeds."""
    new = {identity.arm.look_alike for identity in prediction.contrast.runs(prediction.contrast.new)}
    unshipped = others[~others["seal"].isin(task().shipped)]
    looked = Counter(run["owner"] for _, run in unshipped.iterrows() if run["identity"].arm.look_alike in new)
    if not looked:
        return ""
    named = ", ".join(f"{owner} ({times})" for owner, times in looked.most_common(NAMED))
    more = f" and {len(looked) - NAMED} more" if len(looked) > NAMED else ""
    return f"other owners of this store had run its arms before it: {named}{more}."


def asked_at_once(prediction: Prediction, predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return its owner's predictions about the same runs, including itself."""
    runs = _new_runs(prediction)
    return [one for one in predictions if not runs.isdisjoint(_new_runs(one))]


def _new_runs(prediction: Prediction) -> set[Identity]:
    """Return the runs whose results had to be unknown, and all runs like them."""
    contrast = prediction.contrast
    return {contrast.look_alike(identity) for identity in contrast.runs(contrast.new)}


def by_chance(together: list[Prediction]) -> list[str]:
    """Say what chance alone does when several predictions are about the same runs."""
    k = len(together)
    if k < 2:
        return []
    return [
        f"{k} predictions are about the same runs. Without any effect, each is 'supported' in at most "
        f"{FALSE_SUPPORT} % of studies, and at least one of them in at most {k * FALSE_SUPPORT:g} % (Bonferroni)."
    ]
