"""`confront(study)`: the verdicts on what was predicted, with figures, in MLflow, in the journal and on the screen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from matplotlib.figure import Figure

from cnnlab.inquiry.verdict import Verdict, verdict
from cnnlab.reporting.effects import plot_effects, plot_interaction
from cnnlab.reporting.journal import add_entry, journal_file
from cnnlab.studies.study import Study
from cnnlab.tracking.connection import connect
from cnnlab.tracking.run_logger import log_figures
from cnnlab.tracking.store import Store
from cnnlab.tracking.views import publish_verdicts


@dataclass(frozen=True, repr=False)
class Confrontation:
    """The verdicts of a study with their figures by name, and the journal that holds them."""

    verdicts: tuple[Verdict, ...]
    figures: dict[str, Figure]
    journal: Path | None

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __str__(self) -> str:
        parts = [str(one) for one in self.verdicts]
        if self.journal:
            parts.append(f"Your reflection belongs into {self.journal.parent.name}/{self.journal.name}.")
        return "\n\n".join(parts)

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        for one in self.verdicts:
            display(HTML(one._repr_html_()))
        for figure in self.figures.values():
            display(figure)
        if self.journal:
            folder = self.journal.parent.name
            display(HTML(f"<p>Your reflection belongs into <code>{folder}/{self.journal.name}</code>.</p>"))


def confront(study: Study, store: Store | None = None, number: str = "") -> Confrontation:
    """Confront the predictions about a study with its runs; record and journal every verdict that isn't waiting.

    `number` is that of the figure, such as "8"; the plots of interactions are "8b", "8c", ...

    Raises:
        LabError: nothing was predicted, or the store doesn't answer.
    """
    store = store or connect(say=lambda line: None)
    verdicts = tuple(verdict(study, store))
    figures = {"effects": plot_effects(verdicts, number)}
    interactions = [one for one in verdicts if one.effect and one.prediction.contrast.kind == "interaction"]
    for letter, one in zip(ascii_lowercase[1:], interactions, strict=False):
        figures[one.prediction.contrast.text] = plot_interaction(one, f"{number}{letter}" if number else "")
    kept = [one for one in verdicts if one.outcome != "waiting"]
    for one in kept:
        _keep(study, one, store)
    lines = [f"{one.prediction.contrast.text}: {one.headline()}" for one in kept]
    publish_verdicts(store, study.name, study.question, lines)
    return Confrontation(verdicts, figures, journal_file(study.name) if kept else None)


def _keep(study: Study, one: Verdict, store: Store) -> None:
    """Keep the figures of a verdict at the prediction in MLflow, and write it into the journal."""
    assert one.prediction.record is not None and one.recorded is not None
    figures = {"effect": plot_effects([one])}
    if one.effect and one.prediction.contrast.kind == "interaction":
        figures["interaction"] = plot_interaction(one)
    log_figures(store, one.prediction.record.run_id, figures)
    add_entry(study, one, one.recorded, figures["effect"], store)
