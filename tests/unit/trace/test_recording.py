"""A recording answers by cell, digest and number, and in the order in which the calls ended then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.engine.protocols import CallRecord, HostCall
from rlm_kernel.trace import recording as recording_module
from rlm_kernel.trace.reader import TraceCell, code_digest
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import CallMeta, CellMeta
from tests.support.trace import WHEN, call


def cell(cell_id: str, calls: Sequence[CallRecord], code: str = "pass") -> TraceCell:
    return TraceCell(
        cell_id, True, code, [], 1, CellMeta(kind="code", status="ok", calls=[CallMeta.of(c) for c in calls])
    )


def asked(number: int, prompt: str, nth: int = 0, **changes: Any) -> CallRecord:
    """The number-th call that was asked; calls are recorded in the order in which they end."""
    started = WHEN + timedelta(milliseconds=number)
    return call(
        number, prompt_digest=prompt, occurrence=nth, answer=f"{prompt}{number}", started=started, **changes
    )


async def answer(
    recording: TraceRecording, prompt: str, nth: int = 0, cell_id: str = "a", thread: str = "9-1"
) -> Any:
    found = await recording.find(HostCall(cell_id, f"{thread}-1", {}, nth), prompt)
    recording.received(cell_id, f"{thread}-1")
    return found and found.answer


async def test_a_call_is_found_by_its_cell_and_digest() -> None:
    recording = TraceRecording([cell("a", [asked(1, "p")]), cell("b", [asked(2, "p"), asked(3, "q")])])
    assert await answer(recording, "p", cell_id="a") == "p1"
    assert await answer(recording, "p", cell_id="b") == "p2"
    assert await answer(recording, "q", cell_id="b") == "q3"
    assert await answer(recording, "r", cell_id="b") is None


async def test_identical_prompts_have_their_answers_in_their_order_however_they_ended() -> None:
    recording = TraceRecording([cell("a", [asked(3, "p", 2), asked(1, "p", 0), asked(2, "p", 1)])])
    found = await asyncio.gather(*(answer(recording, "p", nth) for nth in range(3)))
    assert found == ["p1", "p2", "p3"]
    assert await answer(recording, "p", 3) is None


async def test_records_that_were_not_counted_are_taken_as_they_were_asked() -> None:
    recording = TraceRecording([cell("a", [asked(3, "p"), asked(1, "p"), asked(2, "p")])])
    assert [await answer(recording, "p", nth) for nth in (1, 2)] == ["p2", "p3"]


async def test_forked_processes_that_count_alike_take_turns_and_a_cell_can_run_again() -> None:
    recording = TraceRecording([cell("a", [asked(1, "p"), asked(2, "p")])])
    for _ in range(3):
        assert [await answer(recording, "p", 0), await answer(recording, "p", 0)] == ["p1", "p2"]


@pytest.mark.parametrize("kind", ["file", "final"])
async def test_files_and_answers_are_not_answered_from_the_recording(kind: Any) -> None:
    assert await answer(TraceRecording([cell("a", [asked(1, "p", kind=kind)])]), "p") is None


async def test_a_cell_that_lost_its_record_is_served_from_the_others() -> None:
    recording = TraceRecording(
        [cell("a", [asked(1, "p")]), TraceCell("new", True, "llm_query('p')", [], None, None)]
    )
    assert await answer(recording, "p", cell_id="new") == "p1"
    assert await answer(recording, "q", cell_id="new") is None


async def test_a_cell_without_an_id_is_known_by_its_code_and_how_often_it_was_run() -> None:
    recording = TraceRecording([cell("a", [asked(1, "p")], "same"), cell("b", [asked(2, "p")], "same")])
    stated = f"code-{code_digest('same')[:32]}"
    assert [await answer(recording, "p", cell_id=f"{stated}-{run}") for run in range(3)] == ["p1", "p2", "p2"]


async def test_a_call_that_was_cut_off_is_never_answered() -> None:
    recording = TraceRecording(
        [cell("a", [asked(1, "p", error="cancelled: the cell ended before the answer came", model=None)])]
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer(recording, "p"), 0.05)


async def test_a_run_that_goes_on_asks_the_models_what_its_new_cells_ask() -> None:
    refused = call(
        1, prompt_digest="p", answer=None, error="The limit is reached.", error_type="BudgetExceeded"
    )
    cut_off = asked(2, "q", error="cancelled: the cell ended before the answer came", model=None)
    recording = TraceRecording([cell("a", [refused, cut_off]), _running("b", [asked(3, "r")])], going_on=True)
    assert [await answer(recording, prompt, cell_id="new") for prompt in "pqr"] == [None] * 3
    assert [await answer(recording, prompt, cell_id="b") for prompt in "pqr"] == [None, None, "r3"]
    # Where it does not go on, a cell that lost its record is still served, but by no call that was cut off.
    assert await answer(TraceRecording([cell("a", [cut_off])]), "q", cell_id="new") is None


def _running(cell_id: str, calls: Sequence[CallRecord]) -> TraceCell:
    meta = CellMeta(kind="code", status="running", calls=[CallMeta.of(one) for one in calls])
    return TraceCell(cell_id, True, "pass", [], None, meta)


async def test_a_call_that_code_did_not_come_to_as_its_cell_was_cut_off_is_no_new_one() -> None:
    late = cell("a", [asked(1, "p")])
    assert late.meta is not None
    late.meta.batch_cut = True
    found = await TraceRecording([late]).find(HostCall("a", "9-1-1", {}), "q")
    assert found is not None
    assert (found.error_type, found.calls) == ("TimedOut", 0)
    cut_off = asked(2, "q", error="cancelled: the cell ended before the answer came", model=None)
    stopped = cell("b", [asked(1, "p"), cut_off])
    assert stopped.meta is not None
    stopped.meta.status = "timeout"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer(TraceRecording([stopped]), "r", cell_id="b"), 0.05)
    stopped.meta.code_digest = code_digest("edited since")
    assert await answer(TraceRecording([stopped]), "r", cell_id="b") is None


async def test_a_recorded_failure_is_found_as_such() -> None:
    recording = TraceRecording([cell("a", [call(1, answer=None, error="no", error_type="LLMError")])])
    found = await recording.find(HostCall("a", "9-1-1", {}), "d" * 64)
    assert found is not None
    assert (found.error, found.error_type) == ("no", "LLMError")


@given(st.permutations(range(6)), st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_concurrent_calls_are_answered_in_the_order_in_which_they_ended(
    ended: list[int], arriving: list[int]
) -> None:
    async def replay() -> list[int]:
        recording = TraceRecording([cell("a", [asked(number, f"p{number}") for number in ended])])
        order: list[int] = []

        async def one(number: int) -> None:
            assert await answer(recording, f"p{number}", thread=f"9-{number}") == f"p{number}{number}"
            order.append(number)

        await asyncio.gather(*(one(number) for number in arriving))
        return order

    assert asyncio.run(replay()) == ended


async def test_a_call_that_does_not_come_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "PATIENCE", 0.05)
    recording = TraceRecording([cell("a", [asked(number, f"p{number}") for number in range(10)])])
    found = await asyncio.wait_for(
        asyncio.gather(*(answer(recording, f"p{number}") for number in (9, 5, 7))), 5
    )
    assert found == ["p99", "p55", "p77"]
    # And all of them the next time.
    again = await asyncio.wait_for(
        asyncio.gather(*(answer(recording, f"p{number}") for number in range(10))), 5
    )
    assert again == [f"p{number}{number}" for number in range(10)]


async def test_a_caller_that_goes_away_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "PATIENCE", 0.05)
    recording = TraceRecording([cell("a", [asked(number, f"p{number}") for number in range(3)])])
    gone = asyncio.create_task(answer(recording, "p1"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.wait_for(answer(recording, "p2"), 5) == "p22"


async def test_a_call_that_was_cancelled_with_the_run_is_still_to_be_made() -> None:
    cancelled = asked(1, "p", error="cancelled: the cell ended before the answer came", model=None)
    cut_off = TraceCell(
        "a", True, "pass", [], None, CellMeta(kind="code", status="running", calls=[CallMeta.of(cancelled)])
    )
    assert await answer(TraceRecording([cut_off]), "p") is None


async def test_where_nobody_interrupts_a_call_that_was_cut_off_fails_at_once() -> None:
    cut_off = asked(1, "p", error="cancelled: the cell ended before the answer came", model=None)
    found = await TraceRecording([cell("a", [cut_off])], waiting=False).find(
        HostCall("a", "9-1-1", {}), cut_off.prompt_digest
    )
    assert found is not None
    assert found.error == cut_off.error


async def test_the_next_thread_has_its_answer_when_the_one_before_has_received_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording_module, "RECEIPT", 60)
    recording = TraceRecording([cell("a", [asked(1, "p"), asked(2, "q"), asked(3, "r")])])
    first = await recording.find(HostCall("a", "9-1-1", {}), "p")
    assert first is not None
    second = asyncio.create_task(recording.find(HostCall("a", "9-2-1", {}), "q"))
    done, _ = await asyncio.wait({second}, timeout=0.1)
    assert not done
    recording.received("a", "9-1-1")
    assert await asyncio.wait_for(second, 5)
    # The same thread asks only after it has received.
    assert await asyncio.wait_for(recording.find(HostCall("a", "9-2-2", {}), "r"), 5)
