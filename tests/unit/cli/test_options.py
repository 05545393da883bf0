"""The options that commands share are the same everywhere, and stand for settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rlm_kernel.cli import app, main
from rlm_kernel.cli.options import _SETTING, KernelOptions, RunOptions, SettingsOptions, SubCallOptions
from rlm_kernel.config import known_keys, load_settings
from rlm_kernel.errors import ConfigError

RUNS = ("ask", "chat", "init", "run", "resume", "fork", "apply", "bench", "batch")
ASKS_SUB_MODELS = (*RUNS, "replay")
RUNS_CELLS = (*ASKS_SUB_MODELS, "verify")
READERS = (
    *RUNS_CELLS,
    "status",
    "stop",
    "doctor",
    "gc",
    "image build",
    "image info",
    "cache info",
    "cache clear",
    "config show",
    "models",
)


def params_of(path: str) -> dict[str, Any]:
    command: Any = get_command(app)
    for name in path.split():
        command = command.commands[name]
    return {param.name: param for param in command.params}


def facts(param: Any) -> tuple[Any, ...]:
    return (
        param.opts,
        param.secondary_opts,
        param.help,
        param.default,
        param.metavar,
        param.type_descriptor.annotation,
        param.rich_help_panel,
    )


@pytest.mark.parametrize(
    ("commands", "kind"),
    [
        (RUNS, RunOptions),
        (ASKS_SUB_MODELS, SubCallOptions),
        (RUNS_CELLS, KernelOptions),
        (READERS, SettingsOptions),
    ],
)
def test_shared_options_have_the_same_names_help_types_and_defaults(
    commands: tuple[str, ...], kind: type[SettingsOptions]
) -> None:
    first = params_of(commands[0])
    for command in commands[1:]:
        params = params_of(command)
        for field in dataclasses.fields(kind):
            assert facts(params[field.name]) == facts(first[field.name]), f"{field.name} of {command}"


def test_a_command_that_asks_no_model_has_no_options_for_models_and_limits() -> None:
    asks_nobody = params_of("verify")
    asks_models = {field.name for field in dataclasses.fields(RunOptions)} - {
        field.name for field in dataclasses.fields(KernelOptions)
    }
    assert asks_models
    assert not asks_models & set(asks_nobody)


def test_every_option_for_a_setting_names_one_that_exists() -> None:
    assert set(_SETTING) <= {field.name for field in dataclasses.fields(RunOptions)}
    assert set(_SETTING.values()) <= set(known_keys())


def test_help_of_ask_fits_two_screens_and_groups_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(app, ["ask", "--help"]).stdout
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 80
    titles = [
        line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")
    ]
    assert titles == [
        "Arguments",
        "Input",
        "Models",
        "Limits per question",
        "Output",
        "Sandbox",
        "Settings",
        "Options",
    ]


def value_of(key: str, *texts: str, **options: Any) -> Any:
    section, name = key.split(".")
    return getattr(getattr(RunOptions(set_=list(texts), **options).settings(), section), name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("limits.turns=5", 5),
        ("limits.turns= 5 ", 5),
        ("limits.tokens=1_000", 1000),
        ("limits.tokens=2e6", 2_000_000),
        ("limits.cost=1e-2", 0.01),
        ("limits.cost=none", None),
        ("limits.calls=NULL", None),
        ("cache.enabled=yes", True),
        ("cache.enabled=on", True),
        ("cache.enabled=1", True),
        ("cache.enabled=False", False),
        ("sandbox.memory=10MB", "10mb"),
        ("root_llm.model=a/b=c=d", "a/b=c=d"),
        ("root_llm.model=a, b:c", "a, b:c"),
        ("root_llm.model='q'\"r\"", "'q'\"r\""),
        ("trace.dir=C:\\x\\new", Path("C:\\x\\new")),
        ("trace.dir=Spür/☃ b", Path("Spür/☃ b")),
        ('sandbox.allow=["/a","/b, c"]', [Path("/a"), Path("/b, c")]),
        ("sandbox.allow=[]", []),
    ],
)
def test_a_setting_is_read_as_its_variable_is(text: str, value: Any, isolated: Path) -> None:
    key, _, given = text.partition("=")
    assert value_of(key, text) == value
    variable = "RLM_" + key.upper().replace(".", "__")
    section, name = key.split(".")
    assert getattr(getattr(load_settings(environ={variable: given}), section), name) == value


def test_a_section_is_read_as_in_the_settings_file(isolated: Path) -> None:
    options = RunOptions(set_=['limits={"turns": 5, "cost": null, "tokens": 7}'])
    limits = options.settings().limits
    assert (limits.turns, limits.cost, limits.tokens) == (5, None, 7)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("limits.turn=5", "limits.turn (in --set) is not a setting", "Did you mean limits.turns?"),
        ("limit.turns=5", "limit.turns (in --set)", "Did you mean limits.turns?"),
        ("LIMITS.TURNS=5", "LIMITS.TURNS", "Did you mean limits.turns?"),
        ("RLM_LIMITS__TURNS=5", "RLM_LIMITS__TURNS", "Did you mean limits.turns?"),
        ("'limits.turns=5'", "'limits.turns", "Did you mean limits.turns?"),
        ("limits.turns", "KEY=VALUE, not 'limits.turns'", "--set limits.turns=50"),
        ("limits.turns=", "--set limits.turns= has no value", "none"),
        ("=5", "KEY=VALUE", "--set limits.turns=50"),
        ("", "KEY=VALUE", "--set limits.turns=50"),
        ("limits=5", "limits is a section", "--set limits."),
        ('limits={"turn": 5}', "limits.turn (in --set)", "limits.turns"),
        ("limits.turns=many", "limits.turns = 'many' (--set)", ""),
        ("limits.turns=none", "limits.turns = 'none' (--set)", ""),
        ("limits.turns=1.5", "limits.turns = '1.5' (--set)", ""),
        ("cache.enabled=maybe", "cache.enabled = 'maybe' (--set)", ""),
        ("limits.cost=inf", "limits.cost = 'inf' (--set)", ""),
    ],
)
def test_what_is_wrong_with_an_assignment_is_said(text: str, said: str, hint: str, isolated: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        RunOptions(set_=[text]).changes()
    assert said in failure.value.message
    assert hint in failure.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "root_llm.api_key=sk-secret",
        'sub_llm={"api_key": "sk-secret"}',
        "root_llm.api_kye=sk-secret",
        "root_llm.api_key sk-secret",
        "root_llm.api_key_env=sk-secret",
    ],
)
def test_a_key_is_refused_and_never_shown(text: str, isolated: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        RunOptions(set_=[text]).settings()
    assert "sk-secret" not in str(failure.value)


def test_the_last_assignment_wins_and_an_option_beats_it(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_LIMITS__TURNS", "2")
    assert value_of("limits.turns", "limits.turns=3", "limits.turns=4") == 4
    assert value_of("limits.turns", "limits.turns=3", 'limits={"turns": 6}') == 6
    assert value_of("limits.turns", "limits.turns=3", max_turns=5) == 5
    assert value_of("cache.enabled", "cache.enabled=yes", cache=False) is False


def test_changes_are_plain_values_for_a_session_to_keep(isolated: Path) -> None:
    changes = RunOptions(set_=["limits.cell_timeout=60", 'limits={"tokens": 5}'], model="a/b").changes()
    assert json.loads(json.dumps(changes)) == {
        "limits.cell_timeout": "60",
        "limits.tokens": 5,
        "root_llm.model": "a/b",
    }


def test_config_show_says_which_values_were_set_here(isolated: Path) -> None:
    arguments = ["config", "show", "--json", "--set", "limits.turns=9", "--set", "root_llm.model=a/b"]
    settings = json.loads(CliRunner().invoke(app, arguments).stdout)["settings"]
    assert settings["limits.turns"] == {"value": 9, "source": "--set"}
    assert settings["sub_llm.model"] == {"value": "a/b", "source": "root_llm"}


@pytest.mark.parametrize(
    "command",
    [
        *(f"{name} x" for name in RUNS if name not in ("chat", "init", "bench")),
        "chat",
        "init",
        *READERS[len(RUNS) :],
    ],
)
def test_every_command_that_reads_settings_refuses_a_wrong_one(
    command: str, isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rlm", *command.split(), "--set", "limits.turn=5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == "rlm: limits.turn (in --set) is not a setting of rlm.\nDid you mean limits.turns?\n"
    )


def test_a_shared_option_may_stand_before_or_after_the_commands_own(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decorator that hides a command's own arguments from the parser loses them."""
    seen: dict[str, Any] = {}

    def run(options: RunOptions, start: Callable[..., Any], trace: Callable[[], Path], **_more: Any) -> None:
        seen["turns"], seen["trace"] = options.max_turns, trace()

    monkeypatch.setattr("rlm_kernel.cli.ask.run_and_report", run)
    for arguments in (
        ["--max-turns", "3", "--trace", "t.ipynb", "why?"],
        ["why?", "--trace", "t.ipynb", "--max-turns", "3"],
    ):
        assert CliRunner().invoke(app, ["ask", *arguments]).exit_code == 0
        assert seen["turns"] == 3
        assert seen.pop("trace").name == "t.ipynb"


def test_options_of_an_earlier_rlm_stand_for_settings_and_are_not_in_the_help(
    monkeypatch: pytest.MonkeyPatch, isolated: Path
) -> None:
    options = RunOptions(subllm="openai/small", compact=False)
    changes = options.changes()
    assert changes == {"sub_llm.model": "openai/small", "memory_compaction.enabled": False}
    assert load_settings(None, changes).memory_share is None
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("ask", "run", "chat", "init"):
        parsed = (
            get_command(app)
            .commands[command]
            .make_context(  # type: ignore[attr-defined]
                command,
                ["--subllm", "openai/small", "--compact", *(["Why?"] if command in ("ask", "run") else [])],
            )
        )
        assert (parsed.params["subllm"], parsed.params["compact"]) == ("openai/small", True)
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert "subllm" not in text
        assert "compact" not in text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["exec", "-c", "print(1)"], "rlm attach"),
        (["export-buffers"], "rlm status counts the buffers"),
        (["reset"], "rlm stop ends the session"),
        (["init-repo", "."], "rlm init FOLDER"),
        (["--workspace", "x", "status"], "RLM_SESSION__DIR"),
        (["--env-file", ".env", "chat"], ".env"),
    ],
)
def test_what_an_earlier_rlm_had_says_what_does_the_same(
    typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rlm", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
