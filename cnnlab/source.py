"""A fingerprint of the code that determines a run's numbers: `training.py`, and what it imports from this package."""

import ast
import hashlib
import io
import tokenize
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
    """Return the fingerprint; comments, docstrings, blank lines and the kind of line ends don't matter."""
    digest = hashlib.sha256()
    for file in source_files():
        digest.update(f"{file.name}\n{code_of(file.read_text(encoding='utf-8'))}".encode())
    return digest.hexdigest()


def code_of(text: str) -> str:
    """Return the lines of a module without its comments and docstrings."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno or 0
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


SOURCE_SHA256 = source_sha256()  # of the code on disk when this process loaded it
RELEASED = PACKAGE / "released.txt"  # the fingerprints of the code as it was released, the latest first
