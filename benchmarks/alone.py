"""The program of a measured process: `python -m benchmarks.alone MODULE:FUNCTION ARGUMENTS ANSWER`."""

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Call the function with the arguments (JSON) and write its result (JSON) to the file ANSWER."""
    function, arguments, answer = sys.argv[1:]
    module, name = function.split(":")
    measured = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(measured))


if __name__ == "__main__":  # worker processes import the main module again
    main()
