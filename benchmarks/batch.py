"""What a question costs beside its model: a container and a kernel of its own, its trace, and their end.

    python benchmarks/batch.py                     # an Asker, so many at once; then questions on their own
    python benchmarks/batch.py --memory 2000       # whether the process grows over so many

The model is scripted and answers at once. Prints for each way the wall time and the CPU time of a question:
of this process, of all containers and engine together with it, and how much of this machine others used
meanwhile, which spoils the wall time. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.config import load_settings
from rlm_kernel.session.many import Asker

_REPLY = "```repl\nFINAL(str(len(context)))\n```"
_TEXT = "x" * 1000
_SETTINGS = {"sandbox.memory": "256m"}
Ask = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True)
class Took:
    """Seconds of one question. `own`: CPU of this process; `all`: CPU of the machine."""

    wall: float
    own: float
    all: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} {self.own:8.3f} {self.all:8.3f}"


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _all() -> float:
    """CPU seconds of all processes of this machine so far."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    return (sum(fields[:3]) + fields[5] + fields[6]) / os.sysconf("SC_CLK_TCK")


async def _timed(ask: Ask, folder: Path, many: int, at_once: int) -> Took:
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with gate:
            await ask(folder / f"{at_once}-{number}.ipynb")

    before = time.monotonic(), _own(), _all()
    await asyncio.gather(*(one(number) for number in range(many)))
    after = time.monotonic(), _own(), _all()
    return Took(*((end - begun) / many for begun, end in zip(before, after, strict=True)))


def _models(many: int) -> ScriptedModels:
    return ScriptedModels([_REPLY] * many, str.upper)


async def _costs(folder: Path, many: int, burst: int) -> None:
    print(f"{'':28}{'wall':>8} {'own CPU':>8} {'all CPU':>8}  seconds a question")
    models = _models(8 * many + burst + 2)
    async with Asker(load_settings(None, _SETTINGS), models=models) as asker:

        async def ask(trace: Path) -> None:
            result = await asker.ask("How long?", _TEXT, trace=trace)
            assert result.answer == str(len(_TEXT)), result

        await ask(folder / "warm.ipynb")
        for at_once in (1, 2, 4, 8):
            took = await _timed(ask, folder / "asker", many, at_once)
            print(f"{f'Asker, {at_once} at once':28}{took}", flush=True)
    rlm = RLM(models=models, options=_SETTINGS)

    async def alone(trace: Path) -> None:
        result = await rlm.aask("How long?", _TEXT, trace=trace)
        assert result.answer == str(len(_TEXT)), result

    for at_once in (1, 4):
        took = await _timed(alone, folder / "alone", many, at_once)
        print(f"{f'RLM.aask, {at_once} at once':28}{took}", flush=True)
    if burst:
        peak = asyncio.create_task(_peak())
        took = await _timed(alone, folder / "burst", burst, burst)
        peak.cancel()
        print(f"{f'RLM.aask, {burst} at once':28}{took}")


async def _peak() -> None:
    """Print what the process has at most, when it is cancelled."""
    most: dict[str, int] = {}
    try:
        while True:
            most = {name: max(value, most.get(name, 0)) for name, value in _has().items()}
            await asyncio.sleep(0.1)
    finally:
        print("at most:", most)


def _has() -> dict[str, int]:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {
        "MB": pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }


async def _grows(folder: Path, many: int, at_once: int, *, traced: bool) -> None:
    models = _models(many)
    async with Asker(load_settings(None, _SETTINGS), models=models) as asker:

        async def ask(trace: Path) -> None:
            await asker.ask("How long?", _TEXT, trace=trace)
            for path in (trace, *trace.parent.glob(f"{trace.stem}.*")):
                path.unlink(missing_ok=True)

        step = max(1, many // 10)
        first: tracemalloc.Snapshot | None = None
        for done in range(0, many, step):
            await _timed(ask, folder, step, at_once)
            gc.collect()
            print(done + step, _has(), flush=True)
            if traced and done == step:
                tracemalloc.start()
                first = tracemalloc.take_snapshot()
        if first is not None:
            for grown in tracemalloc.take_snapshot().compare_to(first, "lineno")[:10]:
                print(grown)


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--many", type=int, default=40, help="questions for each figure")
    parser.add_argument("--burst", type=int, default=100, help="questions at once on their own; 0 for none")
    parser.add_argument("--memory", type=int, default=0, help="instead: look at this process over so many")
    parser.add_argument(
        "--traced", action="store_true", help="with --memory: what it grew by, which grows it"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.memory:
            asyncio.run(_grows(Path(folder), chosen.memory, 4, traced=chosen.traced))
        else:
            asyncio.run(_costs(Path(folder), chosen.many, chosen.burst))


if __name__ == "__main__":
    main()
