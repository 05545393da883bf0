"""What the tools are asked with. The descriptions are for the model that calls them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rlm_kernel.sandbox.searching import MAX_HITS, MAX_PATTERN

MAX_QUESTION = 100_000
MAX_TEXT = 32_000_000
MAX_SHOWN = 100_000
"""Characters."""


def _as_list(given: Any) -> Any:
    """A list, also of one path, and of a list that a model wrote as a text of JSON."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        try:
            found = json.loads(given)
        except (ValueError, RecursionError):
            return [given]
        return found if isinstance(found, list) else [given]
    return [given]


Question = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_QUESTION,
        description="The question, complete in itself. The input itself goes into `paths` or `text`.",
    ),
]
Paths = Annotated[
    list[Annotated[str, Field(max_length=4_096)]],
    BeforeValidator(_as_list),
    Field(
        max_length=1_000,
        description="Files and folders of any size, as paths. Folders are searched whole.",
    ),
]
Text = Annotated[str | None, Field(max_length=MAX_TEXT, description="The input itself, instead of paths.")]
SessionId = Annotated[str, Field(max_length=64, description="The id that session_start gave.")]
Cost = Annotated[
    float | None, Field(ge=0, le=1e6, allow_inf_nan=False, description="At most, in US dollars.")
]
Seconds = Annotated[float | None, Field(gt=0, le=1e6, allow_inf_nan=False, description="At most.")]
Turns = Annotated[int | None, Field(ge=1, le=1_000, description="Turns of the model that writes code.")]


class Asked(BaseModel):
    """Arguments of a tool; null and "" are as if left out: models write so what they do not want."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None and value != ""}


class Ask(Asked):
    """Ask."""

    question: Question
    paths: Paths = []
    text: Text = None
    model: Annotated[str | None, Field(max_length=200, description="Root model, as provider/model.")] = None
    max_cost: Cost = None
    max_seconds: Seconds = None
    max_turns: Turns = None


class SessionStart(Asked):
    """Start."""

    paths: Paths = []
    text: Text = None
    model: Annotated[str | None, Field(max_length=200, description="Root model, as provider/model.")] = None


class SessionAsk(Asked):
    """Ask in a session."""

    session: SessionId
    question: Question
    max_cost: Cost = None
    max_seconds: Seconds = None
    max_turns: Turns = None


class SessionNamed(Asked):
    """A session."""

    session: SessionId


class SearchAsked(Asked):
    """Search."""

    pattern: Annotated[
        str, Field(min_length=1, max_length=MAX_PATTERN, description="A regular expression of Python.")
    ]
    paths: Paths = []
    session: Annotated[
        str | None, Field(max_length=64, description="A session whose files to search, instead of paths.")
    ] = None
    file: Annotated[
        str | None, Field(max_length=4_096, description="Only this one of the files, by its name.")
    ] = None
    ignore_case: bool = False
    limit: Annotated[int, Field(ge=1, le=MAX_HITS, description="Hits at most.")] = 50


class ShowTrace(Asked):
    """Show."""

    trace: Annotated[str, Field(max_length=300, description="The trace's name, as an answer told it.")]
    cell: Annotated[
        str | None, Field(max_length=100, description="Only this cell, by its id (turn-01-a), in full.")
    ] = None
    offset: Annotated[int, Field(ge=0, description="Characters to pass over.")] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_SHOWN, description="Characters to show.")] = 20_000


def schema_of(asked: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, as plain as it can be: some clients read no more. What may be
    left out is left out, and not null.
    """
    whole = asked.model_json_schema()
    properties = {}
    for name, one in whole["properties"].items():
        kinds = [kind for kind in one.pop("anyOf", []) if kind != {"type": "null"}]
        plain = {**(kinds[0] if kinds else {}), **one}
        plain.pop("title", None)
        if plain.get("default", 0) is None:
            del plain["default"]
        properties[name] = plain
    return {
        "type": "object",
        "properties": properties,
        "required": whole.get("required", []),
        "additionalProperties": False,
    }
