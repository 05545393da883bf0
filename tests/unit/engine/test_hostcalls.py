from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from rlm_kernel.engine import hostcalls
from rlm_kernel.engine.events import CallFinished, CallRetried, CallsPlanned, CallStarted
from rlm_kernel.engine.hostcalls import HostCalls, digest
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, CallRecord, Completion, HostCall, Outcome, Retry, Usage
from rlm_kernel.engine.records import Keep
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.engine.values import PauseTimer, Watch
from rlm_kernel.errors import (
    BudgetExceeded,
    FileRefused,
    KernelError,
    ModelError,
    NoRecord,
    RecordedFailure,
    RLMError,
    TraceNotWritten,
    UsageError,
)
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox.child_input import ChildInput
from tests.support.engine import Recorder, locate
from tests.support.trace import WHEN

CELL = "turn-01-a"


class Host:
    def __init__(
        self, models: Any = None, limits: Limits | None = None, children: Any = None, keep: Keep | None = None
    ) -> None:
        self.heard = Recorder()
        self.recording: Any = None
        self.ledger = Ledger(limits or Limits())
        self.calls = HostCalls(
            SubCalls(models or ScriptedModels([], str.upper), self.ledger, children),
            self.heard,
            locate,
            keep=keep,
        )
        self.calls.begin(CELL)

    async def ask(self, kind: str, body: dict[str, Any], cell: str = CELL, call: str = "1-1-1") -> Any:
        return await self.calls.handlers()[kind](HostCall(cell, call, body))

    def end(self) -> tuple[tuple[CallRecord, ...], Answer | None]:
        return self.calls.end()


async def test_a_query_is_answered_counted_and_recorded() -> None:
    host = Host()
    assert await host.ask("llm_query", {"prompt": "hello", "model": None}) == "HELLO"
    records, answer = host.end()
    (record,) = records
    assert answer is None
    assert (record.id, record.kind, record.preview, record.answer, record.error) == (
        "1-1-1",
        "llm_query",
        "hello",
        "HELLO",
        None,
    )
    assert (record.model, record.cost) == ("scripted/sub", 0.0)
    assert record.prompt_digest == digest("llm_query", {"prompt": "hello", "model": None})
    assert host.ledger.totals().calls == 1
    assert host.heard.kinds == [CallStarted, CallFinished]


async def test_a_failed_query_raises_and_is_recorded_as_such() -> None:
    host = Host(ScriptedModels([]))
    with pytest.raises(ModelError):
        await host.ask("llm_query", {"prompt": "hello"})
    ((record,), _) = host.end()
    assert record.answer is None
    assert record.error is not None
    assert "no script" in record.error


async def test_a_refused_query_calls_no_model() -> None:
    asked: list[str] = []

    def sub(prompt: str) -> str:
        asked.append(prompt)
        return ""

    host = Host(ScriptedModels([], sub), Limits(calls=2))
    found = await asyncio.gather(
        *(host.ask("llm_query", {"prompt": f"p{i}"}) for i in range(5)), return_exceptions=True
    )
    assert len(asked) == 2
    assert sum(isinstance(item, BudgetExceeded) for item in found) == 3


async def test_a_cancelled_query_is_recorded_as_cancelled() -> None:
    started = asyncio.Event()

    async def sub(_prompt: str) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    host = Host(ScriptedModels([], sub))
    task = asyncio.create_task(host.ask("llm_query", {"prompt": "hello"}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ((record,), _) = host.end()
    assert record.error is not None
    assert record.error.startswith("cancelled")


async def test_calls_that_code_gives_up_before_their_reply_are_not_made_without_end() -> None:
    asked = 0

    class Dear(ScriptedModels):
        async def complete(self, *arguments: Any, **options: Any) -> Completion:
            return replace(await super().complete(*arguments, **options), cost=0.25)

    async def sub(prompt: str) -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0 if prompt == "first" else 60)
        return "reply"

    host = Host(Dear([], sub), Limits(cost=1.0))
    await host.ask("llm_query", {"prompt": "first"})
    found = [
        await asyncio.gather(
            host.ask("llm_query", {"prompt": "other", "timeout": 0.001}), return_exceptions=True
        )
        for _ in range(20)
    ]
    assert [type(error) for (error,) in found] == [ModelError] * 3 + [BudgetExceeded] * 17
    assert asked == 4


class NeverReady:
    """Child RLMs that wait for a place for ever."""

    async def take(self, given: Any) -> Any:
        return ChildInput()

    async def ask(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()


async def test_children_that_code_gives_up_before_they_begin_are_not_asked_for_without_end() -> None:
    host = Host(limits=Limits(calls=3, depth=1), children=NeverReady())
    body = {"question": "Q", "timeout": 0.001}
    found = [await asyncio.gather(host.ask("rlm_query", body), return_exceptions=True) for _ in range(6)]
    assert [type(error) for (error,) in found] == [ModelError] * 3 + [BudgetExceeded] * 3
    records, _ = host.end()
    assert [record.calls for record in records] == [1, 1, 1, 0, 0, 0]
    assert (host.ledger.calls, host.ledger.totals().children) == (3, 0)


@pytest.mark.parametrize("error", [KernelError("It does not start."), UsageError("It cannot be loaded.")])
async def test_children_that_fail_before_they_begin_are_not_asked_for_without_end(error: RLMError) -> None:
    class Failing(NeverReady):
        async def ask(self, *_: Any, **__: Any) -> Any:
            raise error

    host = Host(limits=Limits(calls=3, depth=1), children=Failing())
    found = [
        await asyncio.gather(host.ask("rlm_query", {"question": "Q"}), return_exceptions=True)
        for _ in range(6)
    ]
    assert [type(one) for (one,) in found] == [type(error)] * 3 + [BudgetExceeded] * 3


async def test_a_child_whose_trace_the_disk_does_not_take_ends_the_run_and_is_asked_anew_when_that_is_taken_up() -> (
    None
):
    class NoRoom(NeverReady):
        async def ask(self, *_: Any, **__: Any) -> Any:
            raise TraceNotWritten("The trace cannot be written: No space left on device.")

    host = Host(limits=Limits(calls=3, depth=1), children=NoRoom())
    with pytest.raises(TraceNotWritten):
        await host.ask("rlm_query", {"question": "Q"})
    assert isinstance(host.calls.broken, TraceNotWritten)
    ((record,), _) = host.end()
    assert (record.error_type, (record.error or "").startswith("cancelled")) == (None, True), (
        "recorded as cut off"
    )


async def test_only_the_time_in_which_a_model_or_a_child_works_is_none_of_the_cells() -> None:
    still: list[str] = []

    class Working(NeverReady):
        async def ask(self, *_: Any, **__: Any) -> Any:
            still.append("works")
            return Outcome(Answer("5"), "answered")

    @contextmanager
    def pause_timer() -> Iterator[None]:
        still.append("still")
        yield
        still.append("goes on")

    def model(_prompt: str) -> str:
        still.append("replies")
        return "5"

    for kind, name in (("rlm_query", "question"), ("llm_query", "prompt")):
        for depth, calls in ((1, 1), (0, 1), (1, 0)):
            limits = Limits(calls=calls, depth=depth)
            host = Host(ScriptedModels([], model), limits, Working())
            made = HostCall(CELL, "1-1-1", {name: "Q"}, pause_timer=pause_timer)
            await asyncio.gather(host.calls.handlers()[kind](made), return_exceptions=True)
    by_model = ["still", "replies", "goes on"]
    assert still == ["still", "works", "goes on", *by_model, *by_model, *by_model], (
        "what is refused waits not"
    )


@pytest.mark.parametrize(
    ("kind", "body"), [("file", {"path": "/a"}), ("tool", {"name": "send", "arguments": {}})]
)
async def test_while_the_user_is_asked_no_time_runs_that_code_gave_a_call_nor_that_of_the_cell(
    kind: str, body: dict[str, Any]
) -> None:
    asked, decided, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    still: list[str] = []

    async def think(asking: PauseTimer) -> dict[str, Any]:
        with asking():
            asked.set()
            await decided.wait()
        return {"value": 1, "files": []}

    class Asks:
        def has(self, _name: str) -> bool:
            return True

        async def call(self, _name: str, _arguments: Any, _pause: PauseTimer, asking: PauseTimer) -> Any:
            return await think(asking)

    @contextmanager
    def pause_timer() -> Iterator[None]:
        still.append("still")
        yield
        still.append("goes on")

    async def model(prompt: str) -> str:
        await answered.wait()
        return prompt

    ledger = Ledger(Limits())
    sub_calls = SubCalls(ScriptedModels([], model), ledger)
    calls = HostCalls(sub_calls, Recorder(), lambda _path, asking: think(asking), tools=Asks())
    calls.begin(CELL)
    handlers = calls.handlers()
    query = {"prompt": "x", "timeout": 0.05}
    early = asyncio.create_task(handlers["llm_query"](HostCall(CELL, "1-1-1", query)))
    await asyncio.sleep(0)
    question = asyncio.create_task(handlers[kind](HostCall(CELL, "1-2-1", body, pause_timer=pause_timer)))
    await asked.wait()
    late = asyncio.create_task(handlers["llm_query"](HostCall(CELL, "1-1-2", query)))
    await asyncio.sleep(0.2)
    assert not early.done()
    assert not late.done()
    assert still == ["still"]
    answered.set()
    decided.set()
    assert await asyncio.gather(early, late) == ["x", "x"]
    await question
    assert still == ["still", "goes on"]
    assert ledger.approval.asking.seconds() >= 0.15


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": 5}, {"prompt": ""}, {"prompt": " \n"}, {"prompt": "x", "model": 5}, {"prompt": ["x"]}],
)
async def test_shapes_that_are_no_query_are_refused_and_cost_nothing(body: dict[str, Any]) -> None:
    host = Host()
    with pytest.raises(UsageError):
        await host.ask("llm_query", body)
    assert host.ledger.totals().calls == 0


async def test_giant_names_and_prompts_stay_short_in_the_record() -> None:
    host = Host()
    with pytest.raises(ModelError):
        await host.ask("llm_query", {"prompt": "p" * 10_000, "model": "m" * 10_000})
    ((record,), _) = host.end()
    assert len(record.preview) == len(record.model or "") == hostcalls.PREVIEW


async def test_a_file_is_located_and_recorded() -> None:
    host = Host()
    found = await host.ask("file", {"path": "/a.txt", "more": [[[]]]})
    assert found == {"inside": "/rlm/files/0", "path": "/a.txt", "directory": False}
    ((record,), _) = host.end()
    assert (record.kind, record.answer, record.prompt_digest) == (
        "file",
        found,
        digest("file", {"path": "/a.txt"}),
    )


async def test_a_refused_file_is_recorded_with_its_reason() -> None:
    host = Host()
    with pytest.raises(FileRefused):
        await host.ask("file", {"path": "/etc/passwd"})
    with pytest.raises(UsageError):
        await host.ask("file", {"path": None})
    ((record,), _) = host.end()
    assert (record.answer, record.error) == (None, "/etc/passwd was not named")


async def test_the_last_answer_counts_and_its_text_is_not_recorded_twice() -> None:
    host = Host()
    await host.ask("final", {"text": "first", "value": None})
    await host.ask("final", {"text": "[1, 2]", "value": [1, 2]})
    records, answer = host.end()
    assert answer == Answer("[1, 2]", [1, 2])
    assert [record.answer for record in records] == [5, 6]


async def test_lists_and_dicts_are_worded_by_the_host() -> None:
    host = Host()
    await host.ask("final", {"value": {"é": [1, None]}})
    assert host.end()[1] == Answer('{"é": [1, null]}', {"é": [1, None]})
    host.calls.begin(CELL)
    await host.ask("final", {"value": [math.nan]})
    assert host.end()[1] == Answer("[NaN]", None)
    with pytest.raises(UsageError):
        await host.ask("final", {"value": 5})


@pytest.mark.parametrize("value", [math.nan, [1, math.inf], {"a": {"b": -math.inf}}])
async def test_a_value_that_is_no_json_is_left_to_its_text(value: Any) -> None:
    host = Host()
    await host.ask("final", {"text": "as text", "value": value})
    assert host.end()[1] == Answer("as text", None)


async def test_lone_surrogates_reach_neither_models_nor_answers() -> None:
    host = Host(ScriptedModels([], lambda prompt: str(prompt.encode())))
    assert await host.ask("llm_query", {"prompt": "a\ud800b"}) == "b'a?b'"
    await host.ask("final", {"text": "\udcff", "value": ["\ud800"]})
    assert host.end()[1] == Answer("?", ["?"])


async def test_an_answer_must_be_a_text() -> None:
    with pytest.raises(UsageError):
        await Host().ask("final", {"text": 5})


async def test_the_budget_is_told_and_recorded() -> None:
    host = Host(limits=Limits(turns=3, calls=5))
    await host.ask("llm_query", {"prompt": "x"})
    left = await host.ask("budget", {})
    assert left == {"turns": 3, "calls": 4, "cost": None, "tokens": None, "seconds": None, "depth": 0}
    assert host.end()[0][-1].answer == left


async def test_what_comes_after_its_cell_is_not_recorded() -> None:
    host = Host()
    host.calls.end()
    await host.ask("final", {"text": "late"})
    host.calls.begin("turn-01-b")
    await host.ask("final", {"text": "late"})
    await host.ask("budget", {})
    assert host.end() == ((), None)


async def test_each_cell_begins_with_a_clean_record() -> None:
    host = Host()
    await host.ask("final", {"text": "x"})
    host.end()
    host.calls.begin(CELL)
    assert host.end() == ((), None)


async def test_calls_that_cost_nothing_are_recorded_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcalls, "MAX_FREE", 3)
    host = Host(limits=Limits(calls=2))
    for _ in range(2):
        await host.ask("llm_query", {"prompt": "x"})
    for _ in range(10):
        await host.ask("budget", {})
        with pytest.raises(BudgetExceeded):
            await host.ask("llm_query", {"prompt": "x"})
    assert len(host.end()[0]) == 5


async def test_calls_that_cost_nothing_are_recorded_up_to_their_characters_and_that_is_told_once() -> None:
    host = Host(keep=Keep(records=80_000))
    for cell in ("turn-01-a", "turn-01-b"):
        host.calls.begin(cell)
        for number in range(200):
            with pytest.raises(FileRefused):
                await host.ask("file", {"path": f"/nowhere/{number}/" + "x" * 1_000}, cell=cell)
        records, _ = host.end()
        assert sum(len(record.error or "") for record in records) <= 10_000
        assert len(records) + host.calls.left_out == 200
    (told,) = host.heard.notes
    assert "trace.records" in told


async def test_answers_that_were_paid_for_are_recorded_up_to_a_bound_of_their_own() -> None:
    host = Host(ScriptedModels([], lambda prompt: "x" * 1_000), keep=Keep(answers=10_000, records=800))
    for number in range(20):
        await host.ask("llm_query", {"prompt": f"p{number}"})
        await host.ask("budget", {})
    records, _ = host.end()
    kinds = [record.kind for record in records]
    assert kinds.count("llm_query") == 7, "whatever calls that cost nothing there are"
    assert host.ledger.totals().calls == 20
    told = host.heard.notes
    assert [name for text in told for name in ("trace.answers", "trace.records") if name in text] == [
        "trace.records",
        "trace.answers",
    ]


async def test_what_a_trace_has_already_counts_where_it_goes_on() -> None:
    models = ScriptedModels([], lambda prompt: "x" * 1_000)
    host = Host(models, keep=Keep(answers=10_000))
    for number in range(4):
        await host.ask("llm_query", {"prompt": f"p{number}"})
    before, _ = host.end()
    host = Host(models, keep=Keep(answers=10_000).beside(before))
    for number in range(20):
        await host.ask("llm_query", {"prompt": f"q{number}"})
    assert len(before) == 4
    assert len(host.end()[0]) == 3


def test_digests_are_of_the_content_alone() -> None:
    assert digest("llm_query", {"prompt": "é", "model": None}) == digest(
        "llm_query", {"model": None, "prompt": "é"}
    )
    assert digest("llm_query", {"prompt": "a"}) != digest("llm_query", {"prompt": "b"})
    assert digest("file", {"path": "a"}) != digest("final", {"path": "a"})
    assert digest("file", {"path": "\udcff"})


class FixedRecording:
    """Knows one prompt, which had an answer, and one which failed."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def has(self, cell: str) -> bool:
        return True

    async def find(self, call: HostCall, wanted: str) -> CallRecord | None:
        if wanted == digest("llm_query", {"prompt": "known", "model": None}):
            return CallRecord(
                "7-7-7", "llm_query", wanted, "known", WHEN, 1.5, answer="then", usage=Usage(5, 5), cost=1.0
            )
        if wanted == digest("llm_query", {"prompt": "bad", "model": None}):
            return CallRecord(
                "7-7-8", "llm_query", wanted, "bad", WHEN, 1.5, error="no", error_type="BudgetExceeded"
            )
        return None

    def received(self, cell: str, call_id: str) -> None:
        self.got.append(call_id)


def replaying(models: Any) -> Host:
    host = Host()
    host.recording = FixedRecording()
    host.calls = HostCalls(
        SubCalls(models, host.ledger, how_to_allow="rlm replay --live"),
        host.heard,
        locate,
        recording=host.recording,
    )
    host.calls.begin(CELL)
    return host


async def test_what_is_recorded_is_answered_from_there_and_costs_nothing() -> None:
    host = replaying(ScriptedModels([], {}))
    assert await host.ask("llm_query", {"prompt": "known", "model": None}) == "then"
    with pytest.raises(RecordedFailure, match="no") as failure:
        await host.ask("llm_query", {"prompt": "bad", "model": None})
    assert failure.value.in_cell == "BudgetExceeded"
    assert host.ledger.totals().calls == 0
    assert host.calls.unrecorded == 0
    records, _ = host.end()
    assert [(record.id, record.seconds, record.cost) for record in records] == [
        ("7-7-7", 1.5, 1.0),
        ("7-7-8", 1.5, None),
    ]


async def test_what_is_not_recorded_is_refused_without_models_and_asked_with_them() -> None:
    closed = replaying(None)
    with pytest.raises(NoRecord, match="rlm replay --live"):
        await closed.ask("llm_query", {"prompt": "new", "model": None})
    assert closed.calls.unrecorded == 1
    records, _ = closed.end()
    assert (records[0].error_type, records[0].model) == ("NoRecord", None)
    live = replaying(ScriptedModels([], str.upper))
    assert await live.ask("llm_query", {"prompt": "new", "model": None}) == "NEW"
    assert (live.calls.unrecorded, live.ledger.totals().calls) == (1, 1)


async def test_the_recording_hears_of_receipts() -> None:
    host = replaying(None)
    await host.ask("received", {"call": "1-1-1"})
    assert host.recording.got == ["1-1-1"]


async def test_records_are_put_into_the_order_of_receipt_and_unknown_ones_stay() -> None:
    host = Host()
    for name in ("1-1-1", "2-1-1", "1-2-1", "1-3-1"):
        await host.ask("llm_query", {"prompt": name, "model": None}, call=name)
    await host.ask("order", {"calls": ["1-3-1", "1-1-1", 5, "odd", "1-2-1"]}, call="1-1-9")
    await host.ask("order", {"calls": "nonsense"}, call="1-1-10")
    await host.ask("order", {"calls": ["1-2-1"]}, cell="another", call="1-1-11")
    records, _ = host.end()
    assert [record.id for record in records] == ["1-3-1", "2-1-1", "1-1-1", "1-2-1"]


# For who watches


async def test_failed_attempts_are_told_with_the_call_and_the_trace_has_their_number() -> None:
    class Busy(ScriptedModels):
        async def complete(self, *arguments: Any, watch: Watch, **options: Any) -> Completion:
            assert all(watch.retrying(Retry("rate-limited", attempt, 5, 2.0)) for attempt in (1, 2))
            return replace(await super().complete(*arguments, **options), attempts=3)

    host = Host(Busy([], str.upper))
    await host.ask("llm_query", {"prompt": "hello"}, call="7-8-9")
    assert host.heard.of(CallRetried) == [
        CallRetried(CELL, "7-8-9", Retry("rate-limited", attempt, 5, 2.0)) for attempt in (1, 2)
    ]
    assert host.end()[0][0].attempts == 3


@pytest.mark.parametrize(("asked", "goes_on"), [(None, True), (9.0, True), (11.0, False), (math.inf, False)])
async def test_a_wait_beyond_the_end_of_the_run_is_none(asked: float | None, goes_on: bool) -> None:
    class Busy(ScriptedModels):
        async def complete(self, *arguments: Any, watch: Watch, **options: Any) -> Completion:
            assert watch.retrying(Retry("rate-limited", 1, 5, 9.0, asked)) == goes_on
            return await super().complete(*arguments, **options)

    host = Host(Busy([], str.upper), Limits(seconds=10))
    await host.ask("llm_query", {"prompt": "hello"})
    assert len(host.heard.of(CallRetried)) == goes_on


async def test_how_many_calls_a_cell_plans_is_passed_on_and_recorded_nowhere() -> None:
    host = Host()
    told: list[Any] = [300, -1, "300", None, 1.5, [3], 10**12, 0]
    for calls in told:
        assert await host.ask("planned", {"calls": calls}) is None
    await host.ask("planned", {})
    await host.ask("planned", {"calls": 7}, cell="turn-00-x")
    assert host.heard.events == [CallsPlanned(CELL, 300), CallsPlanned(CELL, 0)]
    assert host.end() == ((), None)
    assert host.ledger.totals().calls == 0
