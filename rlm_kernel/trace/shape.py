"""The form of a notebook, as far as whoever goes on from one relies on it.

What else is in it is let alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError


def _text(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value)):
        return value
    raise PydanticCustomError("text", "Input should be a text, or a list of texts")


Text = Annotated[Any, BeforeValidator(_text)]


class _Stream(BaseModel):
    output_type: Literal["stream"]
    name: str = "stdout"
    text: Text


class _Error(BaseModel):
    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


class _Display(BaseModel):
    output_type: Literal["display_data", "execute_result"]
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


_Output = Annotated[_Stream | _Error | _Display, Field(discriminator="output_type")]


class _CellMetadata(BaseModel):
    rlm: dict[str, Any] = {}
    tags: list[str] = []


class _Cell(BaseModel):
    cell_type: Literal["code", "markdown", "raw"]
    id: str = ""
    source: Text
    metadata: _CellMetadata
    outputs: list[_Output] = []
    execution_count: Annotated[int, Field(ge=0, le=1 << 53)] | None = None
    attachments: dict[str, dict[str, Any]] = {}


class _Notebook(BaseModel):
    metadata: dict[str, Any]
    cells: list[_Cell]


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
