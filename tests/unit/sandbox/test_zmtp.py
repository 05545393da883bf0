"""Talking to the container: any bytes are read without harm, in bounded memory, and real ZeroMQ sockets
understand us.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel import bounded
from rlm_kernel.sandbox import zmtp
from tests.support.pipes import Pipe

GREETING = zmtp._GREETING
READY = b"\x04\x06\x05READY"
FRAMES = st.lists(st.binary(max_size=600), min_size=1, max_size=6)


def framed(frames: list[bytes], *, long: bool = False) -> bytes:
    """A message as it is on the wire."""
    parts = []
    for number, frame in enumerate(frames, 1):
        wide = long or len(frame) > 255
        parts.append(
            bytes(((number < len(frames)) | 2 * wide,)) + len(frame).to_bytes(8 if wide else 1) + frame
        )
    return b"".join(parts)


async def talk(told: bytes, listen: Callable[[zmtp.Connection], Awaitable[Any]], piece: int = 1 << 20) -> Any:
    """What `listen` makes of these bytes, which come in pieces, and of the end after them."""
    ours, theirs = socket.socketpair()
    pipe = await Pipe.over(ours)
    connection = zmtp.Connection(pipe)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()

    async def tell() -> None:
        for start in range(0, len(told), piece):
            await loop.sock_sendall(theirs, told[start : start + piece])
            await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)

    telling = asyncio.create_task(tell())
    try:
        return await listen(connection)
    finally:
        await pipe.gone()
        await asyncio.gather(telling, return_exceptions=True)
        theirs.close()


async def messages(connection: zmtp.Connection, limit: int = 1 << 20, frames: int = 100) -> list[Any]:
    heard = []
    try:
        while True:
            heard.append(await connection.message(limit, frames))
    except zmtp.Unreadable:
        heard.append("unreadable")
    except ConnectionError:
        pass
    return heard


@contextmanager
def taking_at_most(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@given(st.lists(FRAMES, max_size=5), st.integers(1, 700), st.booleans())
@settings(max_examples=100, deadline=None)
def test_messages_are_the_same_in_whatever_pieces_they_come(
    sent: list[list[bytes]], piece: int, long: bool
) -> None:
    told = b"".join(framed(frames, long=long) for frames in sent)
    assert asyncio.run(talk(told, messages, piece)) == sent


@given(st.lists(FRAMES, max_size=5), st.integers(0, 1500), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_what_is_over_the_limits_is_passed_over_and_the_next_is_read(
    sent: list[list[bytes]], limit: int, frames: int
) -> None:
    told = b"".join(map(framed, sent))
    heard = asyncio.run(talk(told, lambda connection: messages(connection, limit, frames)))
    assert heard == [
        message if sum(map(len, message)) <= limit and len(message) <= frames else None for message in sent
    ]


@given(st.lists(st.binary(max_size=50), max_size=20), st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_end_in_messages_or_a_refusal(parts: list[bytes], rest: bytes) -> None:
    told = (
        b"".join(bytes((number % 8,)) + bytes((len(part),)) + part for number, part in enumerate(parts))
        + rest
    )
    for message in asyncio.run(talk(told, messages)):
        assert message in (None, "unreadable") or all(isinstance(frame, bytes) for frame in message)


def shake(told: bytes) -> None:
    asyncio.run(talk(told, lambda connection: connection.shake_hands(b"ROUTER")))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_greeting_is_understood_or_refused(told: bytes) -> None:
    with pytest.raises(ConnectionError):
        shake(told)


@pytest.mark.parametrize(
    "told",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(64),
        b"\x00" + GREETING[1:] + READY,
        GREETING[:10] + b"\x01" + GREETING[11:] + READY,
        GREETING[:12] + b"CURVE".ljust(20, b"\0") + GREETING[32:] + READY,
        GREETING + framed([b"hello"]),
        GREETING + b"\x04\x06\x05ERROR",
        GREETING + b"\x06" + (1 << 62).to_bytes(8),
        GREETING + b"\xff" * 9,
    ],
)
def test_other_greetings_are_refused(told: bytes) -> None:
    with pytest.raises(zmtp.Unreadable):
        shake(told)
    shake(GREETING + READY)


def test_a_handshake_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmtp, "_SHAKE_SECONDS", 0.05)

    async def wait() -> None:
        ours, theirs = socket.socketpair()
        pipe = await Pipe.over(ours)
        with pytest.raises(zmtp.Unreadable, match="in time"):
            await zmtp.Connection(pipe).shake_hands(b"ROUTER")
        await pipe.gone()
        theirs.close()

    asyncio.run(wait())


def test_commands_are_passed_over() -> None:
    told = (
        b"\x04\x03abc"
        + framed([b"one"])
        + b"\x06"
        + (70_000).to_bytes(8)
        + bytes(70_000)
        + framed([b"two", b"three"])
    )
    assert asyncio.run(talk(told, messages)) == [[b"one"], [b"two", b"three"]]


@pytest.mark.parametrize("told", [b"\x08\x00", b"\xff" * 9, b"\x02" + b"\xff" * 8])
def test_what_is_no_frame_is_refused(told: bytes) -> None:
    assert asyncio.run(talk(told, messages)) == ["unreadable"]


@pytest.mark.parametrize(
    "told",
    [
        framed([b"x" * 1000] * 30_000),
        framed([b""] * 100_000),
        b"\x03" + (1 << 62).to_bytes(8) + bytes(30_000_000),
        framed([b"x" * 30_000_000, b""]),
    ],
    ids=["frames without end", "empty frames without end", "a frame without end", "a large frame"],
)
async def test_an_endless_message_takes_no_memory(told: bytes) -> None:
    with taking_at_most(3_000_000):
        assert (await talk(told, messages))[:1] in ([], [None])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 16_384, 16_385, 3_000_000])
async def test_real_zeromq_sockets_understand_us(tmp_path: Path, size: int) -> None:
    context = zmq.asyncio.Context()
    router, publisher = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
    sent = [b"first", bytes(size), b"last"]
    router.bind(f"ipc://{tmp_path}/r")
    publisher.bind(f"ipc://{tmp_path}/p")
    pipes = [Pipe(*await asyncio.open_unix_connection(tmp_path / name)) for name in "rp"]
    client, subscriber = map(zmtp.Connection, pipes)
    await client.shake_hands(b"DEALER")
    await client.send(*sent)
    asked = await router.recv_multipart()
    assert asked[1:] == sent
    await router.send_multipart(asked)
    assert await client.message(1 << 30, 10) == sent
    await subscriber.shake_hands(b"SUB")
    await subscriber.send(b"\x01")
    assert await publisher.recv() == b"\x01"
    await publisher.send_multipart(sent)
    assert await subscriber.message(1 << 30, 10) == sent
    for pipe in pipes:
        await pipe.gone()
    context.destroy(linger=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("\U0001f600,"),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
)


@given(JSON, st.booleans())
@settings(max_examples=200, deadline=None)
def test_json_is_parsed_as_it_is(value: Any, plain: bool) -> None:
    assert bounded.parse(json.dumps(value, ensure_ascii=plain).encode()) == value


@given(st.binary(max_size=100) | st.text('{}[],:"\\u0e1', max_size=50).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_json_or_a_valueerror(data: bytes) -> None:
    try:
        bounded.parse(data)
    except ValueError:
        return
    json.loads(data.decode("utf-8", "replace"))


MIB = 1 << 20
GROWING = {
    "dicts": b"[" + b"{}," * MIB + b"1]",
    "lists": b"[" + b"[]," * MIB + b"1]",
    "short texts": b"[" + b'"ab",' * (MIB // 2) + b"1]",
    "keys": b"{" + b",".join(b'"%d":%d' % (number, number) for number in range(300_000)) + b"}",
    "wide characters": b'"' + b"x" * (15 * MIB) + b'\\ud83d\\ude00"',
    "wide bytes": ('"' + "x" * (15 * MIB) + '\U0001f600"').encode(),
    "quotes": b'"' * (4 * MIB),
    "escaped quotes": b'"' + b'\\"' * (2 * MIB),
    "half texts": b'"\\' * (2 * MIB),
}


@pytest.mark.parametrize("data", GROWING.values(), ids=GROWING)
def test_parsing_takes_bounded_memory_and_time(data: bytes) -> None:
    with (
        taking_at_most(int(1.1 * bounded.MAX_PARSED)),
        pytest.raises(ValueError, match=r"parsing it takes|Expecting|Extra data|Unterminated"),
    ):
        bounded.parse(data)


@pytest.mark.parametrize(
    "text",
    ["x" * 15 * MIB, "a,b;" * 3 * MIB, '"quoted" ' * MIB, "\U0001f600" * MIB, "line\n" * 2 * MIB],
    ids=["plain", "commas", "quotes", "wide", "lines"],
)
def test_long_texts_are_taken_whatever_is_in_them(text: str) -> None:
    data = json.dumps({"text": text}).encode()
    with taking_at_most(int(1.1 * bounded.MAX_PARSED)):
        assert bounded.parse(data) == {"text": text}


@given(JSON)
def test_sizes_are_those_of_all_parts(value: Any) -> None:
    size = bounded.size_of(value)
    assert bounded.size_of([value, "x" * 1000]) > size + 1000
    assert bounded.size_of({"k": value}) > size
