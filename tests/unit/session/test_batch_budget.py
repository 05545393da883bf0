"""What all questions of a batch may use together."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import BudgetExceeded, TraceNotWritten, UsageError
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Item
from rlm_kernel.session.batch.results import Results, rows
from rlm_kernel.session.batch.run import AHEAD, Budget, How
from rlm_kernel.session.result import Result
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.batches import Stub, answered, run
from tests.support.sandbox import until
from tests.support.trace import STORY, meta, tell


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


def test_calls_that_were_given_up_count_in_a_budget_without_a_file_of_results() -> None:
    async def answer(item: Item) -> Done:
        done = answered(item)
        assert done.result is not None
        return replace(done, result=replace(done.result, totals=Totals(lost_cost=0.5, lost_tokens=10)))

    engine = Stub(answer, places=1)
    with pytest.raises(BudgetExceeded):
        asyncio.run(run(engine, (f"q{n}" for n in range(100)), None, How(Budget(cost=1.0))))
    assert len(engine.begun) <= 2 + AHEAD + 1


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
    with pytest.raises(BudgetExceeded, match="too little for another call"):
        asyncio.run(run(Stub(poor, places=1), asked, out, How(Budget(cost=9.0))))
    ended = [row["id"] for row in rows(out) if row["status"] == "no_answer"]
    assert len(ended) == 1
    assert len(list(rows(out))) <= 3 + AHEAD
    engine = Stub()
    asyncio.run(run(engine, asked, out))
    assert "q2" in engine.begun
    assert "q1" not in engine.begun


def test_what_a_killed_process_had_spent_counts_in_the_next_run_which_asks_again(tmp_path: Path) -> None:
    at_work, left = tmp_path / "at_work", tmp_path / "left"
    at_work.mkdir()

    class Killed(Stub):
        async def answer(self, item: Item, trace: Path) -> Done:
            if item.id == "b":
                trace.parent.mkdir(parents=True, exist_ok=True)
                tell(NotebookWriter(trace, meta(), []), STORY[:-8])
                # What SIGKILL leaves: the folder as it is at this moment.
                shutil.copytree(at_work, left)
            return await super().answer(item, trace)

    asked = [{"id": name, "question": f"{name}?"} for name in "abc"]
    traces = at_work / "r.traces"
    asyncio.run(run(Killed(places=1), asked, at_work / "r.jsonl", traces=traces))
    assert not (at_work / "r.jsonl.running").exists()

    out = left / "r.jsonl"
    with pytest.raises(BudgetExceeded, match=r"\$1\.0000 of \$0\.5000"):
        asyncio.run(run(Stub(), asked, out, How(Budget(cost=0.5))))
    (stopped,) = [row for row in rows(out) if row["id"] == "b"]
    assert (stopped["error"]["kind"], stopped["attempt"], stopped["known_cost"]) == ("Stopped", 1, 1.0)
    assert {"b?", "c?"} <= {one.item.question for one in asyncio.run(run(Stub(), asked, out))}
    assert sum(row["known_cost"] for row in rows(out)) == 1.0


@given(journal=some.binary(max_size=200) | some.text(max_size=200).map(str.encode))
def test_a_journal_of_anything_stops_no_batch(
    tmp_path_factory: pytest.TempPathFactory, journal: bytes
) -> None:
    out = tmp_path_factory.mktemp("batch") / "r.jsonl"
    asyncio.run(run(Stub(), ["a"], out))
    Path(f"{out}.running").write_bytes(journal + b'\n{"id": [], "question": 1}\n{"id": "a"}\n7\n')
    assert len(asyncio.run(run(Stub(), ["a", "b"], out))) == 1
    assert not Path(f"{out}.running").exists()


def test_a_second_batch_that_is_refused_leaves_the_journal_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    journal = tmp_path / "r.jsonl.running"

    class Watching(Stub):
        async def answer(self, item: Item, trace: Path) -> Done:
            with pytest.raises(UsageError, match="Another process"):
                Results.open(out)
            assert journal.exists()
            return await super().answer(item, trace)

    assert len(asyncio.run(run(Watching(), ["a"], out))) == 1
    assert not journal.exists()


def test_a_journal_that_could_not_be_taken_up_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, journal = tmp_path / "r.jsonl", tmp_path / "r.jsonl.running"
    asyncio.run(run(Stub(), ["a"], out))
    tell(NotebookWriter(tmp_path / "b.ipynb", meta(), []), STORY[:-8])
    left = {"id": "b", "attempt": 1, "trace": "b.ipynb", "question": "b", "number": 2, "digest": "d"}
    journal.write_text(json.dumps(left))
    with monkeypatch.context() as full:
        full.setattr(
            Results, "_append", lambda *_: (_ for _ in ()).throw(TraceNotWritten("The disk is full."))
        )
        with pytest.raises(TraceNotWritten):
            asyncio.run(run(Stub(), ["c"], out))
    assert journal.exists()
    asyncio.run(run(Stub(), ["c"], out))
    assert {row["id"]: row["known_cost"] for row in rows(out)}["b"] == 1.0
    assert not journal.exists()
