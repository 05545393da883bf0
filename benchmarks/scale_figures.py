"""What one session costs, with so many at once: see `scale.py`, which runs this.

Scripted models that answer at once, so that all that is measured is ours. A session reads a log of 1 MB: a
search, 20 sub-calls in one batch, a table with pandas, the answer. All sessions of a level wait for each
other twice: when their kernels have started, and before their answers.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask

SUB_CALLS = 20
CHARACTERS_PER_TOKEN = 4
_LINE = "2026-11-29 12:00:{:02d} host{:03d} INFO request {:07d} took {:d} ms\n"
_TEXT = "".join(_LINE.format(n % 60, n % 997, n, n % 411) for n in range(18_000))
_CELLS = (
    "print(grep('took 400 ms')[:5])",
    f"parts = list(chunks(len(context) // {SUB_CALLS} + 1))\n"
    f"print(llm_query_batched(['How many are slow?\\n' + part[:8000] for part in parts[:{SUB_CALLS}]])[:3])",
    "import pandas as pd\n"
    "table = pd.DataFrame([line.split() for line in str(context).splitlines()])\n"
    "print(table.groupby(2).size().describe())",
    "FINAL(int(table[7].astype(int).mean()))",
)
_PATIENCE = 60.0
"""Seconds without another session's arrival, after which those that are there are measured."""
_ENGINE = ("dockerd", "containerd", "containerd-shim")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Gate:
    """Where sessions wait for each other."""

    there: int = 0
    moved: float = field(default_factory=time.monotonic)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> float:
        """Seconds that it took."""
        began = self.moved = time.monotonic()
        self.there += 1
        await self.opened.wait()
        return time.monotonic() - began

    async def full(self, count: int, running: Sequence[asyncio.Task[Any]]) -> None:
        """Until so many are there, or no more come."""
        while self.there < count and time.monotonic() - self.moved < _PATIENCE:
            if all(one.done() for one in running):
                break
            await asyncio.sleep(0.02)


@dataclass
class Talk:
    """What the models say, and how much was said."""

    started: Gate = field(default_factory=Gate)
    ending: Gate = field(default_factory=Gate)
    waited: float = 0.0
    root_calls: int = 0
    sub_calls: int = 0
    read: int = 0
    written: int = 0

    async def root(self, messages: Sequence[Any]) -> str:
        turn = min(sum(one["role"] == "assistant" for one in messages), len(_CELLS) - 1)
        if turn in (0, len(_CELLS) - 1):
            self.waited += await (self.ending if turn else self.started).wait()
        reply = f"I look at it.\n```repl\n{_CELLS[turn]}\n```"
        self.root_calls += 1
        self._count(sum(len(str(one["content"])) for one in messages), reply)
        return reply

    def sub(self, prompt: str) -> str:
        self.sub_calls += 1
        self._count(len(prompt), reply := "About three of these are slow.")
        return reply

    def _count(self, read: int, reply: str) -> None:
        self.read += read // CHARACTERS_PER_TOKEN
        self.written += len(reply) // CHARACTERS_PER_TOKEN


async def measure(levels: Iterable[int], memory: str, repeat: int = 5) -> AsyncIterator[dict[str, Any]]:
    """The figures of so many sessions at once, for each level; one alone `repeat` times, of which they are
    the medians, with all its `seconds`.
    """
    for count in levels:
        if count > 1:
            yield await level(count, memory)
            continue
        alone = [await level(1, memory) for _ in range(repeat + 1)][1:]  # the first fills the caches of files
        middle = {name: statistics.median(one[name] for one in alone) for name in alone[0]}
        yield middle | {"seconds": sorted(one["seconds"] for one in alone)}


async def level(count: int, memory: str) -> dict[str, Any]:
    """So many sessions at once, in a process that had none before. Means for each session."""
    with tempfile.TemporaryDirectory(prefix="rlm-scale-") as place:
        folder = Path(place)
        (folder / "in.log").write_text(_TEXT)
        talk = Talk()
        settings = load_settings(
            None,
            {"sandbox.memory": memory, "root_llm.model": "scripted/root", "trace.dir": str(folder)},
        )
        models = ScriptedModels(talk.root, talk.sub)
        before, began = _spent()["host"], time.monotonic()
        # Each by itself: kernels that an Asker has in stock would be among those that are measured.
        running = [
            asyncio.create_task(
                ask(
                    "How slow is it?",
                    folder / "in.log",
                    settings=settings,
                    trace=folder / f"{number}.ipynb",
                    models=models,
                )
            )
            for number in range(count)
        ]
        try:
            figures = await _watched(count, talk, running, folder)
            # A session's seconds are without its waits for the others.
            return figures | {
                "seconds": time.monotonic() - began - talk.waited / count,
                "host_cpu": (_spent()["host"] - before) / count,
                "left": len(await asyncio.to_thread(containers)),
                "root_calls": talk.root_calls / count,
                "sub_calls": talk.sub_calls / count,
                "tokens_read": talk.read / count,
                "tokens_written": talk.written / count,
            }
        finally:
            for one in running:
                one.cancel()
            await asyncio.wait(running)


async def _watched(
    count: int, talk: Talk, running: Sequence[asyncio.Task[Any]], folder: Path
) -> dict[str, Any]:
    began = time.monotonic()
    before = _spent()
    rss, descriptors = _rss(), len(os.listdir("/proc/self/fd"))
    await talk.started.full(count, running)
    start = time.monotonic() - began
    resting = await asyncio.to_thread(containers)
    at_rest, spent = _spent(), len(resting) or 1
    figures: dict[str, Any] = {
        "sessions": count,
        "at_once": talk.started.there,
        "start_seconds": start,
        "rest_memory": statistics.mean(one["memory"] for one in resting) if resting else 0,
        "start_container_cpu": statistics.mean(one["cpu"] for one in resting) if resting else 0,
        "start_host_cpu": (at_rest["host"] - before["host"]) / spent,
        "start_engine_cpu": (at_rest["engine"] - before["engine"]) / spent,
        "host_memory": (_rss() - rss) / spent,
        "descriptors": (len(os.listdir("/proc/self/fd")) - descriptors) / spent,
    }
    talk.started.opened.set()
    await talk.ending.full(count, running)
    ending = await asyncio.to_thread(containers)
    figures |= {
        "run_memory": statistics.mean(one["peak"] for one in ending) if ending else 0,
        "run_container_cpu": statistics.mean(one["cpu"] for one in ending) if ending else 0,
        "journal": _bytes(folder, ".ipynb", without=True) / count,
    }
    talk.ending.opened.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    answered = [one for one in results if not isinstance(one, BaseException) and one.answer is not None]
    return figures | {
        "answered": len(answered),
        "notebook": _bytes(folder, ".ipynb") / count,
        "beside": _bytes(folder, ".ipynb", without=True) / count,
    }


def containers() -> list[dict[str, float]]:
    """Memory, its peak (bytes) and CPU (seconds) of each container of this process. Blocking."""
    import docker

    client = docker.from_env()
    try:
        mine = {"label": f"rlm-kernel.owner={os.getpid()}"}
        found = []
        for one in client.api.containers(filters=mine):
            try:
                told = client.api.stats(one["Id"], stream=False, one_shot=True)
            except docker.errors.NotFound:  # it has ended since it was listed
                continue
            memory = told.get("memory_stats", {})
            if "usage" not in memory:
                continue
            cache = memory.get("stats", {})
            # What is only the cache of files is the machine's to take back.
            unused = cache.get("total_inactive_file", cache.get("inactive_file", 0))
            found.append(
                {
                    "memory": memory["usage"] - unused,
                    "peak": memory.get("max_usage", memory["usage"]) - unused,
                    "cpu": told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
                }
            )
        return found
    finally:
        client.close()


def _spent() -> dict[str, float]:
    """CPU seconds of this process and of the engine's, with what has ended of theirs."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    engine = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if (process / "comm").read_text().strip().startswith(_ENGINE):
                engine += sum(map(int, fields[11:15])) / _TICK
        except OSError:
            continue
    return {"host": used.ru_utime + used.ru_stime, "engine": engine}


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _bytes(folder: Path, ending: str, *, without: bool = False) -> int:
    """Of files beside the input that have the ending, or do not have it; folders with all in them."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != "in.log" and (path.suffix == ending) is not without
    )
