"""The three seams of the engine (Kernel, Models, Trace) and the values that cross them.

The engine speaks to these alone. `models/`, `sandbox/` and `trace/` implement them; `session/` puts them together.
All times are seconds; wall-clock instants are timezone-aware UTC datetimes; money is US dollars, None where unknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlm_kernel.engine.totals import Totals as Totals
from rlm_kernel.engine.totals import Usage as Usage

if TYPE_CHECKING:
    from rlm_kernel.engine.ledger import Ledger

Role = Literal["root", "sub"]
ROLES: tuple[Role, ...] = ("root", "sub")
Message = Mapping[str, str]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True)
class Completion:
    """One reply of a model. `cost` is None where the price is unknown; `seconds` includes retries.

    `stored`: it was not asked for, but is the reply of an earlier run to the very same; its usage and cost are zero.
    `thoughts`: the model's reasoning where it came apart from the reply; kept in the trace, never run, delivered or sent back.
    `finish_reason`: the provider's, or "length" where the reply was cut at the limit of tokens, however the provider calls it. `tools`:
    names of tools that a root model called although none was offered, and that run no Python: where one does, its code is in the text.
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

    @property
    def cut(self) -> bool:
        """Whether the reply ends where it does because of the limit on tokens."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Retry:
    """An attempt that failed, of a call that is tried again. `attempt` counts from 1; of `attempts` that are made at the most.

    `reason` in a word or two, for people: "rate-limited", "server error 503". The next attempt comes in `seconds`; `asked`: for how
    many the provider wants none, None where it did not say.
    """

    reason: str
    attempt: int
    attempts: int
    seconds: float
    asked: float | None = None


class Models(Protocol):
    """The root and the sub model behind one call. Implemented by litellm, and by scripted models."""

    def name(self, role: Role) -> str:
        """The model that plays the role, as the user named it."""

    def window(self, role: Role) -> int | None:
        """Its context window in tokens; None where unknown."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        sent: Callable[[], None] = lambda: None,
        retrying: Callable[[Retry], bool] = lambda _retry: True,
    ) -> Completion:
        """One reply. `model` overrides the role's own. `schema`, a JSON schema: the provider is told to keep to it where it can be; the
        reply is not checked against it. `sent` is called when a request goes out, from when on it may be billed. `retrying` is called
        before each wait for another attempt; if it says False, there is none, and the call fails as after its last.

        Raises ModelError, after retries where retrying helps. Safe to call concurrently; waits for a free slot.
        """

    async def aclose(self) -> None:
        """Free connections and processes. Idempotent."""


class ReplyText(str):
    """A sub model's reply on its way to code in the kernel, which is told whether it was `cut`, as of `Completion`."""

    cut = False

    @classmethod
    def of(cls, text: str, *, cut: bool) -> ReplyText:
        made = cls(text)
        made.cut = cut
        return made


CallKind = Literal["llm_query", "rlm_query", "file", "final", "budget", "history"]
MODEL_CALLS = ("llm_query", "rlm_query")
"""Kinds that cost something."""


@dataclass(frozen=True)
class HostCall:
    """A request as it came from code in the kernel: all of it is hostile, so check it.

    `nth` counts, from 0, the calls of this cell that asked the very same before; it tells apart identical prompts. What is done in
    `untimed` takes no time of the cell's.
    """

    cell: str
    id: str
    body: Mapping[str, Any]
    nth: int = 0
    untimed: Callable[[], AbstractContextManager[None]] = nullcontext


HostCallHandler = Callable[[HostCall], Awaitable[Any]]
"""Does one kind of host call. Returns JSON data. An RLMError that it raises reaches the cell as an exception (`RLMError.in_cell`)."""


@dataclass(frozen=True)
class CallRecord:
    """One host call as the trace keeps it. Exactly one of `answer` and `error` is set.

    `prompt_digest` is the sha256 of the request's canonical JSON: replay finds the answer by it, by the cell and by `nth` (as in
    `HostCall`). `error_type` names the exception that the cell saw; None with an `error`: the cell ended before there was an answer.
    `stored`, `cut`: as of `Completion`. Of a child RLM `usage`, `cost` and `calls` are those of all beneath it, and `trace` is its trace,
    seen from the folder of this one. `thoughts`: the beginning of what a sub model wrote for itself.
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
    nth: int = 0
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    attempts: int = 1
    stored: bool = False
    calls: int = 1
    trace: str = ""
    thoughts: str = ""
    cut: bool = False


class Recording(Protocol):
    """The host calls of an earlier run. Implemented by `trace.recording`."""

    async def find(self, call: HostCall, digest: str) -> CallRecord | None:
        """The recorded call, None if there is none. Returns when its answer is due: in the order in which the calls ended then."""

    def received(self, cell: str, call_id: str) -> None:
        """Code in the kernel has the answer to that call: the next one may be given."""


@dataclass(frozen=True)
class Answer:
    """What the kernel's code delivered: text for people; `value` as JSON data where it was more than text, which is then `typed`: the
    value may be None.
    """

    text: str
    value: Any = None
    typed: bool = field(default=False, compare=False)


CellStatus = Literal["ok", "error", "timeout", "died"]


@dataclass(frozen=True)
class CellResult:
    """A cell that ended. `outputs` are nbformat output dicts, already capped; `notices` are ours, for the model.

    status: ok; error (the code raised); timeout (interrupted, kernel kept); died (kernel lost and restarted). `calls`, `answer` and
    `left_out` (calls that are not kept) are filled in by the engine, which does the host calls.
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


@dataclass(frozen=True)
class ContextInfo:
    """What the root model is told of the input: constant in size whatever the input's size."""

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


class Kernel(Protocol):
    """A live kernel. Owned by one task: cells run one at a time."""

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a cell that loads the input; a kernel that had to be restarted runs all of them again by itself."""

    async def describe(self) -> ContextInfo:
        """What is loaded, in constant size."""

    async def run_cell(self, cell_id: str, code: str) -> CellResult:
        """Run code to its end, whatever that end is. Raises KernelError only if no kernel can be had any more."""

    async def interrupt(self) -> None:
        """Stop the cell in progress, which then ends with status error or timeout. No-op when idle."""

    def person_cells(self) -> Sequence[CellResult]:
        """The cells that a person has run in it since this was last asked."""


StopReason = Literal["answered", "turns", "calls", "cost", "tokens", "seconds", "no_answer", "interrupted", "error"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `forced`: the answer was asked for at exhaustion, of `stop_reason`'s limit."""

    answer: Answer | None
    stop_reason: StopReason
    forced: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Memory:
    """A summary that the root model wrote, and that it sees from now on in place of the turns of a question.

    `before`, `after`: tokens of what it stands for and of itself, `estimated` where the provider did not count them.
    """

    text: str
    before: int
    after: int
    estimated: bool
    reply: Completion


class Handed(Protocol):
    """An input that code in the kernel hands over to a child RLM. `digest` tells it from others; `size` in bytes."""

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    async def text(self, limit: int) -> str:
        """The input as a text of at most so many characters. Raises UsageError where it has more."""


class Children(Protocol):
    """Child RLMs: each has a kernel and a trace of its own. Implemented by `session.children`."""

    async def take(self, given: Any) -> Handed:
        """What code hands over, which is hostile. Raises UsageError, FileRefused."""

    async def ask(
        self,
        question: str,
        handed: Handed,
        schema: Mapping[str, Any] | None,
        *,
        name: str,
        ledger: Ledger,
        begun: Callable[[str], None],
    ) -> Outcome:
        """Have a child RLM answer, on an account of its own.

        `name` says which cell asks; `schema`: of the answer, if it must have one. `begun` hears the child's trace, as seen from the
        folder of its parent's, once there is one.

        Raises RLMError. Cancelling it ends the child.
        """


class Account(Protocol):
    """What a run uses, to be looked at while it goes on. Implemented by `engine.ledger`."""

    def totals(self) -> Totals:
        """So far, with all child RLMs."""

    def closed(self) -> Totals:
        """The same without child RLMs that are still at work: these have traces of their own, which tell what they have used."""


class Trace(Protocol):
    """Hears all that happens, in order. Implemented by the notebook writer and by the live view."""

    def opened(self, account: Account, before: Totals) -> None:
        """A question is taken up, on this account. `before`: what earlier questions of the session have used."""

    def turn_started(self, turn: int) -> None:
        """The root model is asked."""

    def turn_replied(self, turn: int, reply: Completion, prose: str) -> None:
        """The root model answered; `prose` is the reply without its code."""

    def cell_started(self, cell_id: str, turn: int, code: str) -> None: ...

    def cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Outputs so far of the running cell."""

    def call_started(self, cell_id: str, call_id: str, kind: CallKind) -> None: ...

    def call_retried(self, cell_id: str, call_id: str, retry: Retry) -> None:
        """A model's call failed and is tried again. `cell_id` and `call_id` are empty of the root model's."""

    def calls_planned(self, cell_id: str, calls: int) -> None:
        """By its own word the cell's code makes so many calls of models in all, as far as it knows by now. To be shown, and no more."""

    def call_finished(self, cell_id: str, call: CallRecord) -> None: ...

    def cell_finished(self, turn: int, result: CellResult) -> None: ...

    def person_ran(self, result: CellResult) -> None:
        """A person's cell in the same kernel has ended, by the kernel's own word. May come at any time, also while a cell runs."""

    def remembered(self, memory: Memory) -> None:
        """The turns of the question so far were summed up."""

    def note(self, text: str) -> None:
        """Something that the engine told the root model or the user outside cells."""

    def finished(self, outcome: Outcome, totals: Totals) -> None: ...
