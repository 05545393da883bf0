"""The servers of the providers' APIs, asked by the real litellm: what it sends, returns and raises."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.models import _litellm, litellm_models
from tests.support.model_layer import build_models, failing
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.ollama_chat import OllamaServer
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.roads import FORMAT, KEY, MARK, ROADS, Road, asks_of_picture
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


async def test_a_plain_reply_has_the_text_the_tokens_and_the_price_of_the_bill(
    litellm: Any, road: Road, server: ProviderServer
) -> None:
    reply = await litellm.acompletion(
        **road.call(server, [{"role": "system", "content": "Be brief."}, *HELLO])
    )
    bill = server.bills[0]
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("echo: hello", "stop")
    assert counted(reply.usage) == (bill.prompt, bill.output)
    if bill.cost:
        assert reply._hidden_params["response_cost"] == pytest.approx(bill.cost)


async def test_a_streamed_reply_is_the_same_as_a_plain_one(
    litellm: Any, road: Road, server: ProviderServer
) -> None:
    text, thoughts, usage, ends = await streamed(litellm, road.call(server, HELLO))
    bill = server.bills[0]
    assert (text, thoughts, ends) == ("echo: hello", "", ["stop"])
    assert counted(usage) == (bill.prompt, bill.output)
    assert (
        server.requests[0].body["stream"] is True
        if "stream" in server.requests[0].body
        else "streamGenerate" in server.requests[0].path
    )


@pytest.mark.parametrize(
    "road",
    [ROADS[name] for name in ROADS if name != "ollama"],
    ids=[name for name in ROADS if name != "ollama"],
)
async def test_the_second_call_reads_the_cache_and_the_bill_says_so(
    litellm: Any, road: Road, server: ProviderServer
) -> None:
    messages = [road.system(LONG), *HELLO]
    first = await litellm.acompletion(**road.call(server, messages))
    second = await litellm.acompletion(**road.call(server, messages))
    _, _, third, _ = await streamed(litellm, road.call(server, messages))
    one, two, _ = server.bills
    assert (cached(first.usage), cached(second.usage), cached(third)) == (0, two.cached, two.cached)
    assert two.cached > 0.9 * two.prompt
    assert second.usage.prompt_tokens == two.prompt
    if two.cost:
        assert two.cost < one.cost
        assert second._hidden_params["response_cost"] == pytest.approx(two.cost)
    server.clock.advance(3601)
    await litellm.acompletion(**road.call(server, messages))
    assert server.bills[-1].cached == 0


async def test_thoughts_come_apart_and_are_counted(litellm: Any, road: Road, server: ProviderServer) -> None:
    server.says = lambda asked: Reply("42", "Six times seven it is.")
    call = road.call(server, HELLO, model=road.thinker, reasoning_effort="low", drop_params=True)
    reply = await litellm.acompletion(**call)
    text, thoughts, usage, _ = await streamed(litellm, call)
    shown = "" if road in (ROADS["openai"], ROADS["azure"]) else "Six times seven it is."
    assert (
        reply.choices[0].message.content,
        getattr(reply.choices[0].message, "reasoning_content", None) or "",
    ) == ("42", shown)
    assert (text, thoughts) == ("42", shown)
    assert counted(reply.usage) == counted(usage) == (server.bills[0].prompt, 7)
    if road is not ROADS["ollama"]:
        assert reply.usage.completion_tokens_details.reasoning_tokens == 6


@pytest.mark.parametrize(
    "road",
    [ROADS[name] for name in ROADS if name != "deepseek"],
    ids=[name for name in ROADS if name != "deepseek"],
)
async def test_a_schema_constrains_the_reply(litellm: Any, road: Road, server: ProviderServer) -> None:
    server.says = ['{"n": 7}', "The number is seven."]
    texts = [
        (await litellm.acompletion(**road.call(server, HELLO, response_format=FORMAT)))
        .choices[0]
        .message.content
        for _ in range(2)
    ]
    assert texts == ['{"n": 7}', '{"n": 0}']


SEEING = [name for name in ROADS if ROADS[name].seer != "-"]


@pytest.mark.parametrize("road", [ROADS[name] for name in SEEING], ids=SEEING)
async def test_a_picture_arrives_and_is_counted(litellm: Any, road: Road, server: ProviderServer) -> None:
    seen: list[int] = []

    def says(asked: Any) -> str:
        seen.append(asked.images)
        return f"I see it: {asked.text}"

    server.says = says
    reply = await litellm.acompletion(
        **road.call(server, [asks_of_picture("what?")], model=road.seer or road.model)
    )
    await litellm.acompletion(
        **road.call(server, [{"role": "user", "content": "what?"}], model=road.seer or road.model)
    )
    assert reply.choices[0].message.content == "I see it: what?"
    assert seen == [1, 0]
    assert server.bills[0].prompt > server.bills[1].prompt


# Faults of all


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("rate_limit", {"RateLimitError"}),
        ("server_error", {"InternalServerError", "APIError", "APIConnectionError"}),
        ("overloaded", {"InternalServerError", "ServiceUnavailableError", "APIError"}),
        ("auth", {"AuthenticationError", "BadRequestError", "APIConnectionError", "APIError"}),
        ("html", {"BadGatewayError", "APIConnectionError", "APIError"}),
        ("cut", {"InternalServerError", "APIConnectionError", "APIError"}),
        (
            "malformed",
            {"InternalServerError", "APIConnectionError", "APIError", "BadRequestError", "JSONDecodeError"},
        ),
    ],
)
async def test_a_fault_is_raised_as_one_of_litellms_errors(
    litellm: Any, road: Road, server: ProviderServer, kind: Any, names: set[str]
) -> None:
    server.fail(kind)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await litellm.acompletion(**road.call(server, HELLO))
    assert type(caught.value).__name__ in names


async def test_a_stream_that_is_cut_at_any_event_raises_after_what_came(
    litellm: Any, road: Road, server: ProviderServer
) -> None:
    server.says = lambda asked: "a reply of some length, in six pieces"
    await streamed(litellm, road.call(server, HELLO))
    for at in (0, 2, 5):
        server.fail("cut", at=at)
        with pytest.raises(Exception, match=r"not completed|Connection|incomplete"):
            await streamed(litellm, road.call(server, HELLO))


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
    litellm: Any, anthropic: AnthropicServer
) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    with pytest.raises(litellm.APIConnectionError, match="No module named 'mcp'"):
        await litellm.acompletion(**ROADS["anthropic"].call(anthropic, HELLO, tools=[tool]))
    assert not anthropic.requests


async def test_the_prompts_of_twelve_turns_with_marks_cost_less_than_a_third_of_those_without(
    litellm: Any,
) -> None:
    costs = []
    for mark in (MARK, {}):
        with AnthropicServer(says=lambda asked: "I looked at this part of it. " * 20) as server:
            history: list[dict[str, Any]] = []
            for turn in range(12):
                said = {"type": "text", "text": f"Output of cell {turn}: " + "line of output\n" * 150}
                system = {"role": "system", "content": [{"type": "text", "text": LONG, **mark}]}
                call = ROADS["anthropic"].call(
                    server, [system, *history, {"role": "user", "content": [{**said, **mark}]}]
                )
                reply = await litellm.acompletion(**call)
                assert reply._hidden_params["response_cost"] == pytest.approx(server.bills[-1].cost)
                history += [
                    {"role": "user", "content": [said]},
                    {"role": "assistant", "content": reply.choices[0].message.content},
                ]
            costs.append(sum(bill.cost - bill.output * 15e-6 for bill in server.bills))
    assert costs[0] < costs[1] / 3


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


@pytest.mark.parametrize("name", ["direct", "openai", "anthropic", "gemini", "openrouter", "ollama"])
async def test_the_model_layer_reads_reply_cache_and_faults(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 0.001)
    if name != "direct":
        monkeypatch.setattr(litellm_models, "can_go_direct", lambda *_: False)
    road = ROADS.get(name, ROADS["openai"])
    said: list[Any] = [{"role": "system", "content": LONG}, *HELLO]
    monkeypatch.setenv(road.variable or "UNUSED", KEY)
    with road.server(api_key=KEY if road.variable else None) as server:
        base = server.base + road.path
        settings = {"root_llm__model": road.model, "root_llm__api_base": base, "sub_llm__api_base": base}
        models = build_models([], sub_llm__model=road.model, sub_llm__retries=1, **settings)
        await models.complete(said, role="sub")
        reply = await models.complete(said, role="sub")
        bill = server.bills[1]
        assert reply.text == "echo: hello"
        assert (reply.usage.prompt, reply.usage.completion, reply.usage.cached) == (
            bill.prompt,
            bill.output,
            bill.cached,
        )
        assert (reply.usage.cached > 2000) is (
            name in ("direct", "openai", "gemini")
        )  # the others cache what is marked, or tell nothing
        server.fail("overloaded")
        assert (await models.complete(said, role="sub")).attempts == 2
        server.fail("too_long")
        assert (await failing(models.complete(said, role="sub"))).fault == "too_long"
        await models.aclose()


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
