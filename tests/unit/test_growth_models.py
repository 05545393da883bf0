"""What reads the replies of model servers takes time in proportion to their length, whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlm_kernel.bounded import MAX_VALUES
from rlm_kernel.models._bounds import ERROR_BYTES, load
from rlm_kernel.models._direct import Listening
from rlm_kernel.models._faults import Failure, of_error, words
from rlm_kernel.models._http import Exchange
from rlm_kernel.models._reading import Read, parse, read
from rlm_kernel.models._streams import Chunks
from rlm_kernel.models._tool_calls import ToolCall, in_text
from rlm_kernel.models._usage import usage
from tests.support.growth import LIMIT, growth


def whole(body: bytes, status: int = 200) -> Read | Failure:
    found = parse(Exchange("http://h", status=status, body=body))
    if isinstance(found, Failure):
        return found
    usage(found, 1, 1)
    return read(found, code=True)


def completion(**message: Any) -> bytes:
    return json.dumps({"choices": [{"finish_reason": "stop", "message": message}]}).encode()


def event(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"


BODIES: dict[str, Callable[[int], bytes]] = {
    "text": lambda n: completion(content='a "b" [1], ' * n),
    "parts": lambda n: completion(content=[{"type": "text", "text": "a"}] * n),
    "thoughts": lambda n: completion(content="a", reasoning_details=[{"text": "b"}] * n),
    "choices": lambda n: json.dumps({"choices": [{"message": {"content": ""}}] * n}).encode(),
    "calls": lambda n: completion(
        content="a\n" * n, tool_calls=[{"function": {"name": "python", "arguments": "x"}}] * 50
    ),
    "too many calls": lambda n: completion(
        tool_calls=[{"function": {"name": "python", "arguments": "x"}}] * n
    ),
    "comments": lambda n: b":\n" * n + completion(content="a"),
    "events": lambda n: event(content="ab") * n,
    "events of thoughts": lambda n: event(reasoning="ab") * n + event(content="a"),
    "events of calls": lambda n: (
        event(tool_calls=[{"index": 0, "function": {"name": "python", "arguments": "x=1;"}}]) * n
    ),
    "events of many calls": lambda n: b"".join(
        event(tool_calls=[{"index": i, "function": {"name": "f"}}]) for i in range(n)
    ),
    "events of names": lambda n: b"".join(b'data: {"a%d": 1}\n' % number for number in range(n)),
    "chunks on lines": lambda n: event(content="ab").replace(b"data: ", b"") * n,
    "deep": lambda n: (
        b"[" * min(n, 200_000)
    ),  # what is deeper costs as much as may be parsed at most, however long it is
    "deep events": lambda n: b"data: [[[[[[[[[[\n" * n,
    "quotes": lambda n: b'{"' + b'\\"' * n + b"[" * 200,
    "unclosed": lambda n: b'["a' * n,
}


SIZES = {"quotes": MAX_VALUES}
"""Where others begin: from so many marks on they are counted by the slower way, which is no growth."""


@pytest.mark.parametrize("name", BODIES)
def test_a_reply_is_read_in_time_proportional_to_its_length(name: str) -> None:
    assert growth(BODIES[name], whole, SIZES.get(name, 2000)) < LIMIT


def batched(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 3] for at in range(0, len(data), 3))


STREAMS: dict[str, Callable[[int], list[bytes]]] = {
    "chunks": lambda n: [event(content="a")] * n,
    "bytes": lambda n: list(batched(event(content="ab" * n))),
    "lines": lambda n: [b'data: {"choices": [\n'] * n,
    "broken lines": lambda n: [b"data: {\n", *[event(content="a")[:-1]] * n],
    "comments": lambda n: [b":\n"] * n,
    "blocks": lambda n: [event(reasoning_details=[{"type": "reasoning.text", "text": "a", "index": 0}])] * n,
    "kinds": lambda n: [event(reasoning_details=[{"type": f"a{i}", "text": "a"}]) for i in range(n)],
}


@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_heard_in_time_proportional_to_its_length(pieces: Callable[[int], list[bytes]]) -> None:
    def hear(given: list[bytes]) -> None:
        listening = Listening(Chunks(), lambda _text, _thought: True)
        for piece in given:
            listening(piece)
        listening.completion(stopped=False)

    assert growth(pieces, hear, 1000) < LIMIT


ARGUMENTS: dict[str, Callable[[int], str]] = {
    "fence and lines": lambda n: "```\n" + "\n" * n + "x",
    "fences": lambda n: "```\n" * n + "x",
    "quote and blanks": lambda n: '{"code": "' + '" ' + " " * n + "x",
    "escapes": lambda n: '{"code": "' + '\\n"' * n,
    "runs of backticks": lambda n: "x = '`' # ``\n" * n,
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_tool_call_is_read_in_time_proportional_to_its_length(arguments: Callable[[int], str]) -> None:
    assert (
        growth(lambda n: [ToolCall("python", arguments(n))], lambda calls: in_text("", calls), 20_000) < LIMIT
    )


@pytest.mark.parametrize(
    "error",
    [
        lambda n: {"error": {"message": "context " * n}},
        lambda n: {"errors": ["too long for " * n] * 3},
        lambda n: {"error": '{"error": "' + "[" * n},
        lambda n: {"message": "limit of " + "1" * n},
        lambda n: {"a" * n: 1},
    ],
)
def test_an_error_is_read_in_time_proportional_to_its_length(error: Callable[[int], Any]) -> None:
    assert growth(error, lambda found: (of_error(found, 400), words(found)), 50_000) < LIMIT


@pytest.mark.parametrize("line", ["Mon, 01 Jan 2029 {}", "{}", "Mon,{} 01 Jan 2029 00:00:00 GMT"])
@pytest.mark.parametrize("filling", ["(", " ", '"'])
def test_a_header_takes_the_same_time_however_long_it_is(line: str, filling: str) -> None:
    def wait(value: str) -> None:
        for _ in range(500):
            of_error({}, 429, {"retry-after": value, "date": value})

    assert growth(lambda n: line.format(filling * n), wait, 2000) < LIMIT / 2


def test_no_error_is_so_long_that_its_patterns_take_long() -> None:
    assert ERROR_BYTES <= 1 << 16
    with pytest.raises(ValueError, match="nested too deep"):
        load("[" * ERROR_BYTES)
