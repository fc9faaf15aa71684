"""The engine works for any science: one in NumPy passes through all of it while torch can't be imported."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

SCRIPT = """
    import importlib.abc
    import sys


    class Without(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name.partition(".")[0] in ("torch", "torchvision", "mltrainer"):
                raise ModuleNotFoundError(name)


    sys.meta_path.insert(0, Without())

    from cnnlab.inquiry.judge.calibration import my_calibration
    from cnnlab.inquiry.judge.power import power
    from cnnlab.inquiry.judge.reproduce import reproduce
    from cnnlab.inquiry.judge.review import review
    from cnnlab.inquiry.judge.vault import open_vault
    from cnnlab.inquiry.paths import project_root
    from cnnlab.inquiry.prediction import predict
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.inquiry.record.snapshot import snapshot
    from cnnlab.inquiry.seeds import my_seeds
    from cnnlab.inquiry.show.confront import confront
    from cnnlab.inquiry.study import Study
    from cnnlab.inquiry.task import install
    from tests.stripes import Config, Regression

    if __name__ == "__main__":
        install(Regression())
        store = connect()
        study = Study("shrinkage", "Does shrinkage help?", Config(), my_seeds(5), vary={"shrinkage": (0.0, 0.2)})
        print(study.plan(store))
        words = {"because": "large weights are mostly noise here", "if_refuted": "the noise is no problem here"}
        predict(
            study, arm="shrinkage=0.2", metric="loss/valid", direction="lower", size=(0.05, 2), confidence=80, **words
        )
        runs = study.run(store, engine=sys.argv[1])
        assert len(runs) == 10
        (one,) = confront(study)
        assert one.outcome == "supported" and one.label == "confirmatory", str(one)
        print(power(study))
        print(my_calibration(store).sentence())
        arms = {"without": (study, "shrinkage=0.0"), "with": (study, "shrinkage=0.2")}
        assert open_vault(arms, "the final claim").claims["with"][0].n == 5
        assert reproduce(str(runs["run_id"].iloc[0]), store, progress=False).is_identical
        with snapshot(str(project_root())) as opened:
            found = review(opened, project_root())
        assert found.is_intact and found.runs == 10, found.problems
        assert len(study.run(store)) == 10  # nothing is trained twice
        assert not {"torch", "torchvision", "mltrainer", "cnnlab.task"} & set(sys.modules)
        print("done")
"""


@pytest.mark.parametrize("engine", ["here", "workers"])
def test_a_science_without_torch_is_predicted_run_confronted_and_reviewed(home: Path, engine: str) -> None:
    script = home / "second.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, str(script), engine], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
