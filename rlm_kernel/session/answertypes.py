"""Answers of a type: what the root model is told of it, and the value that it is checked to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from rlm_kernel.checked import plain
from rlm_kernel.errors import NoAnswer, UsageError
from rlm_kernel.session.result import Result


class AnswerType:
    """A pydantic model or a Python type such as list[str]. `schema` is its JSON schema.

    Raises UsageError for a type that has none.
    """

    def __init__(self, kind: Any) -> None:
        self._adapter: TypeAdapter[Any]
        try:
            self._adapter = TypeAdapter(kind)
            self.schema: Mapping[str, Any] = self._adapter.json_schema()
            plain(self.schema)
        except RecursionError:  # which its name would give, too
            raise UsageError(
                "This type is nested too deep to be an answer_type.",
                hint="Use a pydantic model that refers to itself.",
            ) from None
        except (PydanticUserError, TypeError, NameError, SyntaxError, ValueError) as error:
            what = " ".join(str(error).split())
            raise UsageError(
                f"Answers cannot be of the type {kind!r}: {what[:300]}",
                hint="Use a pydantic model, or a type such as list[str].",
            ) from error

    def _takes_none(self) -> bool:
        try:
            return self._adapter.validate_python(None) is None
        except ValidationError:
            return False

    def of(self, result: Result) -> Result:
        """The result with its value as the type has it. Raises NoAnswer."""
        if result.answer is None:
            return result
        try:
            if result.value is not None:
                return replace(result, value=self._adapter.validate_json(json.dumps(result.value)))
            if result.answer == str(None) and self._takes_none():
                return result
            try:
                return replace(result, value=self._adapter.validate_python(result.answer))
            except ValidationError:
                # In words instead of by code: JSON, perhaps.
                return replace(result, value=self._adapter.validate_json(result.answer))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            why = f"{where}: {problem['msg']}" if where else problem["msg"]
            raise NoAnswer(
                f"The answer does not have the requested type: {why}.",
                hint=f"The answer is in the trace: {result.trace}",
            ) from error
