"""Learning rates: for each norm the best one and the range that works; and the norms compared at their best rates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.statistics import SAME, t_interval
from cnnlab.inquiry.shown import Part, Shown

NEAR = 1.0  # pp: a rate works if its accuracy is this close to the best one


@dataclass(frozen=True, repr=False)
class Rates(Shown):
    """A row per norm, and the comparison with the first norm in sentences; all of it is exploratory."""

    table: pd.DataFrame
    sentences: list[str]

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [self.table, self.sentences]


def compare_rates(study: Design, runs: pd.DataFrame) -> Rates:
    """Return for each norm of a study over norms and rates: the best rate, and the range of rates that work.

    A rate works for a seed if the accuracy is within 1 pp of the best one of that norm and seed; a run that failed
    doesn't work. The range is the highest rate that works divided by the lowest, with no gap between them. Its interval
    is Student's t over the seeds, of its logarithm, cut off at 1, the range of a single rate. Nothing is known between
    the rates that were tried.

    Raises:
        LabError: the arms of the study aren't norms with rates, or runs are missing.
    """
    accuracy = _accuracies(study, runs)
    best = {norm: values.mean().idxmax() for norm, values in accuracy.items()}
    widths = {norm: values.apply(_width, axis="columns") for norm, values in accuracy.items()}
    rows = {
        norm: {
            "best rate": f"{best[norm]:g}",
            "accuracy there (%)": f"{values[best[norm]].mean():.2f}",
            "range that works (highest / lowest)": _as_factor(widths[norm].to_numpy(), least=0.0),
        }
        for norm, values in accuracy.items()
    }
    first, *others = accuracy
    sentences = []
    for norm in others:
        sentences += [
            f"Range of {norm} / range of {first}: {_as_factor((widths[norm] - widths[first]).to_numpy())}.",
            f"Each at its own best rate, {norm} - {first}: "
            f"{_in_pp((accuracy[norm][best[norm]] - accuracy[first][best[first]]).to_numpy())}.",
        ]
    edges = [norm for norm, values in accuracy.items() if best[norm] in (values.columns[0], values.columns[-1])]
    if edges:
        sentences.append(
            f"Best at the edge of the rates that were tried, so a rate beyond it may be better: {', '.join(edges)}."
        )
    sentences.append("The best rates were chosen by the same runs.")
    return Rates(pd.DataFrame.from_dict(rows, orient="index"), sentences)


def _accuracies(study: Design, runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return for each norm the accuracies (%), a row per seed and a column per rate in increasing order."""
    if set(study.vary) != {"norm", "lr"}:
        raise LabError(f"{study.name} doesn't vary norm and lr: give a study over both.")
    if len(runs) < len(study.arms) * len(study.seeds):
        raise LabError(f"runs of {study.name} are missing: study.run() trains them.")
    known = runs.assign(
        norm=[config.norm for config in runs["config"]],
        lr=[config.lr for config in runs["config"]],
        accuracy=(100 * runs["accuracy/valid"]).mask(failed_runs(runs), 0.0),
    )
    return {
        str(norm): known[known["norm"] == norm].pivot(index="seed", columns="lr", values="accuracy")
        for norm in study.vary["norm"]
    }


def _width(accuracies: pd.Series) -> float:
    """Return log10 of the range that works, from one seed's accuracies by rate."""
    works = (accuracies >= accuracies.max() - NEAR).to_numpy()
    best = int(accuracies.to_numpy().argmax())
    low = best - int(np.argmin([*works[best::-1], False])) + 1
    high = best + int(np.argmin([*works[best:], False])) - 1
    return float(np.log10(accuracies.index[high] / accuracies.index[low]))


def _as_factor(logs: np.ndarray, least: float = -np.inf) -> str:
    """Return the mean of logarithms as a factor, with its interval over the seeds, cut off at `least`."""
    if np.ptp(logs) <= SAME:
        return f"{10 ** logs[0]:.3g} (the same for all {len(logs)} seeds)"
    e = t_interval(logs)
    return f"{10**e.estimate:.3g} (95 % interval [{10 ** max(least, e.low):.3g}, {10**e.high:.3g}], n = {e.n} seeds)"


def _in_pp(differences: np.ndarray) -> str:
    e = t_interval(differences)
    return f"{e.estimate:+.2f} pp, 95 % interval [{e.low:+.2f}, {e.high:+.2f}] pp, n = {e.n} seeds"
