"""A JSON schema as Anthropic's structured outputs take it.

The API refuses what its grammar cannot hold the model to. That stands in the description instead, which the
model reads; the reply is checked against the whole schema by those who asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WORDS = """
minItems maxItems uniqueItems contains minContains maxContains prefixItems minimum maximum exclusiveMinimum
exclusiveMaximum multipleOf minLength maxLength minProperties maxProperties patternProperties propertyNames
dependentRequired dependentSchemas unevaluatedProperties if then else not
"""
_REFUSED = tuple(_WORDS.split())
_NAMED = ("properties", "$defs", "definitions")
_LISTED = ("anyOf", "allOf")
_TYPES = {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict}


def taken(schema: Any) -> Any:
    """The schema without what is refused."""
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _REFUSED or (name == "type" and not _fits(value, schema.get("enum"))):
            continue
        if name in _NAMED and isinstance(value, Mapping):
            found[name] = {key: taken(part) for key, part in value.items()}
        elif name in (*_LISTED, "oneOf") and isinstance(value, list):
            name = "anyOf" if name == "oneOf" else name
            found[name] = found.get(name, []) + [taken(part) for part in value]
        else:
            found[name] = taken(value) if name == "items" else value
    limits = [
        f"{name} {json.dumps(schema[name], default=str)}"
        for name in _REFUSED
        if name in schema and schema[name] is not None and schema[name] is not False
    ]
    if limits:
        found["description"] = f"{schema.get('description') or ''} Must meet: {', '.join(limits)}.".strip()
    return found | ({"additionalProperties": False} if found.get("type") == "object" else {})


def _fits(kind: Any, values: Any) -> bool:
    """Whether a type may stand beside the values of an enum."""
    if not isinstance(values, list):
        return True
    if not isinstance(kind, str):
        return False
    if kind in ("integer", "number"):
        numbers = int if kind == "integer" else int | float
        return all(isinstance(value, numbers) and not isinstance(value, bool) for value in values)
    return kind not in _TYPES or all(isinstance(value, _TYPES[kind]) for value in values)
