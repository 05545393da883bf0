"""Structured answers: what a schema (a JSON schema or a Python type) asks of a model, and how its reply
becomes a value.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_SHOWN = 300
_TRIES = 1000
"""Brackets in a reply at which JSON is looked for: each may be the begin of much that is none."""
MAX_DEPTH = 100
"""Levels of a JSON schema, those of its keywords counted.

What checks values by it takes some Python calls for each.
"""


class Wanted:
    """How an answer is to look. Raises TypeError for what is neither a JSON schema nor a type that has one.

    `sent` is the JSON schema for the provider, whose top is an object, because many take no other: what is
    none is wrapped in one.
    """

    def __init__(self, schema: Any) -> None:
        if isinstance(schema, dict):
            self._adapter, self.schema = None, schema
            _check_depth(schema)
            _validator(schema)
            _check_references(schema)
        else:
            self._adapter = _adapter(schema)
            self.schema = self._adapter.json_schema()
            _check_depth(self.schema)
        self._wrapped = self.schema.get("type") != "object"
        self.sent = _wrap(self.schema) if self._wrapped else self.schema
        self.told = json.dumps(self.sent, sort_keys=True)

    def ask(self, prompt: str) -> str:
        """The prompt with what the reply is to look like."""
        return f"{prompt}\n\nReply with JSON alone, which fits this JSON schema:\n{self.told}"

    def ask_again(self, prompt: str, reply: str, wrong: ValueError) -> str:
        """The prompt after a reply that did not fit."""
        return f"{self.ask(prompt)}\n\nYour last reply was not taken: {wrong}\nIt began: {reply[:_SHOWN]!r}"

    def read(self, reply: str) -> Any:
        """The value in a model's reply: the JSON in it that fits. Raises ValueError with what is wrong."""
        wrong = ValueError("it holds no JSON")
        for place, value in enumerate(_json_in(reply)):
            if self._wrapped and isinstance(value, dict) and set(value) == {"answer"}:
                value = value["answer"]
            try:
                return self.check(value)
            except ValueError as error:
                wrong = wrong if place else error
        raise wrong

    def of(self, value: Any) -> Any:
        """What was delivered, or the JSON in it where that is a text, as the type has it.

        Raises ValueError with what is wrong.
        """
        try:
            return self.check(value)
        except ValueError:
            if not isinstance(value, str):
                raise
            return self.read(value)

    def check(self, value: Any) -> Any:
        """The value as the type has it. Raises ValueError with what is wrong."""
        try:
            text = json.dumps(value)
            if self._adapter is not None:
                return self._adapter.validate_json(text)
            plain = json.loads(text)
            wrong = next(_validator(self.schema).iter_errors(plain), None)
        except (ValueError, TypeError) as error:  # pydantic's is a ValueError
            raise ValueError(_short(error)) from None
        except RecursionError:
            raise ValueError("it is nested too deep to be checked") from None
        if wrong is not None:
            where = "".join(f"[{part!r}]" for part in wrong.absolute_path)
            raise ValueError(f"{where + ': ' if where else ''}{wrong.message}"[:_SHOWN])
        return plain


def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        adapter: Any = TypeAdapter(kind)
        adapter.json_schema()
    except RecursionError:
        raise TypeError(f"this type is nested too deep: a schema may have {MAX_DEPTH} levels") from None
    except (PydanticUserError, TypeError) as error:
        raise TypeError(
            f"schema is a JSON schema (a dict) or a Python type such as list[str], not {kind!r}: "
            f"{_short(error)}"
        ) from None
    return adapter


def _check_depth(schema: dict[str, Any]) -> None:
    """Raises TypeError for a schema that is nested too deep, or holds itself."""
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH + 1):
        held = {id(part): part for part in level if isinstance(part, dict | list)}
        if not held:
            return
        level = [
            below for part in held.values() for below in (part.values() if isinstance(part, dict) else part)
        ]
    raise TypeError(
        f"this schema is nested more than {MAX_DEPTH} levels deep: name its parts in $defs, and refer to "
        "them by $ref"
    )


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        raise TypeError(f"this is no JSON schema: {getattr(error, 'message', error)}") from None
    return kind(schema, registry=Registry())


def _check_references(schema: dict[str, Any]) -> None:
    """Raises TypeError for one that leads nowhere, or to itself.

    Those of a schema with names of its own ($id) are not followed.
    """
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    resource = specification_with(validator_for(schema).META_SCHEMA["$schema"]).create_resource(schema)
    resolver = Registry().with_resource("urn:schema", resource).resolver("urn:schema")
    try:
        for reference in [] if any(_found(schema, "$id")) else _found(schema, "$ref"):
            resolver.lookup(reference)
        next(_validator(schema).iter_errors(None), None)
    except Unresolvable as error:
        raise TypeError(f"this JSON schema has a $ref that leads nowhere: {_short(error)}") from None
    except RecursionError:
        raise TypeError("this JSON schema has a $ref that leads nowhere but to itself") from None


def _found(schema: Any, key: str) -> Iterator[str]:
    """The texts under a key, anywhere in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get(key), str):
            yield schema[key]
        schema = schema.values()
    elif not isinstance(schema, list):
        return
    for part in schema:
        yield from _found(part, key)


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    inner = _moved({name: part for name, part in schema.items() if name != "$defs"})
    wrapped: dict[str, Any] = {
        "type": "object",
        "properties": {"answer": inner},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return wrapped | {"$defs": _moved(schema["$defs"])} if "$defs" in schema else wrapped


def _moved(part: Any) -> Any:
    """A part of a schema whose references, but for those to $defs, are to what is one step deeper now."""
    if isinstance(part, list):
        return [_moved(one) for one in part]
    if not isinstance(part, dict):
        return part
    moved = {name: _moved(one) for name, one in part.items()}
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#") and not reference.startswith("#/$defs/"):
        moved["$ref"] = "#/properties/answer" + reference[1:]
    return moved


def _json_in(reply: str) -> Iterator[Any]:
    """The JSON that a reply is, or has in fences or else among words: the last first, as that tends to be the
    conclusion.
    """
    for text in [reply.strip(), *reversed(_FENCED.findall(reply))]:
        with contextlib.suppress(ValueError, RecursionError):
            yield json.loads(text)
    decoder = json.JSONDecoder()
    end = tried = 0
    found: list[Any] = []
    for place in re.finditer(r"[{\[]", reply):
        if place.start() < end or tried >= _TRIES:
            continue
        tried += 1
        with contextlib.suppress(ValueError, RecursionError):
            value, end = decoder.raw_decode(reply, place.start())
            found.append(value)
    yield from reversed(found)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]
