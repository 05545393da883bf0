"""The kinds of values that a trace's metadata consists of (`trace.schema`), each with its bounds."""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
)

from rlm_kernel.bounded import MAX_DEPTH, shallow
from rlm_kernel.pathtext import from_text, to_text

MOST = 1 << 53
"""Of whatever is counted: beyond it, floating-point numbers skip whole ones."""
Count = Annotated[int, Field(ge=0, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
"""What was used so far counts against the limits of who goes on: less than nothing, or NaN, would lift
them.
"""
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Of one call or cell: a time and so many seconds must be a time again."""
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
Instant = Annotated[AwareDatetime, Field(ge=_FIRST, lt=_LAST)]
"""A time with its zone, to which any `Seconds` can be added."""
INSTANT = TypeAdapter[datetime](Instant)


def _shallow(value: Any) -> Any:
    if not shallow(value):
        raise ValueError(f"a value of at most {MAX_DEPTH} levels was expected")
    return value


Value = Annotated[Any, AfterValidator(_shallow)]
"""What JSON can hold."""


def _known(cost: Any) -> Any:
    return None if isinstance(cost, float) and not math.isfinite(cost) else cost


Cost = Annotated[Amount | None, BeforeValidator(_known)]
"""US dollars; null where the price is not known."""
MAX_PATH = 100_000
"""Characters of a path: no system has longer ones."""


class Part(BaseModel):
    """The base of all that has fields of its own: no others are taken."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


def _path(text: str) -> str:
    if text and "\0" not in text and len(text) <= MAX_PATH and ".." not in text.split("/"):
        return text
    raise ValueError(f"a path of at most {MAX_PATH:,} characters, without a NUL and without .., was expected")


PathText = Annotated[
    str,
    BeforeValidator(lambda text: from_text(text) if isinstance(text, str) else text),
    AfterValidator(_path),
    PlainSerializer(to_text),
]
"""A path; as `pathtext` has it where it is no text."""


LinkText = Annotated[str, Field(max_length=MAX_PATH, pattern=r"^[^\x00]*$")]
"""A path from the trace's folder, or none."""


def shared(meta: type[BaseModel], value: type[Any]) -> tuple[str, ...]:
    """The fields that a value of the engine has under the same names in the trace; seconds are rounded
    there, and shares of models made of their parts.
    """
    return tuple(
        field.name
        for field in fields(value)
        if field.name in meta.model_fields and field.name not in ("seconds", "models")
    )


def same(names: tuple[str, ...], value: Any) -> dict[str, Any]:
    """These fields of a value, by their names."""
    return {name: getattr(value, name) for name in names}
