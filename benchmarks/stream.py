"""What the way to a kernel costs: cells, calls, batches, output and starts, and memory under floods; of one
checkout, or of two in turn.

    python benchmarks/stream.py --against ../before

`--against` names a checkout of another commit with its own `.venv`. Each is a process of its own with a
session (its model is in that process) and a bare kernel beside it; they are measured in turn, piece by piece,
so that a machine whose speed drifts does so for both. Prints a table: for each figure the median of this
checkout and of the other, the ratio (and that of the bests), and the CPU time of the host's process; of
floods the most memory that it had, in MB. Leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1]
PICTURES = (
    "from IPython.display import display\nfor _ in range(9): display({'image/png': 'A' * 2_000_000}, "
    "raw=True)"
)
ASKED = """
import json, time
took = []
for _ in range({times}):
    began = time.perf_counter()
    {work}
    took.append(time.perf_counter() - began)
llm_query("took " + json.dumps(took))
"""
ONE = "llm_query('one')"
BATCH = "assert len(llm_query_batched([f'item {{n}}' for n in range({count})])) == {count}"
MEGABYTE = "assert len(llm_query('m' * 1_000_000)) > 1_000_000"
IN_SESSION = {
    "one call": (ONE, 200),
    "batch of 100": (BATCH.format(count=100), 10),
    "batch of 1,000": (BATCH.format(count=1000), 2),
}
BARE = {
    "broker alone: one call": (ONE, 200),
    "broker alone: batch of 100": (BATCH.format(count=100), 10),
    "broker alone: batch of 1,000": (BATCH.format(count=1000), 2),
    "broker alone: 1 MB each way": (MEGABYTE, 3),
}
ENDLESS = "while True: print('x' * 10_000)"
ENDLESS_SECONDS = 3.0
_IOPUB = "iopub = get_ipython().kernel.iopub_thread\n"
FLOODS = {
    "100 MB of output": "for _ in range(1000): print('x' * 100_000)",
    "endless output": ENDLESS,
    "54 pictures of 2 MB": PICTURES.replace("9", "54"),
    "5,000 calls of 20 KB at once": "import asyncio\n_ = await asyncio.gather(*(allm_query('slow' + 'x' * "
    "20_000) for _ in range(5000)))",
    "64 threads with calls of 1 MB": "from concurrent.futures import ThreadPoolExecutor as Pool\n"
    "with Pool(64) as pool: _ = [len(reply) for reply in pool.map(llm_query, ['slow' + 'm' * 1_000_000] * "
    "192)]",
    "300 MB of no messages on iopub": f"{_IOPUB}for _ in range(100): iopub.send_multipart([b'x' * "
    "1_000_000] * 3)",
    "messages of 200,000 frames": f"{_IOPUB}for _ in range(20): iopub.send_multipart([b'x'] * 200_000)",
}
"""Code in the kernel that would fill the memory of a host which keeps what it is sent."""
ROUNDS = {"start to the first cell": 5, "trivial cell": 5, "108 MB of pictures": 4}
ROUNDS |= dict.fromkeys((*IN_SESSION, *BARE), 5) | dict.fromkeys(FLOODS, 2)


class Measured:
    """One checkout, in this process."""

    def __init__(self) -> None:
        self._cells: asyncio.Queue[str] = asyncio.Queue()
        self._took: asyncio.Queue[list[float]] = asyncio.Queue()

    async def serve(self) -> None:
        from rlm_kernel.sandbox.docker_host import connect
        from rlm_kernel.sandbox.image import ensure_image
        from tests.support.sandbox import Sandbox

        self._image = ensure_image(connect(), progress=lambda _said: None)
        self._bare = Sandbox(self._image, llm=self._answer)
        self._bare.prompts = deque(maxlen=1)  # type: ignore[assignment]
        await self._bare.start()
        session = asyncio.create_task(self._session())
        try:
            await self._asked("", 1)  # the session has started
            print("ready", flush=True)
            while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
                cpu = time.process_time()
                _peak_from_now()
                seconds = await self._measure(line)
                print(
                    json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "peak": _peak()}),
                    flush=True,
                )
            self._cells.put_nowait("FINAL('done')")
            await session
        finally:
            await self._bare.stop()

    async def _answer(self, prompt: str) -> str:
        if prompt.startswith("took "):
            self._took.put_nowait(json.loads(prompt[5:]))
        if prompt.startswith("slow"):
            await asyncio.sleep(0.2)
        return f"echo: {prompt}"

    async def _session(self) -> None:
        import tempfile

        from rlm_kernel.config import load_settings
        from rlm_kernel.models.scripted import ScriptedModels
        from rlm_kernel.session.ask import ask

        async def root(_messages: Any) -> str:
            return f"```repl\n{await self._cells.get()}\n```"

        settings = load_settings(
            None, {"limits.calls": 10_000_000, "limits.cell_timeout": 3600.0, "limits.turns": 100_000}
        )
        with tempfile.TemporaryDirectory(prefix="rlm-stream-") as folder:
            await ask(
                "How long does it take?",
                settings=settings,
                trace=Path(folder) / "t.ipynb",
                models=ScriptedModels(root, self._answer),
            )

    async def _asked(self, work: str, times: int) -> float:
        self._cells.put_nowait(ASKED.format(work=work or "pass", times=times))
        return statistics.median(await self._took.get())

    async def _measure(self, name: str) -> float:
        if name in IN_SESSION:
            return await self._asked(*IN_SESSION[name])
        if name in BARE:
            work, times = BARE[name]
            assert (result := await self._bare.run(ASKED.format(work=work, times=times))).status == "ok", (
                result
            )
            return statistics.median(await self._took.get())
        if name == "trivial cell":
            return statistics.median(
                [await self._seconds(lambda: self._bare.run("x = 1")) for _ in range(50)]
            )
        if name == "108 MB of pictures":
            return sum([await self._seconds(lambda: self._bare.run(PICTURES)) for _ in range(6)])
        if name in FLOODS:
            return await self._flood(FLOODS[name])
        return await self._start()

    async def _flood(self, code: str) -> float:
        began = time.perf_counter()
        running = asyncio.create_task(self._bare.run(code))
        if code == ENDLESS:
            await asyncio.sleep(ENDLESS_SECONDS)
            await self._bare.kernel.interrupt()
        await running
        return time.perf_counter() - began

    async def _start(self) -> float:
        from tests.support.sandbox import Sandbox

        sandbox = Sandbox(self._image)

        async def first_cell() -> None:
            await sandbox.start()
            await sandbox.run("x = 1")

        try:
            return await self._seconds(first_cell)
        finally:
            await sandbox.stop()

    async def _seconds(self, work: Callable[[], Awaitable[Any]]) -> float:
        began = time.perf_counter()
        result = await work()
        assert getattr(result, "status", "ok") == "ok", result
        return time.perf_counter() - began


def _peak_from_now() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The most bytes that this process has had."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024.0


@contextlib.contextmanager
def measured(checkout: Path) -> Any:
    """A checkout in a process of its own: a function that measures something there."""
    python = str(checkout / ".venv" / "bin" / "python")
    with subprocess.Popen(
        [python, __file__, "--measured"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    ) as process:
        to, said = process.stdin, process.stdout
        assert to is not None
        assert said is not None
        assert said.readline() == "ready\n", "it does not start"

        def ask(name: str) -> dict[str, float]:
            print(name, file=to, flush=True)
            found: dict[str, float] = json.loads(said.readline())
            return found

        try:
            yield ask
        finally:
            to.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--only", help="figures whose names begin so, divided by commas")
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of rounds")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measured:
        asyncio.run(Measured().serve())
        return
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(measured(checkout.resolve()))
            for checkout in (_FOLDER, options.against)
            if checkout is not None
        ]
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(
            f"{'milliseconds':30} {'here':>9} {'there':>9} {'ratio':>6} {'best':>6}   {'CPU here':>9} "
            f"{'there':>9} {'ratio':>6} {'best':>6}"
        )
        for name, rounds in ROUNDS.items():
            if options.only and not name.startswith(tuple(options.only.split(","))):
                continue
            found: list[list[dict[str, float]]] = [[] for _ in sides]
            for _ in range(max(1, round(rounds * options.rounds))):
                for side, figures in zip(sides, found, strict=True):
                    figures.append(side(name))
            if name in FLOODS:
                columns = f"{_row(found, 'peak', 1e-6)}   MB of memory at most"
            else:
                columns = (
                    f"{_row(found, 'seconds', 1e3)}   {_row(found, 'cpu', 1e3)}   load "
                    f"{os.getloadavg()[0]:.1f}"
                )
            print(f"{name:30} {columns}", flush=True)


def _row(found: list[list[dict[str, float]]], figure: str, unit: float) -> str:
    """The medians of both sides, and of the ratios in turn."""
    columns = [[one[figure] for one in side] for side in found]
    shown = [f"{statistics.median(column) * unit:9.3f}" for column in columns]
    if len(columns) == 2:
        shown.append(f"{statistics.median(here / there for here, there in zip(*columns, strict=True)):6.2f}")
        shown.append(f"{min(columns[0]) / min(columns[1]):6.2f}")
    return " ".join(shown)


if __name__ == "__main__":
    main()
