"""A tree of child RLMs: how long it takes, what it costs under a limit, what is left of it when it is killed,
and how long it is from an rlm_query's arrival to the child's first cell, with a cold and a warm kernel.

    python benchmarks/tree.py --children 4,3,2 --at-once 12

Scripted models, so that all that takes time is ours. `--children`: how many each RLM of a level has; 4,3,2
are 40 in three levels. Prints a table, and JSON with --json. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlm_kernel.config import load_settings
from rlm_kernel.engine.events import CallStarted, CellStarted, Event, RunFinished, RunOpened
from rlm_kernel.session.ask import ask
from tests.support.tree import SMALL, Levels, Watch, containers, family, tree

TEXT = "hello world\n" * 4000
PAUSE = 3.0
"""Seconds in which the next kernel is up."""


@dataclass(frozen=True)
class TreeFigures:
    """What a tree took; `seconds` without the root's own start."""

    trace: Path
    models: Levels
    children: int
    seconds: float
    most: int
    cost: float | None
    reason: str

    @property
    def rate(self) -> float:
        return self.children / self.seconds


async def run_tree(
    widths: Sequence[int], *, at_once: int, folder: Path, limit: float | None = None
) -> TreeFigures:
    """Have a tree answer how long a text is, with the traces in a folder. `limit` in US dollars."""
    text = folder / "in.txt"
    text.write_text(TEXT)
    began: list[float] = []
    at_work = most = 0

    def heard(event: Event, level: int) -> None:
        nonlocal at_work, most
        if isinstance(event, RunOpened) and level:
            at_work += 1
            most = max(most, at_work)
        elif isinstance(event, RunFinished) and level:
            at_work -= 1
        elif isinstance(event, CellStarted) and not level:
            began.append(time.monotonic())

    models = tree(*widths)
    chosen = load_settings(
        None, SMALL | {"limits.depth": len(widths), "sandbox.children": at_once, "limits.cost": limit}
    )
    trace = folder / ("tree.ipynb" if limit is None else "limited.ipynb")
    result = await ask(
        "How long is it?", text, settings=chosen, trace=trace, models=models, view=Watch(heard)
    )
    seconds = time.monotonic() - began[-1]
    assert limit is not None or result.value == len(TEXT), result
    return TreeFigures(
        result.trace, models, result.totals.children, seconds, most, result.cost, result.stop_reason
    )


def in_process(widths: Sequence[int], at_once: int, folder: Path) -> None:
    asyncio.run(run_tree(widths, at_once=at_once, folder=folder))


def killed(widths: Sequence[int], at_once: int, folder: Path) -> tuple[int, float]:
    """SIGKILL to a run with half of its children at work: how many containers it had, and seconds until all
    are gone.
    """
    process = multiprocessing.get_context("spawn").Process(target=in_process, args=(widths, at_once, folder))
    process.start()
    assert process.pid is not None
    while len(found := containers(process.pid, ["running"])) <= at_once // 2:
        time.sleep(0.05)
    process.kill()
    began = time.monotonic()
    process.join()
    while containers(process.pid):
        time.sleep(0.05)
    return len(found), time.monotonic() - began


async def first_cells(times: int, *, cold: bool, folder: Path) -> list[float]:
    """Seconds from an rlm_query to its child's first cell.

    `cold`: it is handed a whole file, which is mounted, so no kernel is ready.
    """
    text = folder / "in.txt"
    text.write_text(TEXT)
    asked: list[float] = []
    found: list[float] = []

    def heard(event: Event, level: int) -> None:
        if isinstance(event, CallStarted) and not level and event.kind == "rlm_query":
            asked.append(time.monotonic())
        elif isinstance(event, CellStarted) and level and len(found) < len(asked):
            found.append(time.monotonic() - asked[-1])

    handed = "context" if cold else "context[:100]"
    cell = (
        f"import time\nfor n in range({times + 1}):\n    rlm_query(f'LEVEL1 {{n}}', {handed})\n    "
        f"time.sleep({PAUSE})\nFINAL(1)"
    )
    chosen = load_settings(None, SMALL | {"limits.depth": 1})
    trace = folder / f"{'cold' if cold else 'warm'}.ipynb"
    await ask(
        "Q",
        text,
        settings=chosen,
        trace=trace,
        models=Levels([cell], ["FINAL(len(context))"]),
        view=Watch(heard),
    )
    return found[1:]


async def measure(widths: Sequence[int], at_once: int, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rlm-tree-") as name:
        folder = Path(name)
        made = await run_tree(widths, at_once=at_once, folder=folder)
        traces = family(made.trace)
        assert len(traces) == made.children + 1
        figures: dict[str, Any] = {
            "children": made.children,
            "levels": len(widths),
            "seconds": round(made.seconds, 2),
            "children a second": round(made.rate, 2),
            "at work at once, at most": made.most,
            "cost": traces[0].spent().cost,
            "calls of models": made.models.calls,
        }
        limit = round((made.cost or 0) / 2, 2)
        limited = await run_tree(widths, at_once=at_once, folder=folder, limit=limit)
        figures[f"cost with a limit of {limit}"] = (
            f"{limited.cost:g} ({limited.children} children, ended by {limited.reason})"
        )
        figures["containers left by both"] = len(containers(os.getpid()))
        had, seconds = await asyncio.to_thread(killed, widths, at_once, folder)
        figures["killed: containers, seconds until gone"] = f"{had}, {seconds:.1f}"
        for kind in ("cold", "warm"):
            waited = await first_cells(times, cold=kind == "cold", folder=folder)
            figures[f"rlm_query to first cell, {kind}"] = round(statistics.median(waited), 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", default="4,3,2", help="of each RLM, by level")
    parser.add_argument("--at-once", type=int, default=12, help="containers at one time")
    parser.add_argument("--times", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    widths = [int(width) for width in options.children.split(",")]
    figures = asyncio.run(measure(widths, options.at_once, options.times))
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
