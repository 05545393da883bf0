"""Answers that were paid for in cells which did not come to their end, for the same calls of later cells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.kept import Kept
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.messages import kept_answers
from rlm_kernel.engine.protocols import Answer, CallRecord, CellResult, HostCall, Outcome, Partial
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.before import before_this, left_behind
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, CellMeta
from tests.support.engine import Recorder, locate
from tests.support.trace import WHEN


class Handed:
    digest, size = "d", 0


class Children:
    asked = 0

    async def take(self, _given: Any) -> Handed:
        return Handed()

    async def ask(self, *_: Any, **__: Any) -> Outcome:
        self.asked += 1
        return Outcome(Answer("5"), "answered")


class Host:
    def __init__(self, kept: Kept | None = None) -> None:
        self.asked: list[str] = []
        self.children = Children()
        self.ledger = Ledger(Limits(depth=1, calls=3))
        models = ScriptedModels([], self._sub)
        sub_calls = SubCalls(models, self.ledger, self.children)
        self.calls = HostCalls(sub_calls, Recorder(), locate, kept=kept)
        self._cells = 0

    def _sub(self, prompt: str) -> str:
        self.asked.append(prompt)
        return f"{prompt}{len(self.asked)}"

    async def cell(self, *bodies: dict[str, Any], ended: bool) -> tuple[list[Any], tuple[CallRecord, ...]]:
        """A cell that makes these calls."""
        self._cells += 1
        name = f"turn-{self._cells:02d}-a"
        self.calls.begin(name)
        handlers = self.calls.handlers()
        found = [
            await handlers["rlm_query" if "question" in body else "llm_query"](
                HostCall(name, f"1-1-{n}", body, n)
            )
            for n, body in enumerate(bodies)
        ]
        if not ended:
            self.calls.keep_answers()
        return found, self.calls.end()[0]


P, Q, CHILD = {"prompt": "p"}, {"prompt": "q"}, {"question": "Q"}


async def test_each_answer_of_a_cell_that_was_cut_off_is_given_once_also_behind_a_limit() -> None:
    host = Host()
    first, _ = await host.cell(P, P, CHILD, ended=False)
    again, records = await host.cell(P, P, CHILD, ended=False)
    assert again == first == ["p1", "p2", "5"]
    assert (host.asked, host.children.asked, host.ledger.calls) == (["p", "p"], 1, 2)
    assert {(r.again, r.cost, r.calls, r.trace, r.answer is None) for r in records} == {
        (True, 0.0, 0, "", False)
    }
    assert [record.occurrence for record in records] == [0, 1, 2]
    # That cell was cut off, too.
    assert (await host.cell(P, P, CHILD, ended=True))[0] == first
    host.calls._sub_calls.ledger = Ledger(Limits())
    assert (await host.cell(P, ended=True))[0] == ["p3"], "who has had it wants another one"


async def test_what_did_not_fit_and_what_another_model_said_is_asked_anew() -> None:
    host = Host()
    await host.cell(P, Q, ended=False)
    assert (await host.cell({**P, "anew": True}, ended=True))[0] == ["p3"]
    record = replace((await host.cell(Q, ended=True))[1][0], model="another/model")
    kept = Kept()
    kept.add([record])
    assert (await Host(kept).cell(Q, ended=True))[0] == ["q1"]
    assert len(kept) == 1


def cell(name: str, status: Any, calls: list[CallRecord], **more: Any) -> TraceCell:
    meta = CellMeta(kind="code", turn=1, status=status, calls=[CallMeta.of(one) for one in calls], **more)
    return TraceCell(name, True, "pass", [], 1, meta)


def trace(*cells: TraceCell) -> TraceFile:
    return TraceFile(None, None, cells, None)  # type: ignore[arg-type]


async def test_a_session_finds_them_in_its_trace() -> None:
    host = Host()
    _, (p, q) = await host.cell(P, Q, ended=False)
    _, (again,) = await host.cell(P, ended=True)
    before = before_this(
        trace(cell("a", "timeout", [p, q]), cell("b", "ok", [again]), cell("c", "ok", [q], batch_cut=True))
    )
    assert len(before.kept) == 2
    assert before.kept.take(p.prompt_digest) is None, "it was given again"
    assert [found and found.answer for found in (before.kept.take(q.prompt_digest) for _ in range(3))] == [
        "q2",
        "q2",
        None,
    ]
    assert len(list(before.calls)) == 4


async def test_what_a_stopped_cell_left_is_told_with_the_next_question_and_once() -> None:
    host = Host()
    _, calls = await host.cell(P, Q, ended=False)
    running = cell("a", "running", list(calls))
    assert left_behind(trace(running), Partial("a", 1, 2)).startswith(
        "The batch was cut off: partial_results has 1 of 2"
    )
    assert left_behind(trace(running), None).startswith("2 answers that its calls had are kept")
    told = TraceCell("n", False, "", [], None, CellMeta(kind="note", text="… partial_results has 1 of 2 …"))
    assert left_behind(trace(cell("a", "ok", list(calls)), told), Partial("a", 1, 2)) == ""
    result = CellResult("a", "", "died", [], WHEN, 1.0, calls=calls[:1])
    assert kept_answers([result])[0].startswith("1 answer that its calls had is kept")
    assert kept_answers([replace(result, status="ok")]) == []
