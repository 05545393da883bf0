"""An engine or a first process that lies, floods or does not read: what the host's end of the stream makes of
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from rlm_contract import VERSION, frames

from rlm_kernel.errors import DockerError, KernelError
from rlm_kernel.sandbox import stream
from rlm_kernel.sandbox.ended import Ended
from rlm_kernel.sandbox.stream import Channel, Stream, StreamLost
from tests.support.certificates import make_certificates
from tests.support.container import REPLY
from tests.support.growth import LIMIT, growth
from tests.support.sandbox import until
from tests.unit.sandbox.test_stream import pieces


class Liar:
    """An engine whose container says what a test wants."""

    def __init__(self, reply: bytes = REPLY) -> None:
        self._reply = reply
        self.stream: Stream
        self.channels: list[Channel] = []

    async def attach(self) -> Stream:
        ours, self._theirs = socket.socketpair()
        self._theirs.sendall(self._reply)
        self.stream = Stream(b"", self.channels.append)
        await asyncio.get_running_loop().create_connection(lambda: self.stream, sock=ours)
        await self.stream.attached
        return self.stream

    def say(self, data: bytes, kind: int = 1) -> None:
        self._theirs.sendall(struct.pack("!BxxxI", kind, len(data)) + data)

    def welcome(self, told: Any) -> None:
        self.say(
            b"stray bytes" + self.stream._nonce + frames.pack(frames.WELCOME, 0, json.dumps(told).encode())
        )

    def listen(self) -> None:
        """Take what is sent, and answer nothing."""
        with contextlib.suppress(OSError):
            while self._theirs.recv(1 << 20):
                pass

    def close(self) -> None:
        self._theirs.close()
        self.stream.close()


@pytest_asyncio.fixture
async def liar() -> AsyncIterator[Liar]:
    made = Liar()
    yield made
    made.close()
    await asyncio.sleep(0)


OPEN = frames.pack(frames.OPEN, frames.THEIRS)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            OPEN + frames.pack(frames.DATA, frames.THEIRS, bytes(frames.MOST)) * 3, id="more than its credit"
        ),
        pytest.param(OPEN + OPEN, id="a channel twice"),
        pytest.param(frames.pack(frames.OPEN, 5), id="a channel of the host's"),
        pytest.param(
            b"".join(frames.pack(frames.OPEN, frames.THEIRS + n) for n in range(stream.MAX_OPEN + 2)),
            id="too many channels",
        ),
        pytest.param(b"\xff" * 100, id="no frame"),
        pytest.param(frames.pack(frames.DATA, 1, b"x")[:-1] + b"\x07", id="a wrong end"),
    ],
)
async def test_who_does_not_keep_to_the_rules_is_cut_off(liar: Liar, said: bytes) -> None:
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})
    liar.say(said)
    async with asyncio.timeout(10):
        await made.lost
    for channel in liar.channels:
        with pytest.raises(StreamLost):
            await channel.read(1 << 20)


async def test_who_asks_for_answers_and_reads_none_is_cut_off(
    liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_MOST_UNREAD", 100_000)
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})

    def ask() -> None:
        with contextlib.suppress(OSError):
            while True:
                liar.say((OPEN + frames.pack(frames.CLOSE, frames.THEIRS)) * 1_000)

    asking = asyncio.create_task(asyncio.to_thread(ask))
    async with asyncio.timeout(60):
        await made.lost
    await asking


async def test_channels_that_the_other_end_never_lets_go_of_do_not_run_out(liar: Liar) -> None:
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})
    deaf = asyncio.create_task(asyncio.to_thread(liar.listen))
    for number in range(2 * frames.THEIRS):
        if made.lost.done():
            break
        made.open("shell").close()
        if not number % 100:
            await asyncio.sleep(0)
    assert made.lost.done()
    with pytest.raises(StreamLost):
        await made.open("shell").read(1)
    await deaf


async def test_data_in_the_smallest_pieces_takes_no_more_memory_than_its_size(liar: Liar) -> None:
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})
    liar.say(OPEN)
    await until(lambda: len(liar.channels) == 1)
    channel = liar.channels[0]
    reading = asyncio.create_task(channel.read(1 << 20))
    await asyncio.sleep(0)  # asks for as much
    tracemalloc.start()
    try:
        sent = bytes(range(256)) * (1 << 12)
        small = 1 << 17
        pairs = [frames.pack(frames.DATA, frames.THEIRS, sent[at : at + 2]) for at in range(0, small, 2)]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for at in range(0, len(pairs), 2_000):
            said = b"".join(pairs[at : at + 2_000])
            made.data_received(struct.pack("!BxxxI", 1, len(said)) + said)
        assert channel._have == small
        assert tracemalloc.get_traced_memory()[1] - before < 4 * small
    finally:
        tracemalloc.stop()
    for at in range(small, len(sent), frames.MOST):
        said = frames.pack(frames.DATA, frames.THEIRS, sent[at : at + frames.MOST])
        made.data_received(struct.pack("!BxxxI", 1, len(said)) + said)
    assert await reading == sent


LIFE = frames.pack(frames.LIFE)
WELCOME = json.dumps({"version": VERSION}).encode()
FLOODS = {
    "signs of life": LIFE,
    "idle bytes between frames": b"\0" + LIFE,
    "long rows of idle bytes": bytes(1000) + LIFE,
    "credit for nothing": frames.pack(frames.CREDIT, 77, b"\xff" * 4),
    "words for nobody": frames.pack(frames.DATA, 77, b"x"),
    "greetings of the other side": frames.pack(frames.HELLO, 0, b"[" * 100),
    "a second welcome": frames.pack(frames.WELCOME, 0, b"{}"),
    "ends of nothing": frames.pack(frames.CLOSE, 77),
}


@pytest.mark.parametrize("name", FLOODS)
def test_the_work_of_a_flood_grows_with_its_size_and_no_faster(name: str) -> None:
    def make(size: int) -> tuple[Stream, bytes]:
        async def greeted() -> Stream:
            made = Stream(b"", lambda _channel: None)
            said = made._nonce + frames.pack(frames.WELCOME, 0, WELCOME)
            made.data_received(REPLY + struct.pack("!BxxxI", 1, len(said)) + said)
            return made

        said = FLOODS[name] * (size // len(FLOODS[name]))
        return asyncio.run(greeted()), struct.pack("!BxxxI", 1, len(said)) + said

    assert growth(make, lambda made: made[0].data_received(made[1]), 40_000) < LIMIT


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_work_of_single_bytes_before_the_welcome_grows_with_their_number(kind: int) -> None:
    def make(size: int) -> tuple[Stream, bytes]:
        async def attached() -> Stream:
            made = Stream(b"", lambda _channel: None)
            made.data_received(REPLY)
            return made

        return asyncio.run(attached()), (struct.pack("!BxxxI", kind, 1) + b"x") * (size // 9)

    assert growth(make, lambda made: made[0].data_received(made[1]), 400_000) < LIMIT


@pytest.mark.parametrize(
    "told",
    [
        b"[" * 60_000,
        b'{"version": ' * 200 + b"1" + b"}" * 200,
        b'{"version": ' + b"9" * 60_000 + b"}",
        b"\xff\xfe",
        b"",
        b'{"version": 1e999}',
        b'{"version": [1]}',
    ],
    ids=lambda told: repr(told[:15]),
)
async def test_a_welcome_that_cannot_be_read_is_none(liar: Liar, told: bytes) -> None:
    made = await liar.attach()
    liar.say(made._nonce + frames.pack(frames.WELCOME, 0, told) * 2)
    with pytest.raises(KernelError, match="another version"):
        await made.greet({})


async def test_the_nonce_is_heard_in_pieces_behind_any_amount_and_credit_may_be_as_large_as_it_likes(
    liar: Liar,
) -> None:
    made = await liar.attach()
    for piece in (
        b"x" * 100_000,
        made._nonce[:31],
        b"y",
        *(made._nonce[at : at + 1] for at in range(frames.NONCE)),
    ):
        liar.say(piece)
    liar.say(frames.pack(frames.WELCOME, 0, json.dumps({"version": VERSION}).encode()))
    await made.greet({})
    liar.say(
        OPEN
        + frames.pack(frames.CREDIT, frames.THEIRS, b"\xff" * 4) * 3
        + frames.pack(frames.CREDIT, frames.THEIRS)
    )
    await until(lambda: len(liar.channels) == 1)
    writing = asyncio.create_task(liar.channels[0].write(bytes(20 << 20)))
    assert made._transport is not None
    for _ in range(100):
        await asyncio.sleep(0)
        assert made._transport.get_write_buffer_size() + made._pending < 1 << 20
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_heads_of_the_engine_may_name_any_kind_and_size(liar: Liar) -> None:
    made = await liar.attach()
    for kind in (0, 2, 3, 255):
        liar._theirs.sendall(
            struct.pack("!BBBBI", kind, 9, 9, 9, 5) + b"\xff" * 5 + struct.pack("!BxxxI", kind, 0)
        )
    liar.welcome({"version": VERSION})
    await made.greet({})
    liar._theirs.sendall(
        struct.pack("!BxxxI", 1, (1 << 32) - 1) + OPEN + frames.pack(frames.DATA, frames.THEIRS, b"yes")
    )
    await until(lambda: len(liar.channels) == 1)
    assert await liar.channels[0].read(3) == b"yes"


async def test_frames_for_channels_that_are_not_open_are_passed_over(liar: Liar) -> None:
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})
    for kind in (frames.DATA, frames.CREDIT, frames.CLOSE, frames.HELLO, frames.INTERRUPT, frames.LIFE):
        liar.say(frames.pack(kind, 77, b"xxxx"))
    liar.say(OPEN + frames.pack(frames.DATA, frames.THEIRS, b"yes"))
    await until(lambda: len(liar.channels) == 1)
    assert await liar.channels[0].read(3) == b"yes"


async def test_the_last_word_of_a_first_process_ends_the_stream_and_nothing_behind_it_counts(
    liar: Liar,
) -> None:
    made = await liar.attach()
    liar.welcome({"version": VERSION})
    await made.greet({})
    liar.say(
        OPEN
        + frames.pack(frames.DATA, frames.THEIRS, b"yes")
        + frames.pack(frames.END, 0, b'{"status": 3, "words": "x"}')
    )
    liar.say(frames.pack(frames.OPEN, frames.THEIRS + 1))
    await asyncio.wait_for(made.lost, 10)
    assert (made.end, made.malformed, len(liar.channels)) == (Ended(3, words="x"), False, 1)
    assert await liar.channels[0].read(3) == b"yes"


@pytest.mark.parametrize("told", [{"version": VERSION + 1}, {}, [], None, "x"])
async def test_another_version_is_refused(liar: Liar, told: Any) -> None:
    made = await liar.attach()
    liar.welcome(told)
    with pytest.raises(KernelError, match="another version"):
        await made.greet({})


async def test_what_is_said_before_the_stream_ends_is_kept_in_bounds(liar: Liar) -> None:
    made = await liar.attach()
    for said in (b"x" * 50_000, b"x" * 50_000, b"why it ends"):
        liar.say(said, kind=2)
    liar._theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(StreamLost):
        await made.greet({})
    assert made.words().endswith("xwhy it ends")
    assert len(made.words()) < 10_000


@pytest.mark.parametrize("headed", [True, False])
async def test_an_engine_that_refuses_is_told(headed: bool) -> None:
    body = b'{"message": "no such container"}'
    length = b"Content-Length: %d\r\n" % len(body) if headed else b""
    liar = Liar(b"HTTP/1.1 404 Not Found\r\n" + length + b"\r\n" + body)
    with pytest.raises(DockerError, match="no such container"):
        await liar.attach()
    liar.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 500 No\r\nContent-Length: 10000\r\n\r\n" + b'{"message":' * 900 + b"}" * 900,
        b"HTTP/1.1 101 UP\r\n" + b"X: y\r\n" * 100_000,
        b"\xff\xfe" * 100_000,
        b'HTTP/1.1 500 No\r\n\r\n{"message": 5}',
        b'HTTP/1.1 500 No\r\n\r\n{"message": "\\ud800"}',
        b"HTTP/1.1",
        b"",
    ],
    ids=lambda reply: repr(reply[:40]),
)
async def test_an_engine_that_answers_anything_else_ends_the_attempt(reply: bytes) -> None:
    ours, theirs = socket.socketpair()
    made = Stream(b"", lambda _channel: None)
    with theirs:
        theirs.settimeout(10)
        await asyncio.get_running_loop().create_connection(lambda: made, sock=ours)

        def answer() -> None:
            with contextlib.suppress(OSError):
                theirs.sendall(reply)
                theirs.shutdown(socket.SHUT_WR)

        await asyncio.to_thread(answer)
        async with asyncio.timeout(10):
            with pytest.raises((DockerError, ConnectionError)):
                await made.attached
            await made.lost
    await asyncio.sleep(0)


async def test_a_connection_by_tls_that_is_cut_ends_the_stream(tmp_path: Path) -> None:
    make_certificates(tmp_path / "server", tmp_path / "client")
    ours, theirs = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(cafile=tmp_path / "client/ca.pem"),
    )
    ours.load_cert_chain(tmp_path / "server/server-cert.pem", tmp_path / "server/server-key.pem")
    theirs.check_hostname = False
    made = Stream(b"attach", lambda _channel: None)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(6)
        said = (
            made._nonce
            + frames.pack(frames.WELCOME, 0, WELCOME)
            + frames.pack(frames.DATA, 1, b"x" * 1000)[:-1]
        )
        writer.write(REPLY + struct.pack("!BxxxI", 1, len(said) + 1) + said)
        await writer.drain()
        await made.welcome
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.get_running_loop().create_connection(lambda: made, "127.0.0.1", port, ssl=theirs)
        await made.greet({})
        with pytest.raises(StreamLost):
            await made.open("shell").read(1000)
        await made.lost


@given(st.lists(st.integers(0, 100_000), max_size=30))
def test_the_engines_heads_may_be_cut_anywhere(cuts: list[int]) -> None:
    async def run() -> None:
        got: list[Channel] = []
        made = Stream(b"", got.append)
        said = (
            made._nonce
            + frames.pack(frames.WELCOME, 0, WELCOME)
            + OPEN
            + frames.pack(frames.DATA, frames.THEIRS, b"abc")
        )
        data = REPLY
        for piece in pieces(said, cuts[:5]):
            data += struct.pack("!BxxxI", 1, len(piece)) + piece + struct.pack("!BxxxI", 2, 3) + b"err"
        for piece in pieces(data, cuts):
            made.data_received(piece)
        assert made.welcome.result() == {"version": VERSION}
        assert await got[0].read(3) == b"abc"
        assert set(made.words()) <= set("er")
        made.close()

    asyncio.run(run())
