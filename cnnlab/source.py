"""A fingerprint of the code that determines a run's numbers: `training.py`, and what it imports from this package."""

import ast
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent


def source_files() -> list[Path]:
    """Return `training.py` and all files of the package that it imports, directly or not."""
    found: dict[str, Path] = {}
    waiting = ["training"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = PACKAGE / f"{name.replace('.', '/')}.py"
            tree = ast.parse(found[name].read_text(encoding="utf-8"))
            imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            imported += [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
            waiting += [other.removeprefix("cnnlab.") for other in imported if other.startswith("cnnlab.")]
    return [found[name] for name in sorted(found)]


def source_sha256() -> str:
    """Return the fingerprint; it doesn't depend on the kind of line ends."""
    digest = hashlib.sha256()
    for file in source_files():
        digest.update(f"{file.name}\n{file.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()


SOURCE_SHA256 = source_sha256()  # of the code on disk when this process loaded it
RELEASED = PACKAGE / "released.txt"  # the fingerprint of the code as it was released
