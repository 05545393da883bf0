"""What starting costs: a command's process, from its start to the first request at the model's server and to
its end; of one checkout, or of two in turn.

    python benchmarks/start.py --against ../before

`--against` names a checkout of another commit with its own `.venv`. Each has a kept session of its own. The
commands run in turn, so that a machine whose speed drifts does so for both. "scripted" asks the same server
without the model layer, which shows what everything else costs. Prints a table: for each figure the median
and the best of this checkout and of the other, and the CPU time (user and system) of the process. Leaves
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1]
_SERVER = "BENCHMARK_SERVER"
_REPLY = "```repl\nFINAL(len(context))\n```"
_TEXT = "hello world\n" * 1000
COMMANDS: dict[str, tuple[str, ...]] = {
    "rlm --help": ("--help",),
    "rlm status": ("status",),
    "rlm status --json": ("status", "--json"),
    "rlm run": ("run", "How long?"),
    "rlm run, scripted": ("run", "How long?"),
    "rlm ask": ("ask", "How long?", "-f", "in.txt"),
    "rlm ask, scripted": ("ask", "How long?", "-f", "in.txt"),
}


@dataclass(frozen=True)
class Took:
    """Seconds of one process; `request`: until its first request came in, where it made one."""

    end: float
    request: float | None
    cpu: float


class Side:
    """One checkout, with a folder in which it has a session."""

    def __init__(self, checkout: Path, folder: Path, server: Any) -> None:
        self._bin = checkout / ".venv" / "bin"
        self._folder = folder
        self._server = server
        state = folder / "state"
        self._env = {
            name: value for name, value in os.environ.items() if not name.startswith(("RLM_", "PYTHON"))
        } | {
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "sk-benchmark",
            "RLM_ROOT_LLM__MODEL": "openai/root",
            "RLM_ROOT_LLM__INPUT_PRICE": "1",
            "RLM_ROOT_LLM__OUTPUT_PRICE": "1",
            "XDG_STATE_HOME": str(state),
            _SERVER: server.url,
        }
        (folder / "in.txt").write_text(_TEXT)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        self.run(("init", "in.txt"))
        try:
            yield
        finally:
            self.run(("stop",))

    def run(self, arguments: Sequence[str], *, scripted: bool = False) -> Took:
        python, asked = str(self._bin / "python"), len(self._server.requests)
        command = [python, __file__, "--scripted"] if scripted else [str(self._bin / "rlm")]
        began = time.monotonic()
        with (self._folder / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            _, status, used = os.wait4(process.pid, 0)
        end = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(arguments)}: {(self._folder / 'said.txt').read_text()}")
        requests = self._server.requests[asked:]
        return Took(end, requests[0].at - began if requests else None, used.ru_utime + used.ru_stime)


def scripted(arguments: Sequence[str]) -> None:
    """`rlm`, in this process, with a model that only sends its request to the server."""
    from rlm_kernel.models import factory

    @contextlib.asynccontextmanager
    async def open_models(*_: Any) -> AsyncIterator[Any]:
        from rlm_kernel.models.scripted import ScriptedModels

        yield ScriptedModels(_ask)

    factory.open_models = open_models  # type: ignore[assignment]
    from rlm_kernel.cli import main

    sys.argv = ["rlm", *arguments]
    main()


async def _ask(_messages: Any) -> str:
    import asyncio
    from urllib.parse import urlsplit

    address = urlsplit(os.environ[_SERVER])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = b'{"model": "root", "messages": []}'
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-benchmark\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await reader.readline()
    writer.close()
    return _REPLY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--only", help="commands whose names begin so, divided by commas")
    parser.add_argument("--times", type=int, default=10, help="runs of each command")
    options = parser.parse_args()
    sys.path.insert(0, str(_FOLDER))
    from tests.support.model_server import ModelServer

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ModelServer(root=lambda _messages: _REPLY))
        sides = []
        for checkout in filter(None, (_FOLDER, options.against)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlm-start-")))
            sides.append(Side(checkout.resolve(), folder, server))
            stack.enter_context(sides[-1].session())
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; seconds: median, best")
        print(
            f"{'':18} {'':15} {'here':>13}" + (f" {'there':>13} {'ratio':>6} {'best':>6}" * (len(sides) - 1))
        )
        for name, arguments in COMMANDS.items():
            if options.only and not name.startswith(tuple(options.only.split(","))):
                continue
            took: list[list[Took]] = [[] for _ in sides]
            for number in range(options.times + 1):
                for side, figures in zip(sides, took, strict=True):
                    one = side.run(arguments, scripted=name.endswith("scripted"))
                    if number:  # the first one fills the caches of files
                        figures.append(one)
            for what in ("request", "end", "cpu"):
                columns = [[getattr(one, what) for one in figures] for figures in took]
                if columns[0][0] is not None:
                    print(f"{name:18} {_LABELS[what]:15} {_row(columns)}", flush=True)
                    name = ""


_LABELS = {"request": "first request", "end": "end", "cpu": "CPU"}


def _row(columns: list[list[float]]) -> str:
    """The median and the best of each side, and the ratio of both."""
    medians, bests = [statistics.median(column) for column in columns], [min(column) for column in columns]
    shown = [f"{median:6.3f} {best:6.3f}" for median, best in zip(medians, bests, strict=True)]
    if len(columns) == 2:
        shown.append(f"{medians[0] / medians[1]:6.2f} {bests[0] / bests[1]:6.2f}")
    return " ".join(shown)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--scripted"]:
        scripted(sys.argv[2:])
    else:
        main()
