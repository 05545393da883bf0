"""Values of Python programs as JSON: what is no plain value becomes one, or an error says where it is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from rlm_kernel.errors import UsageError
from rlm_kernel.session import contexttables

HINT = "Give a text, bytes, one or more Paths, a table, a file object, or a value that JSON can hold."
NO_CONTEXT = "The context cannot be passed to the kernel: "
_TOO_DEEP, _LEVELS = "it is nested too deep", 900
"""Some Pythons write more levels than those of other versions, such as the kernel's, can read."""
_MISSING = ("NaTType", "NAType")
"""What pandas has for a value that is missing."""
_TEXTS = ("Period", "Interval")
"""Types of pandas that are texts, as they are in tables."""
_LISTS = ("tolist", "to_dicts", "to_pylist", "as_py")
"""Methods of arrays, columns and tables that give plain values."""


def as_json(value: Any) -> str:
    """A value as JSON. Dataclasses, pydantic models, dates, enums, sets, arrays and tables are plain values
    then, and keys are texts. Raises UsageError.
    """
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        written = json.dumps(value, ensure_ascii=False)
        if not _loses_keys(value):
            return written
    walk = _Walk()
    try:
        return json.dumps(walk.plain(value), ensure_ascii=False)
    except UsageError:
        raise
    except RecursionError as error:
        raise _refused(_TOO_DEEP) from error
    except Exception as error:  # a value's own methods may raise anything
        raise _refused(f"{walk.where()}{' '.join(str(error).split())[:300]}") from error


class _Walk:
    """Goes through one value. `_path` is where it is, and where it was when something was wrong."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._around: set[int] = set()
        """The ids of what the value is in."""

    def where(self) -> str:
        """The place, before a colon; "" for the value itself."""
        shown = "".join(self._path[:6]) + ("…" if len(self._path) > 6 else "")
        return f"{shown}: " if shown else ""

    def plain(self, value: Any) -> Any:
        if value is None or isinstance(value, str | int | float):
            return value
        if type(value).__name__ in _MISSING:
            return None
        if type(value).__name__ in _TEXTS and type(value).__module__.startswith("pandas"):
            return str(value)
        if id(value) in self._around:
            raise TypeError("it contains itself")
        self._around.add(id(value))
        found = self._made_plain(value)
        self._around.remove(id(value))
        return found

    def _made_plain(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            return _text(bytes(value))
        if isinstance(value, Mapping):
            return self._dict(value)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value)
        if isinstance(value, PurePath):
            raise TypeError(
                "a path among other values, whose file rlm would not read: give str(path) for its name, or "
                "path.read_text() for its text; to give files, pass a Path or a list of only Paths"
            )
        if hasattr(value, "read"):
            raise TypeError(
                "an open file among other values: pass only the file, or give the result of its read()"
            )
        for method in _LISTS:
            if hasattr(value, method):
                return self.plain(getattr(value, method)())
        if hasattr(value, "to_dict") and hasattr(value, "columns"):
            return self.plain(contexttables.rows_of(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and not _has_own(value):
            return self._dict({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        from pydantic_core import to_jsonable_python

        return to_jsonable_python(value, fallback=self._other, inf_nan_mode="constants")

    def _dict(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in value.items():
            self._path.append(f"[{key!r:.40}]")
            name = _name(key)
            if name in found:
                raise TypeError(
                    "two keys are the same text in JSON, so one of them would be lost: rename one, or give "
                    "pairs: list(….items())"
                )
            found[name] = self.plain(item)
            self._path.pop()
        return found

    def _list(self, value: Collection[Any]) -> list[Any]:
        found = []
        for number, item in enumerate(value):
            self._path.append(f"[{number}]")
            found.append(self.plain(item))
            self._path.pop()
        return found

    def _other(self, value: Any) -> Any:
        if isinstance(value, Collection):
            return self._list(value)
        if hasattr(value, "to_dict"):
            return self.plain(value.to_dict())
        name = type(value).__name__
        raise TypeError(f"JSON cannot hold a value of the type {name}")


def _has_own(value: Any) -> bool:
    """A dataclass of pydantic, which says itself how it is plain."""
    return hasattr(value, "__pydantic_serializer__")


def _name(key: Any) -> str:
    """A key as JSON has it. Raises TypeError."""
    if isinstance(key, str):
        return key
    if hasattr(key, "tolist"):  # a number of numpy
        key = key.tolist()
    try:
        if key is None or isinstance(key, int | float):
            return str(next(iter(json.loads(json.dumps({key: 0})))))
        from pydantic_core import to_jsonable_python

        return str(next(iter(json.loads(json.dumps(to_jsonable_python({key: None}), default=str)))))
    except Exception as error:
        raise TypeError(f"a {type(key).__name__} cannot be a key in JSON") from error


def _loses_keys(value: Any) -> bool:
    """Whether a dict in what JSON could hold has keys that are the same text there, as 1 and "1" are.

    Raises UsageError for a value of too many levels.
    """
    left = [(value, 1)] if isinstance(value, dict | list | tuple) else []
    while left:
        one, level = left.pop()
        if level > _LEVELS:
            raise _refused(_TOO_DEEP)
        items = one.values() if isinstance(one, dict) else one
        others = items is not one and not all(isinstance(key, str) for key in one)
        if others and len(set(map(_name, one))) < len(one):
            return True
        left += [(item, level + 1) for item in items if isinstance(item, dict | list | tuple)]
    return False


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise TypeError(
            "these bytes are not text: encode them with base64.b64encode(…).decode(), or pass only the "
            "bytes, as a file"
        ) from None


def _refused(why: str) -> UsageError:
    return UsageError(f"{NO_CONTEXT}{why}.", hint=HINT)
