"""How good predictions were: their confidence against what came out, over all studies of one owner."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnlab.inquiry.judge.verdict import DECIDED
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Shown

COLUMNS = ["study", "prediction", "confidence", "label", "outcome", "in_size_range"]


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """All predictions with their verdicts, and what they say about the predictor.

    table: one row a prediction, `study, prediction, confidence, label, outcome, in_size_range`. Only confirmatory
    verdicts count, and of those that are decided `decided` has `confidence` (%) and `supported` (bool).
    """

    table: pd.DataFrame
    decided: pd.DataFrame

    @property
    def brier(self) -> float:
        """The Brier score (Brier 1950): mean of (confidence - what came out)^2; 0 is perfect, 0.25 is always "50 %"."""
        if self.decided.empty:
            return float("nan")
        return float(np.mean((self.decided["confidence"] / 100 - self.decided["supported"]) ** 2))

    @property
    def coverage(self) -> tuple[int, int]:
        """How many estimates fell into the predicted size range, of how many confirmatory ones there are."""
        with_estimate = self.table.loc[self.table["label"] == "confirmatory", "in_size_range"].dropna()
        return int(with_estimate.astype(bool).sum()), len(with_estimate)

    @property
    def surprises(self) -> pd.DataFrame:
        """Predictions held with 75 % confidence or more that were refuted or turned out practically nothing."""
        if self.table.empty:
            return self.table
        wrong = self.table["outcome"].isin(["refuted", "practically equivalent"])
        return self.table[wrong & (self.table["confidence"] >= 75) & (self.table["label"] == "confirmatory")]

    def sentence(self) -> str:
        """Return the summary in words, with every n."""
        if self.decided.empty:
            return f"{len(self.table)} predictions, none of them decided by a confirmatory verdict yet."
        n, held = len(self.decided), int(self.decided["supported"].sum())
        inside, of = self.coverage
        return (
            f"{len(self.table)} predictions; {n} decided by a confirmatory verdict: {held} supported, at a mean "
            f"confidence of {self.decided['confidence'].mean():.0f} %. Brier score {self.brier:.2f} (n = {n}; 0 is "
            f"perfect, 0.25 is what always saying 50 % gets). The size was predicted right in {inside} of {of}. "
            f"Surprises: {len(self.surprises)}."
        )

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [self.table, self.sentence()] if len(self.table) else [self.sentence()]


def calibrate_records(records: Iterable[Record]) -> Calibration:
    """Return the calibration over the last recorded verdict of each prediction, without computing anything anew."""
    rows: list[dict[str, object]] = []
    for record in records:
        if not record.verdicts or record.deleted:
            continue
        content, last = record.content, record.verdicts[-1].content
        rows.append(
            {
                "study": record.experiment,
                "prediction": f"{content['metric']} {content['direction']}: {content['contrast']}",
                "confidence": float(content["confidence"]),
                "label": last["label"],
                "outcome": last["outcome"],
                "in_size_range": {"True": True, "False": False}.get(last.get("in_size_range", "")),
            }
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    counts = table[(table["label"] == "confirmatory") & table["outcome"].isin(DECIDED)]
    decided = pd.DataFrame({"confidence": counts["confidence"], "supported": counts["outcome"] == "supported"})
    return Calibration(table, decided.reset_index(drop=True))


def my_calibration(store: Store) -> Calibration:
    """Return the calibration over all predictions of this owner in a store, from what was recorded.

    Raises:
        LabError: the store doesn't answer.
    """
    return calibrate_records(load_records(store, owner=owner()))
