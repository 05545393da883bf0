"""What happens in a run, as values.

A listener is a function that is called with each event, in order, on the run's event loop.

The notebook writer, the live view and the views of child RLMs are such listeners. A listener that does not
know an event passes over it. What it raises ends the run, so it raises only what the run cannot go on
without: that the trace cannot be written, say. To make an async iterator of them, have a listener put each
event into an `asyncio.Queue`, and end with RunFinished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.engine.protocols import Account
from rlm_kernel.engine.totals import Totals
from rlm_kernel.engine.values import (
    CallKind,
    CallRecord,
    CellResult,
    Completion,
    Memory,
    Message,
    Outcome,
    Retry,
)


@dataclass(frozen=True)
class RunOpened:
    """A question is taken up, on this account: the first event of a run.

    `before`: what earlier questions of the session have used.
    """

    question: str
    account: Account
    before: Totals


@dataclass(frozen=True)
class TurnStarted:
    """The root model is asked."""

    turn: int


@dataclass(frozen=True)
class TurnPiece:
    """The root model has said some more of its reply, or (`thought`) of its reasoning.

    To be shown, and no more: after a CallRetried of the root model's the pieces begin again.
    """

    turn: int
    text: str
    thought: bool


@dataclass(frozen=True)
class TurnCutOff:
    """The root model's reply did not come to its end, because the run was interrupted, its time was up or the
    call failed: the words and the reasoning that had come.
    """

    turn: int
    text: str
    thoughts: str


@dataclass(frozen=True)
class TurnReplied:
    """The root model has replied; `prose` is the reply without its code.

    `told`: the message that it replied to, without the outputs of cells at its beginning. `messages`: all
    that it was sent.
    """

    turn: int
    reply: Completion
    prose: str
    told: str = ""
    messages: Sequence[Message] = ()


@dataclass(frozen=True)
class CellStarted:
    """A cell is about to run. `turn` is 0 of set-up cells."""

    cell_id: str
    turn: int
    code: str


@dataclass(frozen=True)
class CellOutput:
    """The running cell has shown something: all its outputs so far."""

    cell_id: str
    outputs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CallStarted:
    """Code in a cell has made a call of a model. Other host calls are told when they end.

    `prompt`: what is asked, in full (of a child RLM its question); `schema`: of the answer, where code gave
    one. `digest`: the `prompt_digest` of the call's record.
    """

    cell_id: str
    call_id: str
    kind: CallKind
    prompt: str = ""
    schema: Mapping[str, Any] | None = None
    digest: str = ""


@dataclass(frozen=True)
class CallRetried:
    """A model's call failed and is tried again. `cell_id` and `call_id` are empty of the root model's."""

    cell_id: str
    call_id: str
    retry: Retry


@dataclass(frozen=True)
class CallsPlanned:
    """By its own word the cell's code makes so many calls of models in all, as far as it knows by now.

    To be shown, and no more. `cost`: about how many US dollars those will take that were told before they
    were made; None where that is not known. `limit`: the run's limit of cost, None without one.
    """

    cell_id: str
    calls: int
    cost: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class CallFinished:
    """A host call has ended, well or not.

    `sent`: the prompt that went to a model, where that is not the one that was asked for.
    """

    cell_id: str
    call: CallRecord
    sent: str = ""


@dataclass(frozen=True)
class CellFinished:
    """A cell has ended, with its outputs and host calls. `turn` is 0 of set-up cells."""

    turn: int
    result: CellResult


@dataclass(frozen=True)
class UserCellFinished:
    """A user's cell in the same kernel has ended, by the kernel's own word.

    May come at any time, also while a cell runs.
    """

    result: CellResult


@dataclass(frozen=True)
class Summarized:
    """The turns of the question so far were replaced by a summary in what the root model sees."""

    memory: Memory


@dataclass(frozen=True)
class Noted:
    """The engine has told the user something outside cells, or (`to_model`) the root model."""

    text: str
    to_model: bool = False


@dataclass(frozen=True)
class RunFinished:
    """The run has ended, with an answer or without one: the last event of a run."""

    outcome: Outcome
    totals: Totals


@dataclass(frozen=True)
class ChildEvent:
    """Something happened in a child RLM. `child` tells those of one RLM apart; what happens in a grandchild
    comes in two of these.

    Those who watch a run hear them. The writer of a child's trace hears the child's events themselves.
    """

    child: int
    event: Event


Event = (
    RunOpened
    | TurnStarted
    | TurnPiece
    | TurnCutOff
    | TurnReplied
    | CellStarted
    | CellOutput
    | CallStarted
    | CallRetried
    | CallsPlanned
    | CallFinished
    | CellFinished
    | UserCellFinished
    | Summarized
    | Noted
    | RunFinished
    | ChildEvent
)
Listener = Callable[[Event], None]
