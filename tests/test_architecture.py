"""Two parts, data flow in one direction, a chapter that stays short, and fast paths without slow imports."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cnnlab.source import source_files

PACKAGE = Path(__file__).parents[1] / "cnnlab"
CHAPTER = ("config", "data", "models", "training")


def module(path: Path) -> str:
    """Return the dotted name of a file."""
    return ".".join(("cnnlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ENGINE = [name for name in MODULES if name.startswith("cnnlab.inquiry")]


def imports(name: str) -> set[str]:
    """Return the modules that one imports, anywhere in its code."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            own = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= own or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def packages(name: str) -> set[str]:
    return {imported.partition(".")[0] for imported in imports(name)}


def lines(files: list[Path]) -> int:
    """Return the number of lines that aren't blank."""
    return sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines())


def test_no_module_imports_one_that_imports_it() -> None:
    graph = {name: imports(name) & set(MODULES) - {name} for name in MODULES}
    assert set(TopologicalSorter(graph).static_order()) <= set(MODULES)  # it raises an error for a cycle


def test_the_engine_imports_nothing_of_the_lab() -> None:
    used = {(name, other) for name in ENGINE for other in imports(name) if other.startswith("cnnlab")}
    assert [pair for pair in used if pair[1] not in ENGINE] == []


def test_the_engine_imports_no_torch() -> None:
    for name in ENGINE:
        assert not packages(name) & {"torch", "torchvision", "mltrainer", "mads_datasets", "safetensors"}, name


def test_one_module_of_the_lab_speaks_to_the_engine_about_it() -> None:
    """The lab's other imports from the engine are tools and functions, not the seam."""
    seam = {name for name in MODULES if name not in ENGINE and "cnnlab.inquiry.task" in imports(name)}
    assert seam == {"cnnlab", "cnnlab.task", "cnnlab.one_run", "cnnlab.evidence"}


def test_only_the_record_and_the_models_import_mlflow() -> None:
    users = {name for name in MODULES if "mlflow" in packages(name)}
    assert {name for name in users if not name.startswith("cnnlab.inquiry.record")} == {
        "cnnlab.inquiry.mlflow_private",
        "cnnlab.one_run",
    }


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


@pytest.mark.parametrize(
    "first", ["cnnlab.inquiry.record.artifacts", "cnnlab.course.champion", "cnnlab.one_run", "mlflow"]
)
def test_mlflow_finds_the_labs_artifacts_whatever_is_imported_first(first: str) -> None:
    check = f"import {first}; from mlflow.store.artifact import artifact_repository_registry as registry; "
    check += "found = registry.get_registered_artifact_repositories()['mlflow-artifacts']; "
    check += "assert found.__module__ == 'cnnlab.inquiry.record.artifacts', found"
    command = [sys.executable, "-W", "error::UserWarning", "-c", check]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_package_can_be_loaded() -> None:
    import cnnlab

    for name in cnnlab.__all__:
        assert getattr(cnnlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        cnnlab.fitt  # noqa: B018


def test_what_a_student_reads_first_stays_short() -> None:
    assert lines([PACKAGE / f"{name}.py" for name in CHAPTER]) < 500


def test_what_that_imports_is_short_too() -> None:
    read = source_files()
    assert {PACKAGE / f"{name}.py" for name in CHAPTER} <= set(read)
    assert lines(read) < 1000
