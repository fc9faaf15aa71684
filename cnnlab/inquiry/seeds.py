"""Seeds of your own: they make every owner's study a separate replication."""

import hashlib
from collections.abc import Iterator
from itertools import count, islice

from cnnlab.inquiry.design import MOST_SEEDS
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.names import check_name
from cnnlab.inquiry.record.environment import SHIPPED, owner

OFFSET = 1000  # between the two arms of an A/A test, so that their random numbers differ
HIGHEST = 2**31  # seeds lie below this; an arm may add an offset of up to the same number


def my_seeds(n: int, first: int = 0, of: str = "") -> tuple[int, ...]:
    """Return n seeds of an owner (`of`; default: this one), starting at index `first`.

    They depend only on the owner's name, so they are the same in every study and on every machine, and `my_seeds(3)`
    are the first three of `my_seeds(5)`. The owners whose results ship with the lab have 0, 1, 2, ...

    Raises:
        LabError: an impossible number or owner.
    """
    if type(n) is not int or not 1 <= n <= MOST_SEEDS or type(first) is not int or not 0 <= first <= MOST_SEEDS:
        raise LabError(f"my_seeds({n!r}, first={first!r}) is not possible: give 1 to {MOST_SEEDS:,} seeds, from 0 on.")
    name = check_name("owner", of) if of else owner()
    stream = count() if name in SHIPPED else _stream(name)
    return tuple(islice(stream, first, first + n))


def _stream(name: str) -> Iterator[int]:
    """Yield the seeds of an owner, each more than `OFFSET` away from all earlier ones."""
    seeds: list[int] = []
    for place in count():
        digest = hashlib.sha256(f"{name}/{place}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") % HIGHEST
        if all(abs(seed - other) > OFFSET for other in seeds):
            seeds.append(seed)
            yield seed
