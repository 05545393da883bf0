"""Trees of child RLMs by script: each RLM looks at its question to know how deep it is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import nbformat

from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.events import CallFinished, ChildEvent, Event
from rlm_kernel.engine.protocols import Completion, Message, Role, Usage
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.session.ask import ask
from rlm_kernel.trace.reader import TraceFile, read_trace

SMALL = {"sandbox.memory": "256m", "sandbox.tmp": "64m", "sandbox.children": 6}
PRICE = 0.01
USAGE = {"root": Usage(100, 20, 10), "sub": Usage(10, 2, 1)}


def level_of(messages: Sequence[Message]) -> int:
    """How deep the RLM is, by its question "LEVEL2 …"; 0 for the topmost."""
    first = next(message["content"] for message in messages if message["role"] == "user")
    found = re.search(r"LEVEL(\d)", first)
    return int(found[1]) if found else 0


def question_of(messages: Sequence[Message]) -> str:
    """Its question, as far as it stands in one line; empty for the topmost. Its input stands before it."""
    first = next(message["content"] for message in messages if message["role"] == "user")
    found = re.search(r"LEVEL\d[^\n]*", first[first.rfind("Question: ") :])
    return found[0] if found else ""


def turns_of(messages: Sequence[Message]) -> int:
    """How many replies the RLM had."""
    return sum(message["role"] == "assistant" for message in messages)


def repl(*codes: str) -> str:
    return "\n".join(f"```repl\n{code}\n```" for code in codes)


class Priced(ScriptedModels):
    """Scripted models with one price a call, and `calls` that were made."""

    calls = 0

    async def complete(self, messages: Sequence[Message], *, role: Role, **options: Any) -> Completion:
        reply = await super().complete(messages, role=role, **options)
        await asyncio.sleep(0.01)
        self.calls += 1
        return Completion(reply.text, reply.model, USAGE[role], PRICE, 0.01)


class Levels(Priced):
    """A script for each level: replies in order, each a cell, and an answer in words for what comes after
    them. QUESTION in a cell is the question.
    """

    def __init__(self, *levels: Sequence[str], sub: Any = str.upper) -> None:
        def root(messages: Sequence[Message]) -> str:
            cells = levels[level_of(messages)]
            turn = turns_of(messages)
            return (
                repl(cells[turn].replace("QUESTION", repr(question_of(messages))))
                if turn < len(cells)
                else "FINAL(perhaps)"
            )

        super().__init__(root, sub)


def tree(*widths: int) -> Levels:
    """Each RLM hands each of so many children a part of its context, and adds up; those at the bottom ask the
    sub model.
    """
    above = [
        f"size = -(-len(context) // {width})\n"
        "parts = list(chunks(size))\n"
        f'found = rlm_query_batched([f"LEVEL{level} How long is part {{n}}?" for n in range({width})], '
        "parts, schema=int)\n"
        "print(found, budget()['depth'])\nFINAL(sum(found))"
        for level, width in enumerate(widths, 1)
    ]
    return Levels(*([cell] for cell in above), ["print(llm_query(context[:3]))\nFINAL(len(context))"])


def settings(depth: int, **changes: Any) -> Settings:
    return load_settings(None, SMALL | {"limits.depth": depth} | changes)


def family(trace: Path, parent: TraceFile | None = None) -> list[TraceFile]:
    """The trace and all beneath it, each a valid notebook that is linked with its parent both ways."""
    found = read_trace(trace)
    nbformat.validate(found.node)
    linked = [call for cell in found.cells if cell.meta for call in cell.meta.calls if call.trace]
    prose = "\n".join(cell.source for cell in found.cells if not cell.code)
    targets = {unquote(link) for link in re.findall(r"\]\(([^)#][^)]*)\)", prose)}
    assert all((trace.parent / target).exists() for target in targets), targets
    if found.meta.status == "finished":
        assert {call.trace for call in linked} <= targets
    if parent is not None:
        assert found.meta.parent is not None
        assert (trace.parent / found.meta.parent.trace).resolve() == parent.path
        assert (found.meta.parent.session, found.meta.parent.trace in targets) == (parent.meta.session, True)
        assert found.meta.parent.cell in {cell.id for cell in parent.code_cells}
    else:
        assert found.meta.parent is None
    below = [one for call in linked for one in family((trace.parent / call.trace).resolve(), found)]
    return [found, *below]


def containers(pid: int, status: Sequence[str] = ()) -> list[str]:
    """Names of the containers that a process owns, in whatever state they are, or in one of these."""
    client = connect()
    try:
        chosen: dict[str, Any] = {"label": f"rlm-kernel.owner={pid}"} | (
            {"status": list(status)} if status else {}
        )
        return [found.name for found in client.containers.list(all=True, filters=chosen, ignore_removed=True)]
    finally:
        client.close()


class Watch:
    """A listener to the whole tree. `heard` is told each event and its RLM's level."""

    def __init__(self, heard: Callable[[Event, int], None]) -> None:
        self._heard = heard

    def __call__(self, event: Event) -> None:
        level = 0
        while isinstance(event, ChildEvent):
            event, level = event.event, level + 1
        self._heard(event, level)


def patient(sub: Callable[[str], Any] = str.upper) -> Levels:
    """Three children of which each asks three quick questions, and then a slow one; the topmost adds up."""

    async def answer(prompt: str) -> str:
        if prompt.startswith("slow"):
            await asyncio.sleep(float(os.environ.get("SLOW", "60")))
        found = sub(prompt)
        return str(await found if asyncio.iscoroutine(found) else found)

    top = (
        'found = rlm_query_batched([f"LEVEL1 part {n}" for n in range(3)], [context[n::3] for n in '
        "range(3)])\nFINAL(found)"
    )
    child = (
        "print([llm_query(f'quick {n}') for n in range(3)])\nprint(llm_query('slow'))\nFINAL(len(context))"
    )
    return Levels([top], [child], sub=answer)


def be_killed(runtime: str, folder: str, trace: str, text: str) -> None:
    """In a process of its own: run `patient` until all three children ask their slow question, and die by
    SIGKILL.
    """
    os.environ["XDG_RUNTIME_DIR"] = runtime
    os.chdir(folder)
    waiting: set[str] = set()

    def asked(prompt: str) -> str:
        return prompt

    def heard(event: Event, level: int) -> None:
        if isinstance(event, CallFinished) and level == 1 and event.call.preview == "quick 2":
            waiting.add(f"{len(waiting)}")
        if len(waiting) == 3:
            # Not at once: what was heard is written within half a second.
            asyncio.get_running_loop().call_later(1.0, os.kill, os.getpid(), signal.SIGKILL)
            waiting.add("done")

    asyncio.run(
        ask(
            "How long is it?",
            Path(text),
            settings=settings(1),
            trace=Path(trace),
            models=patient(asked),
            view=Watch(heard),
        )
    )


def short_folder() -> TemporaryDirectory[str]:
    """For sessions' folders: not below pytest's, because a socket's name must be short."""
    return TemporaryDirectory(prefix="t", ignore_cleanup_errors=True)
