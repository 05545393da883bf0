"""The form of a notebook, as far as whoever goes on from one relies on it.

What else is in it is let alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from rlm_kernel.trace.nodes import IS_JSON


def _text(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value)):
        return value
    raise PydanticCustomError("text", "Input should be a text, or a list of texts")


def _unlike(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise PydanticCustomError("tags", "Tags should differ")
    return tags


Text = Annotated[Any, BeforeValidator(_text)]


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Stream(_Part):
    output_type: Literal["stream"]
    name: str = "stdout"
    text: Text


class _Error(_Part):
    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


class _Display(_Part):
    output_type: Literal["display_data", "execute_result"]
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


_Output = Annotated[_Stream | _Error | _Display, Field(discriminator="output_type")]


class _CellMetadata(_Part):
    rlm: dict[str, Any] = {}
    tags: list[str] = []


class _Cell(_Part):
    cell_type: Literal["code", "markdown", "raw"]
    id: str = ""
    source: Text
    metadata: _CellMetadata
    outputs: list[_Output] = []
    execution_count: Annotated[int, Field(ge=0, le=1 << 53)] | None = None
    attachments: dict[str, dict[str, Any]] = {}


class _Notebook(_Part):
    metadata: dict[str, Any]
    cells: list[_Cell]


def _mime_bundle(value: Any) -> Any:
    if not isinstance(value, dict):
        raise PydanticCustomError("bundle", "Input should be an object")
    for kind, data in value.items():
        if not IS_JSON.match(kind):
            _text(data)
    return value


_MimeBundle = Annotated[Any, BeforeValidator(_mime_bundle)]
_Count = Annotated[int, Field(ge=0)] | None


class _Made(_Part):
    """Of what we write nothing is let alone."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _MadeStream(_Made):
    output_type: Literal["stream"]
    name: str
    text: Text


class _MadeError(_Made):
    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


class _MadeDisplay(_Made):
    output_type: Literal["display_data"]
    data: _MimeBundle
    metadata: dict[str, Any]


class _MadeResult(_MadeDisplay):
    output_type: Literal["execute_result"]  # type: ignore[assignment]
    execution_count: _Count


_Tag = Annotated[str, Field(pattern="^[^,]+$")]


class _MadeMetadata(_Made):
    model_config = ConfigDict(extra="allow", strict=True)

    execution: dict[str, str] = {}
    tags: Annotated[list[_Tag], AfterValidator(_unlike)] = []


class _MadeCell(_Made):
    """A code cell, as nbformat 4.5 has it."""

    cell_type: Literal["code"]
    id: Annotated[str, Field(pattern="^[a-zA-Z0-9-_]{1,64}$")]
    metadata: _MadeMetadata
    source: Text
    outputs: list[
        Annotated[_MadeStream | _MadeError | _MadeDisplay | _MadeResult, Field(discriminator="output_type")]
    ]
    execution_count: _Count


def fault_of_made(cell: Mapping[str, Any]) -> str:
    """Why a code cell of ours is not valid (nbformat 4.5); "" if it is."""
    try:
        _MadeCell.model_validate(cell)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return ""


def fault(notebook: Any) -> str:
    """What is wrong with the form of a notebook (nbformat 4), and where; "" if nothing is."""
    try:
        _Notebook.model_validate(notebook)
    except ValidationError as error:
        return _named(error, notebook)
    return ""


def _named(error: ValidationError, notebook: Any) -> str:
    """The first fault, with the cell that it is in."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = list(problem["loc"])
    where = ""
    if len(place) > 1 and place[0] == "cells" and isinstance(place[1], int):
        cell = notebook["cells"][place[1]]
        name = cell.get("id") if isinstance(cell, dict) else None
        where = f"its cell {name[:64] if isinstance(name, str) else place[1] + 1}: "
        place = place[2:]
    field = ".".join(str(part) for part in place)
    return f"{where}{field}: {problem['msg']}" if field else f"{where}{problem['msg']}"
