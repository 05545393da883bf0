"""Where kept sessions are remembered: found again, held by one command at a time, and believed only if this
user made them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.session.state import SessionFolder, sessions


@pytest.fixture(autouse=True)
def _register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


def begun(base: Path, name: str = "default") -> SessionFolder:
    folder = SessionFolder(base, name)
    folder.path.mkdir(parents=True)
    folder.write(folder.begin(base / "trace.ipynb", {"limits.turns": 3}))
    return folder


def test_a_session_is_found_again_with_what_it_was_begun_with(tmp_path: Path) -> None:
    begun(tmp_path / ".rlm_state")
    state = SessionFolder(tmp_path / ".rlm_state").read()
    assert state is not None
    assert state.trace == tmp_path / ".rlm_state" / "trace.ipynb"
    assert state.options == {"limits.turns": 3}
    assert sessions(tmp_path / ".rlm_state") == ["default"]


def test_a_session_of_a_folder_whose_name_is_no_utf8_is_found_again(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\xfe"))
    odd.mkdir()
    folder = SessionFolder(odd / ".rlm_state")
    folder.path.mkdir(parents=True)
    folder.write(folder.begin(odd / "trace.ipynb", {}).model_copy(update={"run": odd / "rlm-12345678"}))
    state = SessionFolder(odd / ".rlm_state").read()
    assert state is not None
    assert (state.trace, state.run) == (odd / "trace.ipynb", odd / "rlm-12345678")


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert SessionFolder(tmp_path).read() is None
    assert sessions(tmp_path) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 65, "a\0b", "ü"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name for a session"):
        SessionFolder(tmp_path, name)


def test_a_session_that_came_with_somebody_elses_files_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path / "theirs")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    with pytest.raises(UsageError, match="was not started by you"):
        folder.read()


@pytest.mark.parametrize("key", ["../../../etc/passwd", "", "a" * 31])
def test_a_key_that_is_a_path_is_not_looked_up(tmp_path: Path, key: str) -> None:
    folder = begun(tmp_path / "s")
    file = folder.path / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"key": key}))
    with pytest.raises(UsageError, match="was not started by you"):
        folder.read()


@pytest.mark.parametrize("place", [".rlm_state", ".rlm_state/default"])
async def test_no_session_is_kept_behind_a_link(tmp_path: Path, place: str) -> None:
    kept = tmp_path / "home" / "default" / "default"
    kept.mkdir(parents=True)
    (kept / "precious").touch()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(kept.parent)
    with pytest.raises(UsageError, match=r"is a link, and rlm does not keep sessions behind links"):
        async with SessionFolder(tmp_path / ".rlm_state").held("rlm init"):
            pass
    assert [path.name for path in kept.parent.rglob("*")] == ["default", "precious"]


async def test_a_folder_with_other_things_in_it_is_no_sessions(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").touch()
    with pytest.raises(UsageError, match=r"is not the folder of a session: it has 'main\.py' in it"):
        async with SessionFolder(tmp_path, "src").held("rlm init"):
            pass
    assert [path.name for path in (tmp_path / "src").iterdir()] == ["main.py"]


async def test_a_session_begins_in_an_empty_folder_whatever_somebody_put_there(tmp_path: Path) -> None:
    secrets, victim = tmp_path / "secrets", tmp_path / "victim"
    secrets.mkdir()
    (secrets / "key").touch()
    victim.write_text("mine")
    folder = SessionFolder(tmp_path / ".rlm_state")
    folder.path.mkdir(parents=True)
    folder.depot.symlink_to(secrets)
    for link in (folder.history, folder.path / "state.json.new", folder.path / "state.json"):
        link.symlink_to(victim if link.suffix != ".json" else tmp_path / "none")
    (folder.path.parent / ".gitignore").symlink_to(tmp_path / "made")
    async with folder.held("rlm init"):
        assert [path.name for path in folder.path.iterdir()] == ["lock"]
        folder.write(folder.begin(tmp_path / "t.ipynb", {}))
    assert victim.read_text() == "mine"
    assert (secrets / "key").exists()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "\xff"])
def test_a_damaged_state_is_told_and_not_a_traceback(tmp_path: Path, content: str) -> None:
    folder = begun(tmp_path / "s")
    (folder.path / "state.json").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"state\.json cannot be read"):
        folder.read()


def test_a_session_that_was_moved_with_its_folder_is_still_there(tmp_path: Path) -> None:
    begun(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert SessionFolder(tmp_path / "new").read() is not None


def test_an_ended_session_leaves_nothing(tmp_path: Path) -> None:
    base = tmp_path / ".rlm_state"
    folder = begun(base)
    state = folder.read()
    assert state is not None
    folder.remove(state)
    assert not base.exists()
    assert not list((tmp_path / "state-home").rglob("*" + state.key))


async def test_ending_one_session_leaves_the_others(tmp_path: Path) -> None:
    base = tmp_path / ".rlm_state"
    one, _two = begun(base, "one"), begun(base, "two")
    state = one.read()
    assert state is not None
    async with one.held("rlm stop"):
        one.remove(state)
    assert sessions(base) == ["two"]


async def test_the_second_command_is_told_who_has_the_session(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    async with folder.held("rlm chat"):
        with pytest.raises(
            UsageError, match=rf"in use by `rlm chat` \(process {os.getpid()}, since"
        ) as refused:
            async with SessionFolder(tmp_path).held("rlm run"):
                pass
        assert "--session NAME" in refused.value.hint
        holder = SessionFolder(tmp_path).holder()
        assert holder is not None
        assert holder.command == "rlm chat"
    assert SessionFolder(tmp_path).holder() is None


async def test_the_second_command_may_wait_for_the_first(tmp_path: Path) -> None:
    folder, order = begun(tmp_path), []
    entered = asyncio.Event()

    async def first() -> None:
        async with folder.held("first"):
            entered.set()
            await asyncio.sleep(0)
            order.append("first")

    async def second() -> None:
        await entered.wait()
        async with SessionFolder(tmp_path).held("second", wait=30):
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_a_command_that_waited_for_rlm_stop_does_not_hold_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s")
    state = folder.read()
    assert state is not None
    async with folder.held("rlm stop"):
        waiting = asyncio.create_task(_enter(tmp_path / "s"))
        await asyncio.sleep(0)  # it has the lock file open and looks
        folder.remove(state)
    assert await waiting


async def _enter(base: Path) -> bool:
    async with SessionFolder(base).held("rlm init", wait=30):
        return (base / "default" / "lock").exists()


def _be_killed_with(folder: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from rlm_kernel.session.state import SessionFolder\n"
        "async def main():\n"
        "    async with SessionFolder(Path(sys.argv[1])).held('rlm run'):\n"
        "        print('held', flush=True); await asyncio.sleep(1000)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"held\n"
        command.kill()


async def test_a_killed_command_does_not_hold_its_session(tmp_path: Path) -> None:
    begun(tmp_path)
    await asyncio.to_thread(_be_killed_with, tmp_path)
    async with SessionFolder(tmp_path).held("rlm status"):
        pass


async def test_a_session_that_was_not_begun_after_all_leaves_no_folder(tmp_path: Path) -> None:
    async with SessionFolder(tmp_path / ".rlm_state").held("rlm init"):
        pass
    assert not (tmp_path / ".rlm_state").exists()


async def test_the_state_is_kept_out_of_version_control(tmp_path: Path) -> None:
    async with SessionFolder(tmp_path / ".rlm_state").held("rlm init"):
        assert (tmp_path / ".rlm_state" / ".gitignore").read_text() == "*\n"


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        async with SessionFolder(tmp_path / "file").held("rlm init"):
            pass
