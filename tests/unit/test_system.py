"""What systems do each in their own way, tried here; and paths of Windows, by its own rules."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import re
import subprocess
import sys
import time
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
from rlm_contract import SOCKETS
from rlm_runtime import files, wire

from rlm_kernel import loops, system
from rlm_kernel.cli import _chat_input, _streams
from rlm_kernel.config import load_settings
from rlm_kernel.errors import DockerError, FileRefused, UsageError
from rlm_kernel.pathtext import is_foreign, recorded, spelled
from rlm_kernel.sandbox import dial, engine_errors, late_mounts
from rlm_kernel.sandbox.endpoints import Doors, Endpoints
from rlm_kernel.sandbox.grants import FileGrants
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.questions import extract_paths
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.session.tracefiles import check_files, named_files
from rlm_kernel.trace.journal import journal_path
from rlm_kernel.trace.prompts import open_beside
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows in what is asked of `system`. Its functions stay this system's."""
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system, "WINDOWS_PATHS", True)


# Locks, replacing, processes


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    code = (
        "import os, sys\nfrom rlm_kernel import system\nprint(system.lock(os.open(sys.argv[1], "
        "os.O_RDWR)), flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with path.open("r+b") as file:
            assert system.is_locked(file.fileno())
            assert not system.lock(file.fileno())
            other.kill()
            other.wait()
            assert not system.is_locked(file.fileno())
            assert system.lock(file.fileno())


@pytest.mark.usefixtures("windows")
def test_a_file_that_another_program_looks_at_for_a_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = Path.replace, 0

    def in_use(self: Path, target: Any) -> Path:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise PermissionError(13, "in use")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", in_use)
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    system.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    assert tries == 3


def test_where_nobody_has_it_open_a_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def denied(self: Path, target: Any) -> Path:
        tries.append(self)
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "replace", denied)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "new", tmp_path / "old")
    assert len(tries) == 1


@pytest.mark.usefixtures("windows")
def test_a_trace_that_another_program_keeps_open_is_complete_by_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), [])
    with monkeypatch.context() as patch:

        def in_use(*_: Any) -> None:
            raise PermissionError(13, "another program has the file open")

        patch.setattr(Path, "replace", in_use)
        tell(writer, STORY[:4])
        assert journal_path(path).exists()
        told = [cell.id for cell in read_trace(path).cells]
    writer.close()
    assert not journal_path(path).exists()
    assert [cell.id for cell in read_trace(path).cells][: len(told)] == told
    assert len(told) > 2


def test_whether_a_process_has_ended_is_known() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert system.is_gone(ended.pid)
    assert not system.is_gone(os.getpid())


def test_a_link_is_no_plain_file_where_open_cannot_refuse_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for flag in (getattr(os, "O_NOFOLLOW", 0), 0):
        monkeypatch.setattr(system, "_NO_LINK", flag)
        with pytest.raises(OSError, match="link"):
            system.open_plain(tmp_path / "link")
        os.close(system.open_plain(tmp_path / "link", follow=True))
        os.close(system.open_plain(tmp_path / "file"))


def test_where_links_may_not_be_made_a_folder_is_given_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")
    (source / "link").symlink_to("a.txt")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refused)
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(NotImplementedError))
    given = late_mounts.LateMounts(tmp_path / "depot").give(source)
    assert sorted(path.name for path in given.iterdir()) == ["a.txt"]


# The event loop


async def test_a_signal_is_heard_on_a_loop_that_has_no_handlers_of_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import signal

    def none(*_: Any) -> None:
        raise NotImplementedError

    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    monkeypatch.setattr(loop, "add_signal_handler", none)
    before = signal.getsignal(signal.SIGTERM)
    try:
        loops.on_signal(loop, signal.SIGTERM, heard.set)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(heard.wait(), 10)
    finally:
        signal.signal(signal.SIGTERM, before)


class PipeLoop:
    """An event loop of Windows, as far as named pipes go."""

    def __init__(self) -> None:
        self.path = ""

    async def create_pipe_connection(self, protocol: Any, path: str) -> Any:
        self.path = path
        return None, protocol()


async def test_docker_desktops_named_pipe_is_attached_to(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = PipeLoop()
    api = SimpleNamespace(
        base_url="http+docker://localnpipe",
        get_adapter=lambda _: SimpleNamespace(npipe_path="//./pipe/docker_engine"),
    )
    made: list[object] = []
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    await dial._connect(SimpleNamespace(api=api), lambda: made.append(1))  # type: ignore[arg-type, func-returns-value]
    assert loop.path == r"\\.\pipe\docker_engine"
    assert made


async def test_a_loop_without_named_pipes_says_what_to_use() -> None:
    with pytest.raises(OSError, match="ProactorEventLoop"):
        await loops.connect_pipe(asyncio.Protocol, "//./pipe/docker_engine")


class Echo:
    """A stream whose channels give back what is sent on them."""

    def open(self, name: str) -> Any:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queue.put_nowait(name.encode())
        return SimpleNamespace(write=queue.put, some=queue.get, close=lambda: None)


@pytest.mark.parametrize("unix", [True, False])
async def test_jupyters_programs_find_the_same_doors_after_a_restart(
    unix: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "HAS_UNIX_SOCKETS", unix)
    doors, manager = Doors(str(tmp_path / "k")), SimpleNamespace()
    doors.tell(manager)
    assert manager.transport == ("ipc" if unix else "tcp")
    for _ in range(2):
        endpoints = Endpoints(Echo(), doors)  # type: ignore[arg-type]
        await endpoints.open()
        for name in SOCKETS:
            port = getattr(manager, f"{name}_port")
            where = (
                asyncio.open_unix_connection(f"{manager.ip}-{port}")
                if unix
                else asyncio.open_connection(manager.ip, port)
            )
            reader, writer = await where
            writer.write(b"|and back")
            assert await reader.readexactly(len(name) + 9) == f"{name}|and back".encode()
            writer.close()
            await writer.wait_closed()
        await endpoints.close()
    doors.close()


# Paths


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (r"Count the errors in C:\logs\a.log, please", r"C:\logs\a.log"),
        (r"What is in 'C:\My Files\a b.txt'?", r"C:\My Files\a b.txt"),
        (r"Read C:/logs/a.log.", r"C:/logs/a.log"),
        (r"Look into logs\a.log", r"logs\a.log"),
        (r"And file:///C:/logs/a%20b.log?", "C:/logs/a b.log"),
        (r"See .\a.log:", r".\a.log"),
    ],
)
@pytest.mark.usefixtures("windows")
def test_paths_of_windows_in_a_question_are_looked_for(
    message: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def exists(path: Path, **_: Any) -> bool:
        looked.append(str(path).removeprefix(f"{Path.cwd()}/"))
        return True

    monkeypatch.setattr(Path, "exists", exists)
    extract_paths(message, Path.cwd())
    assert expected.removeprefix(".\\") in [path.removeprefix(".\\") for path in looked]


@pytest.mark.parametrize(
    "word",
    [
        r"\\server\share\a.log",
        "//server/share/a.log",
        r"\\.\pipe\x",
        r"\\?\C:\a.log",
        "file:////server/share/a.log",
    ],
)
@pytest.mark.usefixtures("windows")
def test_a_text_never_has_windows_log_in_at_another_machine(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(path: Path, **_: Any) -> bool:
        assert not str(path).replace("\\", "/").startswith("//"), path
        return False

    monkeypatch.setattr(Path, "exists", exists)
    assert extract_paths(f"What of {word} and '{word}'?", Path.cwd()) == []


@pytest.fixture
def run() -> Any:
    made = RunDir.create(max_request=1, window=1)
    yield made
    made.remove()


@pytest.mark.usefixtures("windows")
async def test_code_in_the_kernel_never_has_windows_log_in_at_another_machine(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def yes(_: Path) -> bool:
        return True

    grants = FileGrants([tmp_path], run)
    real = os.path.realpath
    for asked in (r"\\server\share\a", "//server/share/a", r"\\.\PhysicalDrive0"):

        def local(path: Any, asked: str = asked, **options: Any) -> str:
            assert str(path) != asked
            return real(path, **options)

        monkeypatch.setattr(os.path, "realpath", local)
        with pytest.raises(FileRefused):
            await grants.obtain(asked, yes)


def test_names_that_a_file_system_takes_for_the_same_are_the_same(run: RunDir, tmp_path: Path) -> None:
    named, other = tmp_path / "Übung.txt", tmp_path / "u\u0308bung.TXT"
    named.write_text("text")
    os.link(named, other)  # as macOS and Windows have it without a second name
    (tmp_path / "elsewhere.txt").hardlink_to(named)
    grants = FileGrants([named], run)
    assert grants.locate(str(other)).path == named
    with pytest.raises(FileRefused):
        grants.locate(str(tmp_path / "elsewhere.txt"))


def test_names_of_a_copy_from_macos_are_found_with_their_accents_apart(tmp_path: Path) -> None:
    there = (
        tmp_path
        / unicodedata.normalize("NFD", "\xfcbung.children")
        / unicodedata.normalize("NFD", "\xe9.prompts.zst")
    )
    there.parent.mkdir()
    there.touch()
    assert spelled(tmp_path / "\xfcbung.children" / "\xe9.prompts.zst") == there
    assert spelled(tmp_path / "\xfcbung.children" / "\xe8.prompts.zst").name == "\xe8.prompts.zst"
    assert spelled(there) == there
    os.close(open_beside(there.with_name("t.ipynb"), "\xe9.prompts.zst"))


def test_a_file_that_is_not_there_has_no_folder_listed_for_its_name_in_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "\xfcbung").mkdir()
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("a folder may have a million files"))
    missing = tmp_path / "\xfcbung" / "t.children" / "a.ipynb"
    assert spelled(missing) == missing


def test_paths_are_read_by_the_rules_of_the_system_that_they_are_of() -> None:
    assert recorded(r"C:\logs\..\a.log") == PureWindowsPath(r"C:\a.log")
    assert recorded("c:/LOGS/A.LOG") == PureWindowsPath(r"C:\logs\a.log")
    assert recorded(r"\\server\share\a.log").name == "a.log"
    assert recorded("/logs/./a.log") == PurePosixPath("/logs/a.log")
    assert [is_foreign(path) for path in (r"C:\a", r"\\s\a", "/a", "a")] == [True, True, False, False]


@pytest.mark.usefixtures("windows")
def test_on_windows_a_path_of_posix_is_foreign() -> None:
    assert [is_foreign(path) for path in ("/a", r"C:\a", "//s/a")] == [True, False, False]


def test_a_trace_made_on_windows_finds_its_files_beside_it(tmp_path: Path) -> None:
    trace: Any = SimpleNamespace(
        path=tmp_path / "t.ipynb", meta=SimpleNamespace(files=[FileMeta(path=r"C:\logs\a.log", size=4)])
    )
    missing = check_files(trace)[0]
    assert missing.path is None
    (tmp_path / "a.log").write_text("text")
    assert check_files(trace)[0].path == tmp_path / "a.log"
    assert named_files(trace, {"a.log": tmp_path / "x"}) == {"a.log": tmp_path / "x"}


def test_code_that_was_recorded_on_windows_finds_its_files_here(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.log").write_text("text")
    grants = FileGrants([tmp_path], run, known_as=[Path(r"C:\logs")])
    found = grants.locate(r"C:\logs\sub\a.log")
    assert found.source.read_text() == "text"
    assert str(found.path) == r"C:\logs\sub\a.log"
    assert str(found.inside) == "/rlm/files/0/sub/a.log"
    for asked in (r"C:\logs\..\x", r"C:\other\a.log", str(tmp_path / "sub" / "a.log")):
        with pytest.raises(FileRefused):
            grants.locate(asked)


@pytest.mark.usefixtures("windows")
def test_a_trace_never_has_windows_log_in_at_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(
        "rlm_kernel.session.tracefiles.resolve", lambda path: looked.append(str(path)) or path
    )
    trace: Any = SimpleNamespace(
        path=tmp_path / "t.ipynb",
        meta=SimpleNamespace(files=[FileMeta(path=r"\\server\share\a.log", size=4)]),
    )
    check_files(trace)
    assert looked == [str(tmp_path / "a.log")]


@pytest.mark.parametrize(
    "name", ["a:b.ipynb", "NUL", "nul.ipynb", "Com1.ipynb", "what?.ipynb", "ends with a dot."]
)
@pytest.mark.usefixtures("windows")
def test_a_name_that_is_no_files_on_windows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot have the name"):
        trace_path(load_settings(), "Why?", tmp_path / name)
    with pytest.raises(UsageError):
        SessionFolder(tmp_path, name)


@pytest.mark.usefixtures("windows")
def test_usual_names_are_taken_on_windows(tmp_path: Path) -> None:
    for name in ("console.ipynb", "t.ipynb", "com10.ipynb", ".hidden.ipynb", "nullable.ipynb"):
        assert trace_path(load_settings(), "Why?", tmp_path / name) == tmp_path / name


# Text and words


async def test_a_line_is_read_from_a_keyboard_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["y", "x", "\b", "\xe0", "H", "\r", "n"]
    monkeypatch.setitem(
        sys.modules, "msvcrt", SimpleNamespace(kbhit=lambda: bool(keys), getwch=lambda: keys.pop(0))
    )
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location(
        "terminal_of_windows", str(Path(_chat_input.__file__).with_name("_terminal.py"))
    )
    assert spec is not None
    assert spec.loader is not None
    terminal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(terminal)
    assert await terminal.line(0) == "y"


def test_a_console_of_windows_gets_text_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Console(io.FileIO):
        def __init__(self, descriptor: int, mode: str, closefd: bool) -> None:
            made.append(descriptor)
            super().__init__(descriptor, mode, closefd)

    monkeypatch.setattr(io, "_WindowsConsoleIO", Console, raising=False)
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 1)
    for descriptor in (1, 2):
        _streams._safe(None, descriptor, "replace")
    assert made == [1]


async def test_lines_that_end_as_on_windows_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one\\\r\ntwo\r\n```\r\nthree\r\n```\r\n"))
    )
    pipe = _chat_input.Pipe()
    assert [await pipe.line(), await pipe.line()] == ["one\ntwo", "```\nthree\n```"]


@pytest.mark.parametrize(
    ("platform", "words"), [("win32", "Docker Desktop for Windows"), ("darwin", "Docker Desktop for Mac")]
)
def test_elsewhere_it_is_said_what_to_install(
    platform: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert words in engine_errors.start_hint()
    assert "docs.docker.com/desktop" in engine_errors.start_hint()
    for cause in (PermissionError(), TimeoutError()):
        assert not re.search("sudo|systemctl|apt", engine_errors.explained(cause).hint)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no such file"), PermissionError(13, "denied")])
def test_an_engine_that_is_not_there_is_a_docker_error(error: OSError) -> None:
    with pytest.raises(DockerError), engine_errors.docker_errors():
        raise error


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r"C:\a.log D:\b.log", [r"C:\a.log", r"D:\b.log"]),
        (r""""C:\My Files\a.log" 'b c' it's""", [r"C:\My Files\a.log", "b c", "it's"]),
        ('""', [""]),
    ],
)
def test_words_of_a_line_keep_backslashes_on_windows(line: str, words: list[str]) -> None:
    assert system.words(line) == words
    for odd in ('"open', "'open"):
        with pytest.raises(ValueError, match="quotation"):
            system.words(odd)


def test_a_wait_for_another_program_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS", True)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "in use")))
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")
    assert 0.1 < sum(waited) < 0.2


def test_the_kernel_calls_a_file_of_windows_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.log").write_text("text")
    (tmp_path / "sub" / "b.log").write_text("more")

    def call(_kind: str, body: dict[str, Any]) -> dict[str, Any]:
        inside = tmp_path if body["path"] == r"C:\logs" else tmp_path / "a.log"
        return {"inside": str(inside), "path": body["path"], "directory": inside.is_dir(), "ignore": []}

    monkeypatch.setattr(wire, "call", call)
    monkeypatch.setattr(files, "_loaded", {})
    monkeypatch.setattr(files, "_folders", {})

    def names(*paths: str) -> list[str]:
        return [name for texts in files._read(paths) for name in texts]

    assert names(r"C:\old\a.log") == ["a.log"]
    assert names(r"\\server\share\new\a.log") == ["new/a.log"]
    assert names(r"C:\logs") == ["logs/a.log", "sub/b.log"]
    assert [found.path for found in files._loaded.values()][-1] == r"C:\logs\sub\b.log"
    assert names(r"C:\x\a.log", r"D:\x\a.log") == ["C/x/a.log", "D/x/a.log"]
    assert "2 files loaded" in capsys.readouterr().out
