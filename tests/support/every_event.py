"""One event of each kind, with what hostile and odd texts may be in it."""

from __future__ import annotations

from datetime import UTC, datetime

from rlm_kernel.engine import events
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import (
    Answer,
    CallRecord,
    CellResult,
    Completion,
    Memory,
    Outcome,
    Retry,
    Totals,
    Usage,
)

CELL, CALL = "turn-01-a", "1-2-3"


def stream(text: str, name: str = "stdout") -> dict[str, str]:
    return {"output_type": "stream", "name": name, "text": text}


def reply(text: str = "yes", cost: float | None = 0.25) -> Completion:
    return Completion(text, "some/root", Usage(120, 30, 100), cost, 1.5, 1, "stop", thoughts=text)


def record(text: str = "yes", *, error: str | None = None, kind: str = "llm_query") -> CallRecord:
    return CallRecord(
        CALL,
        kind,  # type: ignore[arg-type]
        "d" * 64,
        text[:200],
        datetime.now(UTC),
        0.5,
        answer=None if error else text,
        error=error,
        error_type="LLMError" if error else None,
        model="some/sub",
        usage=Usage(10, 5),
        cost=0.01,
    )


def result(text: str = "4", *, answer: Answer | None = None, status: str = "ok") -> CellResult:
    return CellResult(
        CELL,
        text,
        status,  # type: ignore[arg-type]
        [stream(text)],
        datetime.now(UTC),
        2.0,
        1,
        calls=[record(text)],
        answer=answer,
    )


def every_event(text: str = "yes") -> list[events.Event]:
    """The run of a question, in its order; every text of it is that one."""
    memory = Memory(text, 100, 10, True, reply(text))
    own: list[events.Event] = [
        events.RunOpened(text, Ledger(Limits()), Totals()),
        events.TurnStarted(1),
        events.TurnPiece(1, text, thought=True),
        events.TurnCutOff(1, text, text),
        events.TurnReplied(1, reply(text), text, text, [{"role": "user", "content": text}]),
        events.CellStarted(CELL, 1, text),
        events.CallStarted(CELL, text[:80], "llm_query", text, {"title": text}, "d" * 64),
        events.CallsPlanned(CELL, 500, 1.25),
        events.CallRetried(CELL, text[:80], Retry(text, 1, 5, 0.5)),
        events.CallFinished(CELL, record(text)),
        events.CellOutput(CELL, [stream(text)]),
        events.CellFinished(1, result(text, answer=Answer(text))),
        events.UserCellFinished(result(text)),
        events.Summarized(memory),
        events.Noted(text),
        events.RunFinished(Outcome(Answer(text), "answered", detail=text), Totals(turns=1)),
    ]
    return [
        own[0],
        events.ChildEvent(1, events.ChildEvent(2, events.RunOpened(text, own[0].account, Totals()))),
        *own[1:],
    ]  # type: ignore[union-attr]
