"""`.env`: what is taken from it, and what `.env.example` says of it."""

from __future__ import annotations

import os
import re
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from rlm_kernel.config import (
    NOT_SETTINGS,
    SHORTHANDS,
    Settings,
    find_api_keys,
    known_keys,
    load_api_keys,
    load_settings,
    variable_of,
)
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import is_secret_name

EXAMPLE = Path(__file__).parents[3] / ".env.example"


def write(folder: Path, *lines: str) -> None:
    (folder / ".env").write_text("\n".join(lines), "utf-8")


# Keys


def test_keys_come_from_dotenv_where_they_are_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "OPENAI_API_KEY=from-file",
        'ZAI_API_KEY="quoted $HOME"',
        "OPENAI_BASE_URL=http://x",
        "PATH=/evil",
        "DOCKER_HOST=evil",
    ]
    write(tmp_path, *lines, "EMPTY_API_KEY=", "RLM_ROOT_LLM__API_BASE=http://y", "RLM_CACHE_DIR=/evil")
    # Set and taken away again, so that monkeypatch removes at the end what load_api_keys() sets.
    for name in ("ZAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    path, cache = os.environ["PATH"], os.environ["RLM_CACHE_DIR"]
    assert load_api_keys(tmp_path) == ["ZAI_API_KEY", "OPENAI_BASE_URL"]
    assert os.environ["OPENAI_API_KEY"] == "from-environment"
    assert os.environ["ZAI_API_KEY"] == "quoted $HOME"
    assert (os.environ["PATH"], os.environ["RLM_CACHE_DIR"]) == (path, cache)
    assert os.environ.get("DOCKER_HOST") != "evil"


def test_a_key_among_the_settings_is_known_as_a_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_SUB_LLM__API_KEY", "")
    write(tmp_path, "RLM_SUB_LLM__API_KEY=sk-12345678")
    assert load_api_keys(tmp_path) == ["RLM_SUB_LLM__API_KEY"]
    assert load_settings(cwd=tmp_path).sub_llm.api_key is not None


def test_no_dotenv_is_no_keys(tmp_path: Path) -> None:
    assert load_api_keys(tmp_path) == []


def test_a_dotenv_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"KEY=\xff\xfe\x00")
    for read in (lambda: load_api_keys(tmp_path), lambda: load_settings(None, {}, {}, tmp_path)):
        with pytest.raises(ConfigError, match="cannot be read"):
            read()


def test_found_keys_are_named_with_their_places(tmp_path: Path) -> None:
    write(tmp_path, "HF_TOKEN=1", "ZAI_API_KEY=2", "RLM_ROOT_LLM__API_KEY=3", "PLAIN=4")
    environ = {"ZAI_API_KEY": "5", "OPENAI_API_KEY": "6", "SSH_TOKEN": "7", "MY_OWN": "8", "GONE_API_KEY": ""}
    assert find_api_keys(["MY_OWN", "NOWHERE"], environ, tmp_path) == {
        "HF_TOKEN": ".env",
        "MY_OWN": "environment",
        "NOWHERE": None,
        "OPENAI_API_KEY": "environment",
        "ZAI_API_KEY": "environment",
    }


# Settings


def test_settings_in_dotenv_win_over_the_file_and_the_environment_over_both(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"limits": {"turns": 1, "calls": 1, "depth": 1}, "root_llm": {"model": "a/b"}}'
    )
    write(
        tmp_path,
        "RLM_LIMITS__TURNS=2",
        "export RLM_LIMITS__CALLS=2  # a comment",
        "RLM_ROOT_LLM__MODEL=c/d",
        "RLM_LIMITS__DEPTH=",
    )
    loaded = load_settings(None, {}, {"RLM_LIMITS__TURNS": "3", "RLM_MODEL": "e/f"}, tmp_path)
    assert (loaded.limits.turns, loaded.limits.calls, loaded.limits.depth, loaded.root_llm.model) == (
        3,
        2,
        1,
        "e/f",
    )


def test_a_byte_order_mark_and_variables_of_others_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RLM_LIMITS__TURNS=2\r\nRLM_CACHE_DIR=/x\r\nOTHER\r\n", "utf-8-sig")
    assert load_settings(None, {}, {}, tmp_path).limits.turns == 2


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            "RLM_LIMITS__TURNS=many",
            "limits.turns = 'many' (variable RLM_LIMITS__TURNS in .env): ",
            "Correct the value",
        ),
        (
            "RLM_LIMIT__TURNS=3",
            "The variable RLM_LIMIT__TURNS in .env is not a setting of rlm.",
            "Did you mean RLM_LIMITS__TURNS?",
        ),
    ],
)
def test_errors_say_that_it_is_dotenv(tmp_path: Path, line: str, message: str, hint: str) -> None:
    write(tmp_path, line)
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {}, {}, tmp_path)
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


# .env.example


def example() -> str:
    """With the lines taken in that are there to be taken."""
    return re.sub(r"^# ([A-Z_]+=)", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)


def test_the_example_changes_nothing_as_it_is() -> None:
    assert dotenv_values(EXAMPLE) == {}


def test_the_example_has_every_variable_once() -> None:
    names = re.findall(r"^([A-Z_]+)=", example(), re.MULTILINE)
    assert len(names) == len(set(names))
    settings = [variable_of(key) for key in known_keys()]
    assert [name for name in names if name in settings] == settings
    others = {name for name in NOT_SETTINGS if not name.endswith("*")}
    assert {name for name in names if name.startswith("RLM_")} == {
        *settings,
        *SHORTHANDS,
        *others,
        "RLM_MODELS",
    }


def test_the_example_has_the_other_variables_of_the_documents() -> None:
    documented = (
        (EXAMPLE.parent / "docs" / "configuration.md").read_text("utf-8").partition("## Other variables")[2]
    )
    names = set(re.findall(r"^\| `([A-Z_]+)` ", documented, re.MULTILINE))
    assert names == set(
        re.findall(r"^([A-Z_]+)=", example().partition("from the environment alone")[2], re.MULTILINE)
    )


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(example(), "utf-8")
    assert load_settings(None, {}, {}, tmp_path) == Settings()


def test_what_the_example_says_of_keys_is_taken() -> None:
    for name in dotenv_values(stream=StringIO(example().partition("# --- Models")[0])):
        assert is_secret_name(name) or name == "OPENAI_BASE_URL"
