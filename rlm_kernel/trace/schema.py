"""What a trace keeps in `metadata.rlm`, of the notebook and of each cell.

`python -m rlm_kernel.trace.schema` prints the JSON schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

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
from rlm_contract import MAX_EVIDENCE, MAX_QUOTE

from rlm_kernel.bounded import MAX_DEPTH, shallow
from rlm_kernel.engine.protocols import (
    ROLES,
    TOKENS,
    CallKind,
    CallRecord,
    CellStatus,
    Evidence,
    PictureNote,
    Share,
    Shares,
    StopReason,
    Totals,
    Usage,
)
from rlm_kernel.pathtext import from_text, to_text

VERSION: Literal[1] = 1
MAX_THINKING = 200_000
"""Characters, as JSON, of the blocks of reasoning that a trace keeps of one turn, which are kept whole or not
at all.
"""
MAX_THOUGHTS = 20_000
"""Characters of a root model's reasoning that a trace keeps of one turn."""
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
CellKind = Literal[
    "title",
    "parameters",
    "setup",
    "model",
    "unfinished",
    "code",
    "person",
    "pictures",
    "note",
    "question",
    "memory",
    "answer",
    "summary",
]


MAX_PREVIEW_TEXT = 10_000
"""Characters (base64) of a picture's preview."""
MAX_PATH = 100_000
"""Characters of a path: no system has longer ones."""


class _Part(BaseModel):
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


class FileMeta(_Part):
    """A file or folder that the user named.

    `size` in bytes; `sha256` of a folder is over its files' names and digests, in order.

    `made`: it holds an object from Python and lies beside the trace. `digest`: why there is no `sha256`: it
    was not read to its end before the run ended (or is still read), it changed while it was read, or it could
    not be read.
    """

    path: PathText
    directory: bool = False
    size: Count
    sha256: str | None = None
    made: bool = False
    digest: Literal["pending", "changed", "unreadable"] | None = None


class OriginMeta(_Part):
    """Where a trace was taken up from: `trace` (a path) at cell `cell`.

    For one that was resumed or rebuilt that is the trace itself. `apply`: its code was run on another input,
    up to that cell.
    """

    kind: Literal["resume", "fork", "rebuild", "apply"]
    trace: LinkText
    session: str
    cell: str
    at: Instant


class ParentMeta(_Part):
    """Of a child RLM: the trace (a path from this one's folder), session and cell that asked for it."""

    trace: LinkText
    session: str
    cell: str


class ShareMeta(_Part):
    """What one model has used: the fields of `engine.totals.Share`, of its usage one by one."""

    calls: Count = 0
    prompt: Count = 0
    completion: Count = 0
    cached: Count = 0
    written: Count = 0
    reasoning: Count = 0
    known_cost: Amount = 0.0
    unpriced: Count = 0
    lost_cost: Amount = 0.0


ModelName = Annotated[str, Field(max_length=64)]
"""`root`, `sub`, or the name of a model in the settings."""
SharesMeta = dict[ModelName, ShareMeta]


def _shares(shares: Shares) -> SharesMeta:
    return {
        name: ShareMeta(**_same(_SHARE, share), **_same(TOKENS, share.usage))
        for name, share in shares.items()
    }


def shares_of(metas: SharesMeta) -> Shares:
    """What each model has used, as the engine knows it."""
    return Shares(
        {
            name: Share(**_same(_SHARE, meta), usage=Usage(**_same(TOKENS, meta)))
            for name, meta in metas.items()
        }
    )


class TotalsMeta(_Part):
    """The account of the run and of the child RLMs beneath it; while it runs, so far, and without children
    that are still at work.

    The fields are those of `engine.totals.Totals`. `cost` is null where the price of any reply is unknown;
    `known_cost` is that of the others. `models`: the same by model.
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
    root_written: Count = 0
    root_reasoning: Count = 0
    sub_written: Count = 0
    sub_reasoning: Count = 0
    models: SharesMeta = {}
    tool_calls: Count = 0

    @classmethod
    def of(cls, totals: Totals) -> TotalsMeta:
        tokens = {
            f"{role}_{name}": getattr(usage, name) for role, usage in _by_role(totals) for name in TOKENS
        }
        return cls(
            **_same(_TOTALS, totals),
            **tokens,
            cost=totals.cost,
            seconds=round(totals.seconds, 3),
            models=_shares(totals.models),
        )

    def totals(self) -> Totals:
        """The account as the engine knows it."""
        root, sub = (Usage(**{name: getattr(self, f"{role}_{name}") for name in TOKENS}) for role in ROLES)
        # Older traces have the one number for both.
        known = {"known_cost": self.cost} if self.cost is not None else {"unpriced": self.unpriced or 1}
        return Totals(
            root_usage=root,
            sub_usage=sub,
            models=shares_of(self.models),
            **_same(_TOTALS, self) | {"seconds": self.seconds} | known,
        )


def _by_role(totals: Totals) -> tuple[tuple[str, Usage], tuple[str, Usage]]:
    return ("root", totals.root_usage), ("sub", totals.sub_usage)


def tokens_of(usage: Usage) -> dict[str, int]:
    """The tokens of a reply, under the names that they have in a cell's or a call's metadata."""
    return {f"{name}_tokens": getattr(usage, name) for name in TOKENS}


def usage_of(meta: CallMeta | CellMeta) -> Usage:
    """The same, back again."""
    estimated = isinstance(meta, CallMeta) and meta.estimated
    return Usage(**{name: getattr(meta, f"{name}_tokens") or 0 for name in TOKENS}, estimated=estimated)


def _shared(meta: type[BaseModel], value: type[Any]) -> tuple[str, ...]:
    """The fields that a value of the engine has under the same names in the trace; seconds are rounded
    there, and shares of models made of their parts.
    """
    return tuple(
        field.name
        for field in fields(value)
        if field.name in meta.model_fields and field.name not in ("seconds", "models")
    )


def _same(names: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


_TOTALS = _shared(TotalsMeta, Totals)
_SHARE = _shared(ShareMeta, Share)
_MOST_MODELS = 100


def _both(models: dict[str, str]) -> dict[str, str]:
    if set(ROLES) <= models.keys() and len(models) <= _MOST_MODELS:
        return models
    raise ValueError("the names of root and sub were expected, and perhaps of some beside them")


class NotebookMeta(_Part):
    """`metadata.rlm` of the notebook.

    `name`: of a session that is kept between commands. `question` is empty until there is one.

    `journal`: the id of the journal that may lie beside the notebook while it is being written
    (`trace.journal`), and `journaled`, the number of its last record that the notebook has. `prompts`: the
    name of the file beside it that has what models were sent in full; "" for none. `seal`: a digest of
    all else in the notebook and of the files that belong to it, made when the trace is closed
    (`trace.sealed`). `sealed`: the parts that it is made of, each by its name and the beginning of its
    digest, so that a check can name what was changed.
    """

    version: Literal[1] = VERSION
    session: str
    name: str = ""
    created: Instant
    rlm_version: str
    question: str
    models: Annotated[dict[ModelName, str], AfterValidator(_both)]
    prompt_profile: str
    prompt_digest: str
    image: str
    image_digest: str
    limits: dict[str, float | None]
    sandbox: dict[str, Value]
    files: list[FileMeta] = []
    parent: ParentMeta | None = None
    origins: list[OriginMeta] = []
    status: Literal["running", "finished"] = "running"
    stop_reason: StopReason | None = None
    forced: bool = False
    detail: str = ""
    totals: TotalsMeta | None = None
    journal: str = ""
    journaled: Count = 0
    prompts: LinkText = ""
    seal: Annotated[str, Field(pattern=r"^(|[0-9a-f]{64})$")] = ""
    sealed: list[Annotated[str, Field(max_length=MAX_PATH)]] = []


class PictureMeta(_Part):
    """A picture that a call sent. The fields are those of `engine.protocols.PictureNote`."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    size: Count
    width: Count
    height: Count
    preview: Annotated[str, Field(max_length=MAX_PREVIEW_TEXT, pattern=r"^[A-Za-z0-9+/=]*$")] = ""


class CallMeta(_Part):
    """One host call: the recording from which a replay answers it.

    The fields are those of `engine.protocols.CallRecord`.

    `cut`: the model's reply ends at its limit of tokens. `estimated`: the provider did not count the tokens.
    `role`: which model was asked, by its name in the settings; of a child RLM: which is its root model.
    `models`: of a child RLM, what each model has used. `again`: the answer is that of the same call in an
    earlier cell, which was cut off; this one was not made, and cost nothing. `tool_calls`: of a child RLM,
    those of all beneath it.
    """

    id: str
    kind: CallKind
    prompt_digest: str
    preview: str
    started: Instant
    seconds: Seconds
    answer: Value = None
    error: str | None = None
    error_type: str | None = None
    nth: Count = 0
    model: str | None = None
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cached_tokens: Count = 0
    written_tokens: Count = 0
    reasoning_tokens: Count = 0
    cost: Cost = None
    attempts: Count = 1
    stored: bool = False
    calls: Count = 1
    trace: LinkText = ""
    thoughts: str = ""
    cut: bool = False
    estimated: bool = False
    images: list[PictureMeta] = []
    role: ModelName = "sub"
    models: SharesMeta = {}
    again: bool = False
    tool_calls: Count = 0

    @classmethod
    def of(cls, call: CallRecord) -> CallMeta:
        usage = call.usage
        return cls(
            **_same(_CALL, call) | {"images": [PictureMeta(**vars(image)) for image in call.images]},
            nth=call.occurrence,
            **tokens_of(usage),
            estimated=usage.estimated,
            seconds=round(call.seconds, 4),
            models=_shares(call.models),
        )

    def record(self) -> CallRecord:
        """The call as the engine knows it."""
        images = tuple(PictureNote(**dict(image)) for image in self.images)
        same = _same(_CALL, self) | {"images": images, "models": shares_of(self.models)}
        return CallRecord(**same, occurrence=self.nth, usage=usage_of(self), seconds=self.seconds)


_CALL = _shared(CallMeta, CallRecord)


class EvidenceMeta(_Part):
    """A passage that an answer stands on. The fields are those of `engine.protocols.Evidence`."""

    mark: Count
    path: PathText
    start: Count
    end: Count
    quote: Annotated[str, Field(max_length=MAX_QUOTE)]
    unit: Literal["bytes", "characters"] = "bytes"
    encoding: Annotated[str, Field(max_length=40)] = "utf-8"
    verdict: Literal["verbatim", "unread"] = "unread"
    line: Count = 0

    @classmethod
    def of(cls, evidence: Evidence) -> EvidenceMeta:
        return cls(**vars(evidence))

    def evidence(self) -> Evidence:
        """The passage as the engine knows it."""
        return Evidence(**dict(self))


def _listed(calls: Any) -> Any:
    return list(calls) if isinstance(calls, Sequence) and not isinstance(calls, str) else calls


class CellMeta(_Part):
    """`metadata.rlm` of a cell.

    `status` `running`: the trace was cut off while it ran. `reply`: the root model's words as they came,
    without its `thoughts`, of which at most MAX_THOUGHTS characters are kept; `text`: the words of a note, a
    question, a summary or an answer, or of a reply that did not come to its end. `left_out`: how many of its
    host calls are not in `calls`, because they were more than is kept. `batch_cut`: a batch of its calls was
    cut off, though it may have ended well itself. `tokens_before`, `tokens_after`: of what a summary stands
    for, and of itself; `since`: the first turn for which it stands. `told`: what the root model was told
    before its reply, without the outputs of the turn before; `thinking`: its reasoning as its provider wants
    it back. `code_digest`: sha256 of the code that was run, by which an edited cell is known.
    `evidence`: of an answer, the passages that it stands on. `again`: the root model's words are those of the
    run whose code was applied here; it was not asked, and they cost nothing.
    """

    kind: CellKind
    turn: Count | None = None
    status: CellStatus | Literal["running"] | None = None
    truncated: bool = False
    seconds: Seconds | None = None
    calls: Annotated[Sequence[CallMeta], BeforeValidator(_listed)] = []
    left_out: Count = 0
    batch_cut: bool = False
    model: str | None = None
    told: str = ""
    reply: str | None = None
    thoughts: str = ""
    thinking: list[dict[str, Value]] = []
    text: str | None = None
    code_digest: str | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    written_tokens: Count = 0
    reasoning_tokens: Count = 0
    cost: Cost = None
    tokens_before: Count | None = None
    tokens_after: Count | None = None
    since: Count | None = None
    again: bool = False
    evidence: Annotated[list[EvidenceMeta], Field(max_length=MAX_EVIDENCE)] = []


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
