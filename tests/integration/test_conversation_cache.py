"""A conversation of several questions, each put by a process of its own, with the real litellm or our own
roads, against servers that play the providers' caches: the next question finds all that was said before.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.messages import SUM_UP
from tests.support.engine import Run
from tests.support.kept import begun, put
from tests.support.model_layer import KEY, build_models
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.openrouter_chat import OpenRouterServer
from tests.support.providers.server import Asked, ProviderServer
from tests.support.providers.words import Bill, Reply
from tests.support.story import repl

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LONG = repl("say(context[:0] + 'The pump of station 7 was seen to. ' * 120)")


def says(asked: Asked) -> str | Reply:
    """Looks, and looks again, and answers."""
    if SUM_UP in asked.text:
        return "The pumps were seen to."
    turn = re.findall(r"Turn (\d+) of", asked.text)[-1]
    thoughts = "Let me look. " * 20 if "thinking" in asked.body or "reasoning" in asked.body else ""
    return Reply(
        {"1": LONG, "2": repl("say('b' * 2000)")}.get(turn, repl("FINAL('seven')")), thoughts=thoughts
    )


ROADS: dict[str, tuple[type[ProviderServer], str, dict[str, Any]]] = {
    "anthropic": (AnthropicServer, "anthropic/claude-sonnet-4-5", {}),
    "anthropic, thinking": (AnthropicServer, "anthropic/claude-sonnet-4-5", {"root_llm__reasoning": "low"}),
    "openai": (OpenAIServer, "openai/gpt-4o", {}),
    "openrouter": (OpenRouterServer, "openrouter/anthropic/claude-sonnet-4.5", {}),
}


async def asked(path: Path, server: ProviderServer, model: str, **more: Any) -> tuple[Run, list[Bill]]:
    """A question in a process of its own, and what was paid for its calls."""
    before = len(server.bills)
    path_of: dict[type, str] = {OpenAIServer: "/v1", OpenRouterServer: "/api/v1"}
    places = {"api_base": server.base + path_of.get(type(server), ""), "api_key": KEY}
    reach = {f"{role}__{name}": value for role in ("root_llm", "sub_llm") for name, value in places.items()}
    named = {"root_llm__model": model, "sub_llm__model": model}
    models = build_models([], **named, **reach, **more.pop("settings", {}))
    try:
        run = await put(path, more.pop("question"), models, **more)
    finally:
        await models.aclose()
    return run, list(server.bills[before:])


@pytest.mark.parametrize("road", ROADS)
async def test_the_next_question_finds_what_was_said_before_in_the_cache(road: str, tmp_path: Path) -> None:
    kind, model, settings = ROADS[road]
    path = begun(tmp_path / "t.ipynb")
    with kind(says, api_key=KEY) as server:
        last: Bill | None = None
        for number in range(3):
            run, bills = await asked(path, server, model, question=f"Which, {number}?", settings=settings)
            assert run.ledger.totals().turns == 3
            if last is not None:
                assert bills[0].cached > last.prompt - 128, (
                    "as much as that call had read, in steps of the cache"
                )
            last = bills[-1]


async def test_a_summary_reads_the_conversation_from_the_cache_and_leaves_its_beginning_there(
    tmp_path: Path,
) -> None:
    path, model = begun(tmp_path / "t.ipynb"), "anthropic/claude-sonnet-4-5"
    with AnthropicServer(says, api_key=KEY) as server:
        for number in range(3):
            run, bills = await asked(path, server, model, question=f"Which, {number}?", verbatim=1_500)
            if number:
                summary, first = bills[:2]
                assert summary.cached > 0.7 * summary.prompt
                assert first.prompt < summary.prompt
                assert run.ledger.totals().turns == 3


async def test_blocks_that_a_provider_refuses_are_left_out_and_the_question_is_answered(
    tmp_path: Path,
) -> None:
    """The reasoning was signed for another, or the trace came from somebody."""
    path, model = begun(tmp_path / "t.ipynb"), "anthropic/claude-sonnet-4-5"
    thinking = {"root_llm__reasoning": "low"}
    with AnthropicServer(says, api_key=KEY) as server:
        await asked(path, server, model, question="Which?", settings=thinking)
    with AnthropicServer(says, api_key=KEY) as other:
        run, bills = await asked(path, other, model, question="And why?", settings=thinking)
        assert run.ledger.totals().turns == 3
        assert bills
