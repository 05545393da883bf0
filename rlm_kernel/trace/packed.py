"""The JSON of a notebook, with the records of a cell's many calls left as they are written until one is asked
for.

A trace can have a million calls. As Python objects they would take gigabytes, as text a third of one. For the
same reason many calls of a cell are written as texts of JSON: programs that open the notebook have one value
for a call instead of fifteen. Both ways of writing them are read.
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

    def texts(self) -> list[str]:
        """Each object's JSON."""
        return [bytes(memoryview(item)).decode("utf-8", "replace") for item in self.items]

    def changed(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Packed:
        """The objects as `change` gives them, packed."""
        new = Packed(())
        new.extend(map(change, self))
        return new


def _object(item: msgspec.Raw) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.json.decode(item)
    return found


def written(calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
    """The calls of a cell as they stand in the notebook: objects, or if they are many, the JSON of each."""
    if isinstance(calls, Packed):
        return calls.texts()
    if len(calls) < MANY:
        return calls
    return [json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in calls]


def as_written(raw: Any) -> list[msgspec.Raw]:
    """The JSON of each call in that of a list of them, which are objects or texts of JSON.

    Raises msgspec.MsgspecError where that is no JSON.
    """
    import msgspec

    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return [_unwrapped(item) if bytes(memoryview(item)[:1]) == b'"' else item for item in items]


def _unwrapped(item: msgspec.Raw) -> msgspec.Raw:
    import msgspec

    text = msgspec.json.decode(item, type=str).strip()
    msgspec.json.decode(text, type=msgspec.Raw)  # whether it is JSON
    return msgspec.Raw(text)


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
    if _most_values(raw) > MAX_ALL and _most_values(_structure(raw)) > MAX_ALL:
        raise ValueError(f"it has more than {MAX_ALL:,} values")


def _structure(raw: bytes) -> bytes:
    """JSON without its texts."""
    return _STRING.sub(b"", raw)


def _most_values(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


class _TooMuch(Exception):
    pass


def _as_python_reads(raw: bytes) -> Any:
    text = raw.decode("utf-8")
    try:
        _check(raw)
        return _with_objects(_whole_characters(json.loads(text)))
    except _TooMuch as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(_deep()) from error


def _with_objects(found: Any) -> Any:
    """A notebook in which calls that are texts are objects; what else it is stays as it is."""
    cells = found.get("cells") if isinstance(found, dict) else None
    for cell in cells if isinstance(cells, list) else ():
        ours: Any = cell
        for name in ("metadata", "rlm"):
            ours = ours.get(name) if isinstance(ours, dict) else None
        if isinstance(ours, dict) and isinstance(calls := ours.get("calls"), list):
            ours["calls"] = [object_of(call) if isinstance(call, str) else call for call in calls]
    return found


def object_of(text: str) -> Any:
    """What a call's text holds; the text itself where that is no JSON."""
    _check(text.encode("utf-8", "replace"))
    try:
        return json.loads(text)
    except ValueError:
        return text  # who reads it says what it should be


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
        return _calls(as_written(raw))
    if bytes(memoryview(raw)[:1]) != b"{":
        return _value(raw)
    return _fields(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]), path)


def _calls(items: list[msgspec.Raw]) -> Any:
    import msgspec

    def values(of: Callable[[bytes], bytes]) -> int:
        return sum(_most_values(of(bytes(memoryview(item)))) for item in items)

    # Once more: in texts they are hidden from `check_values`.
    if values(lambda item: item) > MAX_ALL and values(_structure) > MAX_ALL:
        raise _TooMuch(f"it has more than {MAX_ALL:,} values")
    if len(items) < MANY:
        return _value(msgspec.Raw(b"[" + b",".join(map(memoryview, items)) + b"]"))
    for item in items:
        if len(memoryview(item)) >= _SMALL:
            _check(item)
    return Packed(items)


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
    structure = _structure(written)
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
