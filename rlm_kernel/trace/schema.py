"""What a trace keeps in `metadata.rlm`, of the notebook and of each cell. `python -m rlm_kernel.trace.schema` prints the JSON schema."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from rlm_kernel.engine.protocols import CallKind, CallRecord, CellStatus, StopReason, Totals, Usage
from rlm_kernel.pathtext import from_text, to_text

VERSION: Literal[1] = 1
MAX_THOUGHTS = 20_000
"""Characters of a root model's reasoning that a trace keeps of one turn."""
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""What was used so far counts against the limits of who goes on: less than nothing, or NaN, would lift them."""


def _known(cost: Any) -> Any:
    return None if isinstance(cost, float) and not math.isfinite(cost) else cost


Cost = Annotated[Amount | None, BeforeValidator(_known)]
"""US dollars; null where the price is not known."""
CellKind = Literal["title", "parameters", "setup", "model", "code", "person", "note", "question", "memory", "answer", "summary"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


PathText = Annotated[str, BeforeValidator(lambda text: from_text(text) if isinstance(text, str) else text), PlainSerializer(to_text)]
"""A path; as `pathtext` has it where it is no text."""


class FileMeta(_Part):
    """A file or folder that the user named. `size` in bytes; `sha256` of a folder is over its files' names and digests, in order.

    `made`: it holds an object from Python and lies beside the trace. `digest`: why there is no `sha256`: it was not read to its end before
    the run ended (or is still read), it changed while it was read, or it could not be read.
    """

    path: PathText
    directory: bool = False
    size: Count
    sha256: str | None = None
    made: bool = False
    digest: Literal["pending", "changed", "unreadable"] | None = None


class OriginMeta(_Part):
    """Where a trace was taken up from: `trace` (a path) at cell `cell`. For one that was resumed or rebuilt that is the trace itself."""

    kind: Literal["resume", "fork", "rebuild"]
    trace: str
    session: str
    cell: str
    at: datetime


class ParentMeta(_Part):
    """Of a child RLM: the trace (a path from this one's folder), session and cell that asked for it."""

    trace: str
    session: str
    cell: str


class TotalsMeta(_Part):
    """The account of the run and of the child RLMs beneath it; while it runs, so far, and without children that are still at work.

    The fields are those of `engine.totals.Totals`. `cost` is null where the price of any reply is unknown; `known_cost` is that of the
    others.
    """

    turns: Count
    calls: Count
    root_prompt: Count
    root_completion: Count
    root_cached: Count
    sub_prompt: Count
    sub_completion: Count
    sub_cached: Count
    cost: Cost
    seconds: Amount
    children: Count = 0
    child_turns: Count = 0
    stored: Count = 0
    failed: Count = 0
    known_cost: Amount = 0.0
    unpriced: Count = 0
    lost_tokens: Amount = 0.0
    lost_cost: Amount = 0.0

    @classmethod
    def of(cls, totals: Totals) -> TotalsMeta:
        root, sub = totals.root_usage, totals.sub_usage
        same = {name: getattr(totals, name) for name in cls.model_fields if hasattr(totals, name)}
        tokens = {
            "root_prompt": root.prompt,
            "root_completion": root.completion,
            "root_cached": root.cached,
            "sub_prompt": sub.prompt,
            "sub_completion": sub.completion,
            "sub_cached": sub.cached,
        }
        return cls(**same | tokens | {"seconds": round(totals.seconds, 3)})

    def totals(self) -> Totals:
        """The account as the engine knows it."""
        same = {name: getattr(self, name) for name in _COUNTS}
        root = Usage(self.root_prompt, self.root_completion, self.root_cached)
        sub = Usage(self.sub_prompt, self.sub_completion, self.sub_cached)
        # Older traces have the one number for both.
        known = {"known_cost": self.cost} if self.cost is not None else {"unpriced": self.unpriced or 1}
        return Totals(root_usage=root, sub_usage=sub, **same | known)


_COUNTS = tuple(name for name in TotalsMeta.model_fields if name in {part.name for part in fields(Totals)})


class NotebookMeta(_Part):
    """`metadata.rlm` of the notebook. `name`: of a session that is kept between commands. `question` is empty until there is one."""

    version: Literal[1] = VERSION
    session: str
    name: str = ""
    created: datetime
    rlm_version: str
    question: str
    models: dict[Literal["root", "sub"], str]
    prompt_profile: str
    prompt_digest: str
    image: str
    image_digest: str
    limits: dict[str, float | None]
    sandbox: dict[str, Any]
    files: list[FileMeta] = []
    parent: ParentMeta | None = None
    origins: list[OriginMeta] = []
    status: Literal["running", "finished"] = "running"
    stop_reason: StopReason | None = None
    forced: bool = False
    detail: str = ""
    totals: TotalsMeta | None = None


class CallMeta(_Part):
    """One host call: the recording from which a replay answers it. The fields are those of `engine.protocols.CallRecord`.

    `cut`: the model's reply ends at its limit of tokens. `estimated`: the provider did not count the tokens.
    """

    id: str
    kind: CallKind
    prompt_digest: str
    preview: str
    started: datetime
    seconds: Amount
    answer: Any = None
    error: str | None = None
    error_type: str | None = None
    nth: int = 0
    model: str | None = None
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cached_tokens: Count = 0
    cost: Cost = None
    attempts: int = 1
    stored: bool = False
    calls: Count = 1
    trace: str = ""
    thoughts: str = ""
    cut: bool = False
    estimated: bool = False

    @classmethod
    def of(cls, call: CallRecord) -> CallMeta:
        return cls(
            id=call.id,
            kind=call.kind,
            prompt_digest=call.prompt_digest,
            preview=call.preview,
            started=call.started,
            seconds=round(call.seconds, 4),
            answer=call.answer,
            error=call.error,
            error_type=call.error_type,
            nth=call.nth,
            model=call.model,
            prompt_tokens=call.usage.prompt,
            completion_tokens=call.usage.completion,
            cached_tokens=call.usage.cached,
            cost=call.cost,
            attempts=call.attempts,
            stored=call.stored,
            calls=call.calls,
            trace=call.trace,
            thoughts=call.thoughts,
            cut=call.cut,
            estimated=call.usage.estimated,
        )

    def record(self) -> CallRecord:
        """The call as the engine knows it."""
        plain = {name: getattr(self, name) for name in type(self).model_fields if not name.endswith(("_tokens", "estimated"))}
        return CallRecord(**plain, usage=Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.estimated))


class CellMeta(_Part):
    """`metadata.rlm` of a cell.

    `status` `running`: the trace was cut off while it ran. `reply`: the root model's words as they came, without its `thoughts`, of which
    at most MAX_THOUGHTS characters are kept; `text`: the words of a note, a question, a summary or an answer. `tokens_before`,
    `tokens_after`: of what a summary stands for, and of itself. `code_digest`: sha256 of the code that was run, by which an edited cell is
    known.
    """

    kind: CellKind
    turn: int | None = None
    status: CellStatus | Literal["running"] | None = None
    truncated: bool = False
    seconds: Amount | None = None
    calls: list[CallMeta] = []
    model: str | None = None
    reply: str | None = None
    thoughts: str = ""
    text: str | None = None
    code_digest: str | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    cost: Cost = None
    tokens_before: int | None = None
    tokens_after: int | None = None


def json_schema() -> str:
    """The published JSON schema of both."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rlm_kernel trace metadata",
        "description": "`metadata.rlm` of a trace notebook (NotebookMeta) and of its cells (CellMeta).",
        "version": VERSION,
        "NotebookMeta": NotebookMeta.model_json_schema(),
        "CellMeta": CellMeta.model_json_schema(),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
