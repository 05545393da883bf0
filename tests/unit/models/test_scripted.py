from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rlm_kernel.engine.protocols import Message, Models, Usage
from rlm_kernel.errors import ModelError
from rlm_kernel.models import ScriptedModels

QUESTION: list[Message] = [{"role": "user", "content": "How many?"}]


async def test_a_list_is_replied_in_order_and_then_refused() -> None:
    models: Models = ScriptedModels(["one", "two"])
    assert [(await models.complete(QUESTION, role="root")).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(ModelError, match="has 2 replies") as caught:
        await models.complete(QUESTION, role="root")
    assert caught.value.fault == "refused"
    await models.aclose()


async def test_functions_may_be_plain_or_async() -> None:
    async def root(messages: Sequence[Message]) -> str:
        await asyncio.sleep(0)
        return f"{len(messages)} messages"

    models = ScriptedModels(root, sub=str.upper)
    assert (await models.complete(QUESTION, role="root")).text == "1 messages"
    assert (await models.complete(QUESTION, role="sub")).text == "HOW MANY?"


async def test_a_mapping_answers_its_prompts_alone() -> None:
    models = ScriptedModels([], sub={"How many?": "3"})
    assert (await models.complete(QUESTION, role="sub")).text == "3"
    with pytest.raises(ModelError, match="no reply to 'Who"):
        await models.complete([{"role": "user", "content": "Who?"}], role="sub")


async def test_without_a_sub_script_a_sub_call_is_refused() -> None:
    with pytest.raises(ModelError, match="has no script"):
        await ScriptedModels([]).complete(QUESTION, role="sub")


async def test_replies_are_labelled_and_free() -> None:
    models = ScriptedModels(["one"], sub=lambda prompt: "s")
    reply = await models.complete(QUESTION, role="root", model="scripted/sub")
    assert (reply.text, reply.model, reply.usage, reply.cost) == ("s", "scripted/sub", Usage(), 0.0)
    assert (models.name("root"), models.name("sub"), models.card("root").window) == (
        "scripted/root",
        "scripted/sub",
        None,
    )


async def test_other_models_may_not_be_called() -> None:
    with pytest.raises(ModelError, match="openai/gpt-5") as caught:
        await ScriptedModels([]).complete(QUESTION, role="sub", model="openai/gpt-5")
    assert caught.value.fault == "unknown_model"


@pytest.mark.parametrize(
    ("script", "how"),
    [
        (lambda _given: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda given: given.no_such_thing, "raised AttributeError"),
        (lambda _given: 5, "gave a value of type int in place of a text"),
        (lambda _given: asyncio.sleep(0), "gave a value of type NoneType"),
    ],
)
async def test_a_script_that_fails_is_named_as_what_failed(script: Any, how: str) -> None:
    models = ScriptedModels(script, script)
    for role in ("root", "sub"):
        with pytest.raises(ModelError, match=how) as caught:
            await models.complete(QUESTION, role=role)
        assert caught.value.message.startswith(f"The model scripted/{role} has no reply: its script ")
        assert caught.value.hint == f"Correct the argument `{role}` of ScriptedModels."


async def test_an_error_of_ours_that_a_script_raises_stays_what_it_is() -> None:
    def root(_messages: Sequence[Message]) -> str:
        raise ModelError("It is over its limit.", fault="rate_limit", model="scripted/root")

    with pytest.raises(ModelError, match="over its limit"):
        await ScriptedModels(root).complete(QUESTION, role="root")
