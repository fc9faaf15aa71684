"""The rewritten chapter gives the same results as before. For one release."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).parents[1]


PROCESSOR = str(torch.cpu.get_capabilities().get("cpu_name"))


@pytest.mark.skipif(
    "Intel" not in PROCESSOR, reason=f"it was recorded on an Intel processor, and {PROCESSOR} may round otherwise"
)
def test_training_gives_what_it_gave_before_to_the_last_bit() -> None:
    command = [sys.executable, "-m", "tests.identical"]
    now = json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout)
    before = json.loads((PROJECT / "tests" / "golden" / "training.json").read_text(encoding="utf-8"))
    assert list(now) == list(before)
    for name in before:
        facts = now[name]["facts"]  # two of them are new
        assert (facts.pop("image_shape"), facts.pop("num_classes")) == ("1 x 28 x 28", "10")
        assert now[name] == before[name], name
