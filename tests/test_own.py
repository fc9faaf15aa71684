"""The Python blocks of the README and the docs are executed word for word: a question, layers, fields, images."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import FOLDER, copy_what_ships, what_ships

PROJECT = Path(__file__).parents[1]
DOCS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCKS = [
    block for page in DOCS for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
OWN = (PROJECT / "docs" / "own.md").read_text(encoding="utf-8")
CONCEPTS, MANY_RUNS = (
    "from cnnlab import BASE, Study, confront, my_seeds, power",
    "from cnnlab import BASE, Study, my_seeds",
)
FIELD, EFFECT = "    alpha_dropout: Rate", "    if config.alpha_dropout"
NOISE, DIGITS = (
    "import torch\n\nfrom cnnlab import BASE, Study, confront, load_data",
    "import numpy as np\nfrom sklearn",
)

STUDY = """
study = Study("{name}", "Does it help?", base, my_seeds(2), vary={vary})
predict(
    study,
    arm=list(study.arms)[1],
    metric="accuracy/valid",
    direction="lower",
    size=(1, 9),
    confidence=60,
    because="this is a mechanism",
    if_refuted="it is not so",
)
study.run(engine="here", progress=False)
(verdict,) = confront(study)
"""
STUDIES = f"""
from cnnlab import BASE, Study, confront, connect, my_seeds, predict, replace
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.runs import load_runs

store = connect()
base = replace(BASE, train_images=200, epochs=1)
{STUDY.format(name="my-field", vary='{"alpha_dropout": (0.0, 0.3)}')}
of_field = verdict
{STUDY.format(name="my-layer", vary='{"activation": ("relu", "elu")}')}
judged = of_field.outcome, of_field.label, verdict.outcome, verdict.label
print(*judged, len(load_runs(store)), len(load_records(store)), sep=", ")
"""
OUTCOMES = ("supported", "refuted", "inconclusive", "practically equivalent")


def block(beginning: str) -> str:
    """Return the code block that begins with these words, with fewer seeds."""
    (found,) = [text for text in BLOCKS if text.startswith(beginning)]
    return re.sub(r"my_seeds\(\d\)", "my_seeds(2)", found)


@pytest.fixture
def clone(home: Path) -> Path:
    """The package in a separate folder, with the store that ships."""
    copy_what_ships(home)
    shutil.copytree(PROJECT / "cnnlab", home / "cnnlab", ignore=shutil.ignore_patterns("__pycache__"))
    return home


def insert(file: Path, before: str, text: str) -> None:
    """Insert text above the first line that begins with the words `before`."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith(before))
    file.write_text("".join([*lines[:place], text, *lines[place:]]), encoding="utf-8")


def run(clone: Path, script: str) -> str:
    """Run a script with the package of a clone, and return the last line that it prints."""
    environment = os.environ | {"PYTHONPATH": str(clone), "CNNLAB_OWNER": "a student"}
    done = subprocess.run([sys.executable, "-c", script], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_new_field_and_a_new_layer_are_judged_and_hide_no_older_record(clone: Path) -> None:
    insert(clone / "cnnlab" / "config.py", "    conv_dropout: Rate", block(FIELD))
    insert(clone / "cnnlab" / "models.py", '    layers["linear"]', block(EFFECT))
    assert '`"elu": nn.ELU` to `ACTIVATIONS`' in OWN
    for name, before, after in (
        ("models.py", '"silu": nn.SiLU}', '"silu": nn.SiLU, "elu": nn.ELU}'),
        ("config.py", '"gelu", "silu"]', '"gelu", "silu", "elu"]'),
    ):
        file = clone / "cnnlab" / name
        text = file.read_text(encoding="utf-8")
        assert before in text
        file.write_text(text.replace(before, after), encoding="utf-8")
    *judged, runs, records = run(clone, STUDIES).split(", ")
    assert judged[0] in OUTCOMES and judged[2] in OUTCOMES
    assert judged[1] == judged[3] == "confirmatory"
    predictions, trained = what_ships(FOLDER)
    assert (int(runs), int(records)) == (trained + 8, predictions + 2)


def test_every_block_has_its_test() -> None:
    known = (CONCEPTS, MANY_RUNS, FIELD, EFFECT, NOISE, DIGITS)
    assert sorted(block(beginning)[:20] for beginning in known) == sorted(text[:20] for text in BLOCKS)


def test_a_question_is_predicted_run_and_judged(clone: Path) -> None:
    """The examples of studies are run with small networks, with a prediction about the second."""
    small = "import cnnlab\ncnnlab.BASE = cnnlab.replace(cnnlab.BASE, train_images=200, epochs=1)\n"
    plan, study_run, rest = block(MANY_RUNS).partition("study.run()")
    said = 'arm="norm=batch", metric="accuracy/valid", direction="higher", confidence=60'
    why = 'because="it takes larger steps", if_refuted="these steps are too few"'
    second = f"{plan}predict(study, {said}, {why})\n{study_run}{rest}"
    first = f"{small}{block(CONCEPTS)}\nlabel = confront(study).verdicts[0].label\n"
    done = run(clone, f"{first}{second}\nprint(label, len(study.results()))")
    assert done == "confirmatory 6"


def test_a_study_on_label_noise_is_judged(clone: Path) -> None:
    script = block(NOISE) + "\n".join(
        [
            "from cnnlab import connect",
            "from cnnlab.inquiry.judge.verdict import verdict",
            "store = connect()",
            "images = set(study.results(store)['fact.data_sha256'])",
            "print(verdict(study, store)[0].headline(), images == {noisy.sha256()})",
        ]
    )
    said = run(clone, script)
    assert ", confirmatory: loss/valid" in said and said.endswith("True")


def test_other_data_sets_go_all_the_way_to_the_vault(clone: Path) -> None:
    grey = block(DIGITS)
    (line,) = re.findall(r"`(x = np\.stack\([^`]*)`", OWN)
    colour = grey.replace("train, valid", f"{line}\ntrain, valid", 1).replace("my-digits", "my-colours")
    seen = "seen.append((len(runs := study.results()), *set(runs['fact.image_shape'])))"
    script = "\n".join(
        [
            *("seen = []", grey, seen, colour, seen),
            "from cnnlab.inquiry.judge.review import review",
            "from cnnlab.inquiry.record.connection import connect",
            "from cnnlab.inquiry.record.vault_record import load_vault",
            "from cnnlab.inquiry.paths import project_root",
            "tested = [list(one.arms['test']) for one in load_vault(connect(), 'a student')]",
            "print([seen, tested, review(connect(), project_root()).problems])",
        ]
    )
    seen, tested, problems = ast.literal_eval(run(clone, script))
    assert seen == [(4, "1 x 8 x 8"), (4, "3 x 8 x 8")]
    assert len(tested) == 2 and all(none > 50 and batch > 50 for none, batch in tested)
    assert problems == []
