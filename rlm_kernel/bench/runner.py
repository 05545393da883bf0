"""Runs tasks by strategies, several at a time.

What is done is in `results.jsonl`, a line each, so that a run that was stopped goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.bench.scorers import score
from rlm_kernel.bench.strategies import STRATEGIES, Attempt, Bench, Failed
from rlm_kernel.bench.task import Task
from rlm_kernel.errors import (
    BudgetExceeded,
    KernelError,
    ModelError,
    NoAnswer,
    SetupError,
    TraceError,
    UsageError,
    WorkerLost,
)
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.batch.item import Failure
from rlm_kernel.session.batch.run import AHEAD, LOOK_SECONDS

Row = dict[str, Any]
"""A line of the results: task, suite, kind, length, strategy, by (models and prompt), score, and `Attempt`'s;
`error` of a failure.
"""
_SHOWN = 2_000
"""Characters of an answer that are kept; the trace has it in full."""
_FAILURES = (ModelError, KernelError, BudgetExceeded, NoAnswer, TraceError, WorkerLost)
"""What ends one task, and not the whole run."""


class Results:
    """The file of results. One process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, Row] = {}

    @classmethod
    def open(cls, folder: Path) -> Results:
        """What an earlier run left there; a last line that was cut off is dropped. Raises UsageError."""
        results = cls(folder / "results.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = results._path.read_bytes().split(b"\n") if results._path.exists() else []
            if lines and lines[-1]:
                results._path.write_bytes(b"\n".join([*lines[:-1], b""]))
            for line in lines[:-1]:
                row = json.loads(line)
                results.rows[key(row["task"], row["strategy"], row["by"])] = row
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"The results in {folder} cannot be used: {error}.", hint="Give --out another folder."
            ) from error
        return results

    def add(self, row: Row) -> None:
        """Raises OSError."""
        with self._path.open("ab") as file:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self.rows[key(row["task"], row["strategy"], row["by"])] = row

    def done(self, task: Task, strategy: str, by: Mapping[str, str]) -> Row | None:
        """Its row, if it need not be run again: a failure is."""
        row = self.rows.get(key(task.id, strategy, by))
        return row if row is not None and not row.get("error") else None


def key(task: str, strategy: str, by: Mapping[str, str]) -> str:
    """What tells the rows apart."""
    return json.dumps([task, strategy, dict(by)], sort_keys=True)


async def run(
    bench: Bench,
    tasks: Iterator[Task],
    strategies: Sequence[str],
    results: Results,
    by: Mapping[str, str],
    *,
    jobs: int | None = 1,
    heard: Callable[[Row, bool], None] = lambda _row, _new: None,
) -> list[Row]:
    """Run what is not done yet, and return the rows of all, in the tasks' order.

    `by`: models and prompt, which belong to a result. `jobs`: tasks at one time, None for as many as the
    engine has places. `heard` gets each row, and whether it is new. A task
    that fails has an `error` and score 0. Raises UsageError and SetupError, which would fail every task;
    cancelling it keeps what is done.
    """
    order: list[str] = []
    running: set[asyncio.Task[None]] = set()

    async def one(task: Task, strategy: str) -> None:
        came = await _came(bench, task, strategy)
        row = {
            "task": task.id,
            "suite": task.suite,
            "kind": task.kind,
            "length": task.length,
            "strategy": strategy,
            "by": dict(by),
        }
        # What was paid is kept, though the run is cancelled meanwhile.
        await to_its_end(asyncio.to_thread(_keep, results, task, row, came))
        heard(row, True)

    try:
        while (task := await asyncio.to_thread(next, tasks, None)) is not None:
            for strategy in strategies:
                order.append(key(task.id, strategy, by))
                if row := results.done(task, strategy, by):
                    heard(row, False)
                    continue
                while len(running) >= (jobs or bench.engine.places + AHEAD):
                    await asyncio.wait(running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    _raise_what_failed(running)
                running.add(asyncio.create_task(one(task, strategy)))
        if running:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        _raise_what_failed(running)
    finally:
        for left in running:
            left.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [results.rows[name] for name in order]


def _raise_what_failed(running: set[asyncio.Task[None]]) -> None:
    for done in [task for task in running if task.done()]:
        running.discard(done)
        done.result()


async def _came(bench: Bench, task: Task, strategy: str) -> Attempt | Failure:
    """What came of a task. Raises RLMError for what would fail every other, too."""
    try:
        return await STRATEGIES[strategy](bench, task)
    except (UsageError, SetupError):
        raise
    except _FAILURES as error:
        if error.exit_code == SetupError.exit_code:  # no key, no such model
            raise
        return Failure(type(error).__name__, error.message)
    except Failed as failed:
        failure = failed.failure
        if failure.kind not in {kind.__name__ for kind in _FAILURES}:
            raise UsageError(failure.message, hint=failure.hint) from failed
        return failure


def _keep(results: Results, task: Task, row: Row, came: Attempt | Failure) -> None:
    """Judge it, complete its row, and add that to the results. Blocking."""
    if isinstance(came, Failure):
        row["error"] = f"{came.kind}: {came.message}"[:_SHOWN]
        came = Attempt(None, 0.0, cost=None)
    row["score"] = 0.0 if came.answer is None else score(task.scorer, task.expected, came.answer)
    row |= came.as_json()
    if came.answer is not None:
        row |= {"answer": came.answer[:_SHOWN], "characters": len(came.answer)}
    results.add(row)
