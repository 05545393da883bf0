"""`rlm models --check` against servers that speak the providers' wire formats, through the real litellm."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from rlm_kernel.cli import app
from rlm_kernel.config import LLMSettings, OtherLLM, Settings, load_settings
from rlm_kernel.models import checking
from rlm_kernel.models.checking import Checked, check_models
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.roads import KEY, ROADS, Road
from tests.support.providers.words import Reply

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """What litellm leaves open is collected here, and is no matter of other files."""
    yield
    gc.collect()


def configured(**llms: Any) -> None:
    Path("config.json").write_text(json.dumps(llms))


def rlm(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ("models", "--check", *arguments))
    assert KEY not in result.output
    return result


async def checked(**settings: Any) -> list[Checked]:
    return await check_models(load_settings(None, {n.replace("__", "."): v for n, v in settings.items()}))


def test_two_providers_are_told_as_a_table_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with AnthropicServer(api_key=KEY) as anthropic, OpenAIServer(api_key=KEY) as openai:
        configured(
            root_llm={"model": "anthropic/claude-sonnet-4-5", "api_base": anthropic.base},
            sub_llm={"model": "openai/gpt-4o-mini", "api_base": f"{openai.base}/v1", "window": 1000},
        )
        shown, told = rlm(), rlm("--json")
        assert (len(anthropic.bills), len(openai.bills)) == (2, 2)
        assert all(bill.output <= 1 for bill in (*anthropic.bills, *openai.bills))
    assert (shown.exit_code, told.exit_code) == (0, 0)
    head, root, sub, _, cost = shown.stdout.splitlines()
    assert head.split() == [
        "model",
        "as",
        "answer",
        "$",
        "in",
        "$",
        "cached",
        "$",
        "out",
        "window",
        "caching",
        "schemas",
        "pictures",
    ]
    assert root.split()[:2] == ["anthropic/claude-sonnet-4-5", "root"]
    assert root.split()[3:] == ["s", "3", "0.3", "15", "200,000", "yes", "yes", "yes"]
    assert sub.split()[3:] == ["s", "0.15", "0.075", "0.6", "1,000", "yes", "yes", "yes"]
    report = json.loads(told.stdout)
    assert report["ok"]
    assert cost == f"This check cost ${report['cost']:.6f}."
    assert 0 < report["cost"] == sum(row["cost"] for row in report["models"]) < 1e-3
    assert [(row["model"], row["roles"], row["error"]) for row in report["models"]] == [
        ("anthropic/claude-sonnet-4-5", ["root"], None),
        ("openai/gpt-4o-mini", ["sub"], None),
    ]
    assert all(0 < row["seconds"] < 30 for row in report["models"])


def test_what_fails_is_a_row_with_its_hint_and_the_others_are_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789abcdef")
    with AnthropicServer(api_key=KEY) as anthropic, OpenAIServer(api_key=KEY) as openai:
        configured(
            root_llm={"model": "anthropic/claude-sonnet-4-5", "api_base": anthropic.base, "api_key": KEY},
            sub_llm={"model": "openai/gpt-4o-mini", "api_base": f"{openai.base}/v1"},
        )
        result = rlm()
        told = json.loads(rlm("--json").stdout)
        monkeypatch.delenv("OPENAI_API_KEY")
        missing = rlm()
    assert (result.exit_code, missing.exit_code) == (3, 3)
    rows = result.stdout.splitlines()
    assert " s " in rows[1]
    assert "FAILED" in rows[2]
    assert "The model openai/gpt-4o-mini" in rows[3]
    assert rows[4].startswith("  → ")
    assert "OPENAI_API_KEY" in rows[4]
    assert "OPENAI_API_KEY is not set" in missing.stdout
    assert "root_llm" not in missing.stdout
    assert not told["ok"]
    assert told["models"][0]["error"] is None
    assert told["models"][1]["error"]["hint"]
    assert (told["models"][1]["seconds"], told["models"][1]["cost"]) == (None, 0.0)


@pytest.mark.parametrize("road", [road for name, road in ROADS.items() if name != "azure"], ids=str)
async def test_every_provider_answers_with_one_token(road: Road) -> None:
    with road.server(api_key=KEY if road.variable else None) as server:
        options = {"root_llm__api_base": server.base + road.path, "root_llm__api_key": KEY}
        rows = await checked(root_llm__model=road.model, **options)
        thinking = await checked(root_llm__model=road.thinker, **options)
        assert len(server.bills) >= 2
    for row in (*rows, *thinking):
        assert row.error is None
        assert row.roles == ("root", "sub")  # one model in both roles is asked once


async def test_a_model_whose_token_was_a_thought_answers_and_one_that_says_nothing_does_not() -> None:
    with OpenAIServer([Reply("", thoughts="Hm.")] * 2, api_key=KEY) as server:
        options = {"root_llm__api_base": f"{server.base}/v1", "root_llm__api_key": KEY}
        (row,) = await checked(root_llm__model="openai/gpt-5-mini", **options)
        assert row.error is None
        assert row.cost
        server.fail("empty_choices")
        server.fail("empty_choices")
        (row,) = await checked(root_llm__model="openai/gpt-5-mini", **options)
        assert row.error is not None


async def test_a_model_that_refuses_one_token_is_asked_as_it_is_configured() -> None:
    with OpenAIServer(api_key=KEY) as server:
        server.fail("bad_request")
        (row,) = await checked(
            root_llm__model="openai/gpt-4o-mini",
            root_llm__api_base=f"{server.base}/v1",
            root_llm__api_key=KEY,
            root_llm__max_tokens=50,
        )
        assert row.error is None
        assert [request.body["max_tokens"] for request in server.requests] == [1, 50]


async def test_models_are_asked_at_the_same_time_once_each_and_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 1.0)
    with OpenAIServer(api_key=KEY) as slow, OpenAIServer(api_key=KEY) as fast:
        slow.fail("hang")
        fast.fail("rate_limit")
        settings = {"root_llm__retries": 4, "root_llm__api_key": KEY, "sub_llm__api_key": KEY}
        async with asyncio.timeout(30):
            root, sub = await checked(
                root_llm__model="openai/gpt-4o-mini",
                root_llm__api_base=f"{slow.base}/v1",
                sub_llm__model="openai/gpt-4o-mini",
                sub_llm__api_base=f"{fast.base}/v1",
                **settings,
            )
        assert (len(slow.requests), len(fast.requests)) == (1, 1)
        slow.release()
    assert "no reply in time" in str(root.error)
    assert sub.error is not None


async def test_models_beside_root_and_sub_are_asked_too_with_their_own_settings() -> None:
    with OpenAIServer(api_key=KEY) as server:
        base = f"{server.base}/v1"
        root = LLMSettings(model="openai/gpt-4o-mini", api_base=base, api_key=SecretStr(KEY))
        others = {
            "hot": OtherLLM(model="openai/gpt-4o-mini", temperature=1.5),
            "strong": OtherLLM(model="openai/gpt-4o", api_base=base),
        }
        rows = await check_models(Settings(root_llm=root, models=others))
        asked = [request.body for request in server.requests]
    assert [(row.roles, row.model) for row in rows] == [
        (("root", "sub"), "openai/gpt-4o-mini"),
        (("hot",), "openai/gpt-4o-mini"),
        (("strong",), "openai/gpt-4o"),
    ]
    assert sorted(body.get("temperature", 0) for body in asked) == [0, 1.5]
    assert rows[1].error is None
    assert rows[2].error is not None
    assert "OPENAI_API_KEY is not set" in rows[2].error.message
    assert "root_llm" not in str(rows[2].error)


async def test_a_local_model_that_is_not_downloaded_is_not_downloaded_for_a_check() -> None:
    (row,) = await checked(root_llm__model="local")
    assert "rlm models pull local" in str(row.error)


def test_without_a_model_there_is_nothing_to_check() -> None:
    result = rlm()
    assert "No model is configured" in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 2
