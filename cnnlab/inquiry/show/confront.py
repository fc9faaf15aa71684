"""`confront(study)`: the verdicts on predictions, with figures, in MLflow, in the logbook and on the screen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from matplotlib.figure import Figure

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design, count
from cnnlab.inquiry.errors import stopping
from cnnlab.inquiry.judge.outcome import DECIDED, size_miss
from cnnlab.inquiry.judge.reference import Reference, find_reference
from cnnlab.inquiry.judge.verdict import Verdict, verdict
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.effects import plot_effects, plot_interaction
from cnnlab.inquiry.show.figures import log_figures
from cnnlab.inquiry.show.logbook import add_entry, logbook_file
from cnnlab.inquiry.show.publish import publish_outcomes
from cnnlab.inquiry.shown import Part, Shown


@dataclass(frozen=True, repr=False)
class Confrontation(Shown):
    """The verdicts of a study with their figures by name, and the logbook that contains them."""

    verdicts: tuple[Verdict, ...]
    references: tuple[Reference | None, ...]  # the answers of the reference runs, one per verdict
    figures: dict[str, Figure]
    logbook: Path | None

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def parts(self) -> list[Part]:
        """Return the parts to show, besides the figures."""
        shown: list[Part] = []
        for one, reference in zip(self.verdicts, self.references, strict=True):
            shown += ["", one, *([reference.sentence(one.prediction)] if reference else []), given_back(one)]
        if missing := self._missing():
            shown += ["", "Missing runs (study.run() or `cnnlab run` trains them):", missing]
        if self.logbook:
            shown += [
                "",
                f"Write your reflection with reflect(...), or in {self.logbook.parent.name}/{self.logbook.name}.",
            ]
        return shown[1:]

    def _missing(self) -> list[str]:
        """Return a line for each arm with missing runs, such as "  dropout=0.5: 3 runs"."""
        seeds: dict[str, set[int]] = {}
        for one in self.verdicts:
            for arm, some in one.missing.items():
                seeds.setdefault(arm, set()).update(some)
        return [f"  {arm}: {count(len(some), 'run')}" for arm, some in seeds.items()]

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(HTML(self._repr_html_()), *self.figures.values())


def given_back(one: Verdict) -> list[str]:
    """Return the predictor's own words and a question about them, if the outcome was different."""
    p = one.prediction
    if one.outcome in DECIDED and one.outcome != "supported":
        return [
            f'You were {p.claim.confidence:g} % sure, because: "{p.claim.because}"',
            f'If refuted, you wanted to conclude: "{p.claim.if_refuted}" Do you? What else would explain it?',
        ]
    if one.outcome == "supported" and one.effect and (miss := size_miss(p, one.effect)):
        return [
            f'The direction was right, and the size came out {miss}. You had in mind: "{p.claim.because}" What does '
            "that leave out?"
        ]
    return []


@checked
@stopping("Stopped. The verdicts recorded so far are kept; confront(study) does the rest.")
def confront(study: Design, store: Store | None = None, number: str = "") -> Confrontation:
    """Confront the predictions about a study with its runs; record each verdict that isn't waiting for runs.

    MLflow and the logbook get the verdicts. Each is shown with the answer of the reference runs to the same question,
    if they have one. `number` is that of the figure, such as "8"; the plots of interactions are "8b", "8c", ...

    Raises:
        LabError: nothing was predicted, or the store doesn't answer.
    """
    store = store or default_store()
    verdicts = verdict(study, store)
    references = tuple(find_reference(one.prediction, store) if one.effect else None for one in verdicts)
    figures = {"effects": plot_effects(verdicts, number, references)}
    interactions = [one for one in verdicts if one.effect and one.prediction.contrast.kind == "interaction"]
    for letter, one in zip(ascii_lowercase[1:], interactions, strict=False):
        figures[one.prediction.contrast.text] = plot_interaction(one, f"{number}{letter}" if number else "")
    judged = [(one, other) for one, other in zip(verdicts, references, strict=True) if one.outcome != "waiting"]
    for one, reference in judged:
        _keep(study, one, reference, store)
    publish_outcomes(store, study.name, study.question, owner())
    return Confrontation(verdicts, references, figures, logbook_file(study.name) if judged else None)


def _keep(study: Design, one: Verdict, reference: Reference | None, store: Store) -> None:
    """Store the figures of a verdict with the prediction in MLflow, and write the verdict to the logbook."""
    figures = {"effect": plot_effects([one], references=[reference])}
    if one.effect and one.prediction.contrast.kind == "interaction":
        figures["interaction"] = plot_interaction(one)
    log_figures(store, one.prediction.record.run_id, figures)
    add_entry(study, one, figures["effect"], store, reference)
