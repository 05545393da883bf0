"""What several kinds of lines of `--json-events` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlm_kernel.engine.protocols import Totals, Usage

MAX_TEXT = 10_000
"""Characters of a text in a line; the rest is cut off, and the line's `lengths` tells how many there were."""

Cost = float | None
"""US dollars; None where they are not known."""


class About:
    """What a field means. It becomes the description in the schema."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core), "description": self.text}


@dataclass(frozen=True)
class Tokens:
    """Tokens; `cached` and `written` are parts of `prompt`, `reasoning` is a part of `completion`."""

    prompt: int
    completion: int
    cached: int
    written: int
    reasoning: int

    @classmethod
    def of(cls, usage: Usage) -> Tokens:
        return cls(usage.prompt, usage.completion, usage.cached, usage.written, usage.reasoning)


@dataclass(frozen=True)
class Used:
    """What a run, or an RLM of it with all children beneath it, has used, as `rlm ask --json` tells it."""

    turns: int
    calls: int
    children: int
    child_turns: int
    stored: int
    failed: int
    tool_calls: int
    tokens: dict[str, int]
    cost: Cost
    known_cost: float
    seconds: float
    models: dict[str, Any]

    @classmethod
    def of(cls, totals: Totals) -> Used:
        return cls(**totals.as_json())


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A passage of a file that an answer stands on, from `start` up to `end`."""

    mark: Annotated[int, About("Its number in the text of the answer: [1].")]
    path: str
    start: int
    end: int
    quote: str
    unit: Annotated[
        Literal["bytes", "characters"],
        About("Unit of start and end: bytes of the file, or characters of the text extracted from it."),
    ]
    encoding: str
    verdict: Annotated[
        Literal["verbatim", "unread"], About("Whether the host read exactly this quotation there.")
    ]
    line: Annotated[int, About("Line where it begins, counted from 1; 0 if not known.")]
