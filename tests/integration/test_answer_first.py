"""The answer of a real run comes at once and stays, whatever is still to be done: digests, an engine that
hangs, signals.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.faults import MODELS, sound
from tests.support.hanging_engine import HangingEngine
from tests.support.model_server import ModelServer
from tests.support.sandbox import until
from tests.support.tree import short_folder

HUGE = 40 << 30
FINAL = "```repl\nprint(context[:12])\nFINAL('forty-two')\n```"


@pytest.fixture
def huge(
    kernel_image: Any, openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A text whose digest takes half a minute: lines, and a hole behind them."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    openai_env.root = lambda _messages: FINAL
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(b"hello world\n" * 100_000)
        file.truncate(HUGE)
    yield path
    path.unlink()


class Asking:
    """An `rlm` in a process of its own. `told` is what stdout has so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "rlm_kernel", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.told: list[str] = []
        self.said: list[str] = []
        pairs = ((self.process.stdout, self.told), (self.process.stderr, self.said))
        self._readers = [
            threading.Thread(target=lambda stream, to: to.extend(iter(stream.readline, "")), args=pair)
            for pair in pairs
        ]
        for reader in self._readers:
            reader.start()

    def answered(self) -> None:
        asyncio.run(until(lambda: bool(self.told) or self.process.poll() is not None, 60))

    def end(self) -> int:
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


def only_trace() -> TraceFile:
    (path,) = Path("rlm-traces").glob("*.ipynb")
    return sound(path)


def test_signals_after_the_answer_change_nothing_of_it(huge: Path) -> None:
    asking = Asking("ask", "How?", "-f", str(huge), *MODELS, "--json")
    asking.answered()
    assert json.loads(asking.told[0])["answer"] == "forty-two"
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        if asking.process.poll() is None:
            asking.process.send_signal(signum)
            time.sleep(0.01)
    assert asking.end() == 0, "".join(asking.said)
    assert len(asking.told) == 1
    meta = only_trace().meta
    assert (meta.status, meta.stop_reason) == ("finished", "answered")
    assert [(file.size, file.sha256, file.digest) for file in meta.files] == [(HUGE, None, "pending")]


@pytest.mark.hostile
def test_an_engine_that_hangs_keeps_neither_the_answer_nor_the_command(huge: Path) -> None:
    with short_folder() as folder, HangingEngine(Path(folder, "docker.sock")) as engine:
        asking = Asking("ask", "How?", "-f", str(huge), *MODELS, DOCKER_HOST=engine.address)
        asking.answered()
        assert asking.process.poll() is None
        assert engine.asked.wait(30)
        begun = time.monotonic()
        assert asking.end() == 0, "".join(asking.said)
        assert time.monotonic() - begun < 30, "requests to an engine have a minute each"
    assert asking.told == ["forty-two\n"]
    assert "1 turn, 0 sub-calls" in "".join(asking.said)
    assert only_trace().meta.stop_reason == "answered"


def test_a_pending_digest_is_told_in_a_replay_and_a_session_answers_as_soon(
    huge: Path, openai_env: ModelServer
) -> None:
    first = Asking("run", "How?", "-f", str(huge), *MODELS, RLM_MEMORY_COMPACTION__ENABLED="true")
    first.answered()
    first.process.send_signal(signal.SIGINT)
    assert (first.end(), first.told) == (0, ["forty-two\n"]), "".join(first.said)
    trace = only_trace()
    assert trace.meta.stop_reason == "answered"
    assert Asking("stop").end() == 0
    replayed = Asking("replay", str(trace.path))
    assert replayed.end() == 0, "".join(replayed.said)
    told = "".join([*replayed.told, *replayed.said])
    assert (
        f"It is not known whether {huge} has changed: its size is the same, and the run ended before "
        "its sha256 was computed" in told
    )
    assert read_trace(trace.path).meta.files[0].digest == "pending"
