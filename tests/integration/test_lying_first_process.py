"""A container whose first process lies: the host's memory stays bounded, its loop goes on, and who waits is
told in plain words.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox import provisioner
from tests.integration.conftest import Rlm
from tests.support.faults import sound
from tests.support.model_server import ModelServer
from tests.support.output_attacks import HostMemory
from tests.support.tree import containers

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(240)]
MOST = 200_000_000
_TOOLS = """
import json, os, random, time
from rlm_contract.frames import *
def say(data, where=1):
    data = memoryview(data)
    while data:
        data = data[os.write(where, data):]
def greeted():
    reader = Reader()
    while True:
        for kind, _, payload in reader.feed(os.read(0, 65536)):
            if kind == HELLO:
                say(b"noise" + bytes.fromhex(json.loads(payload)["nonce"]) + pack(WELCOME, 0, json.dumps({"version": VERSION}).encode()))
                return
"""
LIARS = {
    "stderr without end": "while True: say(b'x' * 65536, 2)",
    "noise without end": "while True: say(os.urandom(65536))",
    "idle bytes without end": "greeted()\nwhile True: say(bytes(65536))",
    "single bytes without end": "greeted()\nwhile True: say(pack(LIFE)[:1] + pack(LIFE)[1:])",
    "one byte a second": "greeted()\nwhile True:\n    for byte in pack(DATA, 7, b'x'): say(bytes([byte])); "
    "time.sleep(1)",
    "a reader of one byte a second": "while True: os.read(0, 1); time.sleep(1)",
    "a welcome, and no kernel": "greeted()\ntime.sleep(1000)",
    "welcomes without end": "greeted()\nwhile True: say(pack(WELCOME, 0, b'[' * MOST))",
    "channels opened and closed without end": "greeted()\nwhile True: say((pack(OPEN, THEIRS) + pack(CLOSE, "
    "THEIRS)) * 4000)",
    "65,536 channels": "greeted()\nsay(b''.join(pack(OPEN, number) for number in range(65536)))\n"
    "time.sleep(1000)",
    "500 channels full of the smallest pieces": (
        "greeted()\nnumbers = range(THEIRS, THEIRS + 500)\nfor number in numbers: say(pack(OPEN, number))\n"
        "for _ in range(200):\n    for number in numbers: say(pack(DATA, number, b'ab') * 100)\n"
        "time.sleep(1000)"
    ),
    "credit without end": "greeted()\nsay(pack(OPEN, THEIRS))\nwhile True: say(pack(CREDIT, THEIRS, "
    "b'\\xff' * 4) * 5000)",
    "an end, and goes on": "greeted()\nsay(pack(END, 0, b'[' * MOST))\nwhile True: say(pack(OPEN, THEIRS) + "
    "pack(END))",
    "an end with everything in it": """greeted()\nsay(pack(END, 0, b'{"status": -1e999, "words": "%s"}' % (b'\\\\ud800' * 9000)))""",
    "frames of any kind": (
        "greeted()\nwhile True: say(pack(random.randrange(1, 10), random.choice([0, 1, 2, THEIRS]), "
        "os.urandom(random.randrange(200))))"
    ),
}


@pytest.fixture
def first_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the Python code of containers' first process."""

    def put(code: str) -> None:
        usual = provisioner.container_options
        instead = {"command": ["/opt/rlm/bin/python", "-c", code]}
        monkeypatch.setattr(
            provisioner, "container_options", lambda *given, **named: usual(*given, **named) | instead
        )

    return put


class Loop:
    """How long the event loop did nothing else, at most: `stuck`, in seconds."""

    async def __aenter__(self) -> Loop:
        self.stuck = 0.0
        self._task = asyncio.create_task(self._look())
        return self

    async def _look(self) -> None:
        while True:
            begun = time.process_time()
            await asyncio.sleep(0)
            self.stuck = max(self.stuck, time.process_time() - begun)
            await asyncio.sleep(0.01)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


@pytest.mark.parametrize("liar", LIARS)
async def test_a_first_process_that_lies_costs_a_plain_error(
    sandbox: Any, first_process: Callable[[str], None], liar: str, capfd: pytest.CaptureFixture[str]
) -> None:
    first_process(_TOOLS + LIARS[liar])
    with HostMemory() as memory:
        async with Loop() as loop:
            with pytest.raises(KernelError) as caught:
                await sandbox(start_timeout=5.0)
    assert caught.value.message.startswith(
        ("The kernel did not start within 5 s", "The kernel's container ended as it started")
    )
    assert len(caught.value.message) < 9_000
    assert memory.grown < MOST, f"{memory.grown / 1e6:.0f} MB"
    assert loop.stuck < 2
    assert containers(os.getpid()) == []
    assert "Traceback" not in capfd.readouterr().err


BREAKS = """
from rlm_contract import frames
from rlm_runtime import bridge, first
accept = bridge.Bridge._accept
def lie(self, events):
    accept(self, events)
    self._calls = getattr(self, "_calls", 0) + 1
    if self._calls == 3:
        self._control.append(frames.pack(frames.OPEN, 5))
bridge.Bridge._accept = lie
first.main()
"""


def test_a_first_process_that_lies_in_the_middle_of_a_run_is_replaced_and_the_model_told(
    rlm: Rlm, openai_env: ModelServer, first_process: Callable[[str], None]
) -> None:
    first_process(BREAKS)
    new = (
        "from threading import Thread\nfor _ in range(3):\n    one = Thread(target=llm_query, "
        "args=['x'])\n    one.start(); one.join()"
    )
    openai_env.root = [
        f"```repl\n{new}\n```",
        "```repl\nFINAL('reached')\n```",
        "```repl\nFINAL('reached')\n```",
    ]
    done = rlm("ask", "What?", "-m", "openai/root", "--sub-model", "openai/sub", "--trace", "t.ipynb")
    assert (done.returncode, done.stdout) == (0, "reached\n"), done.stderr
    trace = sound(Path("t.ipynb"))
    assert trace.meta.status == "finished"
    assert "died" in [cell.meta.status for cell in trace.code_cells]
    assert "Traceback" not in done.stderr
    assert containers(os.getpid()) == []
