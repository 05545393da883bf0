"""Sub-calls by the thousand in a real session: how near the ideal rate, how fast against bare litellm, and
what memory they take.

    python benchmarks/subcalls.py --parts slow,instant,many,alone,interrupted

slow: 1,000 in one batch at a server of 1 s, beside bare aiohttp. instant: 1,000 in one batch at a server that
answers at once, against litellm.acompletion gathered in one process, turn by turn. many: 10,000 in one batch,
three times. alone: one after the other, with a model in the process. interrupted: cells that are stopped with
1,000 calls in flight. The server is a process of its own; the sessions have container and trace. Prints a
table, and JSON with --json. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.stub import Stub
from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.protocols import Completion, Message, Models
from rlm_kernel.models.litellm_models import LitellmModels
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask

KEY = "sk-stub"
CONCURRENCY = 64
TIMED = """
import time
began = time.perf_counter()
answers = llm_query_batched([f"item {{n}}" for n in range({count})])
seconds = time.perf_counter() - began
assert answers == [f"echo: item {{n}}" for n in range({count})], [answer for answer in answers if not answer][:3]
took = [*globals().get("took", []), seconds]
"""  # noqa: E501
ONE_BY_ONE = """
for n in range(200):
    began = time.perf_counter()
    llm_query(f"one {n}")
    each.append(time.perf_counter() - began)
"""
GATHERED = "import asyncio; await asyncio.gather(*(allm_query(f'item {{n}}') for n in range({count})))"
Cells = AsyncGenerator[str, None]


class Played(ScriptedModels):
    """The root asks for one cell after the other; the sub model is that of other models."""

    def __init__(self, cells: Cells, sub: Models) -> None:
        async def root(messages: Sequence[Message]) -> str:
            said = messages[-1]["content"]
            assert "(it raised an error)" not in said, said
            return f"```repl\n{await anext(cells)}\n```"

        super().__init__(root)
        self._others = sub

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        if options["role"] == "root":
            return await super().complete(messages, **options)
        return await self._others.complete(messages, **options)


def settings_for(stub: Stub | None, **sub: Any) -> Settings:
    """Both models at the stub, and no limits that matter."""
    chosen: dict[str, Any] = {"limits.calls": 1_000_000, "limits.cell_timeout": 3600.0}
    for role in ("root", "sub"):
        chosen |= {f"{role}_llm.model": f"openai/{role}", f"{role}_llm.api_key": KEY}
        chosen |= {f"{role}_llm.api_base": stub.url} if stub is not None else {}
    return load_settings(None, chosen | {f"sub_llm.{name}": value for name, value in sub.items()})


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LitellmModels]:
    models = LitellmModels(settings)
    await models.warm_up()
    try:
        yield models
    finally:
        await models.aclose()


async def in_session(settings: Settings, cells: Cells, sub: Models) -> Any:
    """Run the cells, of which the last delivers, in a session with container and trace; what it delivered."""
    with tempfile.TemporaryDirectory(prefix="rlm-subcalls-") as folder:
        trace = Path(folder) / "t.ipynb"
        result = await ask(
            "How long does it take?", settings=settings, trace=trace, models=Played(cells, sub)
        )
    await cells.aclose()
    assert result.stop_reason == "answered", result
    return result.value


def resident(process: str = "self") -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Memory:
    """This process's resident memory, in MB, looked at all the while: an async context manager."""

    async def __aenter__(self) -> Memory:
        gc.collect()
        self.start = self.peak = self.end = resident()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        gc.collect()
        self.end = resident()

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, resident())
            await asyncio.sleep(0.02)


async def seconds_of(doing: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await doing
    return time.perf_counter() - began


async def at_once(ask_one: Callable[[str], Awaitable[Any]], count: int, most: int = CONCURRENCY) -> None:
    """Gather so many calls, with so many at one time."""
    slots = asyncio.Semaphore(most)

    async def one(prompt: str) -> None:
        async with slots:
            await ask_one(prompt)

    await asyncio.gather(*(one(f"item {number}") for number in range(count)))


# The parts


async def slow(count: int, times: int) -> dict[str, Any]:
    """A batch at a server of 1 s, against as many rounds as it takes; and what a bare HTTP client makes of it
    on this machine.
    """
    import aiohttp

    ideal = float(-(-count // CONCURRENCY))
    bare: list[float] = []

    async def cells() -> Cells:
        yield TIMED.format(count=1)
        for _ in range(times):
            bare.append(await seconds_of(at_once(post, count)))
            yield TIMED.format(count=count)
        yield "FINAL(took[1:])"

    with Stub(latency=1.0) as stub:
        settings = settings_for(stub, concurrency=CONCURRENCY)
        async with opened(settings) as models, aiohttp.ClientSession() as session:

            async def post(prompt: str) -> None:
                body = {"model": "sub", "messages": [{"role": "user", "content": prompt}]}
                async with session.post(f"{stub.url}/chat/completions", json=body) as reply:
                    await reply.read()

            took = await in_session(settings, cells(), models)
        assert stub.counts()["peak"] <= CONCURRENCY
    seconds = statistics.median(took)
    return {
        "calls": count,
        "ideal, seconds": ideal,
        "a batch in a session, seconds": seconds,
        "share of the ideal rate": ideal / seconds,
        "bare aiohttp's share of it": ideal / statistics.median(bare),
    }


async def instant(count: int, times: int) -> dict[str, Any]:
    """A batch at a server that answers at once, against bare litellm, and against our models without kernel,
    on both roads.
    """
    took: dict[str, list[float]] = {
        "bare litellm": [],
        "our models, direct road": [],
        "our models, litellm's road": [],
    }

    async def cells() -> Cells:
        yield TIMED.format(count=count // 10)
        for _ in range(times):
            for name, ask_one in roads.items():
                took[name].append(await seconds_of(at_once(ask_one, count)))
            yield TIMED.format(count=count)
        yield "FINAL(took[1:])"

    with Stub() as stub:
        settings = settings_for(stub, concurrency=CONCURRENCY)
        async with opened(settings) as models, opened(settings) as usual:
            usual._endpoints["sub"].direct = False
            litellm = models._litellm

            def messages(prompt: str) -> list[dict[str, str]]:
                return [{"role": "user", "content": prompt}]

            async def bare(prompt: str) -> None:
                await litellm.acompletion(
                    model="openai/sub", messages=messages(prompt), api_base=stub.url, api_key=KEY
                )

            roads = {
                "bare litellm": bare,
                "our models, direct road": lambda prompt: models.complete(messages(prompt), role="sub"),
                "our models, litellm's road": lambda prompt: usual.complete(messages(prompt), role="sub"),
            }
            for ask_one in roads.values():
                await at_once(ask_one, count // 10)
            took["a batch in a session"] = await in_session(settings, cells(), models)
    rates = {name: count / statistics.median(seconds) for name, seconds in took.items()}
    figures = {f"{name}, calls a second": rate for name, rate in rates.items()}
    ratios = [
        theirs / ours for theirs, ours in zip(took["bare litellm"], took["a batch in a session"], strict=True)
    ]
    return figures | {
        "session against bare litellm, times its rate": statistics.median(ratios),
        "least and most": [min(ratios), max(ratios)],
    }


async def many(count: int, times: int) -> dict[str, Any]:
    """Large batches one after the other: rate, and the memory of host and kernel before and after each."""
    host: list[dict[str, float]] = []

    async def cells() -> Cells:
        yield TIMED.format(count=1000) + "kernel = []"
        for _ in range(times):
            async with Memory() as memory:
                yield (
                    TIMED.format(count=count)
                    + 'kernel.append(int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6)'
                )
            host.append({"before": memory.start, "peak": memory.peak, "after": memory.end})
        yield "FINAL({'took': took[1:], 'kernel': kernel})"

    with Stub() as stub:
        settings = settings_for(stub, concurrency=CONCURRENCY)
        async with opened(settings) as models:
            found = await in_session(settings, cells(), models)
    return {
        "calls in each batch": count,
        "calls a second": count / statistics.median(found["took"]),
        "host's memory before, MB": [one["before"] for one in host],
        "host's memory at most, MB": [one["peak"] for one in host],
        "host's memory after, MB": [one["after"] for one in host],
        "kernel's memory after, MB": found["kernel"],
    }


async def alone(count: int, times: int) -> dict[str, Any]:
    """The round trip of one call, and the rate of a batch, with a model that answers at once in the
    process.
    """

    async def cells() -> Cells:
        yield "import time; llm_query('warm'); each = []"
        for _ in range(times):
            yield ONE_BY_ONE
            yield TIMED.format(count=count)
        yield "FINAL({'each': each, 'took': took})"

    sub = ScriptedModels([], lambda prompt: f"echo: {prompt}")
    found = await in_session(settings_for(None), cells(), sub)
    return {
        "one call, ms": statistics.median(found["each"]) * 1e3,
        "a batch, calls a second": count / statistics.median(found["took"]),
    }


async def interrupted(count: int, times: int) -> dict[str, Any]:
    """Cells that are stopped by their time-out while calls are in flight at a server of a minute, in a batch
    and gathered in turn.
    """
    timeout = 4.0
    took: list[float] = []
    requests: list[tuple[int, int]] = []

    async def cells() -> Cells:
        for batch in [
            f"llm_query_batched([f'item {{n}}' for n in range({count})])",
            GATHERED.format(count=count),
        ] * times:
            began = time.perf_counter()
            yield "kept = 1"
            took.append(-(time.perf_counter() - began))  # what a turn takes besides
            began = time.perf_counter()
            yield batch
            took[-1] += time.perf_counter() - began - timeout
            sent = stub.counts()["answered"]
            await asyncio.sleep(2)
            requests.append((sent, stub.counts()["answered"]))
        yield "print(kept)"
        yield "FINAL(kept)"

    with Stub(latency=60.0) as stub:
        settings = settings_for(stub, concurrency=count // 2)
        settings = settings.model_copy(
            update={"limits": settings.limits.model_copy(update={"cell_timeout": timeout})}
        )
        async with opened(settings) as models:
            assert await in_session(settings, cells(), models) == 1, "the variables are kept"
    return {
        "cells": len(took),
        "from the time-out to the next turn, seconds": statistics.median(took),
        "at most": max(took),
        "requests sent after it": sum(later - sent for sent, later in requests),
    }


PARTS = {
    "slow": (slow, 1000, 3),
    "instant": (instant, 1000, 5),
    "many": (many, 10_000, 3),
    "alone": (alone, 1000, 5),
    "interrupted": (interrupted, 1000, 3),
}
"""Each with its number of calls, and of repetitions."""


def shown(value: Any) -> str:
    if isinstance(value, list):
        return "  ".join(map(shown, value))
    return f"{value:,.3f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure")
    parser.add_argument("--calls", type=int, help="of each batch; the usual number if not given")
    parser.add_argument(
        "--times", type=int, help="of which the median is taken; the usual number if not given"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    for name in options.parts.split(","):
        measure, calls, times = PARTS[name]
        figures[name] = asyncio.run(measure(options.calls or calls, options.times or times))
        if not options.json:
            print(f"{name}: {(measure.__doc__ or '').splitlines()[0]}")
            for line, value in figures[name].items():
                print(f"  {line:46} {shown(value)}", flush=True)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
