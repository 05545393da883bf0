"""Caps in the kernel. That they hold in a real one: tests/integration/test_hostile_output.py."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from rlm_runtime import display


class Failing(Exception):
    def __init__(self, failure: BaseException) -> None:
        self._failure = failure

    def __str__(self) -> str:
        raise self._failure


class Odd(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307


def test_an_error_that_can_be_shown_stays() -> None:
    error = ValueError("x")
    error.__cause__ = KeyError("y")
    assert display._told(error) is error
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    "error", [Failing(RuntimeError("no")), Failing(KeyboardInterrupt()), Odd(), Failing(RecursionError())]
)
def test_an_error_without_a_message_is_shown_by_its_name(error: Exception) -> None:
    told = display._told(error)
    assert type(told).__name__ == type(error).__name__
    assert "its message cannot be had" in str(told)


def test_a_long_message_keeps_its_two_ends() -> None:
    told = display._told(ValueError("begin" + "x" * 10_000_000 + "end"))
    assert str(told).startswith("begin")
    assert str(told).endswith("end")
    assert len(str(told)) < display.ERROR_CAP + 100


def test_what_led_to_an_error_is_shown_too() -> None:
    try:
        try:
            raise Odd
        except Odd as odd:
            raise ValueError("x" * 1_000_000) from odd
    except ValueError as error:
        told = display._told(error)
    assert type(told).__name__ == "ValueError"
    assert told.__traceback__ is not None
    assert type(told.__cause__).__name__ == "Odd"
    assert "cannot be had" in str(told.__cause__)


def test_errors_that_led_to_each_other_come_to_an_end() -> None:
    one, other = ValueError("a"), Odd()
    one.__context__, other.__context__ = other, one
    assert str(display._told(one)) == "a"
    chain: BaseException = Odd()
    for _ in range(1_000):
        chain, chain.__cause__ = ValueError("x"), chain
    assert str(display._told(chain)) == "x"


def test_a_long_traceback_loses_its_middle() -> None:
    def fall(levels: int) -> None:
        if levels == 0:
            raise ValueError
        fall(levels - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        fall(3_000)
    except ValueError as error:
        trace = frame = error.__traceback__
    finally:
        sys.setrecursionlimit(limit)
    assert display._cut_short(trace)
    count = 0
    while frame is not None:
        count, frame = count + 1, frame.tb_next
    assert count == display.FRAMES_CAP
    assert not display._cut_short(trace)


class Stream:
    """In the place of ipykernel's: notes what reaches it."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def write(self, text: str) -> int:
        self.noted.append(text)
        return len(text)

    def flush(self) -> None:
        self.noted.append("flush")


def test_a_stream_is_flushed_once_for_what_was_written() -> None:
    stream = Stream()
    capped = display.CappedStream(stream)
    stream.flush()
    stream.write("a")
    stream.flush()
    stream.flush()
    stream.write("b" * (display.STREAM_HEAD + 1))
    stream.flush()
    capped.cell_ended()  # writes what it kept of the rest
    stream.flush()
    head, rest = stream.noted[2], stream.noted[4]
    assert stream.noted == ["a", "flush", head, "flush", rest, "flush"]
    assert set(head) == {"b"}
    assert "left out" in rest


def test_what_is_written_during_a_flush_is_flushed_next() -> None:
    class Racing(Stream):
        def flush(self) -> None:
            super().flush()
            if self.noted == ["a", "flush"]:
                self.write("b")  # by another thread, when the buffer was sent already

    stream = Racing()
    display.CappedStream(stream)
    stream.write("a")
    stream.flush()
    stream.flush()
    assert stream.noted == ["a", "flush", "b", "flush"]
