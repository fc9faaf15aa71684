"""Write the exact version of every package, direct or not, into pyproject.toml.

    uv run .ci/pin.py              # pins what is not pinned yet
    uv run .ci/pin.py --upgrade    # brings everything up to date

A lock file would do the same, but it names the registry it was made with; names and versions hold everywhere.
The markers of `uv export` survive, so one list serves Linux, macOS and Windows.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["tomlkit"]
# ///

import subprocess
import sys
from pathlib import Path

import tomlkit

PROJECT = Path(__file__).resolve().parents[1]
FILE = PROJECT / "pyproject.toml"


def uv(*arguments: str) -> str:
    """Run uv in the project and return what it prints."""
    return subprocess.run(["uv", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout


def write_pins(pins: list[str]) -> None:
    """Replace the list of pins in pyproject.toml; everything else in it stays unchanged."""
    document = tomlkit.parse(FILE.read_text(encoding="utf-8"))
    document["tool"]["uv"]["constraint-dependencies"] = tomlkit.array(pins).multiline(True)
    FILE.write_text(tomlkit.dumps(document), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if "--upgrade" in sys.argv:
        write_pins([])
        uv("lock", "--upgrade")
    else:
        uv("lock")
    exported = uv(
        *("export", "--frozen", "--all-groups", "--all-extras"),
        *("--no-hashes", "--no-emit-project", "--no-annotate", "--no-header"),
    )
    pins = exported.split("\n")[:-1]
    write_pins(pins)
    uv("lock")
    print(f"{len(pins)} packages pinned in {FILE.name}; install them with `uv sync`.")
