"""Names and signatures in Python for what an MCP server calls its tools and describes by JSON schemas."""

from __future__ import annotations

import builtins
import hashlib
import json
import keyword
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_NAME = 60
"""Characters of a function's name."""
MAX_PARAMETERS = 40
"""Shown of one tool; further ones can be given all the same."""
_MAX_TYPE = 120
"""Characters of a parameter's type."""
_MAX_SHOWN = 60
"""Characters of a default value."""
_DEPTH = 5
_TYPES = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "object": "dict",
    "array": "list",
}  # fmt: skip
_RESERVED = frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self"))


def identifier(text: str, otherwise: str) -> str:
    """The text as a name in Python: other characters are `_`. `otherwise`: for a text without any that will
    do.
    """
    plain = unicodedata.normalize("NFKD", text[:1_000])
    # Plain letters alone: others look alike, and models mistype them.
    name = re.sub(r"[^A-Za-z0-9_]", "_", re.sub(r"[\u0300-\u036f]", "", plain))
    name = re.sub(r"_{2,}", "_", name).strip("_") or f"{otherwise}_{_digest(text)}"
    return name if name.isidentifier() else f"_{name}"


def function_name(server: str, tool: str, taken: Collection[str]) -> str:
    """A tool's name for code: the server's before it, so that it hides no other server's tool.

    `taken`: names that it must not have: helpers, and tools before it.
    """
    first = identifier(server, "server").strip("_")
    own = identifier(tool, "tool").strip("_")
    name = own if own.lower().startswith(f"{first.lower()}_") else f"{first}_{own}"
    name = name if name.isidentifier() else f"mcp_{name}"
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - 7]}_{_digest(tool)}"
    return _free(name, {*taken, *_RESERVED})


def _free(name: str, taken: Collection[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


@dataclass(frozen=True)
class Signature:
    """How a tool is called."""

    text: str
    """As Python shows it."""
    parameters: Mapping[str, Any]
    """JSON schema of the arguments, with nothing in it but plain types."""
    wire: Mapping[str, str]
    """The server's name of each parameter."""
    nullable: frozenset[str]
    """Parameters (the server's names) that may be null."""
    notes: tuple[str, ...]
    """What the server says of each parameter, a line each."""

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments under the server's names.

        None for what may not be null is left out: so code says that it does not give it.
        """
        named = {self.wire.get(name, name): value for name, value in given.items()}
        return {name: value for name, value in named.items() if value is not None or name in self.nullable}


def signature_of(schema: object, output: object = None) -> Signature:
    """The signature of a tool by its inputSchema and its outputSchema, whatever these are."""
    whole = schema if isinstance(schema, Mapping) else {}
    properties = _resolved(whole, whole).get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = _resolved(whole, whole).get("required")
    required = required if isinstance(required, list) else []
    wire: dict[str, str] = {}
    for name in list(properties)[:MAX_PARAMETERS]:
        ours = identifier(str(name)[:1_000], "value")[:MAX_NAME]
        wire[_free(f"{ours}_" if keyword.iskeyword(ours) else ours, {*wire, "self"})] = str(name)
    needed = [name for name in wire if wire[name] in required]
    others = [name for name in wire if wire[name] not in required]
    shown = [_parameter(name, properties[wire[name]], whole, name in needed) for name in (*needed, *others)]
    if len(properties) > len(wire) or (not wire and whole.get("additionalProperties")):
        shown.append("**more")
    returned = type_name(_unwrapped(output), output) if isinstance(output, Mapping) else "str"
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {name: _plain(properties[wire[name]], whole) for name in (*needed, *others)},
        "required": needed,
    }
    nullable = (one for one in wire.values() if "None" in type_name(properties[one], whole).split(" | "))
    notes = tuple(_notes(wire, properties))
    return Signature(f"({', '.join(shown)}) -> {returned}", parameters, wire, frozenset(nullable), notes)


def _notes(wire: Mapping[str, str], properties: Mapping[str, Any]) -> Iterator[str]:
    for name, theirs in wire.items():
        schema = properties[theirs]
        said = schema.get("description") if isinstance(schema, Mapping) else None
        if isinstance(said, str) and said.strip():
            yield f"{name}: {' '.join(said[:1_000].split())}"


def _parameter(name: str, schema: object, whole: Mapping[str, Any], needed: bool) -> str:
    kind = type_name(schema, whole)
    if needed:
        return f"{name}: {kind}"
    default = schema.get("default") if isinstance(schema, Mapping) else None
    shown = repr(default) if isinstance(default, str | int | float | bool | None) else "None"
    shown = shown if len(shown) <= _MAX_SHOWN and shown.isprintable() else "None"
    if shown == "None" and "None" not in kind.split(" | ") and kind != "Any":
        kind = f"{kind} | None"
    return f"{name}: {kind} = {shown}"


def type_name(schema: object, whole: object, depth: int = 0) -> str:
    """The type in Python's words; "Any" for what has no short one."""
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return "Any"
    schema = _resolved(schema, whole)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        shown = f"Literal[{', '.join(repr(one) for one in values[:20])}]"
        if len(shown) <= _MAX_TYPE and shown.isprintable() and len(values) <= 20:
            return shown
    for name in ("anyOf", "oneOf"):
        if isinstance(parts := schema.get(name), list) and parts:
            return _either(type_name(part, whole, depth + 1) for part in parts[:8])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either(type_name({**schema, "type": one}, whole, depth + 1) for one in kind[:8])
    found = _TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"
    if found == "list" and isinstance(schema.get("items"), Mapping):
        inner = type_name(schema["items"], whole, depth + 1)
        return f"list[{inner}]" if len(inner) < _MAX_TYPE // 2 else "list"
    if found == "Any" and isinstance(schema.get("properties"), Mapping):
        return "dict"
    return found


def _either(kinds: Iterator[str]) -> str:
    found = list(dict.fromkeys(part for kind in kinds for part in kind.split(" | ")))
    text = " | ".join(found)
    return "Any" if not text or "Any" in found or len(text) > _MAX_TYPE else text


def _resolved(schema: Mapping[str, Any], whole: object) -> Mapping[str, Any]:
    """What a `$ref` within the same schema stands for; nothing is fetched."""
    for _ in range(_DEPTH):
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith("#/"):
            break
        found: Any = whole
        for part in ref[2:].split("/")[:10]:
            found = found.get(part) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return {}
        schema = found
    return schema


def _plain(schema: object, whole: object) -> dict[str, Any]:
    """Its type alone: what the server's patterns and bounds cost to check, the server may pay."""
    kinds = set(type_name(schema, whole).split(" | "))
    by_name = {name: kind for kind, name in _TYPES.items()}
    found = [by_name.get(kind.partition("[")[0]) for kind in kinds]
    if None in found or not found:
        return {}
    return {"type": found[0]} if len(found) == 1 else {"type": sorted(filter(None, found))}


def wraps_result(output: object) -> bool:
    """Whether an outputSchema is that of one value which stands under `result`."""
    properties = output.get("properties") if isinstance(output, Mapping) else None
    return isinstance(properties, Mapping) and list(properties) == ["result"]


def _unwrapped(output: Mapping[str, Any]) -> object:
    return output["properties"]["result"] if wraps_result(output) else output


def definition_digest(definition: Mapping[str, Any]) -> str:
    """A digest of all that a server says of a tool."""
    text = json.dumps(definition, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
