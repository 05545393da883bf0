"""The servers of the providers' APIs: what they refuse, in whose words, how their streams run, and what their
caches bill.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.providers.prefix_cache import AutomaticCache, Block, MarkedCache
from tests.support.providers.roads import FORMAT, KEY, MARK, ROADS, png
from tests.support.providers.server import ProviderServer
from tests.support.providers.words import Call, Clock, Reply

HEADERS = {
    "openai": {"authorization": f"Bearer {KEY}"},
    "anthropic": {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": KEY},
    "openrouter": {"authorization": f"Bearer {KEY}"},
    "ollama": {},
    "deepseek": {"authorization": f"Bearer {KEY}"},
    "vllm": {},
}
PATHS = {
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
    "ollama": "/api/chat",
}
HELLO = [{"role": "user", "content": "hello"}]
LEAST: dict[str, dict[str, Any]] = {
    "openai": {"model": "gpt-4o-mini", "messages": HELLO},
    "anthropic": {"model": "claude-sonnet-4-5", "max_tokens": 2000, "messages": HELLO},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
    "openrouter": {"model": "openai/gpt-4o-mini", "messages": HELLO},
    "ollama": {"model": "llama3.1:8b", "messages": HELLO, "stream": False},
    "deepseek": {"model": "deepseek-chat", "messages": HELLO},
    "vllm": {"model": "mistral-7b", "messages": HELLO},
}


def post(
    server: ProviderServer,
    name: str,
    body: Mapping[str, Any],
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        sent = {**(HEADERS[name] if headers is None else headers), "content-type": "application/json"}
        connection.request("POST", path or PATHS.get(name, "/v1/chat/completions"), json.dumps(body), sent)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ProviderServer]]:
    made = {
        name: ROADS[name].server(api_key=KEY if ROADS[name].variable and name != "vllm" else None)
        for name in LEAST
    }
    for server in made.values():
        server.start()
    yield made
    for server in made.values():
        server.stop()


@pytest.mark.parametrize("name", LEAST)
def test_the_least_of_a_request_is_answered(servers: dict[str, ProviderServer], name: str) -> None:
    status, body = post(servers[name], name, LEAST[name])
    assert (status, "echo: hello" in body) == (200, True)


STRICT = {
    "type": "json_schema",
    "json_schema": {"name": "a", "strict": True, "schema": {"type": "object", "properties": {"n": {}}}},
}
THINK = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
MARKED = [{"type": "text", "text": "x", **MARK}]
LATE = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": png()}}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("openai", {"top_k": 3}, "Unrecognized request argument supplied: top_k"),
        ("openai", {"max_tokens": 5, "max_completion_tokens": 5}, "at the same time is not supported"),
        ("openai", {"max_tokens": 99_999}, "max_tokens is too large: 99999"),
        ("openai", {"temperature": 3}, "decimal above maximum value"),
        ("openai", {"stream_options": {"include_usage": True}}, "only allowed when 'stream' is enabled"),
        ("openai", {"reasoning_effort": "low"}, "Unrecognized request argument supplied: reasoning_effort"),
        ("openai", {"model": "gpt-5-mini", "max_tokens": 5}, "Use 'max_completion_tokens' instead"),
        ("openai", {"model": "gpt-5-mini", "temperature": 0.3}, "'temperature' does not support 0.3"),
        ("openai", {"model": "gpt-5-mini", "stop": ["x"]}, "'stop' is not supported"),
        (
            "openai",
            {"response_format": STRICT},
            "'additionalProperties' is required to be supplied and to be false",
        ),
        (
            "openai",
            {"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]},
            "preceeding message with 'tool_calls'",
        ),
        ("openai", {"messages": [{"role": "boss", "content": "x"}]}, "Invalid value: 'boss'"),
        (
            "openai",
            {"messages": [{"role": "user", "content": "x" * 600_000}]},
            "maximum context length is 128000 tokens",
        ),
        ("anthropic", {"frequency_penalty": 1}, "frequency_penalty: Extra inputs are not permitted"),
        ("anthropic", {"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role \\"system\\"'),
        (
            "anthropic",
            {"messages": [{"role": "assistant", "content": "x"}, *HELLO]},
            'must use the \\"user\\" role',
        ),
        ("anthropic", {"temperature": 0.5, "top_p": 0.5}, "cannot both be specified"),
        ("anthropic", {**THINK, "temperature": 0.5}, "may only be set to 1 when thinking is enabled"),
        ("anthropic", {**THINK, "max_tokens": 1000}, "must be greater than `thinking.budget_tokens`"),
        (
            "anthropic",
            {"thinking": {"type": "enabled", "budget_tokens": 500}},
            "greater than or equal to 1024",
        ),
        ("anthropic", {"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported on this model"),
        ("anthropic", {"model": "claude-opus-5", **THINK}, 'Use \\"thinking.type.adaptive\\"'),
        (
            "anthropic",
            {"model": "claude-opus-5", "temperature": 0.5},
            "`temperature` is deprecated for this model.",
        ),
        (
            "anthropic",
            {**THINK, "messages": [*HELLO, {"role": "assistant", "content": "He"}]},
            "Expected `thinking` or `redacted_thinking`",
        ),
        (
            "anthropic",
            {"model": "claude-sonnet-4-6", "messages": [*HELLO, {"role": "assistant", "content": "He"}]},
            "does not support assistant message prefill",
        ),
        (
            "anthropic",
            {"system": MARKED * 3, "messages": [{"role": "user", "content": MARKED * 2}]},
            "A maximum of 4 blocks",
        ),
        (
            "anthropic",
            {"system": MARKED, "messages": [{"role": "user", "content": LATE}]},
            "a ttl='1h' cache_control block must not come",
        ),
        (
            "anthropic",
            {"messages": [{"role": "user", "content": [PICTURE]}]},
            "appears to be a image/png image",
        ),
        (
            "anthropic",
            {"messages": [{"role": "user", "content": "x" * 900_000}]},
            "prompt is too long: 225000 tokens > 200000 maximum",
        ),
        ("gemini", {"messages": HELLO}, 'Unknown name \\"messages\\"'),
        (
            "gemini",
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 50_000}}},
            "Please choose a value between 0 and 24576",
        ),
        (
            "gemini",
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}},
            "Thinking level is not supported",
        ),
        (
            "gemini",
            {"generationConfig": {"responseMimeType": "application/json", "responseSchema": {"$ref": "x"}}},
            'Unknown name \\"$ref\\"',
        ),
        (
            "gemini",
            {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]},
            "Please use a valid role: user, model.",
        ),
        ("openrouter", {"reasoning": {"effort": "low", "max_tokens": 9}}, "Only one of"),
        ("openrouter", {"response_format": STRICT}, "Provider returned error"),
        ("ollama", {"model": "nope"}, "model 'nope' not found"),
        ("ollama", {"think": True}, "does not support thinking"),
        (
            "ollama",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "cannot unmarshal array",
        ),
        (
            "ollama",
            {"truncate": False, "messages": [{"role": "user", "content": "x" * 20_000}]},
            "exceeds the context length",
        ),
        ("deepseek", {"response_format": FORMAT}, "This response_format type is unavailable now"),
        ("vllm", {"messages": [*HELLO, *HELLO]}, "Conversation roles must alternate"),
    ],
)
def test_what_the_api_refuses_is_refused_in_its_words(
    servers: dict[str, ProviderServer], name: str, change: dict[str, Any], words: str
) -> None:
    answered = len(servers[name].bills)
    status, body = post(servers[name], name, {**LEAST[name], **change})
    assert words in body
    assert status in (400, 404)
    assert len(servers[name].bills) == answered


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("openai", 401, "provide an API key"),
        ("anthropic", 401, "authentication_error"),
        ("gemini", 403, "unregistered"),
    ],
)
def test_a_request_without_a_key_is_refused(
    servers: dict[str, ProviderServer], name: str, status: int, words: str
) -> None:
    found, body = post(servers[name], name, LEAST[name], headers={})
    assert (found, words in body) == (status, True)


# Streams


def test_openais_stream_ends_with_usage_and_done(servers: dict[str, ProviderServer]) -> None:
    _, body = post(
        servers["openai"],
        "openai",
        {**LEAST["openai"], "stream": True, "stream_options": {"include_usage": True}},
    )
    events = [event.removeprefix("data: ") for event in body.split("\n\n") if event]
    assert events[-1] == "[DONE]"
    usage = json.loads(events[-2])
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], 4)
    assert all(json.loads(event)["usage"] is None for event in events[:-2])


def test_anthropics_stream_has_its_events_in_order(servers: dict[str, ProviderServer]) -> None:
    server = servers["anthropic"]
    server.says = lambda asked: Reply("Hi.", "Hm.", [Call("look", {"at": "it"}, "toolu_1")])
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    _, body = post(server, "anthropic", {**LEAST["anthropic"], **THINK, "tools": tools, "stream": True})
    server.says = lambda asked: f"echo: {asked.text}"
    names = [line.removeprefix("event: ") for line in body.split("\n") if line.startswith("event: ")]
    deltas = [
        json.loads(line[6:])["delta"]["type"]
        for line in body.split("\n")
        if '"content_block_delta"' in line and line.startswith("data")
    ]
    assert (names[0], names[2], names[-2:]) == ("message_start", "ping", ["message_delta", "message_stop"])
    assert list(dict.fromkeys(deltas)) == [
        "thinking_delta",
        "signature_delta",
        "text_delta",
        "input_json_delta",
    ]


def test_a_use_of_a_tool_wants_its_result_and_the_thoughts_that_led_to_it(
    servers: dict[str, ProviderServer],
) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}]}
    body = {**LEAST["anthropic"], "tools": [{"name": "look", "input_schema": {"type": "object"}}]}
    used = {"role": "assistant", "content": [use]}
    assert (
        "without `tool_result` blocks"
        in post(servers["anthropic"], "anthropic", {**body, "messages": [*HELLO, used, *HELLO]})[1]
    )
    assert post(servers["anthropic"], "anthropic", {**body, "messages": [*HELLO, used, result]})[0] == 200
    assert (
        "but found `tool_use`"
        in post(servers["anthropic"], "anthropic", {**body, **THINK, "messages": [*HELLO, used, result]})[1]
    )


def test_openrouter_sends_comments_and_an_error_in_the_middle_of_a_stream(
    servers: dict[str, ProviderServer],
) -> None:
    servers["openrouter"].fail("stream_error", at=4)
    status, body = post(servers["openrouter"], "openrouter", {**LEAST["openrouter"], "stream": True})
    assert status == 200
    assert body.startswith(": OPENROUTER PROCESSING\n\n")
    assert '"finish_reason": "error"' in body


def test_ollama_leaves_the_oldest_messages_out_in_silence(servers: dict[str, ProviderServer]) -> None:
    old = [
        {"role": "system", "content": "rules"},
        *[{"role": "user", "content": f"{n} " * 600} for n in range(9)],
    ]
    status, body = post(
        servers["ollama"],
        "ollama",
        {**LEAST["ollama"], "messages": [*old, *HELLO], "options": {"num_ctx": 1000}},
    )
    answer = json.loads(body)
    assert (status, answer["done_reason"], answer["message"]["content"]) == (200, "stop", "echo: hello")
    assert answer["prompt_eval_count"] <= 1000
    assert servers["ollama"].shown[0]["content"] == "rules"  # type: ignore[attr-defined]


def test_gemini_says_why_it_blocked_a_prompt_and_gives_no_candidate(
    servers: dict[str, ProviderServer],
) -> None:
    servers["gemini"].says = lambda asked: Reply(stop="filter")
    _, body = post(servers["gemini"], "gemini", LEAST["gemini"])
    servers["gemini"].says = lambda asked: f"echo: {asked.text}"
    answer = json.loads(body)
    assert "candidates" not in answer
    assert answer["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT"


def test_a_body_drips_by_the_clock(servers: dict[str, ProviderServer]) -> None:
    server = servers["ollama"]
    server.fail("drip")
    found: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: found.append(post(server, "ollama", LEAST["ollama"])))
    client.start()
    server.clock.wait_for_sleeper()
    began = server.clock.now
    while client.is_alive():
        if server.clock.sleepers:
            server.clock.advance(1)
        client.join(0.001)
    assert (found[0][0], json.loads(found[0][1])["message"]["content"]) == (200, "echo: hello")
    assert server.clock.now - began >= len(found[0][1])


# Caches


def test_an_automatic_cache_reads_whole_steps_of_the_same_beginning() -> None:
    cache = AutomaticCache(Clock())
    begin = "a" * 4 * 1500
    assert cache.use("m", begin + "b" * 999) == (0, 1664)
    assert cache.use("m", begin + "c" * 999) == (1408, 256)
    assert cache.use("other", begin)[0] == 0
    assert cache.use("m", "a" * 4 * 1000) == (0, 0)
    cache.clock.advance(601)
    assert cache.use("m", begin)[0] == 0


def test_a_marked_cache_writes_at_marks_and_reads_twenty_blocks_before_them() -> None:
    clock = Clock()
    cache = MarkedCache(clock)
    system, cell = Block("s" * 8000, 3600), Block("c" * 400)
    first = cache.use("m", [system, cell, Block("q" * 400, 300)], 1024)
    assert (first.read, first.written_1h, first.written, first.rest) == (0, 2000, 200, 0)
    again = cache.use("m", [system, cell, Block("q" * 400), *[cell] * 18, Block("z" * 400, 300)], 1024)
    assert (again.read, again.written) == (2200, 1900)
    far = cache.use(
        "m", [Block("s" * 8000), cell, Block("q" * 400), *[cell] * 60, Block("y" * 400, 300)], 1024
    )
    assert far.read == 0
    clock.advance(301)
    late = cache.use("m", [system, cell, Block("q" * 400, 300)], 1024)
    assert (late.read, late.written) == (2000, 200)
    assert cache.use("m", [Block("short", 300)], 1024).rest == 2
