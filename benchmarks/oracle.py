"""Models that know the answers, on the long-context tasks: what is not exact is the machinery's fault.

    python benchmarks/oracle.py --trec FILE

A scripted root model solves each task by code in a real container; its sub-calls go over real HTTP to a
server that has the gold labels. By the strategies `bare` and, where the input fits easily, `auto` it sees the
whole input, and knows the labels itself. Prints the score by suite and length (it must be 100 %), seconds,
calls a second, and memory of host and kernel; `--json FILE` writes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rlm_kernel.bench import suites
from rlm_kernel.bench.report import length_worded
from rlm_kernel.bench.runner import Results, Row, run
from rlm_kernel.bench.strategies import Bench
from rlm_kernel.bench.trec import read_pool
from rlm_kernel.config import load_settings
from rlm_kernel.models.factory import open_models
from rlm_kernel.session.batch.local import LocalEngine
from rlm_kernel.session.many import Asker
from tests.support import oracle
from tests.support.model_server import ModelServer

COUNTS = {"oolong": 15, "pairs": 20, "niah": 4, "copy": 4}
"""Every form of question."""


def serve(trec: Path, wire: Connection) -> None:
    pool = read_pool(trec)
    with ModelServer(root=oracle.root(pool), sub=oracle.sub(pool)) as server:
        wire.send(server.url)
        wire.recv()


def kernel_peak(trace: Path) -> float | None:
    """MB, as the program in the kernel printed it."""
    found = re.search(r"peak (\d+) MB", trace.read_text("utf-8"))
    return float(found[1]) if found else None


def host_peak() -> float:
    """MB of this process at its most since `reset`."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def group(rows: list[Row], folder: Path) -> dict[str, Any]:
    seconds = sum(row["seconds"] for row in rows)
    traces = [folder / row["trace"] for row in rows if row["trace"]]
    peaks = [peak for trace in traces if (peak := kernel_peak(trace)) is not None]
    return {
        "suite": rows[0]["suite"],
        "strategy": rows[0]["strategy"],
        "length": rows[0]["length"],
        "tasks": len(rows),
        "refused": sum(row["note"].startswith("refused") for row in rows),
        "exact": sum(row["score"] == 1 for row in rows),
        "score": fmean(row["score"] for row in rows),
        "seconds a task": round(fmean(row["seconds"] for row in rows), 2),
        "turns a task": fmean(row["turns"] for row in rows),
        "calls a task": fmean(row["calls"] for row in rows),
        "calls a second": round(sum(row["calls"] for row in rows) / seconds, 1) if seconds else 0.0,
        "kernel MB": max(peaks, default=None),
        "host MB": round(host_peak()),
    }


async def measure(args: argparse.Namespace, url: str, folder: Path) -> list[dict[str, Any]]:
    os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-none"}
    models_are = {"root_llm.model": "openai/root", "sub_llm.model": "openai/sub"}
    settings = load_settings(None, models_are | {"root_llm.window": args.window})
    found = []
    async with (
        open_models(settings, print) as models,
        LocalEngine(Asker(settings, models=models), args.jobs) as engine,
    ):
        for length in args.lengths:
            for name in args.suites:
                Path("/proc/self/clear_refs").write_text("5")  # noqa: ASYNC240 -- the peak counts from here
                tasks = suites.tasks(
                    [name], [length], suites.Choice(length, COUNTS[name], args.seed, args.trec)
                )
                rows = await run(
                    Bench(settings, models, engine, folder),
                    tasks,
                    args.strategies,
                    Results.open(folder),
                    {"root": "oracle"},
                    jobs=args.jobs,
                )
                for strategy in args.strategies:
                    found.append(group([row for row in rows if row["strategy"] == strategy], folder))
                    print(
                        f"{name:8}{length_worded(length):>6}  {strategy:6}"
                        + "  ".join(f"{what} {value}" for what, value in list(found[-1].items())[3:]),
                        flush=True,
                    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trec", type=Path, required=True, help="TREC questions with labels")
    parser.add_argument(
        "--lengths", type=lambda text: [int(part) for part in text.split(",")], default=[131_072, 1_000_000]
    )
    parser.add_argument("--suites", type=lambda text: text.split(","), default=list(COUNTS))
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=["rlm"])
    parser.add_argument("--window", type=int, default=200_000, help="tokens that the root model reads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(args.trec, theirs))
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure(args, ours.recv(), Path(folder)))
    finally:
        ours.send(None)
        server.join()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(any(group["exact"] + group["refused"] < group["tasks"] for group in found))


if __name__ == "__main__":
    main()
