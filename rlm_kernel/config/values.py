"""What settings are made of: sizes, names, numbers and texts as each source writes them, and their checks."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

_SIZE = re.compile(r"(\d+)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_EXPONENT = re.compile(r"[+-]?\d+(\.\d+)?[eE]\+?\d{1,2}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "512m" or "2g" (k, m, g, t are powers of 1024; none means bytes).

    Raises ValueError.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if size <= 0:
        raise ValueError(
            "a size must be a whole number above 0, followed by k, m, g or t, such as 512m or 2g"
        )
    return size


def _checked_size(text: str) -> str:
    parse_size(text)
    return text.strip().lower()


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} is not a user with a home folder") from None


def checked_variable(name: str) -> str:
    """The name of an environment variable. Raises ValueError, which does not show what was given."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "this must be the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
        )
    return name


def path_list(value: Any) -> Any:
    """Of an environment variable: a JSON array, or paths with os.pathsep between them."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        if isinstance(parsed := json.loads(value), list):
            return parsed
    return [part for part in value.split(os.pathsep) if part]


def _whole_number(value: Any) -> Any:
    """Of an environment variable: 2e6 is a whole number as well."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()):
        number = float(value)
        return int(number) if number.is_integer() else value
    return value


def json_value(value: Any) -> Any:
    """Of an environment variable: a JSON object or array, or else the text itself."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if isinstance(parsed := json.loads(value), dict | list):
                return parsed
    return value


def texts(value: Any) -> Any:
    """A list of texts; one text alone is a list of it."""
    value = json_value(value)
    return [value] if isinstance(value, str) else value


def checked_model_name(name: str) -> str:
    """The name of a model beside root and sub. Raises ValueError for what is none."""
    if not _MODEL_NAME.fullmatch(name) or name.lower() in ("root", "sub"):
        raise ValueError(
            "the name of a model must be a letter followed by at most 40 letters, digits, _ or -, and "
            "cannot be root or sub"
        )
    return name


def same_model_name(name: str) -> str:
    """The same text for all spellings of a model's name: as an environment variable can have it."""
    return name.lower().replace("-", "_")


def sendable(headers: dict[str, str]) -> dict[str, str]:
    """Headers that HTTP can carry: a line break in one would begin another."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            begins = _HEADER_NAME.match(name)  # what follows may be a key that was put behind it
            shown = f"what begins with {begins[0][:40]}" if begins else "that"
            raise ValueError(f"{shown} is not the name of an HTTP header")
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"the value of {name} has characters that are not allowed in an HTTP header")
    return headers


Whole = Annotated[int, BeforeValidator(_whole_number)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Size = Annotated[str, AfterValidator(_checked_size)]
"""Text such as "2g"; parse_size() gives its bytes."""
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Folder = Annotated[Path, AfterValidator(_expanded)]
"""Relative to the current directory; ~ is the user's home."""
