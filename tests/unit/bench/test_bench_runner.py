"""A benchmark's run: what is done is not done again, what failed is, and what it says adds up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from rlm_kernel.bench import niah, strategies
from rlm_kernel.bench.report import interval, length_worded, picture, summary, table
from rlm_kernel.bench.runner import Results, Row, run
from rlm_kernel.bench.strategies import STRATEGIES, Attempt, Bench, bare, retrieval
from rlm_kernel.bench.task import Task
from rlm_kernel.config import Settings, with_changes
from rlm_kernel.engine.protocols import Completion, Message, Role, Totals
from rlm_kernel.engine.values import Card
from rlm_kernel.errors import DockerError, ModelError, RLMError, UsageError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.run import AHEAD
from rlm_kernel.session.result import Result
from tests.support.sandbox import until

BY = {"root": "openai/a", "sub": "openai/b", "prompt": "default 123"}


class Engine:
    """Answers "yes", or fails."""

    def __init__(self, places: int = 4) -> None:
        self.places = places
        self.asked: list[Item] = []
        self.failure: Failure | None = None
        self.hold: asyncio.Event | None = None
        self.running = self.most = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def doing(self) -> dict[str, Doing]:
        return {}

    async def answer(self, item: Item, trace: Path) -> Done:
        self.asked.append(item)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.hold is not None:
            await self.hold.wait()
        self.running -= 1
        if self.failure is not None:
            return Done(item, failure=self.failure)
        return Done(item, Result("yes", None, trace, "answered", False, "", Totals()), trace=trace)


def made(count: int) -> Iterator[Task]:
    return iter(
        [
            Task(f"t-{n}", "suite", "kind", f"question {n}", str(n), "exact", length=1_000)
            for n in range(count)
        ]
    )


class Fake:
    """A strategy that answers with the task's number, and remembers what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.at_once = self.most = 0
        self.hold: asyncio.Event | None = None
        self.enough = 1_000
        monkeypatch.setitem(STRATEGIES, "fake", self.attempt)

    async def attempt(self, _bench: Bench, task: Task) -> Attempt:
        self.asked.append(task.id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        if self.hold is not None and self.at_once >= self.enough:
            self.hold.set()
        try:
            await (self.hold.wait() if self.hold is not None and task.id != "t-0" else asyncio.sleep(0))
            if task.id in self.fails:
                raise self.fails[task.id]
            return Attempt(str(task.expected), 2.0, 100, 10, 0.5, 3, 4, "traces/x.ipynb")
        finally:
            self.at_once -= 1

    async def run(self, folder: Path, count: int = 3, **options: Any) -> list[Row]:
        bench = Bench(Settings(), ScriptedModels([]), Engine(), folder)
        return await run(bench, made(count), ["fake"], Results.open(folder), BY, **options)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


async def test_each_task_has_a_row_in_order(fake: Fake, tmp_path: Path) -> None:
    rows = await fake.run(tmp_path, jobs=3)
    assert [(row["task"], row["score"], row["answer"]) for row in rows] == [
        ("t-0", 1, "0"),
        ("t-1", 1, "1"),
        ("t-2", 1, "2"),
    ]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


async def test_what_is_done_is_not_done_again(fake: Fake, tmp_path: Path) -> None:
    await fake.run(tmp_path, 2)
    heard: list[tuple[str, bool]] = []
    rows = await fake.run(tmp_path, 4, heard=lambda row, new: heard.append((row["task"], new)))
    assert fake.asked == ["t-0", "t-1", "t-2", "t-3"]
    assert heard == [("t-0", False), ("t-1", False), ("t-2", True), ("t-3", True)]
    assert len(rows) == 4


async def test_other_models_are_other_results(fake: Fake, tmp_path: Path) -> None:
    await fake.run(tmp_path, 1)
    bench = Bench(Settings(), ScriptedModels([]), Engine(), tmp_path)
    await run(bench, made(1), ["fake"], Results.open(tmp_path), BY | {"root": "openai/c"})
    assert fake.asked == ["t-0", "t-0"]


async def test_a_failure_is_a_row_and_is_tried_again(fake: Fake, tmp_path: Path) -> None:
    fake.fails["t-1"] = ModelError("the server is gone", fault="connection", model="openai/a")
    rows = await fake.run(tmp_path)
    assert [row["score"] for row in rows] == [1, 0, 1]
    assert rows[1]["error"] == "ModelError: the server is gone"
    fake.fails.clear()
    again = await fake.run(tmp_path)
    assert fake.asked == ["t-0", "t-1", "t-2", "t-1"]
    assert [row["score"] for row in again] == [1, 1, 1]


@pytest.mark.parametrize(
    "failure", [DockerError("no engine"), ModelError("no key", fault="auth", model="openai/a")]
)
async def test_what_would_fail_every_task_ends_the_run(fake: Fake, tmp_path: Path, failure: RLMError) -> None:
    fake.fails["t-1"] = failure
    with pytest.raises(type(failure)):
        await fake.run(tmp_path, 50)
    assert len(fake.asked) < 50


async def test_jobs_bound_what_runs_at_one_time(fake: Fake, tmp_path: Path) -> None:
    fake.hold, fake.enough = asyncio.Event(), 4
    await fake.run(tmp_path, 20, jobs=4)
    assert fake.most == 4


async def test_a_run_that_is_cancelled_keeps_what_is_done(fake: Fake, tmp_path: Path) -> None:
    fake.hold = asyncio.Event()
    first = asyncio.Event()
    running = asyncio.create_task(fake.run(tmp_path, jobs=3, heard=lambda *_: first.set()))
    await first.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert fake.at_once == 0
    assert [json.loads(line)["task"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
        "t-0"
    ]


async def test_a_run_that_is_cancelled_while_a_result_waits_to_be_written_keeps_it(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, free = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))

    async def attempt(bench: Bench, task: Task) -> Attempt:
        loop.run_in_executor(None, free.wait)  # by the only thread
        return await fake.attempt(bench, task)

    monkeypatch.setitem(STRATEGIES, "fake", attempt)
    running = asyncio.create_task(fake.run(tmp_path, 1, jobs=1))
    await until(lambda: bool(fake.asked) and not fake.at_once)
    running.cancel()
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(running, return_exceptions=True)
    assert "t-0" in Results.open(tmp_path).rows.popitem()[0]


async def test_a_line_that_was_cut_off_is_dropped(fake: Fake, tmp_path: Path) -> None:
    await fake.run(tmp_path, 2)
    log = tmp_path / "results.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    assert len(await fake.run(tmp_path, 2)) == 2
    assert fake.asked == ["t-0", "t-1", "t-1"]
    assert [json.loads(line)["task"] for line in log.read_text().splitlines()] == ["t-0", "t-1"]


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("nonsense\n")
    with pytest.raises(UsageError, match="cannot be used"):
        Results.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used"):
        Results.open(tmp_path / "file")


# The strategies that make one call


class Windowed(ScriptedModels):
    """Knows its window, and keeps the prompts."""

    def __init__(self, reply: str) -> None:
        super().__init__([reply])
        self.prompts: list[str] = []

    def card(self, which: str) -> Card:
        return Card(which, f"test/{which}", 8_000)

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        self.prompts.append(messages[-1]["content"])
        return await super().complete(messages, role=role, model=model, **options)


async def test_the_bare_model_gets_everything_or_refuses() -> None:
    bench = Bench(Settings(), models := Windowed("it is 7"), Engine(), Path())
    (fits,) = niah.tasks(2_000, 1, 0)
    (large,) = niah.tasks(20_000, 1, 0)
    assert (await bare(bench, fits)).answer == "it is 7"
    assert fits.texts["haystack.txt"] in models.prompts[0]
    refused = await bare(bench, large)
    assert refused.answer is None
    assert refused.note.startswith("refused: ")
    assert len(models.prompts) == 1


async def test_retrieval_gives_the_part_that_matters() -> None:
    pytest.importorskip("bm25s")
    bench = Bench(Settings(), models := Windowed("found"), Engine(), Path())
    (task,) = niah.tasks(100_000, 1, 4)
    assert (await retrieval(bench, task)).answer == "found"
    prompt = models.prompts[0]
    assert task.expected in prompt
    assert len(prompt) < 8_000 * 4


def test_lines_of_any_length_are_cut_into_chunks() -> None:
    task = Task("t", "s", "k", "q", 1, "exact", {"a": "x" * 5_000 + "\n" + "y\n" * 3_000})
    chunks = strategies._chunks(task)
    assert max(map(len, chunks)) <= 1_000
    assert "".join(chunks).strip() == task.texts["a"].strip()


# What is said


def row(score: float, **changes: Any) -> Row:
    attempt = Attempt("x", 2.0, 100, 10, 0.5, 3, 4).as_json()
    return (
        {
            "task": "t",
            "suite": "niah",
            "kind": "number",
            "length": 1_000,
            "strategy": "rlm",
            "by": BY,
            "score": score,
        }
        | attempt
        | changes
    )


def test_a_group_adds_up() -> None:
    (group,) = summary(
        [
            row(1),
            row(0.5, kind="uuid"),
            row(0, error="ModelError: x", cost=None),
            row(0, note="refused: too long"),
        ]
    )
    assert (group["tasks"], group["score"], group["failed"], group["refused"]) == (4, 0.375, 1, 1)
    assert (group["tokens"], group["cost"], group["turns"]) == (110, 0.5, 3)
    assert group["kinds"] == {
        "number": {"tasks": 3, "score": pytest.approx(1 / 3)},
        "uuid": {"tasks": 1, "score": 0.5},
    }
    assert group["interval"][0] <= group["score"] <= group["interval"][1]


def test_one_unknown_cost_makes_the_mean_unknown() -> None:
    (group,) = summary([row(1), row(1, cost=None)])
    assert group["cost"] is None
    assert "unknown" in table([group])


def test_groups_are_by_suite_length_and_strategy() -> None:
    groups = summary([row(1), row(0, length=131_072), row(1, strategy="bare")])
    lines = table(groups).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["niah", "1K", "rlm"],
        ["niah", "131K", "rlm"],
        ["niah", "1K", "bare"],
    ]
    assert len(set(map(len, lines))) == 1


def test_the_picture_has_a_line_for_each_strategy(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture(
        summary([row(1), row(0, length=131_072), row(1, strategy="bare"), row(1, suite="small", length=0)]),
        tmp_path / "p.svg",
    )
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    picture(summary([row(1, length=0)]), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


@pytest.mark.parametrize(
    ("tokens", "worded"), [(0, "-"), (1_000, "1K"), (131_072, "131K"), (1_000_000, "1M"), (10_000_000, "10M")]
)
def test_lengths_are_worded(tokens: int, worded: str) -> None:
    assert length_worded(tokens) == worded


def test_an_interval_holds_the_mean_and_narrows() -> None:
    few, many = interval([0, 1] * 5), interval([0, 1] * 500)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    assert interval([1.0, 1.0]) == (1, 1)


# The strategies that an engine answers


@pytest.mark.parametrize(
    ("name", "whole", "calls"), [("auto", True, 7), ("rlm", False, 7), ("rlm-flat", False, 0)]
)
async def test_only_auto_may_show_an_input_whole(name: str, whole: bool, calls: int, tmp_path: Path) -> None:
    settings = Settings.model_validate({"limits": {"calls": 7}})
    engine = Engine()
    bench = Bench(settings, ScriptedModels([]), engine, tmp_path)
    attempt = await STRATEGIES[name](bench, next(made(1)))
    assert (attempt.answer, attempt.trace) == ("yes", f"traces/t-0-{name}.ipynb")
    changed = with_changes(settings, engine.asked[0].changes)
    assert changed.limits.calls == calls
    assert (changed.prompt.whole > 0) is whole


async def test_what_an_engine_fails_by_is_a_row_and_a_wrong_use_ends_the_run(tmp_path: Path) -> None:
    engine = Engine()
    bench = Bench(Settings(), ScriptedModels([]), engine, tmp_path)
    engine.failure = Failure("WorkerLost", "two workers have ended", passing=True)
    (row,) = await run(bench, made(1), ["rlm"], Results.open(tmp_path), BY)
    assert (row["error"], row["score"]) == ("WorkerLost: two workers have ended", 0)
    engine.failure = Failure("FileRefused", "there is no such file", "Look for it.")
    with pytest.raises(UsageError, match="no such file"):
        await run(bench, made(1), ["rlm"], Results.open(tmp_path), BY)


async def test_without_jobs_as_many_run_as_the_engine_has_places_now(tmp_path: Path) -> None:
    engine = Engine(places=1)
    engine.hold = asyncio.Event()
    bench = Bench(Settings(), ScriptedModels([]), engine, tmp_path)
    running = asyncio.create_task(run(bench, made(20), ["rlm"], Results.open(tmp_path), BY, jobs=None))
    await until(lambda: len(engine.asked) == 1 + AHEAD)
    engine.places = 5  # another machine joins, while none of the first is done
    await until(lambda: len(engine.asked) == 5 + AHEAD)
    engine.hold.set()
    assert len(await running) == 20
    assert engine.most == 5 + AHEAD
