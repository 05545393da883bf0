"""What becomes of a process that asks thousands of questions, with real containers and an instant model.

    python benchmarks/many.py 2000              # `RLM.map` with a file of results, traces and their index
    python benchmarks/many.py 300 --jobs 300    # more at once than there is room for: they wait
    python benchmarks/many.py 300 --alone       # `RLM.aask` for each, all at once

Prints now and then what this process has: memory, descriptors, threads, tasks. At the end it counts answers,
right ones, ids with more than one, and containers that are left, and exits with 1 where a count is wrong.
Ctrl-C ends it early, and it counts what was done so far. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.engine.protocols import Message
from rlm_kernel.errors import RLMError

_SETTINGS = {"sandbox.memory": "256m"}
_LOOKS = 0.5


def _reply(_messages: Sequence[Message]) -> str:
    return "```repl\nFINAL(context['number'] * 7)\n```"


def _questions(many: int) -> Iterator[dict[str, Any]]:
    for number in range(many):
        yield {"id": f"q{number}", "question": "Seven times the number?", "context": {"number": number}}


def _has() -> dict[str, float]:
    """What this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {
        "MB": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }


async def _most(most: dict[str, float]) -> None:
    """Keep the most that there was of each, until it is cancelled."""
    while True:
        for name, value in _has().items():
            most[name] = max(value, most.get(name, 0))
        await asyncio.sleep(_LOOKS)


def _left() -> int:
    """Containers of this process."""
    import docker

    client = docker.from_env()
    try:
        label = f"rlm-kernel.owner={os.getpid()}"
        return len(client.api.containers(all=True, filters={"label": label}))
    finally:
        client.close()


async def _mapped(rlm: RLM, many: int, folder: Path, jobs: int | None) -> Counter[str]:
    """The answers of a batch, by whether they are right."""
    counts: Counter[str] = Counter()
    out, began, step = folder / "results.jsonl", time.monotonic(), max(1, many // 20)
    most: dict[str, float] = {}
    looking = asyncio.create_task(_most(most))
    try:
        async for done in rlm.map(_questions(many), out=out, jobs=jobs):
            number = done.item.context["number"]
            value = done.result.value if done.result else None
            counts["right" if value == number * 7 else "wrong"] += 1
            if counts.total() % step == 0:
                gc.collect()
                print(f"{counts.total():6} {time.monotonic() - began:7.1f} s {_has()}", flush=True)
    finally:
        looking.cancel()
        print("at most:", most)
        _look_at(out, counts)
    return counts


def _look_at(out: Path, counts: Counter[str]) -> None:
    """Count the ids of the file of results, and the traces in the index."""
    ids = Counter(json.loads(line)["id"] for line in out.read_text("utf-8").splitlines())
    counts["lines"], counts["twice"] = ids.total(), sum(number > 1 for number in ids.values())
    index = out.with_name("results.traces") / "index.jsonl"
    counts["traces"] = len(index.read_text("utf-8").splitlines())
    counts["traces not there"] = sum(
        not (index.parent / json.loads(line)["trace"]).is_file()
        for line in index.read_text("utf-8").splitlines()
    )


async def _alone(rlm: RLM, many: int, folder: Path) -> Counter[str]:
    """Each question on its own, all at once."""
    counts: Counter[str] = Counter()
    most: dict[str, float] = {}
    looking = asyncio.create_task(_most(most))

    async def one(asked: dict[str, Any]) -> None:
        try:
            result = await rlm.aask(
                asked["question"], asked["context"], trace=folder / f"{asked['id']}.ipynb"
            )
        except RLMError as error:
            counts["failed: " + re.sub(r"\d+", "N", error.message)[:120]] += 1
        else:
            counts["right" if result.value == asked["context"]["number"] * 7 else "wrong"] += 1

    await asyncio.gather(*(one(asked) for asked in _questions(many)))
    looking.cancel()
    print("at most:", most)
    return counts


async def _run(options: argparse.Namespace, folder: Path) -> Counter[str]:
    rlm = RLM(models=ScriptedModels(_reply, str.upper), options=_SETTINGS)
    if options.alone:
        return await _alone(rlm, options.many, folder)
    return await _mapped(rlm, options.many, folder, options.jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("many", type=int, help="questions")
    parser.add_argument("--jobs", type=int, help="at one time; by default as many as there is room for")
    parser.add_argument("--alone", action="store_true", help="RLM.aask for each, without a batch")
    options = parser.parse_args()
    began = time.monotonic()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        counts = asyncio.run(_run(options, Path(folder)))
    print(f"{time.monotonic() - began:.1f} s:", dict(counts), "containers left:", left := _left())
    if left or counts["right"] != options.many or counts["twice"] or counts["traces not there"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
