"""The ways to answer a task: as `rlm ask` does, as an RLM by code alone, as one without sub-calls, by the
bare model on everything, by retrieval and one call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlm_contract.tokens import tokens

from rlm_kernel.bench.task import CHARS_PER_TOKEN, Task
from rlm_kernel.config import Settings
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.subcalls import complete
from rlm_kernel.errors import ConfigError
from rlm_kernel.session.batch.engine import Engine
from rlm_kernel.session.batch.item import Failure, Item
from rlm_kernel.session.environment import limits_of

_REPLY_TOKENS = 2_000
"""Of a window, kept for the question and the reply."""
_BY_CODE: Mapping[str, Any] = {"prompt.whole": 0.0}
_RETRIEVED = 20_000
"""Tokens of chunks that retrieval gives the model, or as many as its window holds."""
_CHUNK = 1_000
"""Characters of a chunk, about: whole lines."""


@dataclass(frozen=True)
class Attempt:
    """An answer, or none, and what it took.

    `cost` in US dollars, None where a price is not known. `note`: why there is no answer.
    """

    answer: str | None
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    turns: int = 0
    calls: int = 0
    trace: str | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Bench:
    """What the strategies share. `engine`: answers what an RLM is asked, and is open; `models` answer the
    strategies of one call, here. `folder`: where inputs and traces go.
    """

    settings: Settings
    models: Models
    engine: Engine
    folder: Path


class Failed(Exception):
    """The engine has no result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


Strategy = Callable[[Bench, Task], Awaitable[Attempt]]


async def auto(bench: Bench, task: Task) -> Attempt:
    """As `rlm ask` does it: an input that fits easily is shown whole, a larger one is for code."""
    return await _ask(bench, task, {}, "auto")


async def as_rlm(bench: Bench, task: Task) -> Attempt:
    """The RLM at any size: no input is shown whole."""
    return await _ask(bench, task, _BY_CODE, "rlm")


async def flat(bench: Bench, task: Task) -> Attempt:
    """The RLM without sub-calls."""
    return await _ask(bench, task, {**_BY_CODE, "limits.calls": 0, "limits.depth": 0}, "rlm-flat")


async def bare(bench: Bench, task: Task) -> Attempt:
    """The root model on the whole input, in one call. Refused where its window is known not to hold it."""
    prompt = await asyncio.to_thread(task.prompt)
    window = bench.models.card("root").window
    if window is not None and tokens(prompt) + _REPLY_TOKENS > window:
        return Attempt(
            None, 0.0, note=f"refused: the input does not fit the model's window of {window:,} tokens"
        )
    return await _one_call(bench, prompt)


async def retrieval(bench: Bench, task: Task) -> Attempt:
    """The chunks that BM25 finds for the question, as many as fit, and one call.

    Raises ConfigError without bm25s.
    """
    window = bench.models.card("root").window
    room = _RETRIEVED if window is None else min(_RETRIEVED, window - _REPLY_TOKENS)
    return await _one_call(bench, await asyncio.to_thread(_retrieved, task, max(0, room) * CHARS_PER_TOKEN))


STRATEGIES: Mapping[str, Strategy] = {
    "auto": auto,
    "rlm": as_rlm,
    "rlm-flat": flat,
    "bare": bare,
    "retrieval": retrieval,
}


ONE_CALL = {"bare", "retrieval"}
"""Those that need no engine."""


async def _ask(bench: Bench, task: Task, changes: Mapping[str, Any], name: str) -> Attempt:
    """Raises Failed, and RLMError for what would fail every task."""
    trace = bench.folder / "traces" / f"{task.id}-{name}.ipynb"
    await asyncio.to_thread(trace.parent.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(trace.unlink, missing_ok=True)
    files = await asyncio.to_thread(task.files, bench.folder / "inputs")
    done = await bench.engine.answer(Item(trace.stem, task.question, files, changes=changes), trace)
    if done.failure is not None or done.result is None:
        raise Failed(done.failure or Failure("NoAnswer", "There is no result."))
    result = done.result
    return Attempt(
        result.answer,
        result.totals.seconds,
        result.usage.prompt,
        result.usage.completion,
        result.cost,
        result.totals.turns,
        result.totals.calls,
        str(trace.relative_to(bench.folder)),
        "" if result.stop_reason == "answered" else result.stop_reason,
    )


async def _one_call(bench: Bench, prompt: str) -> Attempt:
    started = time.monotonic()
    ledger = Ledger(limits_of(bench.settings))
    reply = await complete(bench.models, ledger, [{"role": "user", "content": prompt}], role="root")
    return Attempt(
        reply.text,
        time.monotonic() - started,
        reply.usage.prompt,
        reply.usage.completion,
        reply.cost,
        turns=1,
    )


def _retrieved(task: Task, room: int) -> str:
    try:
        import bm25s
    except ImportError as error:
        raise ConfigError(
            "Retrieval needs the package bm25s.", hint="pip install 'rlm-kernel[bench]'"
        ) from error
    chunks = _chunks(task)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(chunks, show_progress=False), show_progress=False)
    best, _ = index.retrieve(
        bm25s.tokenize(task.question, show_progress=False),
        k=min(len(chunks), room // _CHUNK + 1),
        show_progress=False,
    )
    taken, left = [], room
    for place in map(int, best[0]):
        left -= len(chunks[place])
        if left < 0:
            break
        taken.append(place)
    found = "\n…\n".join(chunks[place] for place in sorted(taken))
    return f"These parts of a longer text may hold what the question asks for:\n\n{found}\n\n{task.question}"


def _chunks(task: Task) -> list[str]:
    chunks: list[list[str]] = [[]]
    size = 0
    whole = task.prompt().removesuffix(task.question)
    for line in whole.splitlines(keepends=True):
        for at in range(0, len(line), _CHUNK):
            piece = line[at : at + _CHUNK]
            if size + len(piece) > _CHUNK and chunks[-1]:
                chunks.append([])
                size = 0
            chunks[-1].append(piece)
            size += len(piece)
    return ["".join(chunk) for chunk in chunks]
