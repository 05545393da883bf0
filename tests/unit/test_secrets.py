from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.secrets import is_secret_name, known_secrets, redact


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "ZAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "AWS_SESSION_TOKEN",
        "PGPASSWORD", "GOOGLE_CLIENT_SECRET", "RLM_ROOT_LLM__API_KEY", "my_apikey", "AZURE_OPENAI_KEY",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "RLM_LIMITS__TOKENS", "max_tokens", "TOKENIZERS_PARALLELISM", "GITHUB_TOKEN_FILE", "api_key_env", "KEYBOARD"],
)  # fmt: skip
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_known_secrets_are_the_long_values_longest_first() -> None:
    environ = {
        "A_API_KEY": "sk-12345678",
        "B_TOKEN": "sk-1234567890",
        "C_SECRET": "short",
        "PATH": "/usr/bin:/bin",
        "D_TOKEN": "",
    }
    assert known_secrets(environ) == ["sk-1234567890", "sk-12345678"]


def test_a_secret_that_begins_another_leaves_no_rest() -> None:
    secrets = known_secrets({"A_API_KEY": "sk-12345678", "B_API_KEY": "sk-12345678-more"})
    assert redact("sk-12345678-more sk-12345678", secrets) == "[redacted] [redacted]"


@given(
    secret=st.text(min_size=8, max_size=40),
    before=st.text(max_size=40),
    after=st.text(max_size=40),
    ascii_only=st.booleans(),
)
def test_no_secret_survives_in_text_or_in_json(
    secret: str, before: str, after: str, ascii_only: bool
) -> None:
    def as_json(text: str) -> str:
        return json.dumps(text, ensure_ascii=ascii_only)[1:-1]

    for form in (str, as_json):
        hidden = redact(form(before) + form(secret) + form(after), [secret])
        # Not where the secret is made of the very characters that replace it.
        assert all(form(secret) not in part for part in hidden.split("[redacted]"))
        assert "[redacted]" in hidden


def test_text_without_secrets_is_unchanged() -> None:
    assert redact("nothing here", ["sk-12345678"]) == "nothing here"
    assert redact("nothing here", []) == "nothing here"
