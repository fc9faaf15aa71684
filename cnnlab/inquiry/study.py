"""A study: its design, with the methods to plan it, run it and read its results."""

import pandas as pd

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.plan import Plan, make_plan
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.run.runner import run_study


class Study(Design):
    """A design with the methods `plan`, `run` and `results`; see `cnnlab.inquiry.design.Design`."""

    def plan(self, store: Store | None = None, engine: str | Engine = "auto") -> Plan:
        """Return what `run` would do: the arms, their differences, the existing runs, and the time for the others."""
        return make_plan(self, store, engine)

    def run(
        self, store: Store | None = None, engine: str | Engine = "auto", device: str = "auto", progress: bool = True
    ) -> pd.DataFrame:
        """Train the missing runs, log them, and return `results`; see `cnnlab.inquiry.run.runner.run_study`."""
        return run_study(self, store, engine, device, progress)

    def results(self, store: Store | None = None) -> pd.DataFrame:
        """Return the finished runs, one per row; see `cnnlab.inquiry.run.results.results`."""
        return results(self, store)
