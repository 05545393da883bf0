"""What Anthropic's API sends, however odd: read, bounded, and never an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.models import _anthropic, _anthropic_reply
from rlm_kernel.models._anthropic_schema import taken
from rlm_kernel.models._bounds import Unreadable
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._reading import Read, read
from rlm_kernel.models._usage import usage
from tests.support.growth import LIMIT, growth

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "image", "", None, 1])
NAMES = ["type", "text", "thinking", "signature", "data", "name", "input", "partial_json"]
BLOCKS = st.fixed_dictionaries(
    {"type": KINDS | JSON}, optional=dict.fromkeys(NAMES[1:], JSON | st.just("json_tool_call"))
)
DELTAS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]) | JSON},
    optional=dict.fromkeys([*NAMES[1:], "stop_reason"], JSON),
)
USAGE = st.dictionaries(
    st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation"]), JSON
)
EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "message_start", "content_block_start", "content_block_delta", "content_block_stop",
                "message_delta", "message_stop", "ping", "error", "new",
            ]
        )
        | JSON
    },
    optional={
        "index": st.integers(0, 3) | JSON,
        "content_block": BLOCKS | JSON,
        "delta": DELTAS | JSON,
        "message": st.fixed_dictionaries({}, optional={"usage": USAGE | JSON, "model": JSON}) | JSON,
        "usage": USAGE | JSON,
        "error": JSON,
    },
)  # fmt: skip


def understood(found: dict[str, Any]) -> Read | Failure:
    """What the reader of all replies makes of it."""
    usage(found, 10, 10)
    return read(found, code=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content": st.lists(BLOCKS | JSON, max_size=4) | JSON,
            "stop_reason": JSON,
            "usage": USAGE | JSON,
            "model": JSON,
            "error": JSON,
            "type": JSON,
        },
    )
    | JSON
)
def test_any_reply_is_read(found: Any) -> None:
    assert isinstance(understood(_anthropic.completion(found)), Read | Failure)


@given(st.lists(EVENTS | JSON, max_size=12))
def test_any_stream_is_read(events: list[Any]) -> None:
    stream = _anthropic.Stream()
    texts = ""
    for event in events:
        text, thoughts = stream.add(event)
        assert isinstance(thoughts, str)
        texts += text
    found = stream.completion()
    assert isinstance(understood(found), Read | Failure)
    json.dumps(found, default=str)


def test_words_in_odd_shapes_are_words() -> None:
    for content in (
        "hello",
        [{"type": "text", "text": "hello"}],
        [{"type": "text", "text": ["hel", "lo"]}],
        ["hello"],
    ):
        found = _anthropic.completion({"content": content, "stop_reason": "end_turn"})
        assert understood(found) == Read("hello", "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "pause_turn"),
        ("something_new", "something_new"),
        (None, None),
    ],
)
def test_why_a_reply_ended(reason: Any, finish: str | None) -> None:
    found = _anthropic.completion({"content": [{"type": "text", "text": "a"}], "stop_reason": reason})
    assert understood(found) == Read("a", finish)


def test_a_refusal_in_the_middle_is_one() -> None:
    found = _anthropic.completion({"content": [{"type": "text", "text": "I"}], "stop_reason": "refusal"})
    failure = understood(found)
    assert isinstance(failure, Failure)
    assert failure.fault == "refused"


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_in_a_stream_may_pass_and_keeps_what_was_used(begun: bool) -> None:
    stream = _anthropic.Stream()
    stream.add({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}})
    if begun:
        delta = {"type": "text_delta", "text": "half of"}
        assert stream.add({"type": "content_block_delta", "index": 0, "delta": delta}) == ("half of", "")
    stream.add({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    found = stream.completion()
    failure = understood(found)
    assert isinstance(failure, Failure)
    assert failure.retry
    assert found["usage"]["prompt_tokens"] == 9
    assert usage(found, 40, 8).estimated
    assert not stream.ended


def test_counts_have_what_was_read_and_written_in_the_prompt() -> None:
    told = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": "20",
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    found = _anthropic.completion({"content": "a", "usage": told})["usage"]
    assert (found["prompt_tokens"], found["completion_tokens"]) == (125, 7)
    assert found["prompt_tokens_details"] == {"cached_tokens": 100}
    assert found["cache_creation_input_tokens"] == 20
    assert found["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert "usage" not in _anthropic.completion({"content": "a", "usage": {"input_tokens": None}})


def test_an_event_that_comes_twice_opens_no_second_block() -> None:
    stream = _anthropic.Stream()
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    for event in (start, delta, start):
        stream.add(event)
    assert stream.completion()["choices"][0]["message"]["content"] == "a"


def test_a_stream_without_an_end_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_anthropic_reply, "REPLY_BYTES", 1 << 20)
    for kind, name in (
        ("text_delta", "text"),
        ("thinking_delta", "thinking"),
        ("input_json_delta", "partial_json"),
        ("signature_delta", "signature"),
    ):
        stream = _anthropic.Stream()
        delta = {"type": kind, name: "x" * 1000}
        for _ in range((1 << 20) // 1000):
            stream.add({"type": "content_block_delta", "index": 0, "delta": delta})
        with pytest.raises(Unreadable, match="no more is read"):
            stream.add({"type": "content_block_delta", "index": 0, "delta": delta})
    stream = _anthropic.Stream()
    for index in range(20_000):
        stream.add(
            {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": "a"}}
        )
    assert len(stream.completion()["choices"][0]["message"]["content"]) == 10_000


def test_the_time_of_a_stream_grows_with_it_and_no_faster() -> None:
    def make(size: int) -> list[Any]:
        delta = {"type": "text_delta", "text": "a word "}
        return [{"type": "content_block_delta", "index": 0, "delta": delta}] * size

    def work(events: list[Any]) -> None:
        stream = _anthropic.Stream()
        for event in events:
            stream.add(event)
        stream.completion()

    assert growth(make, work, 5000) < LIMIT


# Requests


@pytest.mark.parametrize(
    "base",
    [
        "https://a.example",
        "https://a.example/",
        "https://a.example/v1",
        "https://a.example/v1/messages",
        "https://a.example/v1/",
    ],
)
def test_the_address_is_the_same_with_and_without_its_path(base: str) -> None:
    assert _anthropic.url(base) == "https://a.example/v1/messages"


def test_the_headers_have_the_key_the_version_and_the_users_own() -> None:
    found = _anthropic.headers("sk-ant-api03-x", {}, {"Anthropic-Beta": "a, b", "X-Team": "t"})
    assert found["x-api-key"] == "sk-ant-api03-x"
    assert (found["anthropic-version"], found["anthropic-beta"], found["X-Team"]) == (
        "2023-06-01",
        "a,b",
        "t",
    )
    found = _anthropic.headers("sk-ant-oat01-x")
    assert (found["authorization"], "x-api-key" in found) == ("Bearer sk-ant-oat01-x", False)
    assert found["anthropic-beta"] == "oauth-2025-04-20"
    assert (
        _anthropic.headers("k", {}, {"Anthropic-Version": "2030-01-01"})["Anthropic-Version"] == "2030-01-01"
    )
    assert "anthropic-version" not in _anthropic.headers("k", {}, {"Anthropic-Version": "2030-01-01"})


def test_thoughts_that_are_not_the_models_own_are_not_sent() -> None:
    blocks: list[Any] = [
        {"type": "thinking", "thinking": "no signature"},
        {"type": "thinking", "thinking": "empty", "signature": ""},
        {"type": "redacted_thinking", "data": ""},
        {"type": "reasoning.text", "text": "another's"},
        {
            "type": "thinking",
            "thinking": "",
            "signature": "s",
            "cache_control": {"type": "ephemeral"},
            "index": 0,
        },
        {"type": "redacted_thinking", "data": "d"},
        "text",
        None,
    ]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "thinking_blocks": blocks},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "thinking_blocks": blocks},
        {"role": "user", "content": "r"},
    ]
    body = _anthropic.body({"model": "claude-sonnet-4-5", "messages": messages})
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "a"},
    ]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    last = _anthropic.body({"model": "claude-sonnet-4-5", "messages": messages[:2]})
    assert last["messages"][1]["content"] == [{"type": "text", "text": "a"}]


def test_a_schema_keeps_what_is_taken_and_says_the_rest() -> None:
    schema = {
        "type": "object",
        "description": "A list.",
        "minProperties": 1,
        "properties": {
            "kind": {"type": "string", "enum": ["a", 1]},
            "either": {"oneOf": [{"type": "string", "maxLength": 3}, {"$ref": "#/$defs/Part"}]},
            "minimum": {"type": "array", "items": {"type": "number", "minimum": 0}, "uniqueItems": False},
        },
        "$defs": {"Part": {"type": "object", "properties": {}}},
    }
    assert taken(schema) == {
        "type": "object",
        "description": "A list. Must meet: minProperties 1.",
        "properties": {
            "kind": {"enum": ["a", 1]},
            "either": {
                "anyOf": [
                    {"type": "string", "description": "Must meet: maxLength 3."},
                    {"$ref": "#/$defs/Part"},
                ]
            },
            "minimum": {"type": "array", "items": {"type": "number", "description": "Must meet: minimum 0."}},
        },
        "$defs": {"Part": {"type": "object", "properties": {}, "additionalProperties": False}},
        "additionalProperties": False,
    }
