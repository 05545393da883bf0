"""A batch at work, with an engine that answers without a container."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import BaseModel
from typing_extensions import TypedDict

from rlm_kernel import RLM, ScriptedModels, system
from rlm_kernel.engine.events import RunOpened
from rlm_kernel.engine.protocols import Totals, Usage
from rlm_kernel.errors import (
    BudgetExceeded,
    ConfigError,
    DockerError,
    FileRefused,
    InternalError,
    KernelError,
    ModelError,
    RLMError,
    TraceNotWritten,
    UsageError,
)
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.failures import failure_of
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.local import LocalEngine
from rlm_kernel.session.batch.output import Places, files_of_all, ready
from rlm_kernel.session.batch.questions import entries, of_program
from rlm_kernel.session.batch.results import Results, rows
from rlm_kernel.session.batch.run import AHEAD, ALIKE, Batch, Budget, Heard, How
from rlm_kernel.session.batch.traces import Traces
from rlm_kernel.session.result import Result
from tests.support.sandbox import until

Answering = Callable[[Item], Awaitable[Done]]


def answered(item: Item, cost: float = 0.0, tokens: int = 0) -> Done:
    totals = Totals(known_cost=cost, root_usage=Usage(tokens, 0))
    return Done(item, Result("yes", None, Path("t.ipynb"), "answered", False, "", totals), seconds=0.1)


async def at_once(item: Item) -> Done:
    return answered(item)


class Stub:
    """An engine with so many places."""

    def __init__(self, answer: Answering = at_once, places: int = 4) -> None:
        self._answer, self.places = answer, places
        self.begun: list[str] = []
        self.running = self.most = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self.running

    def doing(self) -> dict[str, Doing]:
        return {}

    async def answer(self, item: Item, trace: Path) -> Done:
        self.begun.append(item.question)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answer(item)
        finally:
            self.running -= 1


PLAINLY, NOBODY = How(), Heard()


async def run(
    engine: Stub, questions: Iterable[Any], out: Path | None = None, how: How = PLAINLY, heard: Heard = NOBODY
) -> list[Done]:
    async with ready(of_program(questions), lambda _: engine, Places(out, Path("traces")), how, "") as made:
        return [done async for done in made.batch.run(made.entries, heard)]


async def count(engine: Stub, questions: Iterable[Any], out: Path) -> int:
    async with ready(of_program(questions), lambda _: engine, Places(out), PLAINLY, "") as made:
        return sum([1 async for _ in made.batch.run(made.entries)])


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


@pytest.mark.parametrize("budget", [Budget(cost=1.0), Budget(tokens=100)])
def test_where_the_budget_is_used_up_no_more_are_asked_and_a_later_run_knows(
    tmp_path: Path, budget: Budget
) -> None:
    async def answer(item: Item) -> Done:
        return answered(item, cost=0.25, tokens=25)

    out = tmp_path / "r.jsonl"
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            asyncio.run(run(Stub(answer, places=1), (f"q{n}" for n in range(100)), out, How(budget)))
        assert caught.value.limit == "batch"
        assert 4 <= len(list(rows(out))) <= 4 + AHEAD + 1
    left = len(list(rows(out)))
    assert len(asyncio.run(run(Stub(answer), (f"q{n}" for n in range(100)), out))) == 100 - left


def test_what_stopped_questions_have_used_counts_in_the_next_run_and_they_are_asked_again(
    tmp_path: Path,
) -> None:
    out = tmp_path / "r.jsonl"

    class Interrupted(Stub):
        def doing(self) -> dict[str, Doing]:
            return {"a": Doing(turns=2, tokens=100, cost=0.75)} if self.running else {}

    async def first_run() -> None:
        async def answer(item: Item) -> Done:
            await asyncio.Event().wait()
            raise AssertionError

        engine = Interrupted(answer, places=2)
        task = asyncio.create_task(
            run(engine, [{"id": "a", "question": "A?"}, {"id": "b", "question": "B?"}], out)
        )
        await until(lambda: engine.running == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(first_run())
    (row,) = rows(out)
    assert (row["id"], row["error"]["kind"], row["known_cost"], row["tokens"]) == ("a", "Stopped", 0.75, 100)
    again = [{"id": "a", "question": "A?"}, {"id": "b", "question": "B?"}]
    with pytest.raises(BudgetExceeded, match=r"\$0\.7500 of \$0\.5000"):
        asyncio.run(run(Stub(), again, out, How(Budget(cost=0.5))))
    assert len(asyncio.run(run(Stub(), again, out, How(Budget(cost=1.0))))) == 2
    assert asyncio.run(run(Stub(), again, out)) == []


def test_calls_that_were_given_up_count_in_the_budget_of_the_next_run(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        done = answered(item)
        assert done.result is not None
        return replace(done, result=replace(done.result, totals=Totals(lost_cost=2.0, lost_tokens=10)))

    asyncio.run(run(Stub(answer), ["a"], tmp_path / "r.jsonl"))
    with pytest.raises(BudgetExceeded):
        asyncio.run(run(Stub(), ["a", "b"], tmp_path / "r.jsonl", How(Budget(cost=1.0))))


def test_a_budget_that_all_questions_have_used_up_is_no_error(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        return answered(item, cost=0.5)

    for _ in range(2):
        asyncio.run(run(Stub(answer, places=1), ["a", "b"], tmp_path / "r.jsonl", How(Budget(cost=1.0))))
    assert len(list(rows(tmp_path / "r.jsonl"))) == 2


def test_a_shared_purse_that_is_empty_lets_the_running_ones_end(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        if item.question == "q1":
            raise BudgetExceeded("No more.", limit="batch")
        await asyncio.sleep(0.01)
        return answered(item)

    with pytest.raises(BudgetExceeded, match="No more"):
        asyncio.run(run(Stub(answer, places=3), (f"q{n}" for n in itertools.count()), tmp_path / "r.jsonl"))
    kept = [row["id"] for row in rows(tmp_path / "r.jsonl")]
    assert kept
    assert len(kept) <= 3 + AHEAD


def test_a_question_that_the_budget_ended_is_asked_again_when_there_is_more(tmp_path: Path) -> None:
    async def poor(item: Item) -> Done:
        if item.question == "q2":
            return replace(
                answered(item), result=Result(None, None, Path("t.ipynb"), "batch", True, "", Totals())
            )
        return answered(item)

    out, asked = tmp_path / "r.jsonl", [f"q{n}" for n in range(100)]
    with pytest.raises(BudgetExceeded, match="too little for a call"):
        asyncio.run(run(Stub(poor, places=1), asked, out, How(Budget(cost=9.0))))
    ended = [row["id"] for row in rows(out) if row["status"] == "no_answer"]
    assert len(ended) == 1
    assert len(list(rows(out))) <= 3 + AHEAD
    engine = Stub()
    asyncio.run(run(engine, asked, out))
    assert "q2" in engine.begun
    assert "q1" not in engine.begun


async def failing(item: Item) -> Done:
    return Done(item, failure=Failure("KernelError", "It does not start.", "Look.", passing=True))


def test_failures_of_one_kind_from_the_start_end_it_unless_it_is_to_go_on() -> None:
    engine = Stub(failing)
    with pytest.raises(RLMError, match=f"first {ALIKE} questions .* KernelError") as caught:
        asyncio.run(run(engine, (f"q{n}" for n in range(1000))))
    assert "--keep-going" in caught.value.hint
    assert len(engine.begun) < 2 * (ALIKE + AHEAD + 4)
    assert len(asyncio.run(run(Stub(failing), (f"q{n}" for n in range(30)), how=How(keep_going=True)))) == 30
    assert len(asyncio.run(run(Stub(failing), (f"q{n}" for n in range(ALIKE - 1))))) == ALIKE - 1


def test_failures_after_an_answer_end_nothing() -> None:
    async def answer(item: Item) -> Done:
        return answered(item) if item.question == "q0" else await failing(item)

    assert len(asyncio.run(run(Stub(answer, places=1), (f"q{n}" for n in range(40))))) == 40


def test_bad_lines_are_failures_among_the_others(tmp_path: Path) -> None:
    heard: list[int] = []
    done = asyncio.run(
        run(
            Stub(),
            ["a", {"no": "question"}, 7, "b"],
            tmp_path / "r.jsonl",
            heard=Heard(bad=lambda line: heard.append(line.number)),
        )
    )
    assert heard == [2, 3]
    assert [one.failure is not None for one in sorted(done, key=lambda one: one.item.id)].count(True) == 2
    assert len(list(rows(tmp_path / "r.jsonl"))) == 2


def test_what_the_questions_raise_comes_out_and_what_runs_is_stopped() -> None:
    def questions() -> Iterator[str]:
        yield "a"
        raise ValueError("the program's own")

    async def forever(_item: Item) -> Done:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ValueError, match="the program's own"):
        asyncio.run(run(Stub(forever), questions()))


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


def test_results_that_cannot_be_written_end_it(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        (tmp_path / "r.jsonl").unlink(missing_ok=True)
        return answered(item)

    with pytest.raises(TraceNotWritten):
        asyncio.run(run(Stub(answer), ["a", "b"], tmp_path / "r.jsonl"))


def test_ten_thousand_questions_are_asked_in_flat_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # for the time that it takes
    at: list[int] = []

    def questions() -> Iterator[dict[str, Any]]:
        for number in range(10_000):
            if number in (5_000, 9_999):
                at.append(tracemalloc.get_traced_memory()[0])
            yield {"id": number, "question": "x" * 1_000, "text": "y" * 10_000}

    tracemalloc.start()
    try:
        assert asyncio.run(count(Stub(), questions(), tmp_path / "r.jsonl")) == 10_000
    finally:
        tracemalloc.stop()
    assert at[1] - at[0] < 5_000 * 1_000  # what a question is known again by, not its 11,000 characters


@pytest.mark.parametrize(
    ("error", "changes", "passing"),
    [
        (ModelError("busy", fault="rate_limit", model="m"), {}, True),
        (ModelError("refused", fault="refused", model="m"), {}, False),
        (KernelError("lost"), {}, True),
        (FileRefused("not there"), {}, False),
        (InternalError("odd"), {}, False),
        (BudgetExceeded("own", limit="cost"), {}, False),
        (ModelError("no such", fault="unknown_model", model="m"), {"root_llm.model": "m"}, False),
        (ConfigError("bad"), {"limits.turns": 0}, False),
    ],
)
def test_what_concerns_one_question_is_its_failure(
    error: RLMError, changes: dict[str, Any], passing: bool
) -> None:
    failure = failure_of(error, Item("a", "?", changes=changes))
    assert (failure.kind, failure.message, failure.passing) == (type(error).__name__, error.message, passing)


@pytest.mark.parametrize(
    "error",
    [
        DockerError("no engine"),
        ModelError("wrong key", fault="auth", model="m"),
        ModelError("no credit", fault="rate_limit", model="m", no_credit=True),
        BudgetExceeded("all", limit="batch"),
        TraceNotWritten("full"),
        ConfigError("bad"),
    ],
)
def test_what_would_meet_every_question_ends_all(error: RLMError) -> None:
    with pytest.raises(type(error)):
        failure_of(error, Item("a", "?", changes={"sandbox.question_files": False}))


def test_a_wrong_key_ends_all_where_a_question_has_only_limits_or_a_prompt_of_its_own() -> None:
    with pytest.raises(ModelError):
        failure_of(
            ModelError("wrong key", fault="auth", model="m"),
            Item("a", "?", changes={"prompt.whole": 0.0, "limits.calls": 0}),
        )


class Spent:
    """The account of a run."""

    def totals(self) -> Totals:
        return Totals(turns=2, calls=7, known_cost=0.5, root_usage=Usage(100, 10))

    closed = totals


class Asking:
    """Stands for an `Asker`."""

    places = 2

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self, question: str, context: Any, *, trace: Path, **options: Any) -> Result:
        self.asked.append(question)
        options["view"](RunOpened(question, Spent(), Totals()))
        await self.go.wait()
        if question == "bad":
            raise FileRefused("not there")
        return Result("yes", options["changes"], trace, "answered", False, "", Totals())


def test_what_a_running_question_has_used_is_told_by_the_id_that_it_was_given(tmp_path: Path) -> None:
    async def look(item: Item) -> Done:
        asked[:] = [item.id]
        told.append(list(made.batch.doing()))
        return answered(item)

    class Counting(Stub):
        def doing(self) -> dict[str, Doing]:
            return dict.fromkeys(asked, Doing(1))

    engine = Counting(look, places=1)
    asked: list[str] = []
    told: list[list[str]] = []
    made: Any = None
    questions = [{"id": "docs/a b.txt", "question": "a"}, {"id": 7, "question": "b"}]

    async def main() -> None:
        nonlocal made
        opened = ready(of_program(questions), lambda _: engine, Places(None, tmp_path), PLAINLY, "")
        async with opened as made:
            assert len([done async for done in made.batch.run(made.entries)]) == 2

    asyncio.run(main())
    assert told == [["docs/a b.txt"], ["7"]]


def test_a_page_of_somebody_else_in_the_folder_of_traces_stays(tmp_path: Path) -> None:
    page, out = tmp_path / "site" / "index.html", tmp_path / "r.jsonl"
    page.parent.mkdir()
    page.write_text("<!doctype html><p>My site")
    engine = Stub()

    async def main() -> None:
        places = Places(out, page.parent)
        async with ready(of_program(["a"]), lambda _: engine, places, PLAINLY, "") as made:
            async for _ in made.batch.run(made.entries):
                pass

    with pytest.raises(UsageError, match="would take the place"):
        asyncio.run(main())
    assert not engine.begun
    assert page.read_text() == "<!doctype html><p>My site"
    page.unlink()
    asyncio.run(main())
    assert "1 question" in page.read_text()
    asyncio.run(main())  # its own page is no other


@pytest.mark.skipif(system.WINDOWS, reason="its shells have no <(command)")
def test_what_a_command_writes_is_no_file_of_every_question() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(UsageError, match="What a command writes"):
            files_of_all([f"/dev/fd/{reading}"])
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(system.WINDOWS, reason="its files have no such modes")
def test_what_leads_to_the_traces_is_for_those_who_may_read_the_results(tmp_path: Path) -> None:
    out, before = tmp_path / "r.jsonl", os.umask(0o077)
    try:
        asyncio.run(count(Stub(), ["a"], out))
    finally:
        os.umask(before)
    folder = tmp_path / "r.traces"
    assert {oct(one.stat().st_mode & 0o777) for one in [out, *folder.glob("index.*")]} == {"0o600"}


def test_the_local_engine_begins_as_many_as_it_has_places_in_their_order(tmp_path: Path) -> None:
    async def main() -> None:
        asker: Any = Asking()
        async with LocalEngine(asker) as engine:
            names = ["a", "bad", "c", "d", "e"]
            tasks = [
                asyncio.create_task(
                    engine.answer(Item(name, name, changes={"limits.turns": 1}), tmp_path / name)
                )
                for name in names
            ]
            for _ in range(20):
                await asyncio.sleep(0)
            assert asker.asked == ["a", "bad"]
            assert engine.doing() == {name: Doing(2, 7, 110, 0.5) for name in ("a", "bad")}
            tasks[2].cancel()  # one that waits
            asker.go.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert engine.doing() == {}
        assert asker.asked == ["a", "bad", "d", "e"]
        assert done[0].result.value == {"limits.turns": 1}  # type: ignore[union-attr]
        assert done[1].failure == Failure("FileRefused", "not there")  # type: ignore[union-attr]
        assert LocalEngine(asker, jobs=7).places == 7

    asyncio.run(main())


def test_map_gives_what_comes_of_each_with_and_without_an_event_loop(tmp_path: Path) -> None:
    rlm = RLM(models=ScriptedModels([]))
    out = tmp_path / "r.jsonl"
    found = [done.item.question for done in rlm.map(["a", "b"], out=out, engine=Stub())]
    assert sorted(found) == ["a", "b"]

    async def main() -> list[Any]:
        mapped = rlm.map([{"question": "c"}, Item("own", "d"), "a"], [1, 2, None], out=out, engine=Stub())
        found = [(done.item.question, done.item.context) async for done in mapped]
        assert mapped.tally.before == {"answered": 1}
        with pytest.raises(UsageError, match="once"):
            aiter(mapped)
        return found

    assert sorted(asyncio.run(main())) == [("c", 1), ("d", 2)]


class Price(BaseModel):
    item: str
    euros: float


@dataclass
class Place:
    page: int


class Found(TypedDict):
    names: list[str]


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [
        (Price, {"item": "pen", "euros": 3}, Price(item="pen", euros=3.0)),
        (Place, {"page": 7}, Place(7)),
        (Found, {"names": ["a"]}, {"names": ["a"]}),
        (date, "2026-01-02", date(2026, 1, 2)),
        (list[int], [1, 2], [1, 2]),
        (int, None, 42),  # the answer came in words
    ],
)
def test_answers_of_a_map_are_of_the_type_and_plain_in_the_results(
    kind: Any, said: Any, value: Any, tmp_path: Path
) -> None:
    async def answer(item: Item) -> Done:
        assert item.schema
        return replace(answered(item), result=result(said))

    def result(said: Any) -> Result:
        return Result("42", said, Path("t.ipynb"), "answered", False, "", Totals())

    out = tmp_path / "r.jsonl"
    done = list(RLM(models=ScriptedModels([])).map(["q"], answer_type=kind, out=out, engine=Stub(answer)))
    assert [one.value for one in done] == [value]
    assert [row["value"] for row in rows(out)] == [said]


def test_an_answer_that_is_not_of_the_type_is_a_failure_and_an_own_schema_stays(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        return replace(answered(item), result=replace(answered(item).result, value="no number"))  # type: ignore[type-var]

    out = tmp_path / "r.jsonl"
    own = {"id": "own", "question": "q", "schema": {"type": "string"}}
    found = RLM(models=ScriptedModels([])).map(
        [own, {"id": "typed", "question": "q"}], answer_type=int, out=out, engine=Stub(answer)
    )
    done = {one.item.id: one for one in found}
    assert done["own"].value == "no number"
    failure = done["typed"].failure
    assert failure is not None
    assert (failure.kind, failure.passing, done["typed"].result) == ("NoAnswer", False, None)
    assert {row["id"]: row["status"] for row in rows(out)} == {"own": "answered", "typed": "failed"}
    assert found.tally.failed == 1


def test_a_type_without_a_schema_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UsageError, match="Answers cannot be of the type"):
        RLM(models=ScriptedModels([])).map(["q"], answer_type=object(), engine=Stub())


def test_leaving_a_map_early_ends_what_runs() -> None:
    async def answer(item: Item) -> Done:
        if item.question == "q0":
            return answered(item)
        await asyncio.Event().wait()
        raise AssertionError

    engine = Stub(answer)
    for done in RLM(models=ScriptedModels([])).map((f"q{n}" for n in itertools.count()), engine=engine):
        assert done.item.question == "q0"
        break
    assert engine.running == 0
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in RLM(models=ScriptedModels([])).map(["q0", "q1"], engine=engine)]
    assert engine.running == 0


def test_a_second_batch_on_the_same_results_is_told(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="Another process"):
        asyncio.run(run(Stub(), ["a"], tmp_path / "r.jsonl"))
    results.close()
