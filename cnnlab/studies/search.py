"""The search of `03_mlflow.py`, started from a notebook."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from cnnlab.errors import LabError
from cnnlab.studies.profiles import Profile

SCRIPT = Path(__file__).resolve().parents[2] / "03_mlflow.py"


def run_search(profile: Profile, trials: int = 8, fresh_seeds: int = 3, say: Callable[[str], None] = print) -> None:
    """Run `03_mlflow.py` in a process of its own and say what it says; it goes on where it was interrupted.

    Raises:
        LabError: the script isn't there, or it failed; the sentence is the script's own.
    """
    if not SCRIPT.is_file():
        raise LabError(f"{SCRIPT.name} isn't beside the package: get the whole project folder.")
    command = [sys.executable, str(SCRIPT), "--profile", profile.name, "--max-evals", str(trials)]
    command += ["--fresh-seeds", str(fresh_seeds)]
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,  # a pipe that nobody reads would fill up
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8", errors="replace"
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            say(line.rstrip("\n"))
        process.wait()
        stderr.seek(0)
        errors = stderr.read().strip().splitlines()
    if process.returncode:
        raise LabError(f"the search failed: {errors[-1] if errors else f'exit code {process.returncode}'}")
