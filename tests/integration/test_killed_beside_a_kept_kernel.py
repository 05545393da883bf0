"""A program that is killed while it keeps a kernel: the container ends by itself after its idle time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.sandbox.containers import LABEL

pytestmark = pytest.mark.usefixtures("kernel_image")
IDLE = 6
"""Seconds; longer than from one sign of life to the next."""
PROGRAM = f"""
import sys, time
from rlm_kernel import RLM, ScriptedModels
from tests.support.story import repl

BUSY = "print('in it', flush=True)\\nwhile True: pass"
code = {{"rest": ["FINAL(len(context))"], "cell": [BUSY], "call": ["llm_query(context)"]}}[sys.argv[1]]

def said(event):
    if "in it" in str(event):
        print("on", flush=True)

def sub(prompt):
    print("on", flush=True)
    time.sleep(1000)

options = {{"sandbox.memory": "256m", "session.idle": {IDLE}}}
with RLM(models=ScriptedModels([repl(one) for one in code], sub), options=options) as rlm:
    rlm.ask("How long?", "abc", view=said)
    print("on", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("doing", ["rest", "cell", "call"])
def test_its_container_ends(isolated: Path, docker_client: Any, doing: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, doing], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "on\n"
        (container,) = docker_client.containers.list(filters={"label": f"{LABEL}.owner={program.pid}"})
        program.send_signal(signal.SIGKILL)
        container.wait(condition="removed", timeout=IDLE + 60)
    assert program.returncode == -signal.SIGKILL
