"""Replies of providers as the conversation hears them, on both roads."""

from __future__ import annotations

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine import messages as say
from rlm_kernel.engine.conversation import Conversation
from rlm_kernel.engine.events import TurnPiece
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.engine import Recorder
from tests.support.model_layer import KEY
from tests.support.providers.roads import ROADS
from tests.support.providers.words import Reply

CODE = "I look.\n```repl\nprint(1)\n```"
INVENTED = f"{CODE}\nOutput: 1\n" + "So it is one, I say. " * 300


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "ollama"])
async def test_a_reply_of_any_provider_ends_where_it_makes_up_an_output(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = ROADS[provider]
    monkeypatch.setenv(road.variable or "NONE", KEY)
    with road.server([INVENTED, "FINAL(2)"]) as server:
        chosen = load_settings(
            None, {"root_llm.model": road.model, "root_llm.api_base": server.base + road.path}
        )
        models, told, ledger = LitellmModels(chosen), Recorder(), Ledger(Limits())
        talk = Conversation(models, ledger, told, None)
        talk.begin([{"role": "user", "content": "What is it?"}])
        reply = await talk.ask()
        assert (reply.text, reply.finish_reason, talk.ended_by) == (CODE, "stopped", say.INVENTED)
        assert reply.usage.prompt > 0
        assert 0 < reply.usage.completion < len(INVENTED) / 4
        heard = "".join(piece.text for piece in told.of(TurnPiece))
        assert INVENTED.startswith(heard)
        assert len(heard) < len(INVENTED)
        talk.say("Go on.")
        assert (await talk.ask()).text == "FINAL(2)"
        assert talk.messages[1]["content"] == CODE
        await models.aclose()


async def test_signed_reasoning_is_heard_as_such_and_goes_back_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    road = ROADS["anthropic"]
    monkeypatch.setenv(road.variable, KEY)
    with road.server([Reply(INVENTED, "Hm, so it is."), "FINAL(2)"]) as server:
        changes = {
            "root_llm.model": road.thinker,
            "root_llm.api_base": server.base + road.path,
            "root_llm.thinking_tokens": 2000,
        }
        models, told = LitellmModels(load_settings(None, changes)), Recorder()
        talk = Conversation(models, Ledger(Limits()), told, None)
        talk.begin([{"role": "user", "content": "What is it?"}])
        reply = await talk.ask()
        assert (reply.text, reply.thoughts) == (CODE, "Hm, so it is.")
        assert "".join(piece.text for piece in told.of(TurnPiece) if piece.thought) == "Hm, so it is."
        talk.say("Go on.")
        assert (await talk.ask()).text == "FINAL(2)"
        (said,) = [m for m in server.requests[-1].body["messages"] if m["role"] == "assistant"]
        assert [block["type"] for block in said["content"]] == ["thinking", "text"]
        assert said["content"][0]["signature"]
        await models.aclose()
