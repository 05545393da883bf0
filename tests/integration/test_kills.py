"""SIGKILL of the command at any moment: no container lives on, the trace is whole, and `rlm resume` reaches
the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.errors import TraceError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.session.ask import ask
from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.model_server import ModelServer, Request
from tests.support.tree import containers

pytestmark = pytest.mark.xdist_group("kills")
LEASE_SECONDS = 30.0
TURNS = (
    "notes = llm_query_batched([f'NAME note {n}' for n in range(8)])\nprint(len(notes), llm_query('NAME "
    "alone'))",
    "length = rlm_query('NAME LEVEL1 How long is it?', context[:300])\nprint(length)",
    "more = [llm_query(f'NAME more {n}') for n in range(3)]\nFINAL(f'{len(notes) + len(more)} notes, "
    "{length} of {len(context)}')",
)
CHILD = "print(llm_query('NAME child'))\nFINAL(len(context))"
ANSWER = "11 notes, 300 of 1200"
SUB_CALLS = 8 + 1 + 1 + 3
ROOT_CALLS = 3 + 1


def reply(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the root model says, by how far the conversation is; the child's too."""
    asked = next(str(message["content"]) for message in messages if message["role"] == "user")
    name = re.findall(r"RUN\d+", asked)[-1]
    turn = sum(message["role"] == "assistant" for message in messages)
    code = CHILD if "LEVEL1" in asked else TURNS[min(turn, len(TURNS) - 1)]
    return f"```repl\n{code.replace('NAME', name)}\n```"


@dataclass
class Command:
    """`rlm` with arguments, in a folder and a process of its own, which is forked with everything
    imported.
    """

    folder: Path
    runtime: str

    def start(self, *arguments: str) -> BaseProcess:
        context = get_context("forkserver")
        process = context.Process(
            target=run,
            args=(str(self.folder), dict(os.environ) | {"XDG_RUNTIME_DIR": self.runtime}, arguments),
        )
        process.start()
        return process

    def said(self) -> str:
        return (self.folder / "err").read_text()


def run(folder: str, environment: dict[str, str], arguments: Sequence[str]) -> None:
    """Be the command."""
    from rlm_kernel.cli import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
    sys.argv = ["rlm", *arguments]
    main()


@pytest.fixture
def place(
    kernel_image: Any, openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Where runs are; the models' words are computed."""
    openai_env.root, openai_env.delay = reply, 0.03
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    context = get_context("forkserver")
    ours = [
        "cli",
        "session.ask",
        "session.resume",
        "sandbox.kernel",
        "sandbox.docker_host",
        "sandbox.image",
        "trace.writer",
    ]
    context.set_forkserver_preload(
        [*(f"rlm_kernel.{name}" for name in ours), "litellm", "docker", "nbformat", "jsonschema"]
    )
    (tmp_path / "in.txt").write_text("hello world\n" * 100)
    return tmp_path


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where sessions' folders are; in the end what killed runs left is swept, with containers that were never
    started.
    """
    with TemporaryDirectory(
        prefix="k", ignore_cleanup_errors=True
    ) as folder:  # not below tmp_path: a socket's name must be short
        yield folder
        left = [path.name.removeprefix("rlm-") for path in Path(folder).iterdir()]
        for path in Path(folder).iterdir():
            os.utime(path / "lease", (0, 0))
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        asyncio.run(ask("Q", settings=load_settings(None, {}), models=ScriptedModels("FINAL(1)", "x")))
        assert list(Path(folder).iterdir()) == []
        assert not [session for session in left if sessions_containers(session)]


def sessions_containers(session: str) -> list[Any]:
    client = connect()
    try:
        return list(
            client.containers.list(
                ignore_removed=True, all=True, filters={"label": f"rlm-kernel.session={session}"}
            )
        )
    finally:
        client.close()


class Runs:
    """Runs that are killed, and then resumed."""

    def __init__(self, place: Path, runtime: str, server: ModelServer) -> None:
        self._place = place
        self._runtime = runtime
        self._server = server

    def begin(self, number: int) -> tuple[Command, BaseProcess]:
        folder = self._place / f"run-{number}"
        folder.mkdir()
        command = Command(folder, self._runtime)
        options = ("-m", "openai/root", "--sub-model", "openai/sub", "--trace", "t.ipynb", "--json")
        return command, command.start(
            "ask", f"RUN{number} How long is it?", "-f", str(self._place / "in.txt"), *options
        )

    def seconds(self) -> tuple[float, float]:
        """How long a run that nobody kills takes until it has a trace, and from then on, with others at its
        side.
        """

        def whole(number: int) -> tuple[float, float]:
            began = time.monotonic()
            command, process = self.begin(number)
            until_traced(command, process)
            traced = time.monotonic()
            process.join(120)
            assert process.exitcode == 0, command.said()
            assert json.loads((command.folder / "out").read_text())["answer"] == ANSWER
            assert self.asked(number) == (ROOT_CALLS, SUB_CALLS)
            return traced - began, time.monotonic() - traced

        whole(9000)  # the first one waits for all the imports
        with ThreadPoolExecutor(3) as pool:
            starts, runs = zip(*pool.map(whole, (9001, 9002, 9003)), strict=True)
        return max(starts), max(runs)

    def asked(self, number: int) -> tuple[int, int]:
        """Requests that the models had in a run."""
        mine = [request for request in list(self._server.requests) if _of(request, number)]
        return sum(request.model == "root" for request in mine), sum(
            request.model == "sub" for request in mine
        )

    def killed_and_resumed(self, number: int, moment: float, *, in_trace: bool = False) -> str:
        """What became of it: the stage at which it was killed, so many seconds after its start, or that of
        its trace.
        """
        command, process = self.begin(number)
        if in_trace:
            until_traced(command, process)
        process.join(moment)
        pid = process.pid
        assert pid is not None
        process.kill()
        process.join(60)
        died = time.monotonic()
        while containers(pid, status=["running", "paused", "restarting", "removing", "exited", "dead"]):
            assert time.monotonic() - died < LEASE_SECONDS, f"{number}: a container lives on"
            time.sleep(0.2)
        never_started = containers(pid)  # made, and never started: what comes later removes it
        if process.exitcode == 0:
            return "over"
        trace = command.folder / "t.ipynb"
        if not trace.exists():
            return "before the trace"
        before = read_trace(trace)
        for found in (before, *_children(before)):
            nbformat.validate(found.node)
        if before.meta.status == "finished":
            return "over"
        root, sub = self.asked(number)
        resumed = command.start("resume", "t.ipynb", "--json")
        resumed.join(120)
        assert resumed.exitcode == 0, f"{number} after {moment:.2f} s: {command.said()}"
        assert json.loads((command.folder / "out").read_text())["answer"] == ANSWER
        after = read_trace(trace)
        nbformat.validate(after.node)
        assert (after.meta.status, after.meta.stop_reason) == ("finished", "answered")
        # Asked again is what was on its way, or heard but not yet written: half a second's work. A child
        # begins anew.
        again = tuple(
            now - whole for now, whole in zip(self.asked(number), (ROOT_CALLS, SUB_CALLS), strict=True)
        )
        assert again <= (2, SUB_CALLS), (number, moment, root, sub, again)
        return "before the start" if never_started else before.cells[-1].id


def until_traced(command: Command, process: BaseProcess) -> None:
    while process.exitcode is None and not (command.folder / "t.ipynb").exists():
        process.join(0.01)


def _of(request: Request, number: int) -> bool:
    return re.search(rf"RUN{number}\b", json.dumps(request.body.get("messages", ""))) is not None


def _children(trace: TraceFile) -> Iterator[TraceFile]:
    for path in (trace.path.parent / f"{trace.path.stem}.children").glob("*.ipynb"):
        try:
            yield read_trace(path)
        except TraceError as error:
            raise AssertionError(f"{path}: {error}") from error


@pytest.mark.hostile
@pytest.mark.timeout(1200)
def test_sigkill_at_a_hundred_moments(place: Path, runtime: str, openai_env: ModelServer) -> None:
    runs = Runs(place, runtime, openai_env)
    start, rest = runs.seconds()
    chance = random.Random(6)

    def one(number: int) -> str:
        if number < 15:
            return runs.killed_and_resumed(number, start * (number + chance.random()) / 15)
        return runs.killed_and_resumed(number, rest * (number - 15 + chance.random()) / 85, in_trace=True)

    with ThreadPoolExecutor(3) as pool:
        ended = Counter(pool.map(one, range(100)))
    print(f"\nkilled within {start:.1f} + {rest:.1f} s at:", dict(ended))
    assert ended["over"] <= 30
    assert len(ended) >= 6, "spread over the run"
