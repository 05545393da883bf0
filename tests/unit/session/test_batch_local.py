"""Batches on this machine, through an asker that runs no containers, and `RLM.map`."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from rlm_kernel import RLM, ScriptedModels, system
from rlm_kernel.engine.events import RunOpened
from rlm_kernel.engine.protocols import Totals, Usage
from rlm_kernel.errors import (
    FileRefused,
    UsageError,
)
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.local import LocalEngine
from rlm_kernel.session.batch.output import Places, files_of_all, ready
from rlm_kernel.session.batch.questions import of_program
from rlm_kernel.session.batch.results import Results, rows
from rlm_kernel.session.result import Result
from tests.support.batches import PLAINLY, Stub, answered, count, run


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

    with pytest.raises(UsageError, match="would replace"):
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
        with pytest.raises(UsageError, match="the output of a command"):
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
