"""Params: named values that are checked on creation and that MLflow stores as text."""

import ast
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cnnlab.inquiry.errors import LabError


class ConfigError(LabError):
    """An impossible value; the message says what is allowed."""


class Params(BaseModel):
    """An immutable set of named values. A mistake raises an error of one clear sentence.

    If a field has a description, the sentence uses it to say what the value should be.

    Raises:
        ConfigError: an unknown name, a value out of range, or values that can't be combined.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    noun: ClassVar[str] = "Config"  # what these values are called in an error

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from None

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ConfigError(f"{self.noun} can't be changed: make another one with replace(..., {name}={value!r}).")


P = TypeVar("P", bound=Params)
T = TypeVar("T")


def replace(thing: T, **changes: Any) -> T:
    """Return a copy of params, or of a dataclass such as `Data`, with some values changed.

    Raises:
        ConfigError: an unknown name or an impossible value.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return dataclasses.replace(thing, **changes)
    return type(thing)(**(vars(thing) | changes))


def to_params(params: Params) -> dict[str, str]:
    """Return the fields as text, the way MLflow stores them."""
    return {name: str(value) for name, value in params}


def from_params(kind: type[P], params: Mapping[str, str], mark: str = "seed") -> P:
    """Return the object of class `kind` whose `to_params` are `params`.

    A field that the record lacks gets its default. So a class with a new field can still read old records, as long
    as the default describes what was done before the field existed.

    Raises:
        ConfigError: the record isn't of this kind (it lacks the field `mark`), has a field that the class doesn't
            have, or has an impossible value.
    """
    if mark not in params:
        raise ConfigError(f"not the parameters of a run of this lab: {mark} is missing.")
    return kind(**{name: literal(text) for name, text in params.items()})


def literal(text: str) -> Any:
    """Parse the text that `to_params` writes for a value."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # a plain word such as relu, or nonsense
        return text


def _sentence(kind: type[Params], error: ValidationError) -> str:
    """Return pydantic's first complaint as one sentence that names the field, the value, and what is allowed."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, kind.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(kind.model_fields)}."
        return f"{kind.noun} has no field {name!r}; {hint}"
    rule = kind.model_fields[name].description or first["msg"].removeprefix("Input should be ")
    if first["type"] == "missing":
        return f"{name} is missing: it should be {rule}."
    return f"{name}={first['input']!r} is not possible: it should be {rule}."
