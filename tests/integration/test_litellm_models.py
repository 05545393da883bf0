"""The model layer with real litellm over real HTTP, against the test server on loopback."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.protocols import Models, Retry, Usage
from rlm_kernel.engine.values import Watch
from rlm_kernel.errors import ConfigError, ModelError
from rlm_kernel.models import litellm_models
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.model_layer import HELLO, KEY, Make, failing
from tests.support.model_server import ModelServer


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are recorded and not waited."""
    recorded: list[float] = []

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        async def sleep(self, seconds: float) -> None:
            recorded.append(seconds)
            await asyncio.sleep(0)

    monkeypatch.setattr(litellm_models, "asyncio", Clock())
    return recorded


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The pauses that the provider asked for, which are recorded and not made."""
    recorded: list[float | None] = []
    monkeypatch.setattr(
        litellm_models.Slots, "refused", lambda _self, _began, retry_after: recorded.append(retry_after)
    )
    return recorded


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.005)


# Replies


async def test_a_reply_with_its_usage(make: Make, openai_env: ModelServer) -> None:
    models: Models = make()
    reply = await models.complete(HELLO, role="sub")
    assert (reply.text, reply.model, reply.attempts, reply.finish_reason) == (
        "echo: hello",
        "openai/sub",
        1,
        "stop",
    )
    assert reply.usage == Usage(prompt=22, completion=3, cached=20)
    assert reply.seconds > 0
    sent = openai_env.requests[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body == {"model": "sub", "messages": HELLO}


async def test_each_role_has_its_model_and_its_settings(make: Make, openai_env: ModelServer) -> None:
    openai_env.root = ["a plan"]
    models = make(root_llm__temperature=0.5, root_llm__max_tokens=77)
    assert (await models.complete(HELLO, role="root")).text == "a plan"
    body = openai_env.requests[-1].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("root", 0.5, 77)
    assert (models.name("root"), models.name("sub")) == ("openai/root", "openai/sub")


async def test_the_address_and_key_of_the_settings_win(make: Make, openai_env: ModelServer) -> None:
    with ModelServer(sub=lambda prompt: "the other", api_key="sk-another-key") as other:
        models = make(sub_llm__api_base=other.url, sub_llm__api_key="sk-another-key")
        assert (await models.complete(HELLO, role="sub")).text == "the other"
    assert openai_env.requests == []


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
async def test_the_address_may_be_in_either_variable(
    make: Make, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    assert (await make().complete(HELLO, role="sub")).text == "echo: hello"


async def test_only_the_roots_and_the_subs_model_may_be_named(make: Make, openai_env: ModelServer) -> None:
    openai_env.root = ["from root"]
    models = make()
    assert (await models.complete(HELLO, role="sub", model="openai/root")).text == "from root"
    problem = await failing(models.complete(HELLO, role="sub", model="openai/gpt-5-pro"))
    assert (problem.fault, problem.attempts) == ("unknown_model", 0)
    assert "openai/root and openai/sub" in problem.hint
    assert len(openai_env.requests) == 1


async def test_lone_surrogates_do_not_stop_a_prompt(make: Make) -> None:
    reply = await make().complete([{"role": "user", "content": "a\ud800b"}], role="sub")
    assert reply.text == "echo: a?b"


# Cost and window


async def test_cost_by_configured_prices(make: Make) -> None:
    reply = await make(sub_llm__input_price=10, sub_llm__output_price=100).complete(HELLO, role="sub")
    assert reply.cost == pytest.approx((22 * 10 + 3 * 100) / 1e6)


async def test_cost_and_window_from_the_table(make: Make, openai_env: ModelServer) -> None:
    openai_env.models = {"gpt-4o-mini": lambda messages: "hi"}
    models = make(sub_llm__model="openai/gpt-4o-mini")
    reply = await models.complete(HELLO, role="sub")
    # 20 of the 22 prompt tokens are cached, at half the price.
    assert reply.cost == pytest.approx(2 * 0.15e-6 + 20 * 0.075e-6 + 1 * 0.6e-6)
    assert models.card("sub").window == 128_000
    assert models.card("root").window is None


async def test_unknown_prices_are_unknown(make: Make) -> None:
    assert (await make().complete(HELLO, role="sub")).cost is None


async def test_a_reply_without_usage_has_no_known_cost(make: Make, openai_env: ModelServer) -> None:
    openai_env.fail("no_usage")
    reply = await make(sub_llm__input_price=10, sub_llm__output_price=100).complete(HELLO, role="sub")
    assert (reply.text, reply.cost) == ("some text", None)


@pytest.mark.parametrize("prices", [{"sub_llm__input_price": 10, "sub_llm__output_price": 100}, {}])
async def test_a_reply_that_used_less_than_nothing_gives_no_budget_back(
    make: Make, openai_env: ModelServer, prices: dict[str, float]
) -> None:
    openai_env.fail("negative_usage")
    reply = await make(sub_llm__model="openai/gpt-4o-mini", **prices).complete(HELLO, role="sub")
    assert reply.usage == Usage(prompt=21, completion=2, estimated=True)
    assert reply.cost is None


async def test_a_window_can_be_set(make: Make) -> None:
    assert make(sub_llm__window=4096).card("sub").window == 4096


async def test_what_failed_attempts_used_is_counted(make: Make, openai_env: ModelServer) -> None:
    openai_env.fail("empty_content")
    reply = await make(sub_llm__input_price=10, sub_llm__output_price=100).complete(HELLO, role="sub")
    assert reply.attempts == 2
    assert reply.usage == Usage(prompt=44, completion=4, cached=40)
    assert reply.cost == pytest.approx((44 * 10 + 4 * 100) / 1e6)


# Faults


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("rate_limit", "rate_limit"),
        ("server_error", "server"),
        ("overloaded", "server"),
        ("request_timeout", "timeout"),
        ("cut", "connection"),
        ("cut_middle", "connection"),
        ("empty_body", "server"),
        ("malformed", "server"),
        ("no_completion", "server"),
        ("no_choices", "empty"),
        ("empty_content", "empty"),
        ("reasoning_only", "empty"),
    ],
)
async def test_faults_that_may_pass_are_retried_and_then_told(
    make: Make, openai_env: ModelServer, kind: Any, fault: str
) -> None:
    models = make(sub_llm__retries=2)
    openai_env.fail(kind, times=2)
    reply = await models.complete(HELLO, role="sub")
    assert (reply.text, reply.attempts) == ("echo: hello", 3)

    openai_env.fail(kind, times=3)
    problem = await failing(models.complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts, problem.model, problem.exit_code) == (fault, 3, "openai/sub", 1)
    assert "openai/sub" in problem.message
    assert "(3 attempts)" in problem.message
    assert len(openai_env.requests) == 6


@pytest.mark.parametrize(
    ("kind", "fault", "exit_code", "hint"),
    [
        ("auth", "auth", 3, "OPENAI_API_KEY"),
        ("forbidden", "auth", 3, "OPENAI_API_KEY"),
        ("unknown_model", "unknown_model", 3, "provider/model"),
        ("quota", "rate_limit", 1, "billing"),
        ("bad_request", "bad_request", 1, "sub_llm"),
        ("too_long", "too_long", 1, "smaller pieces"),
        ("content_filter", "refused", 1, "differently"),
        ("refusal", "refused", 1, "differently"),
        ("cut_length", "empty", 1, "sub_llm.max_tokens"),
    ],
)
async def test_faults_that_stay_are_told_at_once(
    make: Make, openai_env: ModelServer, kind: Any, fault: str, exit_code: int, hint: str
) -> None:
    openai_env.fail(kind)
    problem = await failing(make().complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts, problem.exit_code) == (fault, 1, exit_code)
    assert hint in problem.hint
    assert len(openai_env.requests) == 1


async def test_a_time_out_holds_for_each_attempt(make: Make, openai_env: ModelServer) -> None:
    models = make(sub_llm__timeout=0.3, sub_llm__retries=1)
    await models.warm_up()
    openai_env.fail("hang", times=2)
    started = time.monotonic()
    problem = await failing(models.complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == ("timeout", 2)
    assert "sub_llm.timeout (now 0.3 s)" in problem.hint
    assert time.monotonic() - started >= 0.6
    await until(lambda: openai_env.disconnects == 2)


async def test_each_attempt_that_had_no_reply_in_time_counts_as_its_prompt(
    make: Make, openai_env: ModelServer
) -> None:
    prices = {"sub_llm__input_price": 10.0, "sub_llm__output_price": 30.0}
    models = make(sub_llm__timeout=1, sub_llm__retries=1, **prices)
    await models.warm_up()
    long = [{"role": "user", "content": "a" * 4_000}]
    openai_env.fail("hang", times=2)
    spent = (await failing(models.complete(long, role="sub"))).spent
    assert spent is not None
    assert (spent.usage, spent.cost) == (Usage(2_158, 0, estimated=True), pytest.approx(0.02158))
    openai_env.fail("hang", times=1)
    reply = await models.complete(long, role="sub")
    assert reply.attempts == 2
    assert reply.usage.prompt >= 1_000, "that of the first, and what the provider tells of the second"


async def test_an_attempt_without_a_reply_does_not_hide_what_the_provider_bills_for_the_next(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", openai_env.api_key or "")
    models = make(
        sub_llm__model="openrouter/of/no-table",
        sub_llm__api_base=openai_env.url,
        sub_llm__timeout=2,
        sub_llm__retries=1,
    )
    await models.warm_up()
    openai_env.fail("hang", times=1)
    openai_env.send(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "of/no-table",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "Yes."},
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.25},
        }
    )
    reply = await models.complete(HELLO, role="sub")
    assert (reply.text, reply.attempts, reply.cost) == ("Yes.", 2, 0.25)


async def test_nobody_listening_is_a_connection_fault(make: Make) -> None:
    with ModelServer() as gone:
        pass
    problem = await failing(make(sub_llm__api_base=gone.url, sub_llm__retries=1).complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == ("connection", 2)
    assert gone.url in problem.hint


async def test_one_failure_costs_only_its_own_item(make: Make, openai_env: ModelServer) -> None:
    openai_env.fail("bad_request")
    results = await asyncio.gather(
        *(make().complete(HELLO, role="sub") for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, ModelError) for result in results) == 1
    assert sum(getattr(result, "text", "") == "echo: hello" for result in results) == 7


# Waiting


async def test_retry_after_in_seconds_pauses_the_model(
    make: Make, openai_env: ModelServer, pauses: list[float], waits: list[float]
) -> None:
    models = make()
    openai_env.fail("rate_limit", retry_after="7")
    openai_env.fail("overloaded", retry_after="7.5")
    assert (await models.complete(HELLO, role="sub")).attempts == 3
    assert (pauses, waits) == ([7.0, 7.5], [])


async def test_where_retry_after_is_no_time_at_all_the_usual_waits_are_made(
    make: Make, openai_env: ModelServer, waits: list[float]
) -> None:
    openai_env.fail("rate_limit", times=4, retry_after="0")
    assert (await make().complete(HELLO, role="sub")).attempts == 5
    assert len(waits) == 4, "else all attempts are used up at once"


async def test_retry_after_as_a_date_pauses_the_model(
    make: Make, openai_env: ModelServer, pauses: list[float]
) -> None:
    openai_env.fail(
        "rate_limit", retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    )
    await make().complete(HELLO, role="sub")
    assert 15.0 <= pauses[0] <= 31.0


@pytest.mark.parametrize("days", [1, -1])
async def test_retry_after_as_a_date_is_of_the_providers_clock(
    make: Make, openai_env: ModelServer, pauses: list[float], days: int
) -> None:
    there = datetime.now(UTC) + timedelta(days=days)
    later = format_datetime(there + timedelta(seconds=30), usegmt=True)
    openai_env.fail("rate_limit", retry_after=later, date=format_datetime(there, usegmt=True))
    await make().complete(HELLO, role="sub")
    assert pauses == [30.0]


@pytest.mark.parametrize("asked", ["86400", "inf"])
async def test_no_pause_is_longer_than_the_cap(
    make: Make, openai_env: ModelServer, pauses: list[float], asked: str
) -> None:
    openai_env.fail("rate_limit", retry_after=asked)
    await make().complete(HELLO, role="sub")
    assert pauses == [litellm_models.MAX_WAIT]


async def test_a_pause_holds_for_all_calls_of_the_model(make: Make, openai_env: ModelServer) -> None:
    models = make()
    await models.complete(HELLO, role="sub")
    openai_env.fail("rate_limit", retry_after="1")
    first = asyncio.create_task(models.complete(HELLO, role="sub"))
    await until(lambda: models._endpoints["sub"].slots._paused_until > 0)
    refused = openai_env.requests[-1].at
    await asyncio.gather(first, *(models.complete(HELLO, role="sub") for _ in range(5)))
    assert min(request.at for request in openai_env.requests[2:]) - refused >= 0.9


@pytest.mark.parametrize("nonsense", ["soon", "nan", "-5"])
async def test_nonsense_in_retry_after_does_no_harm(
    make: Make, openai_env: ModelServer, pauses: list[float | None], nonsense: str
) -> None:
    openai_env.fail("rate_limit", retry_after=nonsense)
    await make().complete(HELLO, role="sub")
    assert pauses in ([None], [0.0])


async def test_waits_grow_and_stay_under_their_bound(
    make: Make, openai_env: ModelServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 8.0)
    monkeypatch.setattr(litellm_models.random, "uniform", lambda low, high: high)
    openai_env.fail("server_error", times=5)
    await make(sub_llm__retries=5).complete(HELLO, role="sub")
    assert waits == [8.0, 16.0, 32.0, 60.0, 60.0]


# Keys


async def test_a_missing_key_is_told_before_any_call(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    problem = await failing(make().warm_up())
    assert (problem.fault, problem.exit_code, problem.attempts) == ("auth", 3, 0)
    assert "Set OPENAI_API_KEY" in problem.hint
    assert openai_env.requests == []


async def test_the_coding_plan_wants_its_own_key(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = make(glm_coding__enabled=True, glm_coding__api_base=openai_env.url)
    problem = await failing(models.warm_up())
    assert (problem.fault, problem.model) == ("auth", "openai/glm-4.7")
    assert "ZAI_API_KEY" in problem.hint

    monkeypatch.setenv("ZAI_API_KEY", KEY)
    openai_env.models = {"glm-4.7": lambda messages: "from glm"}
    models = make(glm_coding__enabled=True, glm_coding__api_base=openai_env.url)
    assert (await models.complete(HELLO, role="root")).text == "from glm"


@pytest.mark.parametrize("name", ["root", "nosuchprovider/model"])
async def test_an_unknown_provider_is_told_before_any_call(
    make: Make, openai_env: ModelServer, name: str
) -> None:
    problem = await failing(make(root_llm__model=name).warm_up())
    assert (problem.fault, problem.model, problem.exit_code) == ("unknown_model", name, 3)
    assert openai_env.requests == []


def test_no_model_at_all_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="No root model") as caught:
        LitellmModels(Settings())
    assert "RLM_MODEL" in caught.value.hint


@pytest.mark.parametrize("kind", ["auth", "bad_request", "server_error", "refusal"])
async def test_a_key_that_a_provider_repeats_is_redacted(
    make: Make, openai_env: ModelServer, kind: Any
) -> None:
    openai_env.fail(kind, message=f"The key {KEY} is bad.")
    problem = await failing(make(sub_llm__retries=0).complete(HELLO, role="sub"))
    assert "[redacted] is bad" in problem.message


# Many at once, and the end


async def test_calls_in_progress_stay_within_the_concurrency(make: Make, openai_env: ModelServer) -> None:
    openai_env.delay = 0.02
    models = make(sub_llm__concurrency=3)
    replies = await asyncio.gather(*(models.complete(HELLO, role="sub") for _ in range(15)))
    assert len(replies) == 15
    assert openai_env.peak("sub") == 3


async def test_a_batch_gets_through_a_flaky_provider(make: Make, openai_env: ModelServer) -> None:
    openai_env.fault_rate = 0.2
    models = make(sub_llm__retries=20)
    prompts = [f"item {number}" for number in range(100)]
    calls = (models.complete([{"role": "user", "content": prompt}], role="sub") for prompt in prompts)
    replies = await asyncio.gather(*calls)
    assert [reply.text for reply in replies] == [f"echo: {prompt}" for prompt in prompts]
    assert len(openai_env.requests) == sum(reply.attempts for reply in replies) > 100


async def test_cancelling_is_prompt_and_frees_the_slots(make: Make, openai_env: ModelServer) -> None:
    models = make(sub_llm__concurrency=2)
    await models.complete(HELLO, role="sub")
    openai_env.fail("hang", times=2)
    calls = [asyncio.create_task(models.complete(HELLO, role="sub")) for _ in range(4)]
    await until(lambda: openai_env.in_progress("sub") == 2)
    started = time.monotonic()
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 1.0
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await until(lambda: openai_env.disconnects == 2)
    assert (await models.complete(HELLO, role="sub")).text == "echo: hello"


async def test_closing_leaves_nothing_open(make: Make) -> None:
    first, second = make(), make()
    await first.complete(HELLO, role="sub")
    await second.complete(HELLO, role="sub")
    await first.aclose()
    assert (await second.complete(HELLO, role="sub")).text == "echo: hello"
    await second.aclose()
    await second.aclose()
    gc.collect()
    me = asyncio.current_task()
    await until(
        lambda: asyncio.all_tasks() == {me}
    )  # what closes a connection may take some rounds of the loop


def test_each_event_loop_has_clients_of_its_own(openai_env: ModelServer) -> None:
    async def ask() -> str:
        models = LitellmModels(load_settings(overrides={"root_llm.model": "openai/sub"}))
        try:
            return (await models.complete(HELLO, role="root")).text
        finally:
            await models.aclose()

    assert [asyncio.run(ask()) for _ in range(3)] == ["echo: hello"] * 3


# Too many calls, failed attempts that cost, schemas


async def test_refusals_lower_the_number_of_calls_at_one_time_and_successes_raise_it_again(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(sub_llm__concurrency=20)
    slots = models._endpoints["sub"].slots
    openai_env.fail("rate_limit", times=10, retry_after="0")
    await asyncio.gather(*(models.complete(HELLO, role="sub") for _ in range(60)))
    low = slots.limit
    assert low < 20
    await asyncio.gather(*(models.complete(HELLO, role="sub") for _ in range(100)))
    assert slots.limit > low


async def test_a_cancelled_call_leaves_the_server_at_once_and_its_slot_free(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(sub_llm__concurrency=1)
    await models.warm_up()
    openai_env.fail("hang")
    hanging = asyncio.create_task(models.complete(HELLO, role="sub"))
    await until(lambda: openai_env.in_progress() == 1)
    hanging.cancel()
    await until(lambda: openai_env.disconnects == 1)
    assert (await models.complete(HELLO, role="sub")).text == "echo: hello"


async def test_replies_without_text_are_paid_for(make: Make, openai_env: ModelServer) -> None:
    openai_env.fail("empty_content", times=2)
    problem = await failing(
        make(sub_llm__retries=1, sub_llm__input_price=10, sub_llm__output_price=100).complete(
            HELLO, role="sub"
        )
    )
    assert problem.fault == "empty"
    assert problem.spent.usage.prompt == 44
    assert problem.spent.cost > 0


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def test_a_schema_is_sent_to_the_provider(make: Make, openai_env: ModelServer) -> None:
    openai_env.models = {"gpt-4o-mini": lambda messages: "{}"}
    await make(sub_llm__model="openai/gpt-4o-mini").complete(HELLO, role="sub", schema=SCHEMA)
    assert openai_env.requests[-1].body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }


async def test_a_server_that_takes_no_schema_is_asked_without_from_then_on(
    openai_env: ModelServer, make: Make
) -> None:
    models = make()
    await models.warm_up()
    models._endpoints[
        "sub"
    ].schemas = None  # litellm's own road takes a model that it does not know for one that takes none
    openai_env.fail("bad_request")
    for _ in range(2):
        assert (await models.complete(HELLO, role="sub", schema=SCHEMA)).text == "echo: hello"
    assert ["response_format" in request.body for request in openai_env.requests][-2:] == [False, False]


async def test_calls_in_flight_as_a_schema_is_refused_are_all_asked_again_without(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(sub_llm__retries=0)
    await models.warm_up()
    models._endpoints["sub"].schemas = None
    openai_env.fail("bad_request", times=8, schema=True)
    replies = await asyncio.gather(*(models.complete(HELLO, role="sub", schema=SCHEMA) for _ in range(8)))
    assert [reply.text for reply in replies] == ["echo: hello"] * 8


async def test_a_request_that_is_bad_in_itself_turns_no_schemas_off(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(sub_llm__retries=0)
    await models.warm_up()
    models._endpoints["sub"].schemas = None
    openai_env.fail("bad_request", times=2)
    assert (await failing(models.complete(HELLO, role="sub", schema=SCHEMA))).fault == "bad_request"
    await models.complete(HELLO, role="sub", schema=SCHEMA)
    assert "response_format" in openai_env.requests[-1].body


# Attempts that failed, for who watches


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rate_limit", "rate-limited"),
        ("overloaded", "server error 503"),
        ("server_error", "server error 500"),
        ("cut", "connection lost"),
        ("empty_content", "empty reply"),
        ("request_timeout", "time-out"),
    ],
)
async def test_each_failed_attempt_is_told_with_its_reason(
    make: Make, openai_env: ModelServer, waits: list[float], kind: Any, reason: str
) -> None:
    told: list[Retry] = []
    openai_env.fail(kind, times=2)
    reply = await make().complete(
        HELLO, role="sub", watch=Watch(retrying=lambda retry: told.append(retry) or True)
    )  # type: ignore[func-returns-value]
    assert reply.attempts == 3
    assert [(retry.reason, retry.attempt, retry.attempts) for retry in told] == [
        (reason, 1, 5),
        (reason, 2, 5),
    ]
    assert [retry.seconds for retry in told] == waits


async def test_a_time_out_and_nobody_at_the_address_are_told_apart(
    make: Make, openai_env: ModelServer, waits: list[float]
) -> None:
    told: list[Retry] = []

    def hear(retry: Retry) -> bool:
        told.append(retry)
        return True

    openai_env.fail("hang")
    await make(sub_llm__timeout=1).complete(HELLO, role="sub", watch=Watch(retrying=hear))
    with ModelServer() as gone:
        pass
    await failing(
        make(sub_llm__api_base=gone.url, sub_llm__retries=1).complete(
            HELLO, role="sub", watch=Watch(retrying=hear)
        )
    )
    assert [(retry.reason, retry.attempt, retry.attempts) for retry in told] == [
        ("time-out", 1, 5),
        ("connection refused", 1, 2),
    ]


async def test_a_request_that_no_connection_came_about_for_has_used_nothing(
    make: Make, waits: list[float]
) -> None:
    sent: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it answers no greeting of TLS
        port = silent.getsockname()[1]
        models = make(
            sub_llm__api_base=f"https://127.0.0.1:{port}",
            sub_llm__timeout=0.2,
            sub_llm__retries=0,
        )
        watch = Watch(sent=lambda: sent.append("sent"))
        problem = await failing(models.complete(HELLO, role="sub", watch=watch))
    assert (problem.fault, problem.spent, sent) == ("timeout", None, [])
    assert "no connection in time" in str(problem)


async def test_what_attempts_have_used_that_timed_out_is_told_before_the_next(
    make: Make, openai_env: ModelServer, waits: list[float]
) -> None:
    told: list[str | int] = []
    openai_env.fail("hang", times=2)
    reply = await make(sub_llm__timeout=0.8).complete(
        HELLO,
        role="sub",
        watch=Watch(
            sent=lambda: told.append("sent"), attempted=lambda usage, _cost: told.append(usage.total)
        ),
    )
    once = 21  # the prompt, by an estimate
    assert told == ["sent", once, "sent", 2 * once, "sent", reply.usage.total]
    assert reply.usage.total > 2 * once


async def test_the_wait_that_a_provider_asks_for_is_told_and_may_be_refused(
    make: Make, openai_env: ModelServer, pauses: Any
) -> None:
    told: list[Retry] = []
    openai_env.fail("rate_limit", retry_after="3600", times=2)
    problem = await failing(
        make().complete(HELLO, role="sub", watch=Watch(retrying=lambda retry: bool(told.append(retry))))  # type: ignore[func-returns-value]
    )
    assert (problem.fault, problem.attempts, len(openai_env.requests)) == ("rate_limit", 1, 1)
    assert problem.hint.startswith("Wait 3,600 s, as the provider asks, or")
    assert told[0].asked == 3600
