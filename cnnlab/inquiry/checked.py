"""Rejects arguments of the wrong type, in one sentence, at the call."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from cnnlab.inquiry.errors import LabError

if TYPE_CHECKING:
    import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function reject arguments that don't match its annotations.

    Raises (from the function):
        LabError: an argument has the wrong class; the message names the right one.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = get_type_hints(function)
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        refuse_blanks(given, dict.fromkeys(given, "write your own answer"))
        for name, value in given.items():
            classes = _classes(hints.get(name))
            if classes and not isinstance(value, classes):
                wanted = " or ".join(called(one) for one in classes if one is not type(None))
                shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
                raise LabError(f"{function.__name__}: {name} is {shown}, and should be a {wanted}.")
        return function(*args, **kwargs)

    return call


def refuse_blanks(given: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """Reject values that are, or contain, a blank (`...`); `asked` describes the expected value of each name.

    Raises:
        LabError: there is a blank; the message names it and says what to write instead.
    """
    blank = [name for name, value in given.items() if value is ... or _has_blank(value)]
    if blank:
        wanted = "; ".join(f"{name}: {asked[name]}" for name in blank)
        raise LabError(f"still open: {', '.join(blank)}. Put your answers in place of the dots ({wanted}).")


def _has_blank(value: object) -> bool:
    return isinstance(value, tuple) and any(part is ... for part in value)


def called(kind: type) -> str:
    """Return a class's name in words that a student knows."""
    return "dict" if kind is Mapping else str(getattr(kind, "noun", kind.__name__))


def _classes(hint: object) -> tuple[type, ...]:
    """Return the classes that an annotation allows; empty if it allows everything or can't be checked."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_classes(part) for part in get_args(hint)]
        return tuple(one for part in parts for one in part) if all(parts) else ()
    found = get_origin(hint) or hint
    return (found,) if isinstance(found, type) and found is not Any else ()


def whole_numbers(values: Any, what: str, most: int, hint: str = "") -> "np.ndarray":
    """Return whole numbers from 0 to `most`, from any kind of array, as an array of uint8 or int64.

    Raises:
        LabError: they aren't such numbers; `hint` says how to convert them.
    """
    import numpy as np  # imported here, since fast commands import this module too

    try:
        x = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    except (TypeError, ValueError):  # lists of unequal lengths, or a type that NumPy doesn't have
        raise LabError(f"the {what} are not an array of whole numbers: give a tensor or a NumPy array.") from None
    if x.dtype.kind not in "iu":
        raise LabError(f"the {what} are {x.dtype}, and should be whole numbers{hint}.")
    if x.size and not 0 <= x.min() <= x.max() <= most:
        raise LabError(f"the {what} should lie between 0 and {most}, and lie between {x.min()} and {x.max()}.")
    return np.require(x, np.uint8 if most < 256 else np.int64, ["C", "W"])
