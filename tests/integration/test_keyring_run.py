"""A key that only the keyring has, on its way to the provider and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel import KeyringError
from rlm_kernel.models._keyring import add_key
from rlm_kernel.secrets import forget_held
from tests.support import keyrings
from tests.support.model_layer import HELLO, build_models, failing
from tests.support.providers.openai_chat import OpenAIServer

KEY = "sk-keyring-0123456789abcdef"


async def test_a_key_of_the_keyring_goes_to_the_provider_and_into_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyrings.use("Working", monkeypatch, tmp_path / "ring.json")
    add_key("openai", KEY)
    forget_held()
    with OpenAIServer(api_key=KEY) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base}/v1")
        models = build_models([], root_llm__model="openai/gpt-4o-mini", sub_llm__model="openai/gpt-4o-mini")
        assert (await models.complete(HELLO, role="sub")).text
        server.fail("raw", status=401, body=f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode())
        error = await failing(models.complete(HELLO, role="sub"))
        assert KEY not in str(error)
        assert "OPENAI_API_KEY in the keyring" in error.hint
        await models.aclose()


async def test_a_keyring_that_is_locked_ends_a_run_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyrings.use("Working", monkeypatch, tmp_path / "ring.json")
    add_key("openai", KEY)
    keyrings.use("Locked", monkeypatch, tmp_path / "ring.json")
    models = build_models([], root_llm__model="openai/gpt-4o-mini", sub_llm__model="openai/gpt-4o-mini")
    with pytest.raises(KeyringError, match="is locked"):
        await models.warm_up()
    await models.aclose()
