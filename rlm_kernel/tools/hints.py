"""How a function's type hints and defaults are told to people and models."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import typing
from typing import Any

_SHOWN = 60
"""Characters of a default that are shown."""
_MODULES = re.compile(r"\b(?:\w+\.)+(?=\w)")
_SIMPLE = (str, int, float, bool, type(None), tuple, list, dict)


class Shown:
    """Stands in a signature as it is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def type_told(hint: Any) -> str:
    """A type hint for people and models, without modules; an enum as its values."""
    if hint is None or hint is type(None):
        return "None"
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return f"Literal[{', '.join(repr(one.value) for one in list(hint)[:20])}]"
    if typing.get_origin(hint) is typing.Annotated:
        return type_told(typing.get_args(hint)[0])
    text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    text = _MODULES.sub("", text)
    return text if len(text) <= 4 * _SHOWN and "<" not in text else "Any"


def default_told(value: Any) -> str:
    """A default as it is written; `...` for one that is long or no plain value."""
    if isinstance(value, enum.Enum):
        value = value.value
    text = repr(value) if type(value) in _SIMPLE else ""
    return text if text and len(text) <= _SHOWN and "<" not in text else "..."


def said_of(hint: Any) -> str:
    """What an `Annotated` hint says in words: a text, or what pydantic's Field or `Doc` describe."""
    if typing.get_origin(hint) is not typing.Annotated:
        return ""
    for one in typing.get_args(hint)[1:]:
        for said in (one, getattr(one, "description", None), getattr(one, "documentation", None)):
            if isinstance(said, str):
                return " ".join(said.split())
    return ""


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass, a pydantic model or a TypedDict; none of another type."""
    if not inspect.isclass(kind):
        return {}
    if dataclasses.is_dataclass(kind):
        return {one.name: one.type for one in dataclasses.fields(kind) if one.init}
    if hasattr(kind, "model_fields"):
        return {name: one.annotation for name, one in kind.model_fields.items()}
    return dict(kind.__annotations__) if typing.is_typeddict(kind) else {}
