"""What the reference runs that ship with the lab say about the same question, for comparison with a student's runs."""

from dataclasses import dataclass
from dataclasses import replace as replace_fields

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.judge.verdict import effect_in_words, judge
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.environment import REFERENCE as OWNER
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.task import task


@dataclass(frozen=True)
class Reference:
    """The effect of a contrast in the reference runs; `size` says how much was trained."""

    effect: Effect
    size: str

    def sentence(self, prediction: Prediction) -> str:
        """Return the effect in words, with its interval and n."""
        return f"For comparison, the reference runs ({self.size}): {effect_in_words(prediction.metric, self.effect)}."


def find_reference(prediction: Prediction, store: Store) -> Reference | None:
    """Return what the reference runs say about the question of a prediction.

    None if it is a reference prediction itself, if they don't answer the question (the same study, arms of the same
    names that change the same settings, on the same images), if they aren't in this store, or if their comparison is
    unfair.
    """
    study = task().reference(prediction.study)
    if study is None or prediction.record.owner == OWNER or not _asks(study, prediction):
        return None
    try:
        runs = results(study, store, OWNER)
    except LabError:
        return None  # the experiment was deleted or renamed
    arms = {arm: study.arms[arm] for arm in prediction.contrast.arms}
    contrast = replace_fields(prediction.contrast, arms=arms, seeds=study.seeds)
    found = judge(replace_fields(prediction, contrast=contrast), study, runs, known=[])
    return Reference(found.effect, task().size(study.base)) if found.effect else None


def _asks(study: Design, prediction: Prediction) -> bool:
    """Return whether a study has all arms of a prediction, each with the same changes to the control."""
    contrast = prediction.contrast
    if contrast.images != study.images or not set(contrast.arms) <= set(study.arms):
        return False
    own, control = contrast.arms[contrast.control], study.arms[contrast.control]
    return all(differences(own, config) == differences(control, study.arms[a]) for a, config in contrast.arms.items())
