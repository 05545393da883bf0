"""Configuration files as earlier programs of this kind wrote them, through real litellm to a server on
loopback.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import load_api_keys, load_settings
from rlm_kernel.engine.protocols import Message, Role
from rlm_kernel.errors import ModelError
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.model_server import ModelServer

KEY = "zai-0123456789abcdef.key"
HELLO: list[Message] = [{"role": "user", "content": "hello"}]
REPLIES = {"glm-4.6": ["from the root"], "glm-4.5-air": ["from the sub"]}


@pytest.fixture
def keyed(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's key is in `.env`."""
    monkeypatch.setenv("ZAI_API_KEY", "")
    (isolated / "cwd" / ".env").write_text(f"ZAI_API_KEY={KEY}\n")
    load_api_keys()


def models_of(config: dict[str, Any], options: dict[str, Any]) -> LitellmModels:
    Path("config.json").write_text(json.dumps(config))
    return LitellmModels(
        load_settings(overrides={name.replace("__", "."): value for name, value in options.items()})
    )


@asynccontextmanager
async def configured(config: dict[str, Any], **options: Any) -> AsyncIterator[LitellmModels]:
    models = models_of(config, options)
    try:
        yield models
    finally:
        await models.aclose()


def plan(server: ModelServer, **changes: Any) -> dict[str, Any]:
    glm = {
        "enabled": True,
        "api_base": server.url,
        "root_model": "glm-4.6",
        "sub_model": "glm-4.5-air",
        **changes,
    }
    return {
        "root_llm": {"model": "gpt-4o"},
        "sub_llm": {"model": "gpt-4o-mini"},
        "glm_coding": glm,
        "memory_compaction": {"enabled": True},
    }


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("provider", ["", "openai/", "zai/"])
async def test_the_plan_has_both_models_at_its_address_with_its_key(
    openai_env: ModelServer, provider: str
) -> None:
    with ModelServer(models=REPLIES, api_key=KEY) as server:
        names = {"root_model": f"{provider}glm-4.6", "sub_model": f"{provider}glm-4.5-air"}
        async with configured(plan(server, **names)) as models:
            roles: tuple[Role, ...] = ("root", "sub")
            replies = [(await models.complete(HELLO, role=role)).text for role in roles]
        assert replies == ["from the root", "from the sub"]
        assert [request.model for request in server.requests] == ["glm-4.6", "glm-4.5-air"]
        assert {request.path for request in server.requests} == {"/v1/chat/completions"}
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert openai_env.requests == []


@pytest.mark.usefixtures("keyed")
async def test_a_sub_model_of_the_command_line_is_asked_at_its_own_address(openai_env: ModelServer) -> None:
    with ModelServer(models=REPLIES, api_key=KEY) as server:
        async with configured(plan(server), sub_llm__model="openai/sub") as models:
            assert (await models.complete(HELLO, role="root")).text == "from the root"
            assert (await models.complete(HELLO, role="sub")).text == "echo: hello"
        assert [request.model for request in server.requests] == ["glm-4.6"]
    assert [request.headers["authorization"] for request in openai_env.requests] == [
        f"Bearer {openai_env.api_key}"
    ]


async def test_names_without_a_provider_work_where_litellm_knows_them(openai_env: ModelServer) -> None:
    openai_env.models = {"gpt-4o": ["from the root"], "gpt-4o-mini": ["from the sub"]}
    async with configured(plan(openai_env, enabled=False)) as models:
        assert (await models.complete(HELLO, role="root")).text == "from the root"
        assert (await models.complete(HELLO, role="sub")).text == "from the sub"
    assert [request.model for request in openai_env.requests] == ["gpt-4o", "gpt-4o-mini"]


async def test_a_plan_that_is_off_does_not_lend_its_names(openai_env: ModelServer) -> None:
    async with configured({"root_llm": {"model": "glm-4.6"}, "glm_coding": {"enabled": False}}) as models:
        with pytest.raises(ModelError, match=r"glm-4\.6 is not known") as caught:
            await models.warm_up()
    assert "provider/model" in caught.value.hint
    assert openai_env.requests == []
