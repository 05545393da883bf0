"""What a trace keeps in `metadata.rlm`, of the notebook and of each cell.

`python -m rlm_kernel.trace.schema` prints the JSON schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from rlm_contract import MAX_EVIDENCE, MAX_QUOTE

from rlm_kernel.engine.protocols import (
    ROLES,
    TOKENS,
    CallKind,
    CallRecord,
    CellStatus,
    Evidence,
    PictureNote,
    StopReason,
    Usage,
)
from rlm_kernel.trace.accounts import ModelName, SharesMeta, TotalsMeta, metas_of, shares_of
from rlm_kernel.trace.fields import (
    MAX_PATH,
    Cost,
    Count,
    Instant,
    LinkText,
    Part,
    PathText,
    Seconds,
    Value,
    same,
    shared,
)

VERSION: Literal[1] = 1
MAX_THINKING = 200_000
"""Characters, as JSON, of the blocks of reasoning that a trace keeps of one turn, which are kept whole or not
at all.
"""
MAX_THOUGHTS = 20_000
"""Characters of a root model's reasoning that a trace keeps of one turn."""
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


class FileMeta(Part):
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


class OriginMeta(Part):
    """Where a trace was taken up from: `trace` (a path) at cell `cell`.

    For one that was resumed or rebuilt that is the trace itself. `apply`: its code was run on another input,
    up to that cell.
    """

    kind: Literal["resume", "fork", "rebuild", "apply"]
    trace: LinkText
    session: str
    cell: str
    at: Instant


class ParentMeta(Part):
    """Of a child RLM: the trace (a path from this one's folder), session and cell that asked for it."""

    trace: LinkText
    session: str
    cell: str


def tokens_of(usage: Usage) -> dict[str, int]:
    """The tokens of a reply, under the names that they have in a cell's or a call's metadata."""
    return {f"{name}_tokens": getattr(usage, name) for name in TOKENS}


def usage_of(meta: CallMeta | CellMeta) -> Usage:
    """The same, back again."""
    estimated = isinstance(meta, CallMeta) and meta.estimated
    return Usage(**{name: getattr(meta, f"{name}_tokens") or 0 for name in TOKENS}, estimated=estimated)


_MOST_MODELS = 100


def _both(models: dict[str, str]) -> dict[str, str]:
    if set(ROLES) <= models.keys() and len(models) <= _MOST_MODELS:
        return models
    raise ValueError("the names of root and sub were expected, and perhaps of some beside them")


class NotebookMeta(Part):
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


class PictureMeta(Part):
    """A picture that a call sent. The fields are those of `engine.protocols.PictureNote`."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    size: Count
    width: Count
    height: Count
    preview: Annotated[str, Field(max_length=MAX_PREVIEW_TEXT, pattern=r"^[A-Za-z0-9+/=]*$")] = ""


class CallMeta(Part):
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
            **same(_CALL, call) | {"images": [PictureMeta(**vars(image)) for image in call.images]},
            nth=call.occurrence,
            **tokens_of(usage),
            estimated=usage.estimated,
            seconds=round(call.seconds, 4),
            models=metas_of(call.models),
        )

    def record(self) -> CallRecord:
        """The call as the engine knows it."""
        images = tuple(PictureNote(**dict(image)) for image in self.images)
        known = same(_CALL, self) | {"images": images, "models": shares_of(self.models)}
        return CallRecord(**known, occurrence=self.nth, usage=usage_of(self), seconds=self.seconds)


_CALL = shared(CallMeta, CallRecord)


class EvidenceMeta(Part):
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


class CellMeta(Part):
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
