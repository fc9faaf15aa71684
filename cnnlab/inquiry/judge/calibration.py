"""How good predictions were: their confidence against the outcomes, over all studies of one owner."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import pandas as pd

from cnnlab.inquiry.claim import RANGE_LEVEL
from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.outcome import DECIDED
from cnnlab.inquiry.prediction import say_claim
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Shown

COLUMNS = ["study", "prediction", "confidence", "label", "outcome", "in_size_range", "interval_score"]


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """All predictions with their verdicts, and what they say about the predictor, for directions and for sizes.

    table: one row per prediction, `study, prediction, confidence, label, outcome, in_size_range, interval_score` (the
    last two are None and NaN where no range was given). Only confirmatory verdicts count.

    Directions have the Brier score. Confidence is about a difference in the predicted direction that isn't negligible,
    so "practically equivalent" counts as not supported. The score leaves out inconclusive verdicts, which say nothing
    about the prediction. That flatters predictions that can't be decided, so the score that counts them as failures is
    given too.

    Sizes have the coverage of their ranges: a range applies only if the direction is right, so only supported
    predictions count, and 80 % of their ranges should contain the estimate. Since a range from 0 to 100 contains
    everything, there is also the interval score, which is lower for narrow ranges that are right (`interval_score`).
    """

    table: pd.DataFrame

    @property
    def _confirmatory(self) -> pd.DataFrame:
        return self.table[self.table["label"] == "confirmatory"]

    @property
    def _supported(self) -> pd.DataFrame:
        return self._confirmatory[self._confirmatory["outcome"] == "supported"]

    @property
    def decided(self) -> pd.DataFrame:
        """The verdicts that count and settle a question: `confidence` (%) and `supported` (bool)."""
        counts = self._confirmatory[self._confirmatory["outcome"].isin(DECIDED)]
        return pd.DataFrame({"confidence": counts["confidence"], "supported": counts["outcome"] == "supported"})

    @property
    def brier(self) -> float:
        """The mean of (confidence - outcome)^2, outcome 0 or 1: 0 is perfect, and always saying 50 % gets 0.25.

        Brier 1950 adds up both outcomes of an event, which gives twice as much.
        """
        return _brier(self.decided["confidence"], self.decided["supported"])

    @property
    def inconclusive(self) -> int:
        """How many confirmatory verdicts are inconclusive."""
        return int((self._confirmatory["outcome"] == "inconclusive").sum())

    @property
    def brier_of_all(self) -> float:
        """The Brier score if inconclusive verdicts counted as not supported."""
        counts = self._confirmatory[self._confirmatory["outcome"].isin([*DECIDED, "inconclusive"])]
        return _brier(counts["confidence"], counts["outcome"] == "supported")

    @property
    def coverage(self) -> tuple[int, int]:
        """How many predicted ranges contain the estimate, and how many supported predictions have a range."""
        ranges = self._supported["in_size_range"].dropna()
        return int(ranges.astype(bool).sum()), len(ranges)

    @property
    def interval_score(self) -> float:
        """The mean interval score of these ranges, in units of the smallest effect of interest; NaN without any.

        The lower, the better; see `interval_score`.
        """
        return float(self._supported["interval_score"].mean())

    @property
    def surprises(self) -> pd.DataFrame:
        """Predictions made with 75 % confidence or more that were refuted or turned out practically equivalent."""
        counts = self._confirmatory
        return counts[counts["outcome"].isin(["refuted", "practically equivalent"]) & (counts["confidence"] >= 75)]

    def sentence(self) -> str:
        """Return the summary in words, with every n."""
        made = count(len(self.table), "prediction")
        if self.decided.empty:
            return f"{made}, none decided by a confirmatory verdict yet."
        n, held, left_out = len(self.decided), int(self.decided["supported"].sum()), self.inconclusive
        said = (
            f"{made}; {n} decided by a confirmatory verdict: {held} supported, at a mean confidence of "
            f"{self.decided['confidence'].mean():.0f} %. Brier score {self.brier:.2f} (n = {n}; 0 is perfect, 0.25 is "
            "what always saying 50 % gets)."
        )
        if left_out:
            said += (
                f" With {count(left_out, 'inconclusive verdict')} counted as not supported, it is "
                f"{self.brier_of_all:.2f} (n = {n + left_out})."
            )
        return f"{said}{self._sizes()} Wrong despite a confidence of 75 % or more: {len(self.surprises)}."

    def _sizes(self) -> str:
        inside, of = self.coverage
        if not of:
            return ""
        return (
            f" Sizes: the estimate lies in {inside} of {count(of, 'range')}; it should do so in {RANGE_LEVEL} %. Mean "
            f"interval score {self.interval_score:.1f} times the smallest effect of interest (lower is better)."
        )

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [self._in_words(), self.sentence()] if len(self.table) else [self.sentence()]

    def _in_words(self) -> pd.DataFrame:
        """Return the table for readers: the label only where it isn't confirmatory, and no empty column."""
        own = self.table["label"] == "confirmatory"
        columns = {
            "prediction": self.table["study"] + ": " + self.table["prediction"],
            "sure (%)": self.table["confidence"],
            "verdict": self.table["outcome"].where(own, self.table["outcome"] + ", " + self.table["label"]),
            "in range": self.table["in_size_range"].map({True: "yes", False: "no"}).fillna(""),
            "interval score": self.table["interval_score"].round(1),
        }
        return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _brier(confidence: pd.Series, supported: pd.Series) -> float:
    return float(((confidence / 100 - supported) ** 2).mean())


def interval_score(low: float, high: float, value: float, level: float = RANGE_LEVEL / 100) -> float:
    """Return the score of a range for a value, in its unit: width + 2 / alpha x how far the value is outside.

    The range is central, and alpha = 1 - level is the share of values that should be outside (Gneiting & Raftery 2007,
    section 6.2, equation 43). The lower, the better; on average it is lowest for the range you really believe in.
    """
    missed = max(low - value, value - high, 0.0)
    return high - low + 2 / (1 - level) * missed


def calibrate_records(records: Iterable[Record]) -> Calibration:
    """Return the calibration over the last recorded verdict of each prediction; nothing is computed again.

    What was changed so that it can't be read doesn't count; a review names it.
    """
    judged = [record for record in records if record.verdicts and not record.deleted]
    rows = [row for record in judged if (row := _row(record))]
    return Calibration(pd.DataFrame(rows, columns=COLUMNS))


def _row(record: Record) -> dict[str, object] | None:
    """Return the row of a prediction with a verdict; None if it can't be read."""
    content, last = record.content, record.verdicts[-1].content
    try:
        confidence = float(content["confidence"])
        row = {
            "study": record.experiment,
            "prediction": f"{content['contrast']}: {say_claim(content)}",
            "confidence": confidence,
            "label": last["label"],
            "outcome": last["outcome"],
            "in_size_range": _in_size_range(content, last),
            "interval_score": _interval_score(content, last),
        }
    except (KeyError, ValueError):
        return None
    return row if 0 <= confidence <= 100 else None  # "nan" and "1e999" are numbers too


def _in_size_range(content: dict[str, str], verdict: dict[str, str]) -> bool | None:
    """Return whether the predicted range contains the estimate, as recorded; None for a prediction of no difference."""
    if content["direction"] == "none":
        return None
    return {"True": True, "False": False}.get(verdict.get("in_size_range", ""))


def _interval_score(content: dict[str, str], verdict: dict[str, str]) -> float:
    """Return the score of the predicted range in units of the smallest effect of interest; NaN without a range."""
    sign = {"higher": 1, "lower": -1}.get(content["direction"], nan)
    try:
        low, high, sesoi = (float(content[name]) for name in ("low", "high", "sesoi"))
        return interval_score(low, high, sign * float(verdict["estimate"])) / sesoi
    except (KeyError, ValueError, ZeroDivisionError):  # no range, or no effect
        return nan


def my_calibration(store: Store) -> Calibration:
    """Return the calibration over all predictions of this owner in a store, from what was recorded.

    Raises:
        LabError: the store doesn't answer.
    """
    return calibrate_records(load_records(store, owner=owner()))
