"""The fingerprint of the code that trains, as it was released: runs with other code are noted by the lab.

uv run .ci/released.py            # is the one on record right?
uv run .ci/released.py --write    # after a change of that code
"""

import sys

from cnnlab.source import RELEASED, SOURCE_SHA256
from cnnlab.task import LAB

if __name__ == "__main__":
    if "--write" in sys.argv:
        known = [SOURCE_SHA256, *(one for one in LAB.released if one != SOURCE_SHA256)]
        RELEASED.write_text("".join(f"{one}\n" for one in known), encoding="utf-8", newline="\n")
    elif LAB.released[0] != SOURCE_SHA256:
        sys.exit(f"{RELEASED.name} doesn't begin with the fingerprint of this code: run it with --write.")
