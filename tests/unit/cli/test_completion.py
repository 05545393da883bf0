"""What a shell offers at Tab: fast, silent, and in words that the shell can take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from typer.testing import CliRunner

from rlm_kernel.bench.strategies import STRATEGIES
from rlm_kernel.bench.suites import SUITES
from rlm_kernel.cli import _complete, app
from rlm_kernel.config import OtherLLM, known_keys, load_settings

SAMPLE = Path(__file__).parents[3] / "notebooks" / "server-log-scripted.ipynb"
HOSTILE = "$(touch pwned)`touch pwned`;'x.ipynb"


def asked(line: str) -> dict[str, str]:
    return {
        "_RLM_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }


def offered(line: str) -> list[str]:
    result = CliRunner().invoke(app, [], env=asked(line), prog_name="rlm")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return [line.partition("\t")[0] for line in result.stdout.splitlines() if line]


@pytest.fixture
def folder(isolated: Path) -> Path:
    """A working directory with a session and traces."""
    here = isolated / "cwd"
    (here / ".rlm_state" / "alpha").mkdir(parents=True)
    (here / ".rlm_state" / "alpha" / "state.json").write_text("{}")
    (here / ".rlm_state" / "ended").mkdir()
    (here / "rlm-traces").mkdir()
    (here / "a b.log").write_text("x")
    (here / "plain.ipynb").write_text('{"cells": [], "metadata": {}}')
    for name in ("my trace.ipynb", HOSTILE, "line\nbreak.ipynb"):
        shutil.copy(SAMPLE, here / "rlm-traces" / name)
    return here


def test_sessions_traces_and_cells_are_offered(folder: Path) -> None:
    assert offered("rlm status --session ") == ["alpha"]
    assert offered("rlm replay ") == ["rlm-traces/", f"rlm-traces/{HOSTILE}", "rlm-traces/my trace.ipynb"]
    assert offered("rlm resume rlm-traces/m") == ["rlm-traces/my trace.ipynb"]
    assert offered("rlm replay rlm-traces/my\\ trace.ipynb --until turn-0") == [
        "turn-01-a",
        "turn-02-a",
        "turn-03-a",
    ]
    assert "setup" in offered('rlm fork "rlm-traces/my trace.ipynb" --at ')


def test_settings_and_their_values_are_offered() -> None:
    keys = {key.removesuffix("=") for key in offered("rlm ask --set ")}
    assert keys == {key for key in known_keys() if not key.endswith(".api_key")}
    assert offered("rlm gc --set cache.enabled=") == ["cache.enabled=true", "cache.enabled=false"]
    assert offered("rlm gc --set limits.cost=") == ["limits.cost=none"]
    assert set(offered("rlm gc --set sandbox.seccomp=")) == {
        "sandbox.seccomp=tight",
        "sandbox.seccomp=engine",
    }
    assert "root_llm.model=openai/gpt-4o" in offered("rlm ask --set root_llm.model=openai/gpt-4o")
    assert offered("rlm ask --profile ") == ["default", "batching", "short", "small"]


def test_models_of_the_users_and_reasoning_are_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_text('{"models": {"my-fast": {"model": "a/b"}}}')
    monkeypatch.setenv("RLM_MODELS__STRONG__MODEL", "c/d")
    keys = offered("rlm ask --set models.")
    fields = [name for name in OtherLLM.model_fields if name != "api_key"]
    assert keys == [f"models.{name}.{field}=" for name in ("my-fast", "strong") for field in fields]
    assert offered("rlm ask --set models.strong.caching=") == [
        "models.strong.caching=true",
        "models.strong.caching=false",
    ]
    assert "models.strong.model=openai/gpt-4o" in offered("rlm ask --set models.strong.model=openai/gpt-4o")
    for command in ("ask", "chat", "run", "resume t.ipynb", "bench niah"):
        levels = offered(f"rlm {command} --reasoning ")
        assert levels == ["off", "minimal", "low", "medium", "high", "xhigh", "max"], command
    (folder / "config.json").write_text('{"models": [5, {"x": 1}]}')
    assert all(key.startswith("models.strong.") for key in offered("rlm ask --set models."))


def test_every_value_that_is_offered_is_one_that_is_taken() -> None:
    for key, (annotation, _) in _complete._settings().items():
        for value in _complete._values(annotation):
            load_settings(overrides={key: value})


def test_models_are_offered_by_provider() -> None:
    assert {"local", "local:0.5b", "openai/", "anthropic/"} <= set(offered("rlm ask -m "))
    models = offered("rlm ask --sub-model anthropic/")
    assert models
    assert all(name.startswith("anthropic/") for name in models)
    assert {"openai", "anthropic", "openrouter"} <= set(offered("rlm auth add "))


def test_suites_and_strategies_are_those_of_bench() -> None:
    assert set(_complete._SUITES) == {*SUITES, "jsonl:"}
    assert set(_complete._STRATEGIES) == set(STRATEGIES)
    assert offered("rlm bench niah -s rlm,b") == ["rlm,bare"]


def test_files_are_left_to_the_shell(folder: Path) -> None:
    for line in (
        "rlm ask -f a",
        "rlm init a",
        "rlm ask --trace a",
        "rlm ask --config a",
        "rlm bench niah --out a",
        "rlm replay t -f a=a",
    ):
        assert offered(line) == [], line


@pytest.mark.parametrize("content", ["", "{", "[]", '{"session": []}', '{"session": {"dir": 7}}'])
def test_a_damaged_settings_file_or_trace_is_passed_over(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    (folder / "t.ipynb").write_text(content)
    assert offered("rlm status --session ") == ["alpha"]
    assert offered("rlm fork t.ipynb --at ") == []


def command(line: str, **more: Any) -> subprocess.CompletedProcess[str]:
    options = ["-X", "importtime"] if more.pop("imports", False) else []
    run = [sys.executable, *options, "-m", "rlm_kernel"]
    return subprocess.run(
        run, env={**os.environ, **asked(line)}, capture_output=True, text=True, check=False, **more
    )


@pytest.mark.parametrize(
    "line",
    ["rlm ask --set limits.", "rlm ask -m openai/", "rlm auth add ", "rlm replay ", "rlm status --session "],
)
def test_nothing_slow_is_imported_to_complete(line: str, folder: Path) -> None:
    done = command(line, imports=True)
    assert done.stdout
    imported = {entry.rpartition("|")[2].strip().partition(".")[0] for entry in done.stderr.splitlines()}
    assert not imported & {"litellm", "docker", "requests", "rich", "asyncio", "nbformat", "zmq", "IPython"}


@pytest.mark.parametrize(
    "line",
    ["", "rlm nosuch --x ", "rlm ask 'open", "rlm fork nowhere.ipynb --at ", "rlm ask --set nosuch.key="],
)
def test_a_line_that_cannot_be_completed_prints_no_error(line: str, isolated: Path) -> None:
    done = command(line)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fault_prints_nothing(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = isolated / "gone"
    gone.mkdir()
    code = f"import os, runpy; os.rmdir({str(gone)!r}); runpy.run_module('rlm_kernel', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=gone,
        env={**os.environ, **asked("rlm replay ")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# In real shells

LINES = [
    ("rlm ask --set limits.tok", "limits.tokens="),
    ("rlm ask --set limits.cost=n", "limits.cost=none"),
    ("rlm ask --set=limits.cost=n", "--set=limits.cost=none"),
    ("rlm ask -m ollama/llama3:8", "ollama/llama3:8b"),
    ("rlm status --session ", "alpha"),
    ("rlm replay rlm-traces/m", "rlm-traces/my trace.ipynb"),
    ("rlm replay rlm-traces/my\\ ", "rlm-traces/my trace.ipynb"),
    ("rlm replay rlm-traces/\\$", f"rlm-traces/{HOSTILE}"),
    ("rlm ask why -f a", "a b.log"),
]


@pytest.fixture
def script_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Gives the file with a shell's script, with `rlm` in the PATH."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")

    def script(shell: str) -> Path:
        path = folder.parent / "home" / "completion"
        path.write_text(
            subprocess.run(
                ["rlm", "--show-completion", shell], capture_output=True, text=True, check=True
            ).stdout
        )
        return path

    return script


@pytest.mark.parametrize("shell", [shell for shell in ("bash", "zsh") if shutil.which(shell)])
def test_a_shell_completes_words_with_special_characters(
    shell: str, folder: Path, script_for: Callable[[str], Path]
) -> None:
    """Each line is completed by Tab, and then printed word by word instead of run."""
    begin, options = {
        "bash": ("", ["--norc", "--noprofile"]),
        "zsh": ("autoload -Uz compinit; compinit -u -D; ", ["-f"]),
    }[shell]
    process = pexpect.spawn(
        shell, [*options, "-i"], cwd=str(folder), encoding="utf-8", timeout=60, dimensions=(50, 200)
    )
    try:
        process.sendline(
            f"{begin}source {script_for(shell)}; words() {{ printf 'word:%s\\n' \"$@\"; echo en''d; }}"
        )
        for typed, completed in LINES:
            process.send(f"{typed}\t\x01words \x05\r")
            process.expect_exact("end\r")
            assert f"word:{completed}\r" in process.before
    finally:
        process.close(force=True)
    assert not list(folder.rglob("pwned"))


@pytest.mark.parametrize("shell", [shell for shell in ("fish",) if shutil.which(shell)])
def test_fish_completes_words_with_special_characters(
    shell: str, folder: Path, script_for: Callable[[str], Path]
) -> None:
    asks = "; ".join(f"complete -C '{typed}'; echo end" for typed, _ in LINES)
    done = subprocess.run(
        [shell, "--no-config", "-c", f"source {script_for(shell)}; {asks}"],
        capture_output=True,
        text=True,
        check=True,
    )
    for (typed, completed), offers in zip(LINES, done.stdout.split("end\n"), strict=False):
        assert completed in [offer.partition("\t")[0] for offer in offers.splitlines()], typed
    assert not list(folder.rglob("pwned"))
