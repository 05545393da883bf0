"""`rlm auth`, and where else the keys of the keyring are shown: names and places, never a key."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlm_kernel.cli import app
from rlm_kernel.config import kept_in_keyring, note_kept
from rlm_kernel.models import _keyring
from tests.support import keyrings
from tests.support.terminal import Terminal

KEY = "sk-keyring-0123456789abcdef"
ASKED = "OPENAI_API_KEY (your typing is not shown): "


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a keyring that works."""
    keyrings.use("Working", monkeypatch, tmp_path / "ring.json")
    return tmp_path / "ring.json"


@pytest.fixture
def rlm(file: Path) -> Callable[..., Result]:
    """Runs `rlm auth` with a text on standard input; nothing may show the key."""

    def run(*arguments: str, given: str | bytes = "") -> Result:
        result = CliRunner().invoke(app, arguments, input=given)
        assert KEY not in result.output
        assert KEY[3:15] not in str(result.exception)
        return result

    return run


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("OpenAI", "OPENAI_API_KEY"),
        ("openai/gpt-4o", "OPENAI_API_KEY"),
        ("gpt-4o", "OPENAI_API_KEY"),
        ("openrouter/meta-llama/llama-3.3-70b", "OPENROUTER_API_KEY"),
        ("together_ai", "TOGETHER_AI_API_KEY"),
        ("glm_coding", "ZAI_API_KEY"),
        ("WORK_KEY", "WORK_KEY"),
    ],
)
def test_a_key_is_added_from_standard_input_under_the_providers_name(
    named: str, kept: str, rlm: Callable[..., Result], file: Path
) -> None:
    result = rlm("auth", "add", named, given=f"  '{KEY}'\n")
    assert result.exit_code == 0
    assert result.stderr == f"rlm: {kept} is in the keyring (tests.support.keyrings.Working).\n"
    assert keyrings.kept(file) == {f"rlm_kernel/{kept}": KEY}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_key_is_read_as_windows_shells_pipe_it(
    encoding: str, rlm: Callable[..., Result], file: Path
) -> None:
    rlm("auth", "add", "openai", "--key-stdin", given=f"{KEY}\r\n".encode(encoding))
    assert keyrings.kept(file) == {"rlm_kernel/OPENAI_API_KEY": KEY}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("opnai",), "Did you mean openai?"),
        (("nobody-has-this-name",), "There is no provider of that name"),
        ((KEY,), "others may have seen it"),
        (("openai", KEY), "Do not write a key into the command"),
        (("local",), "A local model needs no key"),
    ],
)
def test_a_provider_that_is_none_is_refused_without_a_word_that_may_be_a_key(
    arguments: tuple[str, ...], said: str, rlm: Callable[..., Result], file: Path
) -> None:
    result = rlm("auth", "add", *arguments, given=KEY)
    assert getattr(result.exception, "exit_code", None) == 2
    assert said in str(result.exception)
    assert keyrings.kept(file) == {}


def test_the_list_tells_where_each_key_comes_from_and_nothing_of_it(
    rlm: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rlm("auth", "list").stdout == "No API key is set. To add one: rlm auth add PROVIDER\n"
    for provider in ("openai", "groq", "WORK_KEY"):
        rlm("auth", "add", provider, given=KEY)
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    Path(".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    assert rlm("auth", "list").stdout.splitlines() == [
        "anthropic  ANTHROPIC_API_KEY  .env",
        "groq       GROQ_API_KEY       environment (the one in the keyring is not used)",
        "openai     OPENAI_API_KEY     keyring",
        "-          WORK_KEY           keyring",
    ]
    assert (
        "also set in the environment, which takes precedence" in rlm("auth", "add", "groq", given=KEY).stderr
    )
    keys = json.loads(rlm("auth", "list", "--json").stdout)["keys"]
    assert keys[2] == {
        "provider": "openai",
        "name": "OPENAI_API_KEY",
        "source": "keyring",
        "in_keyring": True,
        "problem": None,
    }
    assert rlm("auth", "remove", "openai").exit_code == 0
    assert "OPENAI_API_KEY" not in rlm("auth", "list").stdout
    assert "It has GROQ_API_KEY, WORK_KEY." in str(rlm("auth", "remove", "openai").exception)


def test_keys_of_the_keyring_are_shown_by_the_other_commands_and_the_list_says_if_it_is_locked(
    rlm: Callable[..., Result], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlm("auth", "add", "openai", given=KEY)
    asked = keyrings.asked(file)
    assert "API keys set: OPENAI_API_KEY (keyring)\n" in rlm("models").stdout
    assert json.loads(rlm("config", "show", "--json").stdout)["api_keys"] == {"OPENAI_API_KEY": "keyring"}
    assert keyrings.asked(file) == asked
    keyrings.use("Locked", monkeypatch, file)
    listed = rlm("auth", "list")
    assert "OPENAI_API_KEY  keyring (not available)" in listed.stdout
    assert "The keyring is locked" in listed.stderr


def test_a_keyring_that_keeps_keys_in_the_clear_is_told(
    rlm: Callable[..., Result], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyrings.use("Plaintext", monkeypatch, file)
    assert "stores keys unencrypted" in rlm("auth", "add", "openai", given=KEY).stderr


def test_a_locked_and_a_hanging_keyring_end_with_what_to_type(
    rlm: Callable[..., Result], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend, said in (("Locked", "is locked"), ("Hanging", "did not answer within 0.5 seconds")):
        if backend == "Hanging":
            monkeypatch.setattr(_keyring, "SECONDS", 0.5)
            monkeypatch.setattr(_keyring, "SECONDS_AT_A_SCREEN", 0.5)
        keyrings.use(backend, monkeypatch, file)
        for command in (("auth", "add", "openai"), ("auth", "remove", "openai")):
            note_kept("OPENAI_API_KEY")
            error = rlm(*command, given=KEY).exception
            assert said in str(error)
            assert getattr(error, "exit_code", None) == 3
            # What cannot be removed is asked for no more, so that it stands in no run's way.
            assert kept_in_keyring() == ([] if "remove" in command else ["OPENAI_API_KEY"])


async def test_on_a_terminal_the_key_is_asked_for_without_echo(file: Path) -> None:
    async with Terminal(sys.executable, "-m", "rlm_kernel", "auth", "add", "openai") as terminal:
        await terminal.type("", ASKED)
        await terminal.type(f"{KEY}\n", "is in the keyring")
        assert await terminal.ended() == 0
    assert KEY[3:] not in terminal.text
    assert keyrings.kept(file) == {"rlm_kernel/OPENAI_API_KEY": KEY}
