"""Values that code in a container sent, checked to their leaves before anything is done with them.

A reader is a pydantic model of these leaves. Of a `Told` each field is read by itself: one that does not fit
is unknown, and has its default; nothing else of the message is lost. Of an `Asked` all must fit, as its
sender is there to hear what is wrong. Nothing is converted: a number told as text is no number, and True is
none either. Whatever is given, a reader of either never raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from rlm_kernel.bounded import MAX_DEPTH

MAX_BITS = 4096
"""Of an integer: 1,233 digits. Python writes no more than 4,300."""
MAX_COUNT = (1 << 53) - 1
"""The largest integer that every JSON reader takes as it is."""


def writable(text: str) -> str:
    """The text without lone surrogates, which no file, terminal or model takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain(value: Any) -> Any:
    """A value as JSON data that any reader takes: no NaN and no infinity, and text without lone surrogates.

    Raises ValueError for what is none, is nested deeper than MAX_DEPTH, or has a larger integer than
    MAX_BITS.
    """
    return _plain(value, MAX_DEPTH)


def _plain(value: Any, depth: int) -> Any:
    # Exact types: those of a parser, and none that code could have given methods of its own.
    kind = type(value)
    if kind is str:
        return writable(value)
    if (
        value is None
        or kind is bool
        or (kind is float and math.isfinite(value))
        or (kind is int and value.bit_length() <= MAX_BITS)
    ):
        return value
    if not depth:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    if kind is list or kind is tuple:  # which JSON has as a list
        return [_plain(item, depth - 1) for item in value]
    if kind is dict and all(type(name) is str for name in value):
        return {writable(name): _plain(item, depth - 1) for name, item in value.items()}
    raise ValueError("it is no JSON data, or holds NaN, infinity or a giant number")


def text(value: Any) -> str:
    """Raises ValueError for what is no text."""
    if type(value) is not str:
        raise ValueError("no text")
    return writable(value)


def cut(most: int) -> Any:
    """A text of which so many characters are kept."""

    def read(value: Any) -> str:
        if type(value) is not str:
            raise ValueError("no text")
        return writable(value[:most])

    return PlainValidator(read)


def integer(value: Any, least: int = 0, most: int = MAX_COUNT) -> int:
    """Raises ValueError for what is no integer from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError("no such number")
    return value


def whole(least: int, most: int) -> Any:
    """An integer from `least` to `most`."""
    return PlainValidator(lambda value: integer(value, least, most))


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def each(read: Callable[[Any], Any], most: int) -> Any:
    """A list of at most so many; of its items those that `read` gives a value for, and does not raise
    ValueError.
    """

    def read_all(value: Any) -> list[Any]:
        if type(value) not in (list, tuple):
            raise ValueError("no list")
        return list(known(read, value[:most]))

    return PlainValidator(read_all)


def known(read: Callable[[Any], Any], values: Iterable[Any]) -> Iterable[Any]:
    """What can be read of the values; None counts as unknown."""
    for value in values:
        try:
            found = read(value)
        except ValueError:
            continue
        if found is not None:
            yield found


Text = Annotated[str, PlainValidator(text)]
Name = Annotated[str, cut(200)]
Count = Annotated[int, whole(0, MAX_COUNT)]
Flag = Annotated[bool, PlainValidator(_flag)]
Json = Annotated[Any, PlainValidator(plain)]


class Told(BaseModel):
    """Something that the kernel tells, field by field."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_unknown(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return read(value)
        except ValueError:
            assert info.field_name is not None
            field = cls.model_fields[info.field_name]
            if field.is_required():
                raise
            return field.get_default(call_default_factory=True)

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """None for what is no object, or lacks a field that has no default."""
        try:
            return cls.model_validate(value) if type(value) is dict else None
        except ValidationError:
            return None

    @classmethod
    def part(cls, value: Any) -> Self:
        """As a field of another: where all fields have defaults, what does not fit has all of these."""
        return cls.of(value) or cls()


class Asked(BaseModel):
    """Something that code in the kernel asks for: all of it fits, or `of` is None.

    Further fields are passed over.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)

    @classmethod
    def of(cls, value: Any) -> Self | None:
        try:
            return cls.model_validate(value) if type(value) is dict else None
        except ValidationError:
            return None
