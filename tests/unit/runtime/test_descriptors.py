"""What is written to descriptors is read by whoever looks first, and passed on before anybody else looks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from rlm_runtime.descriptors import Descriptor


class Stream:
    """As ipykernel's, with a pipe behind a descriptor, and a thread that reads it."""

    name = "stdout"

    def __init__(self) -> None:
        self._fid, self._original_stdstream_fd = os.pipe()
        self.echoed, self._original_stdstream_copy = os.pipe()
        self._should_watch = True
        self.texts: list[str] = []
        self.written = threading.Event()
        self.watch_fd_thread = threading.Thread(target=os.read, args=(self._fid, 1))
        self.watch_fd_thread.start()

    def write(self, text: str) -> None:
        self.texts.append(text)
        self.written.set()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    os.close(made._original_stdstream_fd)  # which ends the thread


def test_what_was_written_before_the_end_of_a_cell_is_there_at_its_end(stream: Stream) -> None:
    descriptor = Descriptor(stream)
    for number in range(2000):
        os.write(stream._original_stdstream_fd, b"%d " % number)
        descriptor.take_up()
        assert "".join(stream.texts).split()[-1] == str(number)
        assert os.read(stream.echoed, 64) == b"%d " % number


def test_what_is_written_meanwhile_is_passed_on_by_itself(stream: Stream) -> None:
    Descriptor(stream)
    os.write(stream._original_stdstream_fd, b"told")
    assert stream.written.wait(10)
    assert stream.texts == ["told"]


def test_a_character_that_comes_in_parts_is_one(stream: Stream) -> None:
    descriptor = Descriptor(stream)
    for part in ("ä€".encode()[:1], "ä€".encode()[1:4], "ä€".encode()[4:]):
        os.write(stream._original_stdstream_fd, part)
        descriptor.take_up()
    assert "".join(stream.texts) == "ä€"


def test_a_writer_that_goes_on_holds_no_cell_up(stream: Stream) -> None:
    descriptor = Descriptor(stream)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            os.write(stream._original_stdstream_fd, b"x" * 1000)
            os.read(stream.echoed, 1 << 16)

    writer = threading.Thread(target=write)
    writer.start()
    descriptor.take_up()  # it fails by the time limit of tests if it waits for the writer
    over.set()
    writer.join()
