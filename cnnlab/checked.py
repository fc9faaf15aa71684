"""Arguments of the wrong kind, refused in one sentence where they are given."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from cnnlab.errors import LabError

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function refuse arguments that aren't of the classes in its annotations.

    Raises (from the function):
        LabError: an argument of another class, with the class that it should have.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = get_type_hints(function)
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
            classes = _classes(hints.get(name))
            if classes and not isinstance(value, classes):
                wanted = " or ".join(called(one) for one in classes if one is not type(None))
                shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
                raise LabError(f"{function.__name__}: {name} is {shown}, and should be a {wanted}.")
        return function(*args, **kwargs)

    return call


def called(kind: type) -> str:
    """Return what a student calls a class."""
    return "dict" if kind is Mapping else kind.__name__


def _classes(hint: object) -> tuple[type, ...]:
    """Return the classes that an annotation allows; none where it allows anything, or isn't told by a class."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_classes(part) for part in get_args(hint)]
        return tuple(one for part in parts for one in part) if all(parts) else ()
    found = get_origin(hint) or hint
    return (found,) if isinstance(found, type) and found is not Any else ()
