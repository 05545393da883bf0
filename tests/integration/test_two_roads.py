"""The two roads to a provider: a request that is sent directly is the one that litellm would send."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.config.settings import OtherLLM
from rlm_kernel.engine.protocols import Usage
from rlm_kernel.errors import ModelError
from rlm_kernel.models import _catalog, _litellm, _prices, litellm_models
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.model_layer import HELLO, KEY
from tests.support.model_server import ModelServer

PROVIDERS = sorted(set(_catalog.providers()) - {_catalog.ANTHROPIC})
MOST_MODELS = 20
MORE: dict[str, Any] = {"temperature": 0.5, "max_tokens": 100, "top_p": 0.5, "seed": 7, "stop": ["END"]}


async def sent(server: ModelServer) -> dict[str, Any]:
    """Path, key and body of the request to each provider."""
    place = {"api_base": server.url, "api_key": KEY, "retries": 0}
    root = LLMSettings.model_validate({"model": "openai/some-model", **place})
    found = {}
    for start in range(0, len(PROVIDERS), MOST_MODELS):
        names = PROVIDERS[start : start + MOST_MODELS]
        others = {
            name: OtherLLM.model_validate({"model": f"{name}/some-model", **place, **MORE}) for name in names
        }
        models = LitellmModels(Settings(root_llm=root, models=others))
        try:
            for name in names:
                with contextlib.suppress(ModelError):  # groq's part of litellm wants more of a reply
                    await models.complete(HELLO, role="root", model=name)
                request = server.requests[-1]
                body = {part: value for part, value in request.body.items() if part != "stream" or value}
                found[name] = request.path, request.headers.get("authorization"), body
        finally:
            await models.aclose()
    return found


async def test_both_roads_send_the_same_to_all_providers(
    openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("some-model", "accounts/fireworks/models/some-model")
    openai_env.models = {name: lambda _messages: "hello" for name in names}
    direct = await sent(openai_env)
    monkeypatch.setattr(litellm_models, "can_go_direct", lambda *_: False)
    by_litellm = await sent(openai_env)
    assert len(PROVIDERS) > 60
    assert direct == by_litellm


def test_prices_are_those_of_litellm() -> None:
    litellm = _litellm.load()
    used = [Usage(1000, 50), Usage(1000, 50, cached=300, written=200), Usage(300_000, 50, cached=1000)]
    tried = 0
    for name, entry in list(_catalog.table().items())[::7]:
        provider = entry.get("litellm_provider")
        # litellm halves the price of what Fireworks has cached, and lowers DeepSeek's at times of the day.
        if (
            entry.get("mode") != "chat"
            or provider == "fireworks_ai"
            or "off_peak_pricing" in entry
            or not _prices.known(LLMSettings(), entry)
        ):
            continue
        for usage in used:
            told = litellm.cost_per_token(
                model=name,
                custom_llm_provider=provider,
                prompt_tokens=usage.prompt,
                completion_tokens=usage.completion,
                cache_read_input_tokens=usage.cached,
                cache_creation_input_tokens=usage.written,
            )
            assert _prices.cost(LLMSettings(), entry, usage) == pytest.approx(sum(told)), (name, usage)
            tried += 1
    assert tried > 500


_PROGRAM = """
import asyncio, sys
from rlm_kernel.config import load_settings
from rlm_kernel.models.litellm_models import LitellmModels
from rlm_kernel.engine.protocols import Watch
async def main(base):
    models = LitellmModels(load_settings(overrides={"root_llm.model": "openai/root", "root_llm.api_base": base}))
    hello = [{"role": "user", "content": "hello"}]
    print((await models.complete(hello, role="root", watch=Watch(heard=lambda *_: True))).text)
    await models.aclose()
asyncio.run(main(sys.argv[1]))
print(sorted({"litellm", "openai", "httpx", "tiktoken"} & set(sys.modules)))
"""


async def test_a_provider_whose_wire_is_known_is_asked_without_litellm(openai_env: ModelServer) -> None:
    openai_env.root = ["hi"]
    asked = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, openai_env.url, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asked.communicate()
    assert told.decode().split("\n")[:2] == ["hi", "[]"]
