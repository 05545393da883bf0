"""`rlm config show`: every setting, its value, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlm_kernel.cli import app, main
from rlm_kernel.config import Settings, explain_settings, known_keys

SECRETS = ("sk-in-the-file", "sk-in-dotenv", "sk-in-the-environment", "hunter2")


@pytest.fixture
def sources(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a value from each source. The path of its config.json."""
    config = isolated / "cwd" / "config.json"
    root = {"model": "gpt-4o", "timeout": 60}
    glm = {"enabled": True, "api_base": "https://me:hunter2@plan.example/v4", "root_model": "glm-4.6"}
    config.write_text(json.dumps({"root_llm": root, "sub_llm": {"model": "gpt-4o-mini"}, "glm_coding": glm}))
    (config.parent / ".env").write_text(
        "RLM_LIMITS__CALLS=7\nHF_TOKEN=sk-in-dotenv\nRLM_SUB_LLM__API_KEY=sk-in-dotenv\n"
    )
    monkeypatch.setenv("RLM_LIMITS__TURNS", "5")
    monkeypatch.setenv("RLM_SUB_MODEL", "openai/small")
    monkeypatch.setenv("RLM_LIMITS__COST", "none")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-in-the-environment")
    return config


def shown(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["config", "show", "--json", *arguments])
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_every_setting_is_there_with_its_default() -> None:
    report = shown()
    assert list(report["settings"]) == known_keys()
    defaults = Settings().model_dump(mode="json")
    for key, entry in report["settings"].items():
        section, name = key.split(".")
        value = {} if name == "headers" else defaults[section].get(name)
        assert entry == {"value": value, "source": "default"}
    assert report["api_keys"] == {}


def test_each_source_is_named(sources: Path) -> None:
    settings = shown()["settings"]
    assert settings["root_llm.model"] == {"value": "openai/glm-4.6", "source": "glm_coding"}
    assert settings["root_llm.timeout"] == {"value": 60.0, "source": str(sources)}
    assert settings["sub_llm.model"] == {
        "value": "openai/small",
        "source": "environment variable RLM_SUB_MODEL",
    }
    assert settings["sub_llm.api_base"] == {"value": None, "source": "default"}
    assert settings["limits.calls"] == {"value": 7, "source": "variable RLM_LIMITS__CALLS in .env"}
    assert settings["limits.turns"] == {"value": 5, "source": "environment variable RLM_LIMITS__TURNS"}
    assert settings["limits.cost"] == {"value": None, "source": "environment variable RLM_LIMITS__COST"}
    assert settings["limits.depth"] == {"value": 1, "source": "default"}


def test_another_file_and_options_are_named(sources: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"limits": {"depth": 3}}')
    settings = shown("--config", str(other))["settings"]
    assert settings["limits.depth"] == {"value": 3, "source": str(other)}
    assert settings["root_llm.timeout"]["source"] == "default"
    by_key = {setting.key: setting for setting in explain_settings(other, {"limits.depth": 4})}
    assert (by_key["limits.depth"].value, by_key["limits.depth"].source) == (4, "option")


def test_what_the_sub_model_has_from_the_root_is_said(isolated: Path) -> None:
    (isolated / "cwd" / "config.json").write_text(
        '{"root_llm": {"model": "a/b", "timeout": 5}, "sub_llm": {"retries": 1}}'
    )
    settings = shown()["settings"]
    assert settings["sub_llm.model"] == {"value": "a/b", "source": "root_llm"}
    assert settings["sub_llm.timeout"] == {"value": 5.0, "source": "root_llm"}
    assert settings["sub_llm.concurrency"]["source"] == "default"


def test_keys_are_named_and_never_shown(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_ROOT_LLM__API_KEY", "sk-in-the-environment")
    report = shown()
    assert report["settings"]["root_llm.api_key"] == {
        "value": "set",
        "source": "environment variable RLM_ROOT_LLM__API_KEY",
    }
    assert report["settings"]["sub_llm.api_key"] == {
        "value": "set",
        "source": "variable RLM_SUB_LLM__API_KEY in .env",
    }
    assert report["settings"]["root_llm.api_base"]["value"] == "https://[redacted]@plan.example/v4"
    assert report["api_keys"] == {"HF_TOKEN": ".env", "OPENAI_API_KEY": "environment", "ZAI_API_KEY": None}
    sources.write_text('{"root_llm": {"api_key": "sk-in-the-file"}}')
    for text in (json.dumps(report), json.dumps(shown()), CliRunner().invoke(app, ["config", "show"]).stdout):
        assert not [secret for secret in SECRETS if secret in text]


def test_the_table_has_a_line_for_each_setting(sources: Path) -> None:
    lines = CliRunner().invoke(app, ["config", "show"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if "." in line.partition(" ")[0]] == known_keys()
    [turns] = [line for line in lines if line.startswith("limits.turns")]
    assert turns.split(maxsplit=2) == ["limits.turns", "5", "environment variable RLM_LIMITS__TURNS"]
    [cost] = [line for line in lines if line.startswith("limits.cost")]
    assert cost.split()[1] == "none"
    assert lines[-4:] == [
        "API keys (names only):",
        "  HF_TOKEN: .env",
        "  OPENAI_API_KEY: environment",
        "  ZAI_API_KEY: not set",
    ]


def test_what_moves_the_cursor_does_not_reach_the_terminal(isolated: Path) -> None:
    (isolated / "cwd" / "config.json").write_text(json.dumps({"root_llm": {"model": "a/\x1b[2Jb"}}))
    assert "\x1b" not in CliRunner().invoke(app, ["config", "show"]).stdout


def test_a_bad_setting_ends_with_2_and_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLM_LIMITS__TURNS", "many")
    monkeypatch.setattr("sys.argv", ["rlm", "config", "show"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "rlm: limits.turns = 'many' (environment variable RLM_LIMITS__TURNS)" in printed.err
