"""The JSON of a notebook, with the records of a cell's many calls left as they are written until one is asked
for.

A trace can have a million calls. As Python objects they would take gigabytes, as text a third of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import msgspec

MAX_DEPTH = 100
"""Levels of lists and objects in a notebook."""
MAX_VALUES = 10_000_000
"""Values in one part of a notebook: of its metadata, of a cell, or one call."""
MAX_ALL = 32_000_000
"""Values in a notebook, or in its journal, with those of its calls. A million calls have 16 million."""
MANY = 1_000
"""Calls of a cell from which on they are packed."""
_SMALL = 1 << 20
"""Bytes in which there cannot be too many values."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Packed(Sequence[dict[str, Any]]):
    """A list of JSON objects, each made anew when it is asked for. `items`: their texts."""

    def __init__(self, items: Iterable[msgspec.Raw]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Packed: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Packed:
        return Packed(self.items[index]) if isinstance(index, slice) else _object(self.items[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_object, self.items)

    def extend(self, more: Iterable[Mapping[str, Any]]) -> None:
        """Add objects at the end."""
        import msgspec

        self.items += [msgspec.Raw(msgspec.json.encode(one)) for one in more]

    def text(self) -> str:
        """The JSON of the whole list."""
        return (b"[" + b",\n".join(map(memoryview, self.items)) + b"]").decode("utf-8", "replace")

    def changed(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Packed:
        """The objects as `change` gives them, packed."""
        new = Packed(())
        new.extend(map(change, self))
        return new


def _object(item: msgspec.Raw) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.json.decode(item)
    return found


def parse(raw: bytes) -> Any:
    """The JSON of a notebook; `calls` of a cell is a list, or Packed.

    Raises ValueError, which says what is wrong.

    What strict JSON does not know, NaN and halves of characters, is read as Python's json does; halves of
    characters are replaced.
    """
    import msgspec

    check_values(raw)
    try:
        top = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        cells = msgspec.json.decode(top.pop("cells"), type=list[dict[str, msgspec.Raw]])
        rest: dict[str, Any] = {name: _value(value) for name, value in top.items()}
        return rest | {"cells": [_fields(cell, ("metadata", "rlm", "calls")) for cell in cells]}
    except _TooMuch as error:
        raise ValueError(str(error)) from error
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _as_python_reads(raw)


def parse_record(line: bytes) -> dict[str, Any]:
    """A record of a journal, a JSON object, in which calls are as `parse` has them. Raises ValueError."""
    import msgspec

    try:
        top = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        record = _fields(
            {name: value for name, value in top.items() if name != "cells"}, ("progress", "calls")
        )
        if "cells" in top:
            changes = msgspec.json.decode(top["cells"], type=list[dict[str, msgspec.Raw]])
            record["cells"] = [_fields(change, ("cell", "metadata", "rlm", "calls")) for change in changes]
    except _TooMuch as error:
        raise ValueError(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        record = _as_python_reads(line)
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    return record


def check_values(raw: bytes) -> None:
    """Raises ValueError for JSON with more than MAX_ALL values: each takes far more memory than the byte or
    two that it may have.
    """
    if _most_values(raw) > MAX_ALL and _most_values(_STRING.sub(b"", raw)) > MAX_ALL:
        raise ValueError(f"it has more than {MAX_ALL:,} values")


def _most_values(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


class _TooMuch(Exception):
    pass


def _as_python_reads(raw: bytes) -> Any:
    text = raw.decode("utf-8")
    try:
        _check(raw)
        return _whole_characters(json.loads(text))
    except _TooMuch as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(_deep()) from error


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(item) for name, item in value.items()}
    return value


def _within(raw: msgspec.Raw, path: Sequence[str]) -> Any:
    import msgspec

    if not path:
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
        if len(items) < MANY:
            return _value(raw)
        for item in items:
            if len(memoryview(item)) >= _SMALL:
                _check(item)
        return Packed(items)
    if bytes(memoryview(raw)[:1]) != b"{" or len(memoryview(raw)) < MANY:
        return _value(raw)
    return _fields(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]), path)


def _fields(fields: Mapping[str, msgspec.Raw], path: Sequence[str]) -> dict[str, Any]:
    """The fields of an object; a long list at the end of the path is packed."""
    return {
        name: _within(value, path[1:]) if name == path[0] else _value(value) for name, value in fields.items()
    }


def _value(raw: msgspec.Raw) -> Any:
    import msgspec

    _check(raw)
    return msgspec.json.decode(raw)


def _check(raw: Any) -> None:
    """Raises _TooMuch for JSON that would take far more memory than it has bytes, or is too deep for those
    who walk through it.
    """
    written = bytes(memoryview(raw))
    if len(written) < _SMALL and written.count(b"[") + written.count(b"{") <= MAX_DEPTH:
        return
    structure = _STRING.sub(b"", written)
    if _most_values(structure) > MAX_VALUES:
        raise _TooMuch(f"it has more than {MAX_VALUES:,} values")
    depth = 0
    for found in (
        _BRACKET.finditer(structure) if structure.count(b"[") + structure.count(b"{") > MAX_DEPTH else ()
    ):
        depth += 1 if found[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise _TooMuch(_deep())


def _deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels"
