"""Streams of odd and broken forms, on both roads over real HTTP: what was paid for is kept, what is broken is an
error, and nothing is heard twice. docs/models.md has the table.
"""

from __future__ import annotations

import gc
import gzip
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from rlm_kernel.engine.protocols import Watch
from rlm_kernel.errors import ModelError
from rlm_kernel.models import _http, _litellm_http, _streams
from tests.support.model_layer import HELLO, Make
from tests.support.raw_server import RawServer, head, response

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
EVENTS = "Content-Type: text/event-stream"
CHUNKED = "Transfer-Encoding: chunked"
SAID = "Grüße 😀\u2028and\x85 more\x0b."
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    gc.collect()


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> str:
    """A chunk as the servers write it that leave Unicode as it is."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if delta is not None else []
    about = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return json.dumps({**about, **more}, ensure_ascii=False)


CHUNKS = [
    chunk({"role": "assistant", "content": SAID[:4]}),
    chunk({"content": SAID[4:9]}),
    chunk({"content": SAID[9:]}),
    chunk({}, "stop"),
    chunk(usage=USAGE),
]


def lines(
    chunks: Iterable[str] = CHUNKS, end: str = "\n\n", begin: str = "data: ", done: bool = True
) -> bytes:
    return "".join(f"{begin}{text}{end}" for text in [*chunks, *(["[DONE]"] if done else [])]).encode()


def multi(text: str) -> str:
    """An event whose data stands on several lines."""
    return json.dumps(json.loads(text), ensure_ascii=False, indent=1).replace("\n", "\ndata: ")


WHOLE: dict[str, bytes] = {
    "as OpenAI sends it": lines(),
    "CRLF": lines(end="\r\n\r\n"),
    "no space": lines(begin="data:"),
    "comments": b": keep-alive\n\n:\n\n" + lines(end="\n\n: ping\n\n"),
    "one line end": lines(end="\n"),
    "names and ids": lines(begin="event: message\nid: 7\nretry: 3\ndata: "),
    "byte order mark": "\ufeff".encode() + lines(),
    "several lines": lines(map(multi, CHUNKS)),
    "no [DONE]": lines(done=False),
    "cut behind the last chunk": lines(done=False).rstrip(),
    "usage behind [DONE]": lines(CHUNKS[:4]) + lines(CHUNKS[4:], done=False),
    "last chunk twice": lines([*CHUNKS[:4], CHUNKS[3], *CHUNKS[4:]]),
    "pings": lines([CHUNKS[0], "", "ping", *CHUNKS[1:]]),
    "null choices": lines([json.dumps({"choices": None}), chunk(), *CHUNKS]),
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
async def test_a_stream_is_read_whatever_its_lines_look_like(make: Make, body: bytes) -> None:
    text, heard = await ask(make, response(200, body, EVENTS, "Connection: close"))
    assert text == SAID
    assert heard == SAID


async def ask(make: Make, answer: bytes | Callable[[bytes], Any], **settings: Any) -> tuple[str, str]:
    """What a streamed reply says, and what was heard of its last attempt."""
    heard: list[str] = []
    watch = Watch(
        heard=lambda text, thought: (heard.append("" if thought else text), True)[1],
        retrying=lambda _retry: (heard.clear(), True)[1],
    )
    with RawServer(answer if callable(answer) else lambda _head: answer) as server:
        more = {"sub_llm__retries": 0, **settings}
        found = await make(sub_llm__api_base=server.url, **more).complete(HELLO, role="sub", watch=watch)
    return found.text, "".join(heard)


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut before text": (lines([chunk({"role": "assistant"})], done=False), "server"),
    "cut within text": (lines(CHUNKS[:2], done=False), "server"),
    "cut within a chunk": (lines(CHUNKS[:3], done=False)[:-40], "server"),
    "nothing": (b"", "server"),
    "error first": (lines(['{"error": {"message": "Overloaded", "code": 529}}']), "server"),
    "error after text": (lines([*CHUNKS[:2], '{"error": {"message": "Overloaded", "code": 529}}']), "server"),
    "error as an object": (
        lines([*CHUNKS[:2], '{"object": "error", "message": "busy", "code": 503}']),
        "server",
    ),
    "error as an event": (lines(CHUNKS[:2]) + b'event: error\ndata: {"message": "Overloaded"}\n\n', "server"),
    "error on a line of its own": (
        lines(CHUNKS[:2], done=False) + b'{"error": {"message": "Overloaded", "code": 529}}\n',
        "server",
    ),
    "error as a text": (lines([CHUNKS[0], '{"error": "rate limit exceeded, code 429"}']), "rate_limit"),
    "page": (b"<html><head><title>Bad gateway</title></head></html>", "connection"),
    "no choices": (lines(['{"choices": []}', chunk(usage=USAGE)]), "empty"),
}


@pytest.mark.parametrize(("body", "fault"), BROKEN.values(), ids=BROKEN)
async def test_a_stream_that_breaks_off_is_tried_again_and_is_no_reply(
    make: Make, body: bytes, fault: str
) -> None:
    answers = [body, lines()]

    def answer(_head: bytes) -> bytes:
        return response(200, answers.pop(0), EVENTS, "Connection: close")

    if fault != "connection":
        assert await ask(make, answer, sub_llm__retries=1) == (SAID, SAID)
    answers[:] = [body]
    with pytest.raises(ModelError) as caught:
        await ask(make, answer)
    assert caught.value.fault == fault


ODD: dict[str, bytes] = {
    "no stream": response(200, json.dumps(
        {"choices": [{"message": {"content": SAID}, "finish_reason": "stop"}], "usage": USAGE}
    ).encode(), "Content-Type: application/json"),
    "gzip": response(200, gzip.compress(lines()), EVENTS, "Content-Encoding: gzip"),
    "no usage": response(200, lines(CHUNKS[:4]), EVENTS),
    "hostile usage": response(200, lines([*CHUNKS[:4], chunk(usage={
        "prompt_tokens": "NaN", "completion_tokens": -1, "total_tokens": 1e308, "prompt_tokens_details": [],
    })]), EVENTS),
    "content in parts": response(200, lines([
        chunk({"content": [{"type": "text", "text": SAID}]}), *CHUNKS[3:]
    ]), EVENTS),
}  # fmt: skip


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_a_reply_to_a_streamed_request_is_kept_whatever_it_is(make: Make, answer: bytes) -> None:
    text, heard = await ask(make, answer)
    assert text == SAID
    assert heard in (SAID, "")


async def test_who_leaves_the_connection_open_behind_the_end_of_a_stream_is_not_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "_AFTER_END", 0.05)
    over = threading.Event()

    def answer(_head: bytes) -> Iterator[bytes]:
        yield head(200, EVENTS, CHUNKED) + b"%x\r\n%s\r\n" % (len(lines()), lines())
        over.wait(60)

    try:
        assert await ask(make, answer, sub_llm__timeout=30) == (SAID, SAID)
    finally:
        over.set()


async def test_a_stream_that_drips_ends_at_the_attempts_timeout(make: Make) -> None:
    over = threading.Event()

    def answer(_head: bytes) -> Iterator[bytes]:
        yield head(200, EVENTS, "Connection: close")
        for at in range(10_000):
            yield lines()[at % 300 : at % 300 + 1]
            if over.wait(0.02):
                return

    try:
        with pytest.raises(ModelError) as caught:
            await ask(make, answer, sub_llm__timeout=0.5)
        assert caught.value.fault == "timeout"
    finally:
        over.set()


async def test_no_redirect_of_a_streamed_request_leads_to_another_origin(make: Make) -> None:
    with RawServer(lambda _head: response(200, lines(), EVENTS)) as other:
        moved = response(307, b"", f"Location: {other.url}/v1", "Connection: close")
        with pytest.raises(ModelError) as caught:
            await ask(make, moved)
        assert (caught.value.fault, other.requests) == ("connection", [])


async def test_a_server_that_refuses_stream_options_is_asked_without(make: Make) -> None:
    refusal = b'{"error": {"message": "Extra inputs are not permitted: stream_options", "code": 400}}'

    answers = [response(400, refusal, "Connection: close"), response(200, lines(), EVENTS)]
    assert await ask(make, lambda _head: answers.pop(0)) == (SAID, SAID)


def flood() -> Iterator[bytes]:
    """A stream without an end."""
    events = lines([chunk({"content": "", "more": "x" * 1000})] * 200, done=False)
    yield head(200, EVENTS, CHUNKED)
    while True:
        yield b"%x\r\n%s\r\n" % (len(events), events)


async def test_a_long_stream_is_read_by_its_text_and_an_endless_one_is_left_in_little_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "y" * (15 << 20)
    found = await ask(make, response(200, lines([chunk({"content": large}), *CHUNKS[3:]]), EVENTS))
    assert found == (large, large)
    for module in (_streams, _litellm_http):
        monkeypatch.setattr(module, "STREAM_BYTES", 1 << 20)
        monkeypatch.setattr(module, "REPLY_BYTES", 1 << 17)
    some = lines([chunk({"content": "ab"})] * 1500 + CHUNKS[3:])
    assert len(some) > 1 << 17
    assert (await ask(make, response(200, some, EVENTS)))[0] == "ab" * 1500
    tracemalloc.start()
    with pytest.raises(ModelError, match="MiB, and no more is read"):
        await ask(make, lambda _head: flood())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 << 20
