"""What is read of a model server's reply, and how much of it, without HTTP."""

from __future__ import annotations

import gzip
import json
import math
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.bounded import MAX_DEPTH, MAX_VALUES, TooMuch
from rlm_kernel.models._bounds import ERROR_BYTES, REPLY_BYTES, Unreadable, load, unpacked
from rlm_kernel.models._faults import Failure, of_error
from rlm_kernel.models._http import Exchange
from rlm_kernel.models._reading import Read, error_in, parse, read
from rlm_kernel.models._usage import usage

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)
WORDS = """
    choices message delta content text type finish_reason tool_calls function name arguments index usage prompt_tokens completion_tokens
    prompt_tokens_details error errors detail code status n_ctx reasoning refusal base_resp status_code native_finish_reason metadata raw
    loc msg function_call
"""
NAMES = st.sampled_from(WORDS.split())
REPLIES = st.recursive(
    VALUES
    | st.sampled_from(
        [
            "stop",
            "error",
            "tool_use",
            "malformed_function_call",
            "python",
            '{"code": "1"}',
            "429",
            "[" * 500,
            "²",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=40,
)


def read_all(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    """A reply as the model layer reads it."""
    found = parse(Exchange("http://h/v1/chat/completions", status=status, headers=headers or {}, body=body))
    if isinstance(found, Failure):
        return found
    error_in(found)
    counts = usage(found, 10, 10)
    assert math.isfinite(counts.total)
    assert 0 <= counts.cached <= counts.prompt <= 10**12
    return read(found, code=True)


# Bytes


@pytest.mark.parametrize("window", [31, 15, -15])
def test_a_bomb_is_unpacked_no_further_than_the_limit(window: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="more than 16 MiB"):
            unpacked(packed, "deflate")
        assert len(unpacked(packed, "deflate", success=False)) == ERROR_BYTES
        assert tracemalloc.get_traced_memory()[1] < 4 * REPLY_BYTES
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 3))
def test_what_was_packed_comes_out_as_it_was(body: bytes, layers: int) -> None:
    plain = b"{" + body
    packed = plain
    for _ in range(layers):
        packed = gzip.compress(packed, mtime=0)
    assert unpacked(packed, "gzip") == plain
    assert unpacked(zlib.compress(plain), "deflate") == plain
    halves = gzip.compress(plain[:9], mtime=0) + gzip.compress(plain[9:], mtime=0)
    assert unpacked(halves) == plain


@given(st.binary(max_size=100))
def test_what_is_packed_badly_is_no_crash(body: bytes) -> None:
    for packing in ("", "gzip", "deflate", "gzip, deflate"):
        unpacked(b"\x1f\x8b" + body, packing)
        unpacked(body, packing)


# JSON


@given(VALUES)
def test_json_within_the_limits_is_read_as_ever(value: Any) -> None:
    text = json.dumps(value)
    assert json.dumps(load(text)) == json.dumps(json.loads(text))
    assert json.dumps(load(f"[{text}] and more", first=True)) == f"[{json.dumps(json.loads(text))}]"


@given(st.text(alphabet='[{"\\,a', max_size=400))
def test_brackets_in_texts_are_no_depth(text: str) -> None:
    value = ["[" * 300, text, {"a": "\\" * 3}]
    assert load(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 100 levels"),
        ('["\\"",' + "[" * 200 + "]" * 201, "nested deeper than 100 levels"),
        ("[" + "[]," * MAX_VALUES + "1]", "more than 500,000 values"),
        ("[" + "1," * MAX_VALUES + "1]", "more than 500,000 values"),
    ],
)
def test_json_over_a_limit_is_an_error_that_names_it(text: str, why: str) -> None:
    with pytest.raises(TooMuch, match=why):
        load(text)


def test_json_at_the_depth_is_read() -> None:
    assert load("[" * MAX_DEPTH + "]" * MAX_DEPTH)


# Replies


@settings(max_examples=300)
@given(st.dictionaries(NAMES, REPLIES, max_size=6), st.sampled_from([200, 400, 404, 429, 500]))
def test_no_reply_breaks_what_reads_it(reply: dict[str, Any], status: int) -> None:
    whole = json.dumps(reply).encode()
    assert isinstance(read_all(whole, status), Read | Failure)
    assert isinstance(read_all(b"data: " + whole + b"\n\ndata: [DONE]\n", status), Read | Failure)
    assert isinstance(read_all(whole[: len(whole) // 2], status), Read | Failure)


@settings(max_examples=200)
@given(st.lists(REPLIES, max_size=3), st.lists(REPLIES, max_size=3), REPLIES)
def test_no_message_breaks_what_reads_it(content: list[Any], tools: list[Any], more: Any) -> None:
    message = {"content": content, "tool_calls": tools, "reasoning": more, "function_call": more}
    for name in ("message", "delta"):
        body = json.dumps({"choices": [{name: message, "finish_reason": more}], "usage": more}).encode()
        assert isinstance(read_all(body), Read | Failure)
        assert isinstance(read_all(b"data: " + body), Read | Failure)


@given(st.binary(max_size=200), st.sampled_from([200, 302, 404, 500]))
def test_no_bytes_break_what_reads_them(body: bytes, status: int) -> None:
    assert isinstance(read_all(body, status, {"location": body.decode("latin-1")}), Read | Failure)


@given(
    st.text(max_size=120)
    | st.from_regex(r"Mon, 0?[0-9]{1,30} Jan [0-9]{1,30} [0-9]{1,9}:00:00 [+-][0-9]{1,30}", fullmatch=True)
    | st.from_regex(r"-?[0-9]{1,400}(e[0-9]{1,5})?|nan|inf", fullmatch=True)
)
def test_no_header_breaks_the_time_to_wait(value: str) -> None:
    failure = of_error({}, 429, {"retry-after": value, "date": value, "retry-after-ms": value})
    assert failure.retry_after is None or 0 <= failure.retry_after <= 366 * 86400


@pytest.mark.parametrize(
    "told",
    [10**400, -(10**400), 1e308, math.inf, math.nan, "9" * 10**6, "1e999", True, [1], {"a": 1}, None, ""],
)
def test_a_count_that_makes_no_sense_is_none(told: Any) -> None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens")
    found = usage(
        {"usage": dict.fromkeys(names, told) | {"prompt_tokens_details": {"cached_tokens": told}}}, 10, 2
    )
    assert (found.prompt, found.completion, found.cached, found.estimated) == (10, 2, 0, True)


def test_a_reply_with_many_tool_calls_is_refused_by_its_number() -> None:
    calls = [{"function": {"name": "python", "arguments": "print(1)"}}] * 101
    found = read_all(json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode())
    assert isinstance(found, Failure)
    assert "calls 101 tools, and at most 100" in found.said


def test_long_names_and_reasons_are_cut() -> None:
    found = read_all(
        json.dumps(
            {"model": "m" * 10**6, "choices": [{"finish_reason": "f" * 10**6, "message": "hello"}]}
        ).encode()
    )
    assert isinstance(found, Read)
    assert (found.text, len(found.finish or "")) == ("hello", 100)
    window = of_error({"error": {"message": "context_length_exceeded", "n_ctx": 10**400}}, 400)
    assert (window.fault, window.window) == ("too_long", None)
