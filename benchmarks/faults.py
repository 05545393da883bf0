"""10,000 sub-calls in one batch at a server that fails some: whether each comes back right or as a typed
failure, and what it takes.

    python benchmarks/faults.py --share 0.05 --retries 0,1,4

A real session with container and trace, and real HTTP to a server in a process of its own (benchmarks/stub.py
says which faults). A row for each number of retries. Prints a table, and JSON with --json. Ends with 1 if any
item was wrong. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.stub import Stub
from benchmarks.subcalls import CONCURRENCY, Cells, Memory, in_session, opened, settings_for, shown

BATCH = """
import re, time
from collections import Counter
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before = resident()
began = time.perf_counter()
answers = llm_query_batched([f"item {{n}}" for n in range({count})])
seconds = time.perf_counter() - began
failed = [answer for answer in answers if isinstance(answer, CallFailed)]
right = sum(answer == f"echo: item {{n}}" for n, answer in enumerate(answers))
kinds = Counter(f"{{type(one.error).__name__}}: " + re.split(r" \\(\\d+ attempts\\)|:|\\n", str(one.error))[0] for one in failed)
FINAL({{"seconds": seconds, "right": right, "failed": kinds, "wrong": len(answers) - right - len(failed) + sum(map(bool, failed)),
       "kernel": [before, resident()]}})
"""  # noqa: E501


async def measure(count: int, share: float, retries: int, seed: int) -> dict[str, Any]:
    with Stub(faults=share, seed=seed) as stub:
        settings = settings_for(stub, concurrency=CONCURRENCY, retries=retries)
        memory = Memory()
        async with opened(settings) as models:

            async def cells() -> Cells:
                yield "print('the container is up')"
                async with memory:
                    yield BATCH.format(count=count)

            found = await in_session(settings, cells(), models)
        counts = stub.counts()
    assert counts.pop("peak") <= CONCURRENCY
    attempts, answered = sum(counts.values()), counts.pop("answered")
    assert answered == found["right"], "an answer was lost, or made up"
    return {
        "calls": count,
        "retries": retries,
        "right": found["right"],
        "failed": sum(found["failed"].values()),
        **{f"  {kind}": number for kind, number in sorted(found["failed"].items())},
        "wrong": found["wrong"],
        "attempts": attempts,
        **{f"  met {kind}": number for kind, number in sorted(counts.items())},
        "seconds": found["seconds"],
        "host's memory, MB: before, most, after": [memory.start, memory.peak, memory.end],
        "kernel's memory, MB: before, after": found["kernel"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000, help="in the batch")
    parser.add_argument("--share", type=float, default=0.05, help="of the requests that fail")
    parser.add_argument(
        "--retries", default="0,4", help="of each call; several are measured one after the other"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for retries in map(int, options.retries.split(",")):
        rows.append(asyncio.run(measure(options.calls, options.share, retries, options.seed)))
        if not options.json:
            print("\n".join(f"{name:80} {shown(value)}" for name, value in rows[-1].items()), flush=True)
            print()
    if options.json:
        print(json.dumps(rows))
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
