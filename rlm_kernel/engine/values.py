"""The values that cross the seams of the engine (`engine.protocols`): what is asked, what comes back, how a
cell and a run end.

All times are seconds; wall-clock instants are timezone-aware UTC datetimes; money is US dollars, None where
unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from rlm_contract import MAX_CELL_ID

from rlm_kernel.checked import integer, text
from rlm_kernel.engine.totals import Shares, Usage

Role = Literal["root", "sub"]
ROLES: tuple[Role, ...] = ("root", "sub")
Message = Mapping[str, Any]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}.

A message of the user's may have "images", a sequence of Picture. The model's may have "thinking", the blocks
of its reasoning (as of `Completion`), which go back to it.
"""


@dataclass(frozen=True)
class Picture:
    """A picture for a model that sees: the bytes of its file, of that media type, and its size in pixels."""

    data: bytes
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    width: int
    height: int

    @cached_property
    def digest(self) -> str:
        """sha256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def tokens(self) -> int:
        """About how many tokens it takes, by the rule of Anthropic; other providers' are near it."""
        return -(-self.width * self.height // 750)


@dataclass(frozen=True)
class Card:
    """What is known of a model that a run may ask.

    `role`: "root", "sub", or the name under which the settings have it; `name`: `provider/model`. `window` in
    tokens and the prices in US dollars per million tokens are None where they are not known; `sees`: whether
    it takes pictures, None where that is not known. `about`: what it is good for, in the user's words.
    """

    role: str
    name: str
    window: int | None = None
    input_price: float | None = None
    output_price: float | None = None
    sees: bool | None = None
    about: str = ""

    @property
    def prices(self) -> tuple[float, float] | None:
        """Of a prompt and of a reply; None where one of them is not known."""
        if self.input_price is None or self.output_price is None:
            return None
        return self.input_price, self.output_price


@dataclass(frozen=True)
class Completion:
    """One reply of a model. `cost` is None where the price is unknown; `seconds` includes retries.

    `finish_reason` is "stopped" where who listened had heard enough. `thinking`: the model's reasoning as
    blocks of its provider's, signed perhaps, which go back to it with the reply.

    `stored`: it was not asked for, but is the reply of an earlier run to the very same; its usage and cost
    are zero. `thoughts`: the model's reasoning where it came apart from the reply; kept in the trace, never
    run, delivered or sent back. `finish_reason`: the provider's, or "length" where the reply was cut at the
    limit of tokens, however the provider calls it. `tools`: names of tools that a root model called although
    none was offered, and that run no Python: where one does, its code is in the text.
    """

    text: str
    model: str
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    finish_reason: str | None = None
    stored: bool = False
    thoughts: str = ""
    tools: tuple[str, ...] = ()
    thinking: Sequence[Mapping[str, Any]] = ()

    @property
    def cut(self) -> bool:
        """Whether the reply ends where it does because of the limit on tokens."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Retry:
    """An attempt that failed, of a call that is tried again.

    `attempt` counts from 1; of `attempts` that are made at the most.

    `reason` in a word or two, for people: "rate-limited", "server error 503". The next attempt comes in
    `seconds`; `asked`: for how many the provider wants none, None where it did not say.
    """

    reason: str
    attempt: int
    attempts: int
    seconds: float
    asked: float | None = None


@dataclass(frozen=True)
class Watch:
    """Who hears how a model's call goes on.

    `sent` is called when a request goes out, from when on it may be billed. `attempted` is called after each
    attempt, with what all so far have used. `retrying` is called before each wait for another
    attempt; if it says False, there is none, and the call fails as after its last. Where `heard` is given,
    the reply is streamed where it can be: it is called with each piece as it comes, whether of the text or,
    with True, of the model's reasoning. If it says False, it has heard enough: the reply ends there. After
    `retrying` the pieces begin again.
    """

    sent: Callable[[], None] = lambda: None
    retrying: Callable[[Retry], bool] = lambda _retry: True
    attempted: Callable[[Usage, float | None], None] = lambda _usage, _cost: None
    heard: Callable[[str, bool], bool] | None = None


UNWATCHED = Watch()


class ReplyText(str):
    """A sub model's reply on its way to code in the kernel, which is told whether it was `cut`, as of
    `Completion`.
    """

    cut = False

    @classmethod
    def of(cls, text: str, *, cut: bool) -> ReplyText:
        made = cls(text)
        made.cut = cut
        return made


CallKind = Literal["llm_query", "rlm_query", "file", "final", "budget", "history", "tool"]
MODEL_CALLS = ("llm_query", "rlm_query")
"""Kinds that cost something."""
TOLD_CALLS = (*MODEL_CALLS, "tool")
"""Kinds that people are told of: what code had from outside the kernel but for files."""
CANCELLED = "cancelled: the cell ended before the answer came"
"""The error of a call that was cut off with its cell."""
THOUGHTS_KEPT = 500
"""Characters of a sub model's reasoning that the record of a call keeps."""


@dataclass(frozen=True)
class HostCall:
    """A request as it came from code in the kernel: all of it is hostile, so check it.

    `occurrence` counts, from 0, the calls of this cell that asked the very same before; it tells apart
    identical prompts. What is done in `pause_timer` takes no time of the cell's.
    """

    cell: str
    id: str
    body: Mapping[str, Any]
    occurrence: int = 0
    pause_timer: Callable[[], AbstractContextManager[None]] = nullcontext


PauseTimer = Callable[[], AbstractContextManager[None]]
"""What is done in it takes no time of the cell's."""
Locate = Callable[[str, PauseTimer], Awaitable[Mapping[str, Any]]]
"""Finds a host path for the kernel; enters what it is given while it asks the user. Raises FileRefused."""
HostCallHandler = Callable[[HostCall], Awaitable[Any]]
"""Does one kind of host call.

Returns JSON data. An RLMError that it raises reaches the cell as an exception (`RLMError.in_cell`).
"""


@dataclass(frozen=True)
class PictureNote:
    """What is kept of a picture that a call sent.

    `size` in bytes. `preview`: a small picture of it in base64, PNG or JPEG by its first bytes; "" for none.
    """

    digest: str
    media_type: str
    size: int
    width: int
    height: int
    preview: str = ""

    @classmethod
    def of(cls, picture: Picture, preview: str = "") -> PictureNote:
        size = len(picture.data)
        return cls(picture.digest, picture.media_type, size, picture.width, picture.height, preview)


@dataclass(frozen=True)
class CallRecord:
    """One host call, from when it is made to what the trace keeps of it.

    At its end exactly one of `answer` and `error` is set.

    `prompt_digest` is the sha256 of the request's canonical JSON: replay finds the answer by it, by the cell
    and by `occurrence` (as in `HostCall`). `error_type` names the exception that the cell saw; None with an
    `error`: the cell ended before there was an answer. `stored`, `cut`: as of `Completion`. Of a child RLM
    `usage`, `cost` and `calls` are those of all beneath it, and `trace` is its trace, seen from the folder of
    this one; `models`: what each model has used of it. `role`: of the card of the model that was asked, of a
    child RLM that of its root model. `thoughts`: the beginning of what a sub model wrote for itself.
    `images`: the pictures that it was shown. `again`: it was not made, but had the answer that the same call
    had in an earlier cell, which was cut off: it cost nothing and counts nowhere. `tool_calls`: of a child
    RLM, those of all beneath it.
    """

    id: str
    kind: CallKind
    prompt_digest: str
    preview: str
    started: datetime
    seconds: float
    answer: Any = None
    error: str | None = None
    error_type: str | None = None
    occurrence: int = 0
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    attempts: int = 1
    stored: bool = False
    calls: int = 1
    trace: str = ""
    thoughts: str = ""
    cut: bool = False
    images: tuple[PictureNote, ...] = ()
    role: str = "sub"
    models: Shares = field(default_factory=Shares)
    again: bool = False
    tool_calls: int = 0

    def again_at(self, call: HostCall) -> CallRecord:
        """The record of a call that has this answer once more."""
        return replace(
            self,
            id=call.id,
            occurrence=call.occurrence,
            started=datetime.now(UTC),
            seconds=0.0,
            usage=Usage(),
            cost=0.0,
            attempts=0,
            calls=0,
            trace="",
            models=Shares(),
            tool_calls=0,
            stored=False,
            again=True,
        )

    def replied(self, reply: Completion) -> CallRecord:
        """With what a model replied and what that took."""
        return replace(
            self,
            answer=reply.text,
            model=reply.model,
            usage=reply.usage,
            cost=reply.cost,
            attempts=reply.attempts,
            stored=reply.stored,
            thoughts=reply.thoughts[:THOUGHTS_KEPT],
            cut=reply.cut,
        )


def tool_answer(answer: Any) -> Any:
    """What a tool gave, as people are shown it: its value, with its files where it gave some."""
    if isinstance(answer, dict) and answer.keys() == {"value", "files"} and not answer["files"]:
        return answer["value"]
    return answer


def answered(call: CallRecord) -> bool:
    """Whether a model, or a child RLM, gave an answer."""
    return call.kind in MODEL_CALLS and call.error is None


@dataclass(frozen=True)
class Partial:
    """What the kernel says it has of a batch that was cut off in a `cell`: so many `answers` to so many
    `prompts`. `by_limit`: a limit of the run did it.
    """

    cell: str
    answers: int
    prompts: int
    by_limit: bool = False

    @classmethod
    def of(cls, value: Any) -> Partial | None:
        """As code in the kernel tells it (`rlm_contract.Partial`), which is hostile. Raises ValueError."""
        if value is None:
            return None
        if type(value) not in (list, tuple) or len(value) != 4 or type(value[3]) is not bool:
            raise ValueError("no results of a batch")
        return cls(text(value[0])[:MAX_CELL_ID], integer(value[1]), integer(value[2]), value[3])


@dataclass(frozen=True)
class Evidence:
    """A passage of a file that code in the kernel gave with an answer, and what the host found there.

    `mark` is its number in the answer, `[1]`. `path` is a file as the kernel knows it. It stands from `start`
    up to `end`, in bytes of the file (`unit` `bytes`), or in characters of the text that a reader makes of a
    file such as a PDF (`characters`). `encoding`: that of the bytes.

    `line` is that where it begins, from 1, as the host has counted; 0: not known. `verdict`: `verbatim` if
    the host read exactly `quote` there; `unread` if only a kernel can make the text, so the host has not
    read it (`rlm verify` does).
    """

    mark: int
    path: str
    start: int
    end: int
    quote: str
    unit: Literal["bytes", "characters"] = "bytes"
    encoding: str = "utf-8"
    verdict: Literal["verbatim", "unread"] = "unread"
    line: int = 0


@dataclass(frozen=True)
class Answer:
    """What the kernel's code delivered: text for people; `value` as JSON data where it was more than text,
    which is then `typed`: the value may be None. `evidence`: the passages that were given with it.
    """

    text: str
    value: Any = None
    typed: bool = field(default=False, compare=False)
    evidence: tuple[Evidence, ...] = ()


CellStatus = Literal["ok", "error", "timeout", "died"]


@dataclass(frozen=True)
class CellResult:
    """A cell that ended.

    `outputs` are nbformat output dicts, already capped; `notices` are ours, for the model.

    status: ok; error (the code raised); timeout (interrupted, kernel kept); died (kernel lost and restarted).
    `calls`, `answer`, `left_out` (calls that are not kept) and `partial` (a batch of calls was cut off) are
    filled in by the engine, which does the host calls.
    """

    cell_id: str
    code: str
    status: CellStatus
    outputs: Sequence[Mapping[str, Any]]
    started: datetime
    seconds: float
    execution_count: int | None = None
    truncated: bool = False
    notices: Sequence[str] = ()
    calls: Sequence[CallRecord] = ()
    answer: Answer | None = None
    left_out: int = 0
    partial: Partial | None = None

    @property
    def lost_answers(self) -> int:
        """Answers of models that its code may not have, because it did not come to its end.

        They were paid for, so the same calls have them again (`engine.kept`).
        """
        cut = self.status != "ok" or self.partial is not None
        return sum(map(answered, self.calls)) if cut else 0


@dataclass(frozen=True)
class ContextInfo:
    """What the root model is told of the input: constant in size whatever the input's size, but for `whole`,
    which is bounded.
    """

    kind: str
    """Type of `context` in the kernel: str, dict, list, LazyText, None…"""
    total_chars: int
    items: Sequence[tuple[str, int]] = ()
    """(name, characters) of at most 100 pieces."""
    item_count: int = 0
    head: str = ""
    """The first characters of the (first) text."""
    about: bool = False
    """The sizes are in bytes, because the characters of a large text are not counted yet."""
    form: str = ""
    """What the one text is, and code that parses it; "" for what is just text."""
    remarks: Sequence[str] = ()
    """What the user should know of how files were read, and what was left out: a line each, at most 21."""
    typed: bool = False
    """The answer must have a form of its own, which the kernel checks as it is delivered."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Of the pieces that are pictures: name to what is said of it in place of its characters."""
    partial: Partial | None = None
    """Of the batch that was cut off last, and that the kernel has the results of."""
    kinds: Sequence[tuple[str, int]] = ()
    """Of several pieces: how many there are of each kind, a file's ending ("" for none) or a type of
    Python's.
    """
    heads: Sequence[tuple[str, str]] = ()
    """(name, first characters) of a piece of each of the first kinds, where no form is told."""
    forms: Sequence[tuple[str, str]] = ()
    """(name, what it is) of pieces that have a form, as `form`."""
    whole: Sequence[tuple[str, str]] = ()
    """(name, text) of all pieces but pictures, where the input is short enough to be shown whole."""
    cites: bool = False
    """The answer is to have evidence: the kernel refuses one without, once."""
    tools: Sequence[DeclaredTool] = ()
    """What code may call on the host."""


@dataclass(frozen=True)
class DeclaredTool:
    """A function of the host as the kernel has it. `doc`: the beginning of its docstring."""

    name: str
    signature: str
    doc: str = ""


StopReason = Literal[
    "answered", "turns", "calls", "cost", "tokens", "seconds", "batch", "no_answer", "interrupted", "error"
]
"""Why a run ended. `batch`: the budget that it shared with other runs was used up."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `forced`: it is a best-effort answer, asked for when the limit of `stop_reason` was reached.
    """

    answer: Answer | None
    stop_reason: StopReason
    forced: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Memory:
    """A summary that the root model wrote, and that it sees from now on in place of turns.

    `before`, `after`: tokens of what it stands for and of itself, `estimated` where the provider did not
    count them. `since`: the first of the turns; None: all of the question in progress. `sent`: what the root
    model was sent when it wrote it.
    """

    text: str
    before: int
    after: int
    estimated: bool
    reply: Completion
    since: int | None = None
    sent: Sequence[Message] = ()
