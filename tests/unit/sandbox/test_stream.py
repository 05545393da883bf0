"""The stream to a container: frames, credit, and what either end does to a liar, a flood or a new owner."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_contract import frames

from rlm_kernel.sandbox.stream import Channel, StreamLost
from tests.support.container import FirstProcess
from tests.support.sandbox import until

FRAMES = st.lists(
    st.tuples(st.integers(1, frames.LIFE), st.integers(0, 0xFFFF), st.binary(max_size=300)), max_size=12
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[one:other] for one, other in itertools.pairwise(places)]


@given(FRAMES, st.lists(st.integers(0, 10_000)), st.integers(0, 3))
def test_frames_arrive_however_they_are_cut_and_whatever_idle_bytes_are_between(
    sent: Any, cuts: list[int], idle: int
) -> None:
    data = b"".join(bytes(idle) + frames.pack(*frame) for frame in sent)
    reader = frames.Reader()
    assert [frame for piece in pieces(data, cuts) for frame in reader.feed(piece)] == sent


@given(st.binary(min_size=1, max_size=300), st.integers(1, 10_000), st.sampled_from([300, frames.MOST]))
def test_a_new_owner_is_heard_wherever_the_last_one_was_cut_off(payload: bytes, cut: int, size: int) -> None:
    begun = frames.pack(frames.DATA, 7, payload.ljust(size, b"x"))
    reader = frames.Reader()
    sent = begun[: cut % len(begun)] + frames.FILLER + frames.pack(frames.HELLO, 0, b"{}")
    assert list(reader.feed(sent)) == [(frames.HELLO, 0, b"{}")]


@given(st.lists(st.binary(max_size=2_000)))
def test_what_is_no_frame_is_refused_and_takes_no_memory(sent: list[bytes]) -> None:
    reader = frames.Reader()
    try:
        for piece in sent:
            for kind, _, payload in reader.feed(piece):
                assert kind <= frames.LIFE
                assert len(payload) <= frames.MOST
    except frames.Malformed:
        pass
    assert len(reader._buffer) <= frames.MOST + 8


@pytest.fixture
def first(tmp_path: Path) -> Iterator[FirstProcess]:
    made = FirstProcess(tmp_path)
    yield made
    made.close()


@pytest.fixture
def called() -> asyncio.Queue[Channel]:
    return asyncio.Queue()


def echo(listener: socket.socket) -> None:
    """Serve one connection."""

    def work() -> None:
        end, _ = listener.accept()
        with end:
            while piece := end.recv(1 << 20):
                end.sendall(piece)

    threading.Thread(target=work, daemon=True).start()


async def test_large_data_goes_both_ways_at_once(first: FirstProcess) -> None:
    made = await first.attach()
    with first.serve("shell") as listener:
        echo(listener)
        channel = made.open("shell")
        data = bytes(range(256)) * 20_000
        writing = asyncio.create_task(channel.write(data))
        assert await channel.read(len(data)) == data
        await writing
        channel.close()
    made.close()


async def test_a_call_is_a_channel_until_either_end_closes_it(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    made = await first.attach(called.put_nowait)
    with first.call() as inner:
        inner.sendall(b"12345")
        channel = await called.get()
        assert [await channel.read(2), await channel.read(3)] == [b"12", b"345"]
        await channel.write(b"answer")
        assert await asyncio.to_thread(inner.recv, 100) == b"answer"
        channel.close()
        assert await asyncio.to_thread(inner.recv, 100) == b""
    with first.call() as inner:
        inner.sendall(b"last words")
    channel = await called.get()
    assert await channel.read(10) == b"last words"
    with pytest.raises(StreamLost):
        await channel.read(1)
    made.close()


async def test_calls_and_their_answers_wake_those_on_the_way_once(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    made = await first.attach(called.put_nowait)
    assert made._transport is not None
    written: list[bytes] = []
    write = made._transport.write

    def count(data: bytes) -> None:
        written.append(data)
        write(data)

    made._transport.write = count  # type: ignore[method-assign, assignment]
    with first.call() as inner:
        channel = await called.get()
        await asyncio.sleep(0)
        written.clear()
        for number in range(100):
            inner.sendall(b"%08d" % number)
            assert await channel.read(8) == b"%08d" % number
            await channel.write(b"yes")
            assert await asyncio.to_thread(inner.recv, 100) == b"yes"
        assert len(written) == 100, "no credit while there is enough"
        written.clear()
        for _ in range(64):
            await channel.write(b"together")
        assert await asyncio.to_thread(inner.recv, 10_000) == b"together" * 64
        assert len(written) == 1
    made.close()


async def test_a_flood_on_one_channel_fills_no_memory_and_holds_up_no_other(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    made = await first.attach(called.put_nowait)
    with first.call() as flood, first.call() as other:
        sent = 0

        def work() -> None:
            nonlocal sent
            while True:
                try:
                    sent += flood.send(bytes(1 << 20))
                except OSError:
                    return

        threading.Thread(target=work, daemon=True).start()
        flooded, quiet = await called.get(), await called.get()
        if quiet.number < flooded.number:
            flooded, quiet = quiet, flooded
        for _ in range(200):
            other.sendall(b"ask")
            assert await quiet.read(3) == b"ask"
            await quiet.write(b"answer")
            assert await asyncio.to_thread(other.recv, 6) == b"answer"
        assert flooded._have <= frames.WINDOW
        assert sent < 4 << 20
        made.interrupt()
        await until(lambda: first.interrupts == 1)
        flood.shutdown(socket.SHUT_RDWR)
    made.close()


async def test_a_connection_that_does_not_read_holds_up_its_own_answers_alone(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    made = await first.attach(called.put_nowait)
    with first.call() as deaf, first.call() as other:
        unread, quiet = await called.get(), await called.get()
        writing = asyncio.create_task(unread.write(bytes(16 << 20)))
        await quiet.write(b"answer")
        assert await asyncio.to_thread(other.recv, 6) == b"answer"
        assert not writing.done()
        deaf.close()
        with pytest.raises(StreamLost):
            await writing
    made.close()


async def test_large_answers_to_many_wait_for_a_slow_stream_in_bounded_memory(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    made = await first.attach(called.put_nowait)
    calls = [first.call() for _ in range(20)]
    channels = [await called.get() for _ in calls]
    answer = bytes(range(256)) * 4_000
    writing = [asyncio.create_task(channel.write(answer)) for channel in channels]
    assert made._transport is not None
    most = 0
    for _ in range(50):
        await asyncio.sleep(0)
        most = max(most, made._transport.get_write_buffer_size() + made._pending)
    assert most < 2 << 20

    def read(call: socket.socket) -> bytes:
        with call, call.makefile("rb") as file:
            return file.read(len(answer))

    assert set(await asyncio.gather(*(asyncio.to_thread(read, call) for call in calls))) == {answer}
    await asyncio.gather(*writing)
    made.close()


async def test_the_next_owner_finds_no_channel_of_the_last(
    first: FirstProcess, called: asyncio.Queue[Channel]
) -> None:
    last = await first.attach(called.put_nowait)
    with first.call() as before:
        before.sendall(b"asked")
        assert await (await called.get()).read(5) == b"asked"
        assert last._transport is not None
        last._transport.write(frames.pack(frames.DATA, 1, b"x" * 5_000)[:3_000])  # and then it was killed
        last.close()
        following = await first.attach(called.put_nowait, again=True)
        assert await asyncio.to_thread(before.recv, 1) == b""
    with first.call() as after:
        after.sendall(b"asked again")
        assert await (await called.get()).read(11) == b"asked again"
    following.close()


async def test_a_kernel_that_does_not_listen_is_a_closed_channel(first: FirstProcess) -> None:
    made = await first.attach()
    with pytest.raises(StreamLost):
        await made.open("shell").read(1)
    made.close()
