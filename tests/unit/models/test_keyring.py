"""Keys in the system's keyring, whatever the keyring does."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from rlm_kernel import KeyringError, UsageError
from rlm_kernel.config import LLMSettings, kept_in_keyring, load_settings, note_kept
from rlm_kernel.engine.events import CellFinished
from rlm_kernel.models import _keyring
from rlm_kernel.models._address import Key, key_of
from rlm_kernel.models._keyring import (
    add_key,
    ask_keyring,
    find_key,
    keyring_key,
    keyring_problems,
    remove_key,
)
from rlm_kernel.secrets import forget_held, redact
from rlm_kernel.session.traces import new_writer
from tests.support import keyrings
from tests.support.engine import stream
from tests.support.trace import meta, result

KEY = "sk-keyring-0123456789abcdef"


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a keyring that works."""
    keyrings.use("Working", monkeypatch, tmp_path / "ring.json")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path / "ring.json"


async def test_a_key_is_kept_found_and_removed(file: Path) -> None:
    assert add_key("openai", KEY) == "tests.support.keyrings.Working"
    assert keyrings.kept(file) == {"rlm_kernel/OPENAI_API_KEY": KEY}
    expected = Key(KEY, "OPENAI_API_KEY in the keyring")
    assert keyring_key("openai") == keyring_key("OPENAI_API_KEY") == await ask_keyring("openai") == expected
    assert keyring_problems() == {"OPENAI_API_KEY": None}
    remove_key("openai")
    assert (keyrings.kept(file), kept_in_keyring(), keyring_key("openai")) == ({}, [], None)


async def test_settings_and_the_environment_come_first_and_the_keyring_is_not_asked_then(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key("openai", KEY)
    add_key("WORK_KEY", KEY + "-work")
    asked = keyrings.asked(file)
    settings = LLMSettings(api_key=SecretStr("sk-of-the-settings"))
    assert await find_key("root_llm", settings, "openai") == Key("sk-of-the-settings", "root_llm.api_key")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert await find_key("root_llm", LLMSettings(), "openai") == Key(
        "sk-of-the-environment", "OPENAI_API_KEY"
    )
    assert await find_key("root_llm", LLMSettings(), "anthropic") is None
    assert keyrings.asked(file) == asked
    monkeypatch.delenv("OPENAI_API_KEY")
    assert await find_key("root_llm", LLMSettings(), "openai") == Key(KEY, "OPENAI_API_KEY in the keyring")
    assert keyrings.asked(file) == asked + 1


async def test_a_variable_of_ones_own_never_gives_way_to_the_providers_key(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is mostly somebody else's, who must not get the provider's key."""
    add_key("openai", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    settings = LLMSettings(api_key_env="WORK_KEY", api_base="https://elsewhere.example")
    assert await find_key("root_llm", settings, "openai") is None
    add_key("WORK_KEY", KEY + "-work")
    assert await find_key("root_llm", settings, "openai") == Key(KEY + "-work", "WORK_KEY in the keyring")


def test_without_a_key_of_ours_no_process_is_started_and_nothing_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_keyring.subprocess, "run", lambda *_a, **_k: pytest.fail("asked"))
        assert keyring_key("openai") is None
    loaded = "import sys, rlm_kernel.models._keyring; print('keyring' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("backend", "kind", "said"),
    [
        ("Locked", "locked", "is locked, and was not unlocked"),
        ("Talkative", "failed", "ValueError: \x1b[2J not today (tests.support.keyrings.Talkative)"),
        ("Crashing", "failed", "its process ended with status"),
        ("Exiting", "failed", "SystemExit: 0"),
        ("Odd", "failed", "its process ended with status"),
        ("Asking", "failed", "/dev/tty"),
        ("NotThere", "failed", "AttributeError"),
    ],
)
def test_a_keyring_that_fails_is_said_with_what_to_do(
    backend: str, kind: str, said: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_kept("OPENAI_API_KEY")
    keyrings.use(backend, monkeypatch, file)
    with pytest.raises(KeyringError, match=r"^The keyring ") as caught:
        keyring_key("openai")
    assert (caught.value.kind, caught.value.exit_code) == (kind, 3)
    assert said in caught.value.message
    assert "set OPENAI_API_KEY in the environment or in a .env file" in caught.value.hint


@pytest.mark.parametrize("backend", ["keyring.backends.fail.Keyring", ""])
def test_a_machine_without_a_keyring_is_said(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    if not backend:  # what a server, a container and WSL have: nothing is set, and there is no bus
        monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(KeyringError, match="This machine has no keyring") as caught:
        add_key("openai", KEY)
    assert "GNOME Keyring" in caught.value.hint
    assert kept_in_keyring() == []


async def test_a_keyring_that_hangs_costs_a_bounded_time_and_can_be_called_off_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_kept("OPENAI_API_KEY")
    note_kept("ANTHROPIC_API_KEY")
    keyrings.use("Hanging", monkeypatch, file)
    task = asyncio.create_task(find_key("root_llm", LLMSettings(), "openai"))
    await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    monkeypatch.setattr(_keyring, "SECONDS", 0.5)
    problems = keyring_problems()
    assert [problem and problem.kind for problem in problems.values()] == ["late", "late"]
    assert len({id(problem) for problem in problems.values()}) == 1  # it was asked once
    assert "did not answer within 0.5 seconds" in str(problems["OPENAI_API_KEY"])
    gc.collect()


def test_a_key_that_somebody_took_out_of_the_keyring_is_said(file: Path) -> None:
    add_key("openai", KEY)
    file.unlink()
    with pytest.raises(KeyringError, match="no longer has OPENAI_API_KEY") as caught:
        keyring_key("openai")
    assert "rlm auth add OPENAI_API_KEY" in caught.value.hint
    remove_key("openai")
    assert kept_in_keyring() == []


@pytest.mark.parametrize("backend", ["Locked", "Forgetful", "Talkative"])
def test_a_key_that_is_not_kept_is_not_noted_and_not_shown(
    backend: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyrings.use(backend, monkeypatch, file)
    with pytest.raises(KeyringError) as caught:
        add_key("openai", KEY)
    assert KEY not in str(caught.value)
    assert kept_in_keyring() == []


@pytest.mark.parametrize(
    "written",
    [
        f"  {KEY}\r\n",
        f'"{KEY}"\n',
        f"\ufeff{KEY}",
        f"Bearer {KEY}",
        f"Authorization: Bearer {KEY}\n",
        f"OPENAI_API_KEY={KEY}\n",
        f"export OPENAI_API_KEY='{KEY}'\n",
        f'$env:OPENAI_API_KEY = "{KEY}"',
        f"x-api-key: {KEY}",
    ],
)
def test_what_was_copied_with_a_key_is_left_out(written: str) -> None:
    assert key_of("root_llm", LLMSettings(), "openai", {"OPENAI_API_KEY": written}) == Key(
        KEY, "OPENAI_API_KEY"
    )


def test_what_was_copied_with_a_key_does_not_come_into_the_keyring(file: Path) -> None:
    add_key("openai", f"export OPENAI_API_KEY='{KEY}'\r\n")
    assert keyrings.kept(file) == {"rlm_kernel/OPENAI_API_KEY": KEY}


@pytest.mark.parametrize(
    "written", ["", " \n", f"{KEY}\n{KEY}", "sk-é0123456789", "two words", "\x00", "Bearer "]
)
def test_what_is_no_key_is_refused_and_changes_nothing(written: str, file: Path) -> None:
    with pytest.raises(UsageError, match="othing changed"):
        add_key("openai", written)
    assert (keyrings.kept(file), kept_in_keyring()) == ({}, [])


def test_a_trace_that_was_begun_before_the_key_was_known_has_none_of_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key("openai", KEY)
    settings = LLMSettings(api_key=SecretStr("sk-only-in-the-settings"))
    monkeypatch.setenv("GROQ_API_KEY", "Bearer 'sk-in-quotes-01234'")
    forget_held()
    writer = new_writer(tmp_path / "t.ipynb", meta(), load_settings(None, {}))
    assert redact(KEY, ()) == KEY
    assert keyring_key("openai") is not None
    assert key_of("root_llm", settings, "openai") is not None
    key = key_of("sub_llm", LLMSettings(), "groq")
    assert key is not None
    assert "quotes" not in repr(key)
    assert key_of("sub_llm", LLMSettings(api_key=SecretStr("not-needed")), "openai") is not None
    shown = f"{KEY} sk-only-in-the-settings sk-in-quotes-01234 not-needed\n"
    writer(CellFinished(1, result("turn-01-a", outputs=[stream(shown)])))
    writer.close()
    text = (tmp_path / "t.ipynb").read_text("utf-8")
    assert "[redacted] [redacted] [redacted] not-needed" in text
    assert "sk-" not in text


def test_the_key_is_in_no_argument_and_no_environment_of_the_process(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = subprocess.run

    def run(command: list[str], **more: object) -> object:
        seen.extend([*command, *map(str, os.environ.values()), str(more.get("env"))])
        return real(command, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(_keyring.subprocess, "run", run)
    add_key("openai", KEY)
    assert seen
    assert not any(KEY in part for part in seen)


def test_a_backend_is_found_where_this_process_finds_its_libraries(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an archive of an application, or beside a script."""
    (tmp_path / "rings").mkdir()
    (tmp_path / "rings" / "ring_of_ours.py").write_text("from tests.support.keyrings import Working\n")
    monkeypatch.syspath_prepend(tmp_path / "rings")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "ring_of_ours.Working")
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.syspath_prepend(keyrings.ROOT)
    add_key("openai", KEY)
    assert keyring_key("openai") is not None


def test_no_module_of_the_current_folder_is_taken_for_the_library(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("keyring.py").write_text("raise SystemExit('not ours')")
    monkeypatch.syspath_prepend("")
    monkeypatch.syspath_prepend(Path.cwd())
    add_key("openai", KEY)
    assert keyring_key("openai") is not None
