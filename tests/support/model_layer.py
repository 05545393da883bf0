"""The model layer in tests: models on the test server, and what its errors must be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Message
from rlm_kernel.errors import ModelError
from rlm_kernel.models.litellm_models import LitellmModels

KEY = "sk-test-0123456789abcdef"
HELLO: list[Message] = [{"role": "system", "content": "Be brief. " * 8}, {"role": "user", "content": "hello"}]
Make = Callable[..., LitellmModels]


def build_models(said: list[str], **settings: Any) -> LitellmModels:
    """Models from dotted settings (`sub_llm__retries=2`). `said` has what they tell."""
    overrides = {"root_llm.model": "openai/root", "sub_llm.model": "openai/sub"}
    overrides |= {name.replace("__", "."): value for name, value in settings.items()}
    return LitellmModels(load_settings(overrides=overrides), said.append)


async def failing(call: Awaitable[Any]) -> ModelError:
    """The error of a call: with a hint, and without a key."""
    with pytest.raises(ModelError) as caught:
        await call
    assert caught.value.hint
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value
