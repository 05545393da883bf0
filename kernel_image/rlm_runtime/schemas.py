"""Structured answers: what a schema (a JSON schema or a Python type) asks of a model, and how its reply becomes a value."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_SHOWN = 300


class Wanted:
    """How an answer is to look. Raises TypeError for what is neither a JSON schema nor a type that has one.

    `sent` is the JSON schema for the provider, whose top is an object, because many take no other: what is none is wrapped in one.
    """

    def __init__(self, schema: Any) -> None:
        if isinstance(schema, dict):
            self._adapter, self.schema = None, schema
            _validator(schema)
        else:
            self._adapter = _adapter(schema)
            self.schema = self._adapter.json_schema()
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
        """The value in a model's reply. Raises ValueError with what is wrong."""
        value = _json_in(reply)
        if self._wrapped and isinstance(value, dict) and set(value) == {"answer"}:
            value = value["answer"]
        return self.check(value)

    def of(self, value: Any) -> Any:
        """What was delivered, or the JSON in it where that is a text, as the type has it. Raises ValueError with what is wrong."""
        try:
            return self.check(value)
        except ValueError:
            if not isinstance(value, str):
                raise
            return self.read(value)

    def check(self, value: Any) -> Any:
        """The value as the type has it. Raises ValueError with what is wrong."""
        if self._adapter is not None:
            from pydantic import ValidationError

            try:
                return self._adapter.validate_json(json.dumps(value))
            except (ValidationError, TypeError) as error:
                raise ValueError(_short(error)) from None
        try:
            plain = json.loads(json.dumps(value))
        except TypeError as error:
            raise ValueError(str(error)) from None
        wrong = next(_validator(self.schema).iter_errors(plain), None)
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
    except (PydanticUserError, TypeError) as error:
        raise TypeError(f"schema is a JSON schema (a dict) or a Python type such as list[str], not {kind!r}: {_short(error)}") from None
    return adapter


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise TypeError(f"this is no JSON schema: {error.message}") from None
    return kind(schema, registry=Registry())


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    wrapped: dict[str, Any] = {"type": "object", "properties": {"answer": inner}, "required": ["answer"], "additionalProperties": False}
    return wrapped | {"$defs": schema["$defs"]} if "$defs" in schema else wrapped


def _json_in(reply: str) -> Any:
    """The JSON that a reply is, or has in a fence, or among words."""
    texts = [reply.strip(), *reversed(_FENCED.findall(reply))]
    for text in texts:
        try:
            return json.loads(text)
        except ValueError:
            continue
    decoder = json.JSONDecoder()
    for place in re.finditer(r"[{\[]", reply):
        try:
            return decoder.raw_decode(reply, place.start())[0]
        except ValueError:
            continue
    raise ValueError("it holds no JSON")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]
