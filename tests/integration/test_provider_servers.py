"""The servers of the providers' APIs, asked by the real litellm: what it sends, returns and raises."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.models import _litellm
from tests.support.model_layer import build_models, failing
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.ollama_chat import OllamaServer
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.roads import KEY, ROADS, Road
from tests.support.providers.server import ProviderServer
from tests.support.providers.words import Reply

# litellm's streams read attributes that pydantic has deprecated, and write what is not of the declared type.
# Its first call to Ollama leaves a connection open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HELLO = [{"role": "user", "content": "hello"}]
LONG = "You answer by the rules. " * 400
"""Ten thousand characters: more than every provider's least for a cache."""


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """What litellm leaves open is collected here, and is no matter of other files."""
    yield
    gc.collect()


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> Road:
    return ROADS[request.param]


@pytest.fixture
def server(road: Road) -> Iterator[ProviderServer]:
    with road.server(api_key=KEY if road.variable else None) as server:
        yield server


@pytest_asyncio.fixture
async def litellm() -> AsyncIterator[Any]:
    loaded = _litellm.load()
    yield loaded
    await _litellm.close_clients(loaded)


async def streamed(litellm: Any, call: dict[str, Any]) -> tuple[str, str, Any, list[Any]]:
    """Text, thoughts, usage and finish reasons of a stream."""
    chunks = [
        chunk
        async for chunk in await litellm.acompletion(
            **call, stream=True, stream_options={"include_usage": True}
        )
    ]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    text = "".join(delta.content or "" for delta in deltas)
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    return (
        text,
        thoughts,
        usages[-1] if usages else None,
        [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason],
    )


def counted(usage: Any) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def cached(usage: Any) -> int:
    return (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0


# What all of them do


async def test_nothing_for_a_minute_ends_no_stream_by_itself(
    litellm: Any, road: Road, server: ProviderServer
) -> None:
    server.fail("idle", at=1)
    call = asyncio.create_task(streamed(litellm, road.call(server, HELLO)))
    await asyncio.to_thread(server.clock.wait_for_sleeper)
    assert not call.done()
    server.clock.advance(60)
    assert (await call)[0] == "echo: hello"


# One provider's own


@pytest.fixture
def anthropic() -> Iterator[AnthropicServer]:
    with AnthropicServer(api_key=KEY) as server:
        yield server


async def test_anthropics_signed_thoughts_go_back_unchanged(litellm: Any, anthropic: AnthropicServer) -> None:
    anthropic.says = [
        Reply("Look.", "I must look."),
        Reply("Seen.", "So it is."),
        Reply("Hidden.", "Not for you.", redacted=True),
        "Over.",
    ]
    call = ROADS["anthropic"].call(
        anthropic, HELLO, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000
    )
    message = (await litellm.acompletion(**call)).choices[0].message
    assert message.thinking_blocks[0]["thinking"] == "I must look."
    call["messages"] = [*HELLO, message.model_dump(), *HELLO]
    assert (await litellm.acompletion(**call)).choices[0].message.content == "Seen."
    forged = message.model_dump()
    forged["thinking_blocks"][0]["thinking"] = "I must not look."
    with pytest.raises(litellm.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await litellm.acompletion(**{**call, "messages": [*HELLO, forged, *HELLO]})
    hidden = (await litellm.acompletion(**call)).choices[0].message
    assert [block["type"] for block in hidden.thinking_blocks] == ["redacted_thinking"]
    call["messages"] += [hidden.model_dump(), *HELLO]
    assert (await litellm.acompletion(**call)).choices[0].message.content == "Over."


async def test_litellm_fails_at_tools_where_the_package_mcp_is_missing(
    litellm: Any, anthropic: AnthropicServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    tool = {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    with pytest.raises(litellm.APIConnectionError, match="mcp"):
        await litellm.acompletion(**ROADS["anthropic"].call(anthropic, HELLO, tools=[tool]))
    assert not anthropic.requests


async def test_anthropics_error_in_a_stream_is_raised_with_what_came_before(
    litellm: Any, anthropic: AnthropicServer
) -> None:
    anthropic.fail("stream_error", at=4)
    with pytest.raises(Exception, match="Overloaded") as caught:
        await streamed(litellm, ROADS["anthropic"].call(anthropic, HELLO))
    assert type(caught.value).__name__ == "MidStreamFallbackError"
    assert caught.value.generated_content == "echo"  # type: ignore[attr-defined]


async def test_litellm_fails_where_anthropics_reply_has_no_usage(
    litellm: Any, anthropic: AnthropicServer
) -> None:
    anthropic.fail("no_usage")
    with pytest.raises(litellm.APIConnectionError, match="usage"):
        await litellm.acompletion(**ROADS["anthropic"].call(anthropic, HELLO))


async def test_litellm_sends_the_key_for_anthropic_after_a_redirect_to_another_address(
    litellm: Any, anthropic: AnthropicServer
) -> None:
    with AnthropicServer() as other:
        anthropic.fail("redirect", location=f"{other.base}/v1/messages")
        await litellm.acompletion(**ROADS["anthropic"].call(anthropic, HELLO))
        assert other.requests[0].headers["x-api-key"] == KEY


async def test_litellm_loses_content_that_comes_as_a_list_in_a_stream_in_silence(litellm: Any) -> None:
    with OpenAIServer() as server:
        server.fail("content_list")
        text, _, _, ends = await streamed(litellm, ROADS["openai"].call(server, HELLO))
        assert (text, ends) == ("", ["stop"])


async def test_litellm_repeats_the_text_of_an_event_that_came_twice(litellm: Any) -> None:
    with OpenAIServer(says=["abcdefgh"]) as server:
        server.fail("duplicate", at=1)
        assert (await streamed(litellm, ROADS["openai"].call(server, HELLO)))[0] == "abcdabcdefgh"


async def test_a_reasoning_model_that_spent_all_on_its_thoughts_says_nothing(litellm: Any) -> None:
    with OpenAIServer(says=lambda asked: Reply("42", "x" * 4000)) as server:
        reply = await litellm.acompletion(
            **ROADS["openai"].call(server, HELLO, model="openai/gpt-5-mini", max_tokens=500)
        )
        assert server.requests[0].body["max_completion_tokens"] == 500
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("", "length")
        assert reply.usage.completion_tokens_details.reasoning_tokens == 500


async def test_litellm_takes_ollamas_error_in_a_stream_for_a_bad_request(litellm: Any) -> None:
    with OllamaServer() as server:
        server.fail("stream_error", at=1)
        with pytest.raises(litellm.BadRequestError, match="server busy"):
            await streamed(litellm, ROADS["ollama"].call(server, HELLO))


async def test_litellm_does_not_know_openrouters_and_ollamas_words_for_a_prompt_that_is_too_long(
    litellm: Any,
) -> None:
    found = {}
    for name in ("openai", "anthropic", "gemini", "openrouter", "ollama"):
        with ROADS[name].server() as server:
            server.fail("too_long")
            with pytest.raises(litellm.BadRequestError) as caught:
                await litellm.acompletion(**ROADS[name].call(server, HELLO))
            found[name] = type(caught.value).__name__
    known = "ContextWindowExceededError"
    assert found == {
        "openai": known,
        "anthropic": known,
        "gemini": known,
        "openrouter": "BadRequestError",
        "ollama": "BadRequestError",
    }


# The project's own roads


async def test_the_direct_road_ends_a_reply_of_500_megabytes_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said: list[Any] = [*HELLO]
    with OpenAIServer(api_key=KEY) as server:
        models = build_models(
            [], sub_llm__model="openai/gpt-4o-mini", sub_llm__api_base=f"{server.base}/v1", sub_llm__retries=0
        )
        server.fail("huge")
        await failing(models.complete(said, role="sub"))
        assert server.sent < 200_000_000
        await models.aclose()
