"""How good predictions were: their confidence against what came out, over all studies of one owner."""

from collections.abc import Iterable
from dataclasses import dataclass

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
    verdicts count.
    """

    table: pd.DataFrame

    @property
    def _confirmatory(self) -> pd.DataFrame:
        return self.table[self.table["label"] == "confirmatory"]

    @property
    def decided(self) -> pd.DataFrame:
        """The verdicts that count and settle a question: `confidence` (%) and `supported` (bool)."""
        counts = self._confirmatory[self._confirmatory["outcome"].isin(DECIDED)]
        return pd.DataFrame({"confidence": counts["confidence"], "supported": counts["outcome"] == "supported"})

    @property
    def brier(self) -> float:
        """The Brier score (Brier 1950): mean of (confidence - what came out)^2; 0 is perfect, 0.25 is always "50 %"."""
        return float(((self.decided["confidence"] / 100 - self.decided["supported"]) ** 2).mean())

    @property
    def coverage(self) -> tuple[int, int]:
        """How many estimates fell into the predicted size range, of how many confirmatory ones there are."""
        with_estimate = self._confirmatory["in_size_range"].dropna()
        return int(with_estimate.astype(bool).sum()), len(with_estimate)

    @property
    def surprises(self) -> pd.DataFrame:
        """Predictions held with 75 % confidence or more that were refuted or turned out practically nothing."""
        counts = self._confirmatory
        return counts[counts["outcome"].isin(["refuted", "practically equivalent"]) & (counts["confidence"] >= 75)]

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
    return Calibration(pd.DataFrame(rows, columns=COLUMNS))


def my_calibration(store: Store) -> Calibration:
    """Return the calibration over all predictions of this owner in a store, from what was recorded.

    Raises:
        LabError: the store doesn't answer.
    """
    return calibrate_records(load_records(store, owner=owner()))
