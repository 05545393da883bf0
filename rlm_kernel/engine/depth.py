"""How deep a JSON value is nested, found without recursion."""

from __future__ import annotations

from typing import Any

SCHEMA_DEPTH = 100
"""Levels of a JSON schema, those of its keywords counted. What checks values by schemas takes some calls for each."""


def is_deeper(value: Any, most: int) -> bool:
    """Whether lists and dicts in a value are nested more than `most` deep; also for a value that holds itself."""
    level = [value]
    for _ in range(most + 1):
        held = {id(part): part for part in level if isinstance(part, dict | list)}
        if not held:
            return False
        level = [below for part in held.values() for below in (part.values() if isinstance(part, dict) else part)]
    return True
