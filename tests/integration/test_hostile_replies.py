"""What a hostile or broken model server sends is bounded, on both roads, over real HTTP: each ends soon, as
one plain error.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from rlm_kernel.models._bounds import REPLY_BYTES
from tests.support.model_layer import HELLO, KEY, Make, failing
from tests.support.raw_server import RawServer, head, response

JSON = "Content-Type: application/json"
CLOSE = "Connection: close"
DATE = "Mon, 01 Jan 2029 00:00:00 GMT"


def said(text: Any = "hello", **more: Any) -> bytes:
    return json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": text}}], **more}).encode()


def bomb(window: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(64)) + packer.flush()


def endless() -> Iterator[bytes]:
    yield head(200, JSON, CLOSE, "Transfer-Encoding: chunked")
    while True:
        yield b"100000\r\n" + b" " * (1 << 20) + b"\r\n"


@pytest.mark.parametrize(
    ("body", "packing"),
    [
        (bomb(31), "gzip"),
        (bomb(31), ""),
        (bomb(15), "deflate"),
        (bomb(-15), "deflate"),
        (gzip.compress(bomb(31)), "gzip, gzip"),
        (b" " * (REPLY_BYTES + 1), ""),
        (b"data: " + b"x" * REPLY_BYTES, ""),
        (None, ""),
    ],
    ids=["gzip", "gzip, not told", "zlib", "deflate", "twice", "plain", "one event", "endless chunks"],
)
async def test_a_reply_over_the_limit_is_left_and_not_asked_for_again(
    make: Make, body: bytes | None, packing: str
) -> None:
    more = [f"Content-Encoding: {packing}"] if packing else []
    with RawServer(
        lambda _head: endless() if body is None else response(200, body, JSON, CLOSE, *more)
    ) as server:
        error = await failing(
            make(sub_llm__api_base=server.url, sub_llm__retries=3).complete(HELLO, role="sub")
        )
        assert len(server.requests) == 1
    assert error.fault == "server"
    assert "the reply has more than 16 MiB" in error.message


@pytest.mark.parametrize(
    ("body", "packing", "told"),
    [
        (b"\x1b\x00\x00", "br", "packed by br"),
        (b"\x28\xb5\x2f\xfd", "zstd", "packed by zstd"),
        (
            gzip.compress(gzip.compress(gzip.compress(gzip.compress(said())))),
            "gzip",
            "packed more than 3 times",
        ),
        (gzip.compress(b"") * 100, "gzip", "gzip of more than 16 members"),
    ],
)
async def test_what_is_packed_in_another_way_is_named(
    make: Make, body: bytes, packing: str, told: str
) -> None:
    with RawServer(lambda _head: response(200, body, JSON, CLOSE, f"Content-Encoding: {packing}")) as server:
        error = await failing(
            make(sub_llm__api_base=server.url, sub_llm__retries=3).complete(HELLO, role="sub")
        )
        assert len(server.requests) == 1
    assert told in error.message


@pytest.mark.parametrize("packing", ["gzip", "deflate", "GZIP, gzip", "br", "identity", "utf-8", "none"])
async def test_a_reply_is_read_whatever_it_says_of_its_packing(make: Make, packing: str) -> None:
    packed = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "GZIP, gzip": lambda body: gzip.compress(gzip.compress(body)),
    }
    body = packed.get(packing, bytes)(said())
    with RawServer(lambda _head: response(200, body, JSON, CLOSE, f"Content-Encoding: {packing}")) as server:
        assert (await make(sub_llm__api_base=server.url).complete(HELLO, role="sub")).text == "hello"


async def test_an_error_is_read_by_its_begin_alone(make: Make) -> None:
    body = b'{"error": {"message": "' + b"no such thing " * 1_000_000 + b'"}}'
    with RawServer(lambda _head: response(400, body, JSON, CLOSE)) as server:
        error = await failing(make(sub_llm__api_base=server.url).complete(HELLO, role="sub"))
    assert (error.fault, "no such thing" in error.message, len(error.message) < 600) == (
        "bad_request",
        True,
        True,
    )


@pytest.mark.parametrize(
    "lines",
    [
        [f"Set-Cookie: a{number}=b; expires=Mon{' ' * 60_000}x" for number in range(100)],
        [f"Set-Cookie: a{number}=b" + f"; expires={DATE}" * 1500 for number in range(100)],
        ["Retry-After: Mon, 01 Jan 2029 " + "(" * 60_000, "Date: " + "(" * 60_000],
        [f"x-ratelimit-reset-{number}: {DATE}" for number in range(100)],
    ],
)
@pytest.mark.parametrize("status", [200, 429])
async def test_headers_full_of_dates_are_not_read(make: Make, lines: list[str], status: int) -> None:
    with RawServer(lambda _head: response(status, said(), JSON, CLOSE, *lines)) as server:
        models = make(sub_llm__api_base=server.url, sub_llm__retries=0)
        if status == 200:
            assert (await models.complete(HELLO, role="sub")).text == "hello"
        else:
            assert (await failing(models.complete(HELLO, role="sub"))).fault == "rate_limit"


async def test_an_endless_head_is_an_error(make: Make) -> None:
    def lines() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"x: " + b"y" * 1000 + b"\r\n"

    with RawServer(lambda _head: lines()) as server:
        error = await failing(
            make(sub_llm__api_base=server.url, sub_llm__retries=0).complete(HELLO, role="sub")
        )
    assert error.fault == "connection"


@pytest.mark.parametrize(
    "told", [10**400, -(10**400), 1e308, "9" * 100_000, float("inf"), [[1]], {"a": 1}, True]
)
async def test_no_count_of_tokens_breaks_a_call_or_makes_an_endless_cost(make: Make, told: Any) -> None:
    body = said(usage={"prompt_tokens": told, "completion_tokens": told, "total_tokens": told})
    with RawServer(lambda _head: response(200, body, JSON, CLOSE)) as server:
        models = make(sub_llm__api_base=server.url, sub_llm__input_price=1.0, sub_llm__output_price=1.0)
        found = await models.complete(HELLO, role="sub")
    assert (found.text, found.usage.estimated, found.cost) == ("hello", True, None)


FORMS = {
    "anthropic/claude-3-5-haiku-latest": '{"id": "a", "type": "message", "role": "assistant", "model": '
    'NAME, "stop_reason": "end_turn", '
    '"content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": COUNT, "output_tokens": '
    "COUNT}}",
    "gemini/gemini-2.0-flash": '{"candidates": [{"content": {"parts": [{"text": "hello"}], "role": '
    '"model"}, "finishReason": "STOP"}], '
    '"modelVersion": NAME, "usageMetadata": {"promptTokenCount": COUNT, "candidatesTokenCount": COUNT, '
    '"promptTokensDetails": COUNT}}',
    "ollama_chat/llama3": '{"model": NAME, "created_at": "x", "message": {"role": "assistant", "content": '
    '"hello"}, "done": true, '
    '"done_reason": "stop", "prompt_eval_count": COUNT, "eval_count": COUNT}',
    "mistral/mistral-small-latest": '{"model": NAME, "choices": [{"finish_reason": "stop", "message": '
    '{"content": "hello"}}], '
    '"usage": {"prompt_tokens": COUNT, "completion_tokens": COUNT, "prompt_tokens_details": COUNT}}',
    "openai/gpt-4o": '{"model": NAME, "choices": [{"finish_reason": "stop", "message": {"content": '
    '"hello"}}], '
    '"usage": {"prompt_tokens": COUNT, "completion_tokens": COUNT, "prompt_tokens_details": COUNT}}',
}
"""The replies of providers, each in its own form."""


@pytest.mark.parametrize("model", FORMS)
async def test_no_count_and_no_name_loses_a_paid_reply_in_any_providers_form(
    make: Make, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC", "GEMINI", "MISTRAL"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    body = b""
    with RawServer(lambda _head: response(200, body, JSON, CLOSE)) as server:
        models = make(sub_llm__model=model, sub_llm__api_base=server.url, sub_llm__retries=0)
        for count in (
            "NaN",
            "1e308",
            "9" * 400,
            "9" * 5000,
            "-1",
            "1.5",
            "[1]",
            '{"a": 1}',
            '"x"',
            "true",
            "null",
        ):
            body = FORMS[model].replace("COUNT", count).replace("NAME", '"m"').encode()
            found = await models.complete(HELLO, role="sub")
            assert (found.text, 0 < found.usage.total < 1000) == ("hello", True), count
        begun = time.process_time()
        for name in (f'"{"m" * 5_000_000}"', "1", "[]", "null"):
            body = FORMS[model].replace("COUNT", '"7"').replace("NAME", name).encode()
            found = await models.complete(HELLO, role="sub")
            assert (found.text, found.usage.prompt, found.usage.estimated) == ("hello", 7, False), name[:9]
        assert time.process_time() - begun < 10, "litellm looks for the whole name in many ways"


async def test_what_is_no_json_and_long_costs_litellm_nothing(isolated: Any, make: Make) -> None:
    with RawServer(lambda _head: response(200, b":\n" * 2_000_000 + said(), JSON, CLOSE)) as server:
        assert (await make(sub_llm__api_base=server.url).complete(HELLO, role="sub")).text == "hello"
