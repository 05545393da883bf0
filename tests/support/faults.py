"""Runs that meet a fault: a script for the models that says when, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.model_server import ModelServer

TURNS = (
    "notes = llm_query_batched([f'note {n}' for n in range(8)])\nprint(len(notes), llm_query('alone'))",
    "length = rlm_query('LEVEL1 How long is it?', context[:300])\nprint(length)",
    "more = [llm_query(f'more {n}') for n in range(3)]\nprint(more)",
    "FINAL(f'{len(notes) + len(more)} notes, {length} of {len(context)}')",
)
"""Of a run with sub-calls in two cells and a child RLM in another."""
PLAIN = (*TURNS[:1], "length = len(context[:300])", *TURNS[2:])
"""The same without a child."""
CHILD = "print(llm_query('child'))\nFINAL(len(context))"
ANSWER = "11 notes, 300 of 1200"
CALLS = Counter({("root", 0): 4, ("root", 1): 1, ("sub", 0): 12, ("sub", 1): 1})
"""Of one run, by role and level."""
TEXT = "hello world\n" * 100
MODELS = ("-m", "openai/root", "--sub-model", "openai/sub")


@dataclass
class Script:
    """Plays the models of runs from wherever their conversations stand.

    `asked` is what came, by role and level.

    Cells that ended with an error are written again. `faults`: what to do before the nth request of a role is
    answered: `script.faults["root", 2] = break_something`.
    """

    turns: Sequence[str] = TURNS
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[tuple[str, int], Callable[[], Any]] = field(default_factory=dict)

    def play(self, server: ModelServer) -> None:
        server.root, server.sub = self._root, self._sub

    async def _root(self, messages: Sequence[Mapping[str, Any]]) -> str:
        level = int(
            "LEVEL1" in next(str(message["content"]) for message in messages if message["role"] == "user")
        )
        await self._meet("root", level)
        code = CHILD if level else self.turns[min(_turn(messages), len(self.turns) - 1)]
        return f"Now this.\n```repl\n{code}\n```"

    async def _sub(self, prompt: str) -> str:
        await self._meet("sub", int(prompt == "child"))
        return f"{prompt}!"

    async def _meet(self, role: str, level: int) -> None:
        self.asked[role, level] += 1
        if fault := self.faults.pop((role, self.asked[role, 0] + self.asked[role, 1]), None):
            await asyncio.to_thread(fault)


def _turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """How far a conversation is. What failed is done again."""
    told = [
        str(now["content"])
        for before, now in itertools.pairwise(messages)
        if before["role"] == "assistant" and now["role"] == "user"
    ]
    return sum(not re.search(r"\w+Error\b", output) for output in told)


def sound(path: Path) -> TraceFile:
    """The trace, which is a valid notebook, and so are those of the children beneath it."""
    trace = read_trace(path)
    nbformat.validate(trace.node)
    for child in sorted((path.parent / f"{path.stem}.children").glob("*.ipynb")):
        sound(child)
    return trace


def understood(said: str, *words: str) -> None:
    """An error message as a person can read it: what and why in a line or two, what to do in the last, and no
    traceback.
    """
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
