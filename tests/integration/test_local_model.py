"""The embedded local model, real: its weights, its server process, and what it answers over HTTP."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.errors import LocalModelError
from rlm_kernel.models import weights
from rlm_kernel.models.local import LocalServer
from rlm_kernel.models.local_prefix import prime
from tests.integration.conftest import REAL_MODELS_DIR

pytestmark = [pytest.mark.local_model, pytest.mark.timeout(900)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local_server(pulled: None) -> AsyncIterator[LocalServer]:
    """A running server with the real 1.5B model."""
    pytest.importorskip("xllamacpp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLM_MODELS_DIR", str(REAL_MODELS_DIR))
        server = await LocalServer.start("local")
    yield server
    await server.aclose()


def chat(server: LocalServer, *messages: str, **options: Any) -> dict[str, Any]:
    """A chat of alternating user and assistant messages, answered at temperature 0."""
    roles = ("user", "assistant")
    chat = [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]
    body = {"model": server.model.name, "messages": chat, "temperature": 0, "max_tokens": 60, **options}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{server.api_base}/chat/completions", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def text_of(answer: dict[str, Any]) -> str:
    content: str = answer["choices"][0]["message"]["content"]
    return content


def test_it_greets(local_server: LocalServer) -> None:
    assert "hello" in text_of(chat(local_server, "Say hello.")).lower()


def test_it_writes_a_code_block(local_server: LocalServer) -> None:
    reply = text_of(
        chat(local_server, "Write Python code that prints the numbers 1 to 3, in one fenced code block.")
    )
    assert "```python" in reply
    assert "print(" in reply


def test_a_longer_history_costs_only_its_new_tokens(local_server: LocalServer) -> None:
    question = "Remember these words: " + "oak elm ash fir yew " * 20
    first = chat(local_server, question, max_tokens=5)
    second = chat(local_server, question, text_of(first), "Which was the first?", max_tokens=5)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]


def test_a_prompt_beyond_the_context_is_refused_by_name(local_server: LocalServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        chat(local_server, "word " * (local_server.context + 1))
    with caught.value as refused:
        error = json.load(refused)["error"]
    assert refused.code == 400
    assert error["type"] == "exceed_context_size_error"


def test_a_web_page_cannot_read_the_answers(local_server: LocalServer) -> None:
    request = urllib.request.Request(
        f"{local_server.api_base}/models", headers={"Origin": "https://example.org"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers.get("Access-Control-Allow-Origin") not in ("*", "https://example.org")


async def test_it_says_what_it_loads_and_closes_within_two_seconds(models_dir: Path) -> None:
    pytest.importorskip("xllamacpp")
    lines: list[str] = []
    server = await LocalServer.start("local", context=512, on_progress=lines.append)
    assert lines[0].startswith("loading local model (1.1 GB)")
    started = time.monotonic()
    await server.aclose()
    await server.aclose()
    assert time.monotonic() - started < 2
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


PARENT = """
import asyncio
from rlm_kernel.models.local import LocalServer
from tests.integration.conftest import REAL_MODELS_DIR

async def main():
    server = await LocalServer.start("local", context=512)
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waiting for another's child needs pidfd_open (Linux)"
)
def test_the_server_ends_when_its_parent_is_killed(models_dir: Path) -> None:
    pytest.importorskip("xllamacpp")
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([child], [], [], 10)
        finally:
            os.close(child)
    assert ended, "the server lives on"


async def test_weights_that_are_no_model_end_in_the_servers_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    content = b"GGUF, but not really"
    fake = dataclasses.replace(
        weights.MODELS[0], size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setattr(weights, "MODELS", (fake,))
    monkeypatch.setenv("RLM_MODELS_DIR", str(tmp_path))
    weights.weights_path("local").write_bytes(content)
    with pytest.raises(LocalModelError, match=r"could not start[\s\S]*load"):
        await LocalServer.start("local")


async def test_what_conversations_begin_with_is_read_once_and_kept(
    local_server: LocalServer, models_dir: Path
) -> None:
    before = set(weights.prefixes_dir().iterdir())
    begins_with = [
        {"role": "user", "content": f"The password is swordfish-{os.getpid()}. " * 20},
        {"role": "assistant", "content": "Yes."},
    ]
    said: list[str] = []
    await prime(local_server, begins_with, said.append)
    (kept,) = set(weights.prefixes_dir().iterdir()) - before
    try:
        assert said == ["the local model reads its instructions (only once) …"]
        chat(local_server, "Something else altogether, to have the slot used for another conversation.")
        await prime(local_server, begins_with, said.append)
        assert len(said) == 1
        usage = chat(local_server, begins_with[0]["content"], "Yes.", "What is the password?", max_tokens=1)[
            "usage"
        ]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0.8 * usage["prompt_tokens"]
        kept.write_bytes(b"damaged")
        await prime(local_server, begins_with, said.append)
        assert len(said) == 2
        assert kept.stat().st_size > 1000
    finally:
        kept.unlink()
