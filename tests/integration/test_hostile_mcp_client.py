"""Clients of `rlm mcp` that keep no rule: each meets a wall, the server goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from rlm_kernel.mcpserver import http as mcp_http
from rlm_kernel.mcpserver import stdio as mcp_stdio
from tests.support.mcp_clients import TOKEN, Raw, made_by, on_http, raw, runs
from tests.support.model_server import ModelServer
from tests.support.sandbox import until

pytestmark = [
    pytest.mark.usefixtures("kernel_image", "models"),
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SLEEPS = "run: import time; time.sleep(600)"


@pytest.fixture
def models(openai_env: ModelServer) -> ModelServer:
    openai_env.root = runs
    return openai_env


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.log").write_text("one needle\ntwo\n")
    (tmp_path / "secret.txt").write_text("the secret\n")
    return tmp_path / "open"


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[Raw]:
    async with raw(folder) as one:
        yield one
    assert one.process.returncode == 0
    assert not made_by(one.process.pid)


async def _text(client: Raw, number: int) -> str:
    result = (await client.reply(number))["result"]
    return ("error: " if result.get("isError") else "") + str(result["content"][0]["text"])


async def _still_serves(client: Raw, number: int = 9_999) -> None:
    client.call(number, "search", pattern="needle", paths=["a.log"])
    assert "a.log:1: one needle" in await _text(client, number)


async def test_what_is_no_message_is_passed_over(client: Raw) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for odd in (
        b"\n",
        b"hello\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\x00\xff\xfe\n",
        b'{"jsonrpc":"1.0"}\n',
        deep + b"\n",
    ):
        client.send(odd)
    client.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call"})
    assert "error" in await client.reply(1)
    client.send({"jsonrpc": "2.0", "id": 2, "method": "no/such"})
    assert "error" in await client.reply(2)
    client.request(3, "tools/call", name="ask\x1b[2J\0", arguments={})
    assert "There is no tool" in (text := await _text(client, 3))
    assert "\x1b" not in text
    client.request(4, "tools/call", name="ask", arguments={"question": 1, "paths": {"a": 1}, "more": "x"})
    assert "arguments are wrong" in await _text(client, 4)
    client.send(json.dumps({"jsonrpc": "2.0", "id": 5, "method": "ping"}).encode() + b"\r\n")
    assert "result" in await client.reply(5)
    await _still_serves(client)


async def test_a_question_of_100_mb_is_answered_with_an_error(client: Raw) -> None:
    size = 100_000_000
    assert size > mcp_stdio.MAX_MESSAGE
    head = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"ask","arguments":{"question":"'
    client.send(head + b"x" * size + b'"}}}\n')
    assert "too large" in (await client.reply(7))["error"]["message"]
    client.call(8, "ask", question="x" * 200_000)
    assert "arguments are wrong" in await _text(client, 8)
    await _still_serves(client)


def _tricks(folder: Path) -> list[str]:
    secret = folder.parent / "secret.txt"
    (folder / "link.txt").symlink_to(secret)
    (folder / "up").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    return [
        str(secret),
        "../secret.txt",
        f"{folder}/../secret.txt",
        "link.txt",
        "up/secret.txt",
        f"file://{secret}",
        f"file:///{quote(str(folder), safe='')}%2F..%2Fsecret.txt",
        f"file://{folder}/%2e%2e/secret.txt",
        f"file://elsewhere{folder}/a.log",
        "FILE:///etc/passwd",
        "http://example.org/a.log",
        "~/.bashrc",
        "~root/.bashrc",
        "C:\\Windows\\win.ini",
        "\\\\server\\share\\a.log",
        "/proc/self/environ",
        "/dev/fd/0",
        "/dev/stdin",
        "-",
        "",
        ".\0./secret.txt",
        "*/../../secret.txt",
        "a" * 4_000,
        "pipe",
        str(folder).upper() + "/a.log",
    ]


async def test_no_path_leads_out_of_the_folders(client: Raw, folder: Path) -> None:
    for number, trick in enumerate(_tricks(folder), 1):
        client.call(number, "search", pattern=".", paths=[trick])
        text = await _text(client, number)
        assert text.startswith("error: "), trick
        assert "the secret" not in text, trick
        assert "\0" not in text, trick
    assert not made_by(client.process.pid)
    await _still_serves(client)


async def test_a_question_that_names_a_path_does_not_open_it(client: Raw, folder: Path) -> None:
    secret = folder.parent / "secret.txt"
    code = f"run: FINAL(load_file({str(secret)!r}))"
    client.call(1, "ask", question=f"Look into {secret}\n{code}", text="a", max_turns=1)
    assert "the secret" not in await _text(client, 1)
    client.call(2, "session_start", paths=["a.log"])
    session = (await client.reply(2))["result"]["structuredContent"]["session"]
    client.call(3, "session_ask", session=session, question=f"Look into {secret}\n{code}", max_turns=1)
    assert "the secret" not in await _text(client, 3)


@pytest.mark.hostile
async def test_a_pattern_that_never_ends_is_stopped_and_the_session_goes_on(
    client: Raw, folder: Path
) -> None:
    (folder / "a.log").write_text("a" * 60 + "!\n")
    client.call(1, "session_start", paths=["a.log"])
    session = (await client.reply(1))["result"]["structuredContent"]["session"]
    client.call(2, "search", session=session, pattern="(a|a|aa)+$")
    assert "took too long" in await _text(client, 2)
    client.call(3, "search", session=session, pattern="a!")
    assert "a.log:1:" in await _text(client, 3)
    client.call(4, "search", session=session, pattern="', os._exit(1)[']")
    assert "Nothing matches" in await _text(client, 4)


async def test_a_thousand_calls_at_once_are_bounded(client: Raw) -> None:
    for number in range(1, 1_001):
        client.call(number, "ask", question=SLEEPS, paths=["a.log"])
    refused = 0
    while refused < 900:
        message = await client.message()
        refused += "calls in progress" in str(message.get("result", ""))
    assert len(made_by(client.process.pid)) <= 4
    for number in range(1, 1_001):
        client.cancel(number)
        client.cancel(number)
    await until(lambda: not made_by(client.process.pid), 60)
    await _still_serves(client)


async def test_cancels_and_progress_of_nothing_and_tokens_used_twice_do_no_harm(client: Raw) -> None:
    for number in (-1, 10**15, 77):
        client.cancel(number)
    client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": [1]}})
    same = {"progressToken": "same"}
    for number in (1, 2):
        given = {"pattern": "needle", "paths": ["a.log"]}
        client.request(number, "tools/call", name="search", arguments=given, _meta=same)
    ended = set()
    while ended != {1, 2}:
        ended |= {(await client.message()).get("id")} & {1, 2}
    await _still_serves(client)


def _remove_folders_of(pid: int) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"rlm-mcp-{pid}-*"):
        shutil.rmtree(left)


async def test_a_killed_servers_question_leaves_no_container(folder: Path) -> None:
    async with raw(folder) as client:
        client.call(1, "ask", question=SLEEPS, paths=["a.log"])
        while "turn 1" not in str(await client.message()):
            pass
        client.process.send_signal(signal.SIGKILL)
        await client.process.wait()
        await until(lambda: not made_by(client.process.pid), 60)
        _remove_folders_of(client.process.pid)


@pytest.fixture
async def http(folder: Path) -> AsyncIterator[tuple[str, Any]]:
    async with on_http(folder) as (url, process):
        yield url, process
    assert not made_by(process.pid)


HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "a", "version": "1"},
    },
}


async def test_strangers_and_pages_of_browsers_are_turned_away(http: tuple[str, Any]) -> None:
    url, _ = http
    async with httpx2.AsyncClient(timeout=30) as web:

        async def status(**changed: str | None) -> int:
            names = {key.replace("_", "-"): value for key, value in changed.items()}
            headers = {key: value for key, value in {**HEADERS, **names}.items() if value is not None}
            return int((await web.post(url, json=HELLO, headers=headers)).status_code)

        assert await status() == 200
        for wrong in (None, "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
            assert await status(Authorization=wrong) == 401
        assert await status(Host="evil.example") == 421
        assert await status(Origin="http://evil.example") == 403
        assert await status(Mcp_Session_Id="0" * 32) == 404
        assert await status(MCP_Protocol_Version="2026-07-28") == 400
        huge = await web.post(url, content=b" " * (mcp_http.MAX_BODY + 1), headers=HEADERS)
        assert huge.status_code == 413
        assert (await web.get(url.removesuffix("/mcp"), headers=HEADERS)).status_code == 404
        assert await status() == 200


async def test_a_session_of_the_protocol_is_no_key_without_the_token(http: tuple[str, Any]) -> None:
    url, _ = http
    async with httpx2.AsyncClient(timeout=30) as web:
        known = (await web.post(url, json=HELLO, headers=HEADERS)).headers["mcp-session-id"]
        theirs = {"Accept": HEADERS["Accept"], "Mcp-Session-Id": known}
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await web.post(url, json=ask, headers=theirs)).status_code == 401
        assert (await web.delete(url, headers=theirs)).status_code == 401
        assert (await web.post(url, json=ask, headers={**theirs, **HEADERS})).status_code == 200


async def test_the_end_of_a_client_ends_what_runs_for_it(http: tuple[str, Any]) -> None:
    """It hangs up in the middle of a question, and its session is deleted."""
    url, process = http
    async with httpx2.AsyncClient(timeout=60) as web:
        known = (await web.post(url, json=HELLO, headers=HEADERS)).headers["mcp-session-id"]
        headers = {**HEADERS, "Mcp-Session-Id": known}
        await web.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
        params = {"name": "ask", "arguments": {"question": SLEEPS, "paths": ["a.log"]}}
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        asking = asyncio.create_task(web.post(url, json=ask, headers=headers))
        await until(lambda: bool(made_by(process.pid)), 60)
        asking.cancel()
        await asyncio.wait([asking])
        assert (await web.delete(url, headers=headers)).status_code == 200
        await until(lambda: not made_by(process.pid), 60)
        assert (await web.post(url, json=ask, headers=headers)).status_code == 404


async def test_slow_bodies_hold_up_nobody(http: tuple[str, Any]) -> None:
    url, _ = http
    port = int(url.split(":")[2].split("/")[0])
    head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    for _, writer in slow:
        writer.write(head.encode() + b"{")
    async with httpx2.AsyncClient(timeout=30) as web:
        assert (await web.post(url, json=HELLO, headers=HEADERS)).status_code == 200
    for _, writer in slow:
        writer.close()
