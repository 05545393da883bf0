"""Runs that meet a fault: a script for the models that says when, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.model_server import ModelServer

TURNS = (
    "notes = llm_query_batched([f'NAME note {n}' for n in range(8)])\nprint(len(notes), llm_query('NAME alone'))",
    "length = rlm_query('NAME LEVEL1 How long is it?', context[:300])\nprint(length)",
    "more = [llm_query(f'NAME more {n}') for n in range(3)]\nprint(more)",
    "FINAL(f'{len(notes) + len(more)} notes, {length} of {len(context)}')",
)
"""Of a run with sub-calls in two cells and a child RLM in another."""
PLAIN = (*TURNS[:1], "length = len(context[:300])", *TURNS[2:])
"""The same without a child."""
CHILD = "print(llm_query('NAME child'))\nFINAL(len(context))"
ANSWER = "11 notes, 300 of 1200"
CALLS = Counter({("root", 0): 4, ("root", 1): 1, ("sub", 0): 12, ("sub", 1): 1})
"""Of one run, by role and level."""
TEXT = "hello world\n" * 100
MODELS = ("-m", "openai/root", "--sub-model", "openai/sub")


@dataclass
class Asked:
    """A request that came to a model, and when it was answered (time.monotonic)."""

    run: str
    role: str
    level: int
    at: float
    answered: float | None = None


@dataclass
class Script:
    """Plays the models of runs "RUN1", "RUN2" … from wherever their conversations stand. `asked` is what came, in order.

    Cells that ended with an error are written again. `faults`: what to do before the nth request of a role, in any run, is answered:
    `script.faults["root", 2] = break_something`.
    """

    turns: Sequence[str] = TURNS
    seconds: float = 0.03
    asked: list[Asked] = field(default_factory=list)
    faults: dict[tuple[str, int], Callable[[], Any]] = field(default_factory=dict)

    def play(self, server: ModelServer) -> None:
        server.root, server.sub = self._root, self._sub

    def of(self, run: str) -> list[Asked]:
        return [asked for asked in list(self.asked) if asked.run == run]

    def count(self, role: str) -> int:
        return sum(asked.role == role for asked in list(self.asked))

    async def _root(self, messages: Sequence[Mapping[str, Any]]) -> str:
        first = next(str(message["content"]) for message in messages if message["role"] == "user")
        level = int("LEVEL1" in first)
        name = _name(first)
        await self._answer(Asked(name, "root", level, time.monotonic()))
        code = CHILD if level else self.turns[min(_turn(messages), len(self.turns) - 1)]
        return f"Now this.\n```repl\n{code.replace('NAME', name)}\n```"

    async def _sub(self, prompt: str) -> str:
        await self._answer(Asked(_name(prompt), "sub", int(prompt.endswith("child")), time.monotonic()))
        return f"{prompt}!"

    async def _answer(self, asked: Asked) -> None:
        self.asked.append(asked)
        if fault := self.faults.pop((asked.role, self.count(asked.role)), None):
            await asyncio.to_thread(fault)
        await asyncio.sleep(self.seconds)
        asked.answered = time.monotonic()


def _turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """How far a conversation is. What failed is done again."""
    told = [str(now["content"]) for before, now in itertools.pairwise(messages) if before["role"] == "assistant" and now["role"] == "user"]
    return sum(not re.search(r"\w+Error\b", output) for output in told)


def _name(text: str) -> str:
    return re.findall(r"RUN\d+", text)[-1]


# What must hold


def sound(path: Path) -> TraceFile:
    """The trace, which is a valid notebook, and so are those of the children beneath it."""
    trace = read_trace(path)
    nbformat.validate(trace.node)
    for child in sorted((path.parent / f"{path.stem}.children").glob("*.ipynb")):
        sound(child)
    return trace


def understood(said: str, *words: str) -> None:
    """An error message as a person can read it: what and why in a line or two, what to do in the last, and no traceback."""
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said
    told = said[said.index("rlm: ") :].strip().splitlines()
    assert len(told) >= 2, f"it does not say what to do: {said}"
    assert len(max(told, key=len)) < 600, said
    assert not re.search(r"\b(Errno|urllib3|requests\.|HTTPConnectionPool|object at 0x)", said), said


def answered(out: str) -> Any:
    """The answer of a command with --json."""
    return json.loads(out)["answer"]
