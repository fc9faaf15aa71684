"""Data flow in one direction, and what is slow to import stays off the fast paths."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cnnlab"

# A module imports only from its left.
ORDER = [
    "errors",
    "checked",
    "names",
    "printable",
    "paths",
    "params",
    "config",
    "data",
    "fashion_mnist",
    "models",
    "scores",
    "device",
    "facts",
    "summary",
    "probes",
    "progress",
]
ORDER += [
    "training",
    "source",
    "promises",
    "figures",
    "server",
    "tracking",
    "studies",
    "inquiry",
    "reporting",
    "doctor",
    "cli",
    "__main__",
]
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_has_its_place() -> None:
    assert {part(path) for path in MODULES} == set(ORDER)


def test_a_module_imports_only_from_its_left() -> None:
    for path in MODULES:
        own = ORDER.index(part(path))
        used = {name.split(".")[1] for name in imports(path) if name.startswith("cnnlab.")}
        assert not [name for name in used if ORDER.index(name) > own], path


def test_only_tracking_imports_mlflow() -> None:
    users = {part(path) for path in MODULES for name in imports(path) if name.split(".")[0] == "mlflow"}
    assert users == {"tracking"}


@pytest.mark.parametrize(
    "code",
    [
        "import cnnlab",
        "from cnnlab.cli import cli; cli(['--help'], standalone_mode=False)",
        "import cnnlab.inquiry.server",
    ],
)
def test_the_fast_paths_import_neither_torch_nor_mlflow(code: str) -> None:
    check = (
        f"import sys; {code}; slow = {{'torch', 'mlflow', 'pandas', 'matplotlib'}} & set(sys.modules); assert not slow"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_every_name_of_the_package_can_be_loaded() -> None:
    import cnnlab

    assert len(cnnlab.__all__) > 15
    for name in cnnlab.__all__:
        assert getattr(cnnlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        cnnlab.fitt  # noqa: B018


def test_what_a_student_reads_first_stays_short() -> None:
    first = ("config", "data", "models", "training")
    lines = [line for name in first for line in (PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if line.strip()]) <= 700
