"""Clients of `rlm serve` that keep no rule: each meets a bound, the server goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlm_kernel.serve import server as server_module
from tests.support.sandbox import until
from tests.support.serving import Served, served

TITLE = "Generate a short title of 3 words."
"""Answered without a container."""
pytestmark = [
    pytest.mark.usefixtures("kernel_image"),
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def mine(docker_client: Any) -> Callable[[], int]:
    """How many containers this test has now; kept sessions of tests before it may still be there."""

    def there() -> set[str]:
        label = {"label": f"rlm-kernel.owner={os.getpid()}"}
        return {one["Id"] for one in docker_client.api.containers(all=True, filters=label)}

    others = there()

    def count() -> int:
        return len(there() - others)

    return count


@pytest.fixture
async def server(
    isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Callable[[], int]
) -> AsyncIterator[Served]:
    """A small server, which answers a friendly client after the test, and leaves no container."""
    monkeypatch.chdir(tmp_path)
    async with served(serve__body="1m", serve__at_once=2, serve__waiting=300, serve__chats=0) as found:
        yield found
        await until(lambda: found.service.turns.inside == 0)
        assert (await post(found, friendly(TITLE))).status_code == 200
    assert mine() == 0


def friendly(text: str = "run: FINAL('fine')", **more: Any) -> bytes:
    return json.dumps({"model": "rlm", "messages": [{"role": "user", "content": text}], **more}).encode()


async def post(server: Served, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=120) as http:
        sent = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await http.post(f"{server.url}/chat/completions", content=body, headers=sent)


def head(length: int, *more: str) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.asynccontextmanager
async def wire(server: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_body_that_says_it_has_a_gigabyte_is_refused_before_it_comes(server: Served) -> None:
    async with wire(server) as (reader, writer):
        writer.write(head(1 << 30))
        assert b" 413 " in await reader.readline()


async def test_a_body_without_an_end_is_refused_at_the_bound(server: Served) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield b" " * (1 << 16)

    with contextlib.suppress(httpx.TransportError):
        async with asyncio.timeout(60):
            response = await post(server, endless())
            assert response.status_code == 413
    assert server.service.turns.inside == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe{}",
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        json.dumps({"messages": []}).encode(),
        json.dumps({"messages": "hello"}).encode(),
        json.dumps({"messages": [7]}).encode(),
        json.dumps({"messages": [{"role": "root", "content": "x"}]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": 5}]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": ""}]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": [{"type": "telepathy"}]}]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "x"}] * 10_001}).encode(),
        friendly(model=["rlm"]),
        friendly(stream="yes"),
        friendly(n=2),
        friendly(n="many"),
        friendly(stop=[1]),
        friendly(logprobs=True),
        friendly(tool_choice="required"),
        friendly(response_format="json"),
        friendly(response_format={"type": "json_schema", "json_schema": {"schema": 5}}),
    ],
)
async def test_a_body_that_is_no_chat_is_refused_in_the_form_of_openai(server: Served, body: bytes) -> None:
    response = await post(server, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


async def test_thousands_of_messages_are_a_conversation(server: Served) -> None:
    talk = [{"role": ("user", "assistant")[at % 2], "content": f"message {at}"} for at in range(9_000)]
    body = {"model": "rlm", "messages": [*talk, {"role": "user", "content": "run: FINAL(len(context))"}]}
    response = await post(server, json.dumps(body).encode())
    assert int(response.json()["choices"][0]["message"]["content"]) > 100_000


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}, "remote_url_refused"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "remote_url_refused"),
        ({"type": "input_file", "file_url": "https://example.org/a.pdf"}, "remote_url_refused"),
        ({"type": "file", "file": {"file_id": "file-123"}}, None),
        ({"type": "file", "file": {"file_data": "data:;base64,@@@"}}, None),
        ({"type": "file", "file": {"file_data": 5}}, None),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, None),
    ],
)
async def test_what_would_be_fetched_or_is_no_file_is_refused(
    server: Served, part: Any, code: str | None
) -> None:
    body = {"model": "rlm", "messages": [{"role": "user", "content": [part]}]}
    response = await post(server, json.dumps(body).encode())
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


async def test_names_of_files_stay_in_their_folder(server: Served, tmp_path: Path) -> None:
    names = [
        "../../../x.txt",
        "/etc/cron.d/x.txt",
        "..\\..\\x.txt",
        ".bashrc",
        "a\x00b\r\nX: y.txt",
        "x" * 5_000,
    ]
    data = base64.b64encode(b"text").decode()
    files = [
        {"type": "file", "file": {"filename": name, "file_data": f"data:text/plain;base64,{data}{'=' * at}"}}
        for at, name in enumerate(names)
    ]
    for at, file in enumerate(files):
        file["file"]["file_data"] = "data:text/plain," + "text" * (at + 1)  # type: ignore[index]
    asked = {"type": "text", "text": "run: FINAL(len(files))"}
    body = {"model": "rlm", "messages": [{"role": "user", "content": [*files, asked]}]}
    response = await post(server, json.dumps(body).encode())
    assert response.json()["choices"][0]["message"]["content"] == str(len(names))
    found = await asyncio.to_thread(lambda: list((tmp_path / "rlm-traces").glob("*.files/*")))
    assert len(found) == len(names)


async def test_a_head_that_never_ends_and_a_body_that_never_comes_are_not_waited_for(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "IDLE_SECONDS", 0.3)
    async with wire(server) as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nX: ")
        assert await reader.read() == b""
    async with wire(server) as (reader, _):
        assert await reader.read() == b""


async def test_a_head_that_is_too_long_is_refused(server: Served) -> None:
    async with wire(server) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nX: " + b"a" * (1 << 20))
        assert b" 400 " in await reader.readline()


@pytest.mark.parametrize("stage", ["head", "body", "waiting", "running", "streaming"])
async def test_a_client_that_leaves_at_any_stage_leaves_nothing(
    server: Served, mine: Callable[[], int], stage: str
) -> None:
    body = friendly("run: print(1)\nimport time; time.sleep(600)", stream=stage == "streaming")
    async with wire(server) as (reader, writer):
        request = head(len(body)) + body
        writer.write(request[: {"head": 20, "body": len(request) - 10}.get(stage, len(request))])
        await writer.drain()
        if stage in ("waiting", "running"):
            await until(lambda: server.service.turns.taken == 1)
        if stage == "running":
            await until(lambda: mine() == 1)
        if stage == "streaming":
            await reader.readuntil(b"reasoning")
    await until(lambda: server.service.turns.inside == 0 and mine() == 0)


async def test_who_closes_one_half_of_the_connection_has_left(
    server: Served, mine: Callable[[], int]
) -> None:
    body = friendly("run: import time; time.sleep(600)")
    async with wire(server) as (_, writer):
        writer.write(head(len(body)) + body)
        writer.write_eof()
        await until(lambda: server.service.turns.inside == 0 and mine() == 0)


async def test_requests_that_come_at_once_on_one_connection_are_answered_in_their_order(
    server: Served,
) -> None:
    bodies = [friendly(f"run: FINAL('answer {number}')") for number in range(3)]
    async with wire(server) as (reader, writer):
        writer.write(b"".join(head(len(body)) + body for body in bodies))
        for number in range(3):
            answer = await reader.readuntil(b'"rlm":')
            assert f'"content":"answer {number}"'.encode() in answer


async def test_headers_of_an_answer_are_the_servers_alone(server: Served) -> None:
    response = await post(server, friendly(user="x\r\nSet-Cookie: y=1", model="rlm"))
    assert response.status_code == 200
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost:1@evil.example"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "multipart/form-data"}, 415),
        ({"content_encoding": "gzip"}, 415),
    ],
)
async def test_a_web_page_cannot_ask_through_a_browser_on_this_machine(
    server: Served, headers: dict[str, str], status: int
) -> None:
    assert (await post(server, friendly(), **headers)).status_code == status


async def test_slashes_that_programs_put_into_addresses_and_names_of_this_machine_are_taken(
    server: Served,
) -> None:
    top = server.url.removesuffix("/v1")
    async with httpx.AsyncClient() as http:
        for path in ("/v1/models/", "//v1/models", "/v1//models"):
            assert (await http.get(f"{top}{path}")).json()["object"] == "list"
        for path in ("/v1/chat/completions/", "/v1//chat/completions"):
            assert (await http.post(f"{top}{path}", json={})).json()["error"]["param"] == "messages"
        for host, status in (
            ("0.0.0.0:80", 200),
            ("127.0.0.2", 200),
            ("192.0.2.1", 403),
            ("localhost.", 403),
        ):
            assert (await http.get(f"{server.url}/models", headers={"host": host})).status_code == status


async def test_unknown_paths_and_methods_are_refused_in_the_form_of_openai(server: Served) -> None:
    async with httpx.AsyncClient() as http:
        for method, path, status in (
            ("GET", "/", 404),
            ("GET", "/v1/chat/completions", 405),
            ("POST", "/v1/embeddings", 404),
            ("GET", "/v1/models/../../etc/passwd", 404),
        ):
            response = await http.request(method, f"{server.url.removesuffix('/v1')}{path}")
            assert response.status_code == status
            assert response.json()["error"]["message"]


@pytest.mark.hostile
async def test_two_hundred_at_once_are_answered_or_told_to_come_again(
    server: Served, mine: Callable[[], int]
) -> None:
    peak = 0

    async def one(number: int) -> int:
        nonlocal peak
        response = await post(server, friendly(f"{TITLE} {number}"))
        peak = max(peak, server.service.turns.taken)
        return response.status_code

    found = await asyncio.gather(*map(one, range(200)))
    assert set(found) <= {200, 429}
    assert found.count(200) >= 150
    assert peak <= 2


async def test_a_flood_of_wrong_keys_reads_no_body_and_takes_no_place(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (file := tmp_path / "keys.json").write_text(json.dumps({"ann": {"key": "k" * 20, "at_once": 1}}))
    async with served(serve__keys=file, serve__at_once=1, serve__waiting=0) as server:
        wrong = [post(server, b"x" * 1_000, authorization=f"Bearer {'k' * at}") for at in range(1, 20)]
        refused = await asyncio.gather(*wrong)
        assert {response.status_code for response in refused} == {401}
        assert (await post(server, friendly(), authorization=f"Bearer {'k' * 20}")).status_code == 200
        assert (await post(server, friendly())).json()["error"]["code"] == "invalid_api_key"
