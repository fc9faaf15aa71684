"""The search of `03_mlflow.py`, started from a notebook."""

import runpy
from pathlib import Path

from cnnlab.course.profiles import Profile
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.study import Study

SCRIPT = Path(__file__).resolve().parents[2] / "03_mlflow.py"


def run_search(profile: Profile, engine: str | Engine = "auto") -> Study:
    """Run the search of `03_mlflow.py` here, at the size of a profile, and return the study that confirms its winner.

    It prints what the script prints, and goes on where it was interrupted. The arms are "baseline" and "winner".

    `engine` trains the confirmation, as in `study.run`.

    Raises:
        LabError: the script isn't there, or what it raises.
    """
    if not SCRIPT.is_file():
        raise LabError(f"{SCRIPT.name} isn't beside the package: get the whole project folder.")
    script = runpy.run_path(str(SCRIPT))
    with stopping("Stopped. What was measured is kept; run_search() goes on from here."):
        study: Study = script["search"](profile, profile.trials, 0, "here", profile.seeds, engine)
    return study
