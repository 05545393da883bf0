"""Anthropic's messages API, asked by our own request: the same body as litellm's, and the same reply."""

from __future__ import annotations

import copy
import gc
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.engine.prompts import load_profile
from rlm_kernel.models import _anthropic, _catalog, _litellm
from rlm_kernel.models._caching import marked
from tests.support.model_layer import build_models
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.prefix_cache import MarkedCache
from tests.support.providers.roads import FORMAT, KEY, MARK, ROADS, asks_of_picture
from tests.support.providers.words import Call, Reply

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODELS = ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-sonnet-4-6", "claude-opus-5")
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
TURNS = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief.", **MARK}]},
    {"role": "user", "content": "one"},
    {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three", **MARK}]},
    {"role": "assistant", "content": "a reply\n"},
    asks_of_picture("what is it?"),
]
PREFILL = [*HELLO, {"role": "assistant", "content": "I say: \n"}]

SAME: dict[str, dict[str, Any]] = {
    "plain": {},
    "turns": {"messages": TURNS},
    "temperature": {"temperature": 0.5, "max_tokens": 100},
    "top_p": {"top_p": 0.9},
    "limit by its other name": {"max_completion_tokens": 77},
    "stop": {"stop": ["END", "\n\nX"]},
    "effort": {"reasoning_effort": "low"},
    "more effort": {"reasoning_effort": "high", "max_tokens": 10_000},
    "least effort": {"reasoning_effort": "minimal"},
    "no effort": {"reasoning_effort": "none"},
    "budget": {"thinking": {"type": "enabled", "budget_tokens": 3000}},
    "budget within a limit": {"thinking": {"type": "enabled", "budget_tokens": 3000}, "max_tokens": 5000},
    "adaptive": {"thinking": {"type": "adaptive"}},
    "no thinking": {"thinking": {"type": "disabled"}},
    "schema": {"response_format": FORMAT},
    "schema and effort": {"response_format": FORMAT, "reasoning_effort": "medium"},
    "provider's own": {"top_k": 5, "metadata": {"user_id": "u1"}},
    "seed is not taken": {"seed": 4},
    "headers": {"extra_headers": {"X-Team": "b"}},
}
"""Requests of which litellm makes the same body."""
REFUSED: dict[str, dict[str, Any]] = {
    "budget over the limit": {"thinking": {"type": "enabled", "budget_tokens": 3000}, "max_tokens": 2000},
    "budget under the least": {"thinking": {"type": "enabled", "budget_tokens": 10}},
    "effort and a small limit": {"reasoning_effort": "low", "max_tokens": 600},
    "effort and temperature": {"reasoning_effort": "low", "temperature": 0.3},
    "effort and top_p": {"reasoning_effort": "low", "top_p": 0.5},
    "the usual temperature": {"temperature": 1},
    "temperature and top_p": {"temperature": 0.5, "top_p": 0.5},
    "white space as stop": {"stop": ["END", " ", ""]},
    "the model's turn first": {"messages": [HELLO[0], {"role": "assistant", "content": "hi"}, HELLO[1]]},
    "no turn": {"messages": HELLO[:1]},
}
"""Requests that litellm makes a body of, or an error, which the API refuses for some model: ours is taken."""


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """What litellm leaves open is collected here, and is no matter of other files."""
    yield
    gc.collect()


@pytest_asyncio.fixture
async def litellm() -> AsyncIterator[Any]:
    loaded = _litellm.load()
    yield loaded
    await _litellm.close_clients(loaded)


@pytest.fixture
def server() -> Iterator[AnthropicServer]:
    with AnthropicServer(lambda asked: '{"n": 1}', api_key=KEY) as server:
        yield server


def ask(server: AnthropicServer, body: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> bytes:
    """Our request, sent."""
    sent = urllib.request.Request(
        _anthropic.url(server.base), json.dumps(body).encode(), _anthropic.headers(KEY, body, extra)
    )
    try:
        with urllib.request.urlopen(sent) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read()) from None


def entry_of(litellm: Any, name: str) -> Mapping[str, Any] | None:
    return _catalog.entry_of(f"anthropic/{name}") or None


async def both(
    litellm: Any, server: AnthropicServer, name: str, more: Mapping[str, Any]
) -> tuple[Any, dict[str, str]]:
    """What litellm sends, and its headers."""
    call = ROADS["anthropic"].call(server, HELLO) | {"model": f"anthropic/{name}", "drop_params": True}
    await litellm.acompletion(**call | copy.deepcopy(dict(more)))  # it writes into `metadata`
    return server.requests[-1].body, server.requests[-1].headers


@pytest.mark.parametrize("name", MODELS)
async def test_the_body_is_the_one_that_litellm_sends(
    litellm: Any, server: AnthropicServer, name: str
) -> None:
    for case, more in SAME.items():
        request = {"model": f"anthropic/{name}", "messages": HELLO, **more}
        ours = _anthropic.body(request, entry_of(litellm, name))
        theirs, headers = await both(litellm, server, name, more)
        assert ours == theirs, case
        ask(server, ours, more.get("extra_headers"))
        assert server.requests[-1].body == theirs, case
        for header in ("anthropic-version", "anthropic-beta", "x-api-key", "x-team"):
            assert server.requests[-1].headers.get(header) == headers.get(header), case


@pytest.mark.parametrize("name", MODELS)
def test_what_the_api_would_refuse_is_put_right(litellm: Any, server: AnthropicServer, name: str) -> None:
    for more in REFUSED.values():
        request = {"model": name, "messages": HELLO, **more}
        ask(server, _anthropic.body(request, entry_of(litellm, name)))


async def test_where_our_body_differs_from_litellms(litellm: Any, server: AnthropicServer) -> None:
    """litellm leaves out `service_tier` although the API takes it; sends a sentence of its own for an empty
    text, which we leave out; and has its own words for limits of a schema that the API does not take.
    """
    name, entry = "claude-sonnet-4-5", entry_of(litellm, "claude-sonnet-4-5")
    theirs, _ = await both(litellm, server, name, {"service_tier": "standard_only"})
    ours = _anthropic.body({"model": name, "messages": HELLO, "service_tier": "standard_only"}, entry)
    assert ours == {**theirs, "service_tier": "standard_only"}
    ask(server, ours)
    empty = [*HELLO, {"role": "assistant", "content": ""}, {"role": "user", "content": [*HELLO[1:], ""]}]
    empty[-1] = {"role": "user", "content": [{"type": "text", "text": "  "}, {"type": "text", "text": "go"}]}
    ours = _anthropic.body({"model": name, "messages": empty}, entry)
    words = [{"type": "text", "text": text} for text in ("hello", "go")]
    assert ours["messages"] == [{"role": "user", "content": words}]
    ask(server, ours)
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    ours = _anthropic.body({"model": name, "messages": HELLO, "response_format": wanted}, entry)
    n = {"type": "integer", "description": "Must meet: minimum 1, maximum 9."}
    assert ours["output_format"]["schema"]["properties"] == {"n": n}
    ask(server, ours)


async def test_a_reply_begun_for_the_model_has_no_white_space_at_its_end(
    litellm: Any, server: AnthropicServer
) -> None:
    name = "claude-sonnet-4-5"
    theirs, _ = await both(litellm, server, name, {"messages": PREFILL})
    assert _anthropic.body({"model": name, "messages": PREFILL}, entry_of(litellm, name)) == theirs


@pytest.mark.parametrize("redacted", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_go_back_as_they_came(
    litellm: Any, server: AnthropicServer, redacted: bool, stream: bool
) -> None:
    server.says = lambda asked: Reply("the text", thoughts="so and so", redacted=redacted)
    name, entry = "claude-sonnet-4-5", entry_of(litellm, "claude-sonnet-4-5")
    request: dict[str, Any] = {"model": name, "messages": HELLO, "reasoning_effort": "low"}
    reply = ask(server, _anthropic.body(request, entry) | ({"stream": True} if stream else {}))
    found = streamed(reply)[2].completion() if stream else _anthropic.completion(json.loads(reply))
    message, usage = found["choices"][0]["message"], found["usage"]
    assert (message["content"], message["reasoning_content"]) == ("the text", "" if redacted else "so and so")
    bill = server.bills[-1]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (bill.prompt, bill.output)
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}
    again = [*HELLO, {"role": "assistant", **message}, {"role": "user", "content": "go on"}]
    ours = _anthropic.body({**request, "messages": again}, entry)
    theirs, _ = await both(litellm, server, name, {"messages": again, "reasoning_effort": "low"})
    assert ours == theirs
    ask(server, ours)
    assert ours["messages"][1]["content"][0]["type"] == ("redacted_thinking" if redacted else "thinking")


def events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in stream.decode().splitlines() if line.startswith("data:")]


def streamed(stream: bytes) -> tuple[str, str, _anthropic.Stream]:
    reader, texts, thoughts = _anthropic.Stream(), [], []
    for event in events(stream):
        text, thought = reader.add(event)
        texts.append(text)
        thoughts.append(thought)
    return "".join(texts), "".join(thoughts), reader


REPLIES = {
    "text": Reply("Hello, and a few more words than one piece."),
    "thoughts": Reply("yes", thoughts="let me see whether that is so"),
    "length": Reply("half of", stop="length"),
    "refusal": Reply("I", stop="refusal"),
    "pause": Reply("Wait", stop="pause"),
    "tool": Reply("", calls=[Call("python", {"code": "1 + 1", "deep": {"a": [1]}})]),
    "nothing": Reply(""),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_stream_comes_to_the_same_as_a_whole_reply(
    litellm: Any, server: AnthropicServer, name: str
) -> None:
    server.says = lambda asked: REPLIES[name]
    body = _anthropic.body(
        {"model": "claude-sonnet-4-5", "messages": HELLO, "reasoning_effort": "low"},
        entry_of(litellm, "claude-sonnet-4-5"),
    )
    whole = _anthropic.completion(json.loads(ask(server, body)))
    text, thoughts, reader = streamed(ask(server, {**body, "stream": True}))
    found = reader.completion()
    for usage in (whole["usage"], found["usage"]):
        usage.pop("cache_creation", None)
    assert found == whole
    assert (reader.ended, reader.error) == (True, None)
    message = whole["choices"][0]["message"]
    assert (text, thoughts) == (message["content"], message.get("reasoning_content", ""))


def test_a_tool_that_stands_for_a_schema_is_the_text(server: AnthropicServer) -> None:
    server.says = lambda asked: Reply("", calls=[Call(_anthropic.ANSWER, {"n": 4})])
    request = {"model": "claude-sonnet-4-5", "messages": HELLO, "response_format": FORMAT}
    body = _anthropic.body(request, {"supports_native_structured_output": False})
    whole = _anthropic.completion(json.loads(ask(server, body)))
    text, _, reader = streamed(ask(server, {**body, "stream": True}))
    for choice in (whole["choices"][0], reader.completion()["choices"][0]):
        assert json.loads(choice["message"]["content"]) == {"n": 4}
        assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("stop", False)
    assert json.loads(text) == {"n": 4}


async def test_without_native_schemas_the_tool_is_litellms(litellm: Any, server: AnthropicServer) -> None:
    server.known["claude-newest-1"] = server.known["claude-sonnet-4-5"]
    for more in ({"response_format": FORMAT}, {}):
        theirs, _ = await both(litellm, server, "claude-newest-1", more)
        ours = _anthropic.body({"model": "claude-newest-1", "messages": HELLO, **more}, None)
        assert ours == theirs


@pytest.mark.parametrize("kind", ["stream_error", "cut"])
def test_what_came_before_a_stream_broke_off_is_kept(server: AnthropicServer, kind: Any) -> None:
    server.says = lambda asked: "Hello, and a few more words than one piece."
    server.fail(kind, at=5)
    body = _anthropic.body({"model": "claude-sonnet-4-5", "messages": HELLO}) | {"stream": True}
    try:
        came = ask(server, body)
    except Exception as error:
        came = getattr(error, "partial", b"")
    text, _, reader = streamed(came)
    found = reader.completion()
    assert not reader.ended
    assert text
    assert found["choices"][0]["message"]["content"] == text
    assert found["usage"]["prompt_tokens"] > 0
    assert "completion_tokens" not in found["usage"]
    if kind == "stream_error":
        assert reader.error is not None
        assert found["error"]["type"] == reader.error["type"] == "overloaded_error"
        assert found["choices"][0]["finish_reason"] == "error"


def test_all_of_a_conversation_is_written_once_and_read_from_then_on(server: AnthropicServer) -> None:
    """That is the least that the prices allow. Twelve turns over the project's own prompt and examples cost a
    third with replies and outputs of usual length, and a quarter where the prompt is most of what is sent.
    """
    name, entry = "claude-sonnet-4-5", {"supports_prompt_caching": True, "max_output_tokens": 4096}
    profile = load_profile("default")
    shares = []
    for output, reply in ((2000, 400), (300, 60)):
        server.says = lambda asked, reply=reply: "r" * reply
        for marks in (False, True):
            server.bills.clear()
            server.cache = MarkedCache(server.clock)
            messages = [{"role": "system", "content": profile.system}, *profile.examples]
            messages.append({"role": "user", "content": "The question. " * 20})
            for turn in range(12):
                sent = marked("anthropic", name, entry, messages) if marks else messages
                ask(server, _anthropic.body({"model": name, "messages": sent}, entry))
                messages += [
                    {"role": "assistant", "content": "r" * reply},
                    {"role": "user", "content": f"{turn} " + "out " * (output // 4)},
                ]
            shares.append(sum(bill.cost for bill in server.bills))
        assert sum(bill.input for bill in server.bills) == 0
        assert sum(bill.written for bill in server.bills) == server.bills[-1].prompt
    assert shares[1] / shares[0] < 0.34
    assert shares[3] / shares[2] < 0.26


async def test_the_layer_sends_betas_a_gateways_token_and_the_users_headers(
    server: AnthropicServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.api_key = None
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-0123456789abcdef")
    headers = {"anthropic-beta": "of-the-user", "X-Team": "blue"}
    models = build_models(
        [],
        root_llm__model="anthropic/claude-sonnet-4-5",
        root_llm__api_base=server.base,
        root_llm__headers=headers,
        sub_llm__model="anthropic/claude-sonnet-4-5",
    )
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    await models.complete([{"role": "user", "content": "hi"}], role="root", schema=schema)
    await models.aclose()
    sent = {name.lower(): value for name, value in server.requests[-1].headers.items()}
    assert sent["authorization"] == "Bearer token-0123456789abcdef"
    assert "x-api-key" not in sent
    assert sent["x-team"] == "blue"
    betas = sent["anthropic-beta"].split(",")
    assert "of-the-user" in betas
    assert any("structured-outputs" in beta for beta in betas)
