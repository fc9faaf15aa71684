"""The fingerprint of the code that trains, as it was released: runs with other code are noted by the lab.

uv run .ci/released.py            # is the one on record right?
uv run .ci/released.py --write    # after a change of that code
"""

import sys

from cnnlab.source import RELEASED, SOURCE_SHA256
from cnnlab.task import LAB

if __name__ == "__main__":
    if "--write" in sys.argv:
        RELEASED.write_text(f"{SOURCE_SHA256}\n", encoding="utf-8", newline="\n")
    elif LAB.released != SOURCE_SHA256:
        sys.exit(f"{RELEASED.name} isn't the fingerprint of this code: run `uv run .ci/released.py --write`.")
