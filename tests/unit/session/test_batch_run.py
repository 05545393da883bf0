"""A batch at work, with an engine that answers without a container."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rlm_kernel.errors import (
    DockerError,
)
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Item
from rlm_kernel.session.batch.output import Places, ready
from rlm_kernel.session.batch.questions import entries, of_program
from rlm_kernel.session.batch.results import rows
from rlm_kernel.session.batch.run import AHEAD, Batch, How, Tally
from rlm_kernel.session.batch.traces import Traces
from tests.support.batches import Stub, answered, count, run
from tests.support.sandbox import until


def test_all_are_asked_in_their_order_and_never_more_than_a_few_beside_the_places() -> None:
    async def slow(item: Item) -> Done:
        await asyncio.sleep(0)
        return answered(item)

    engine = Stub(slow, places=3)
    read: list[int] = []

    def questions() -> Iterator[str]:
        for number in range(50):
            read.append(number)
            assert len(read) <= len(engine.begun) + 2
            yield f"q{number}"

    done = asyncio.run(run(engine, questions()))
    assert engine.begun == [f"q{number}" for number in range(50)]
    assert len(done) == 50
    assert engine.most <= 3 + AHEAD


def test_more_are_begun_as_soon_as_there_are_more_places_though_none_is_done() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def held(item: Item) -> Done:
            await go.wait()
            return answered(item)

        engine = Stub(held, places=1)
        running = asyncio.create_task(run(engine, [f"q{number}" for number in range(20)]))
        await until(lambda: len(engine.begun) == 1 + AHEAD)
        engine.places = 5
        await until(lambda: len(engine.begun) == 5 + AHEAD)
        go.set()
        assert len(await running) == 20

    asyncio.run(main())


def test_what_is_done_is_told_while_others_run_and_a_slow_reader_stops_no_others() -> None:
    async def main() -> None:
        waits = asyncio.Event()

        async def answer(item: Item) -> Done:
            if item.question == "slow":
                await waits.wait()
            return answered(item)

        batch = Batch(Stub(answer), Traces(Path("traces")))
        told = batch.run(entries(of_program(["slow", "a", "b"])))
        assert {(await anext(told)).item.question, (await anext(told)).item.question} == {"a", "b"}
        waits.set()
        assert (await anext(told)).item.question == "slow"

    asyncio.run(main())


@given(some.lists(some.integers(0, 30), max_size=4), some.integers(1, 5))
def test_whatever_kills_it_each_question_that_has_a_result_is_asked_once(
    tmp_path_factory: Any, kills: list[int], places: int
) -> None:
    out = tmp_path_factory.mktemp("batch") / "r.jsonl"
    asked: list[str] = []

    async def until(most: int) -> None:
        """Leave it after so many results, as a signal does."""

        async def answer(item: Item) -> Done:
            await asyncio.sleep(0)
            return answered(item)

        engine = Stub(answer, places)
        with contextlib.suppress(asyncio.CancelledError):
            async with ready(
                of_program(f"q{n}" for n in range(20)), lambda _: engine, Places(out), How(), ""
            ) as made:
                task = asyncio.current_task()
                assert task is not None
                async with contextlib.aclosing(made.batch.run(made.entries)) as answers:
                    count = 0
                    async for _ in answers:
                        count += 1
                        if count == most:
                            task.cancel()
        asked.extend(engine.begun)

    for most in [*kills, 1000]:
        asyncio.run(until(most))
    found = [row["id"] for row in rows(out)]
    assert len(found) == len(set(found)) == 20
    assert set(asked) == {f"q{n}" for n in range(20)}
    assert len(asked) <= 20 + len(kills) * (places + AHEAD)


def test_an_answer_that_is_there_when_it_is_cancelled_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        both = asyncio.Event()

        async def answer(item: Item) -> Done:
            if len(engine.begun) == 2:
                both.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return answered(item)  # as `ask` does that has its answer

        engine = Stub(answer, places=2)
        task = asyncio.create_task(run(engine, ["a", "b"], tmp_path / "r.jsonl"))
        await both.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(list(rows(tmp_path / "r.jsonl"))) == 2


def test_what_ends_all_stops_the_others_and_is_told_once(tmp_path: Path) -> None:
    stopped: list[str] = []

    async def answer(item: Item) -> Done:
        if item.question == "q3":
            raise DockerError("No engine.", hint="Start it.")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(item.question)
        raise AssertionError

    with pytest.raises(DockerError, match="No engine"):
        asyncio.run(run(Stub(answer, places=4), (f"q{n}" for n in itertools.count()), tmp_path / "r.jsonl"))
    assert {"q0", "q1", "q2"} <= set(stopped)
    assert not (tmp_path / "r.jsonl").exists()


def test_what_a_stopped_question_has_used_is_in_the_sum_and_in_the_next_runs(tmp_path: Path) -> None:
    at_work = asyncio.Event()

    async def answer(_item: Item) -> Done:
        at_work.set()
        await asyncio.Event().wait()
        raise AssertionError

    class Working(Stub):
        def doing(self) -> dict[str, Doing]:
            return dict.fromkeys(self.begun, Doing(turns=1, calls=2, tokens=30, cost=0.5))

    async def stopped() -> Tally:
        engine, places = Working(answer), Places(tmp_path / "r.jsonl", Path("traces"))
        asked = of_program([{"id": "q", "question": "q"}])
        async with ready(asked, lambda _: engine, places, How(), "") as made:
            asking = asyncio.ensure_future(anext(made.batch.run(made.entries)))
            await at_work.wait()
            asking.cancel()
            await asyncio.wait({asking})
            return made.batch.tally

    tally = asyncio.run(stopped())
    assert (tally.paid.cost, tally.paid.tokens, tally.asked) == (0.5, 30, 0)
    (row,) = rows(tmp_path / "r.jsonl")
    assert (row["error"]["kind"], row["known_cost"]) == ("Stopped", 0.5)
    (done,) = asyncio.run(run(Stub(), [{"id": "q", "question": "q"}], tmp_path / "r.jsonl"))
    assert done.result is not None
    assert [row["attempt"] for row in rows(tmp_path / "r.jsonl")] == [1, 2]


def test_questions_that_do_not_come_keep_nobody_from_leaving() -> None:
    never = threading.Event()

    def questions() -> Iterator[str]:
        yield "a"
        never.wait()

    async def main() -> None:
        batch = Batch(Stub(), Traces(Path("traces")))
        async with contextlib.aclosing(batch.run(entries(of_program(questions())))) as answers:
            assert (await anext(answers)).item.question == "a"

    try:
        asyncio.run(main())
    finally:
        never.set()


def test_thousands_of_questions_are_asked_in_flat_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # for the time that it takes
    at: list[int] = []

    def questions() -> Iterator[dict[str, Any]]:
        for number in range(3_000):
            if number in (1_000, 2_999):
                at.append(tracemalloc.get_traced_memory()[0])
            yield {"id": number, "question": "x" * 5_000, "text": "y" * 10_000}

    engine = Stub()
    engine.begun = deque(maxlen=1)  # type: ignore[assignment]  # it keeps no questions either
    tracemalloc.start()
    try:
        assert asyncio.run(count(engine, questions(), tmp_path / "r.jsonl")) == 3_000
    finally:
        tracemalloc.stop()
    assert at[1] - at[0] < 2_000 * 2_500  # what a question is known again by, not its 15,000 characters
