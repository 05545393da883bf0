from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.cli import attach as attach_module
from rlm_kernel.cli import main
from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.sandbox import rundir
from rlm_kernel.sandbox.rundir import RunDir, live_sessions
from rlm_kernel.session.attach import find_session

Make = Callable[..., RunDir]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions' folders lie, without those of the machine."""
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))
    return tmp_path


@pytest.fixture
def make(base: Path) -> Iterator[Make]:
    made = []

    def run(trace: str = "/traces/t.ipynb", question: str = "How many?") -> RunDir:
        made.append(RunDir.create(max_request=1, window=1))
        made[-1].describe(trace=Path(trace), question=question)
        return made[-1]

    yield run
    for each in made:
        each.remove()


def ids() -> list[str]:
    return [session.about.session for session in live_sessions()]


def test_live_sessions_are_those_whose_owner_lives(make: Make) -> None:
    first, second = make(question="one \udc80"), make()
    assert ids() == [first.session_id, second.session_id]
    found = live_sessions()[0]
    assert (found.about.pid, found.about.trace, found.about.question) == (
        os.getpid(),
        Path("/traces/t.ipynb"),
        "one ?",
    )
    assert found.connection == first.path / "connection.json"
    os.close(first._lease_fd)  # what the system does when the owner is killed
    first._lease_fd = -1
    assert ids() == [second.session_id]


def test_what_the_session_is_about_is_for_its_owner_alone(make: Make) -> None:
    run = make()
    assert (run.path / "about.json").stat().st_mode & 0o777 == 0o600
    assert run.keep("connection.json", "{}").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '"\\ud800"', json.dumps({"session": 1}), "[" * 100_000]
)
def test_a_damaged_description_is_passed_over(make: Make, text: str) -> None:
    (make().path / "about.json").write_text(text)
    assert ids() == []


def test_folders_of_others_are_passed_over(make: Make, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    (base / "rlm-link").symlink_to(run.path)
    (base / "rlm-file").touch()
    assert ids() == [run.session_id]
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert ids() == []


def test_a_session_is_found_by_its_id_its_beginning_and_its_trace(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(trace=str(tmp_path / "t.ipynb"))
    monkeypatch.chdir(tmp_path)
    for wanted in (None, run.session_id, run.session_id[:5], str(tmp_path / "t.ipynb"), "t.ipynb"):
        assert find_session(wanted).about.session == run.session_id
    with pytest.raises(UsageError, match="is called nothing") as caught:
        find_session("nothing")
    assert run.session_id in caught.value.hint


def test_none_and_several_are_said(make: Make) -> None:
    with pytest.raises(UsageError, match="No run is in progress"):
        find_session()
    runs = [make(question="first question"), make(question="second question", trace="/traces/other.ipynb")]
    with pytest.raises(UsageError, match="2 runs are in progress") as caught:
        find_session()
    for text in (
        *(run.session_id for run in runs),
        "first question",
        "second question",
        "/traces/other.ipynb",
    ):
        assert text in caught.value.hint


def test_without_a_terminal_the_connection_file_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = make(question="What \x1b[2J?")
    monkeypatch.setattr(sys, "argv", ["rlm", "attach"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert str(run.path / "connection.json") in shown
    assert "\x1b" not in shown


def test_a_missing_console_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(attach_module, "find_spec", lambda _name: None)
    with pytest.raises(SetupError) as caught:
        attach_module.open_console(Path("c.json"))
    assert "rlm-kernel[console]" in caught.value.hint


TAKEN_FOR_GRANTED: dict[str, dict[str, type]] = {
    "stream": {"name": str, "text": str},
    "error": {"traceback": list},
    "display_data": {"data": dict},
    "execute_result": {"data": dict, "execution_count": int},
    "execute_input": {"code": str, "execution_count": int},
    "execute_reply": {"status": str, "execution_count": int},
    "status": {"execution_state": str},
    "clear_output": {"wait": bool},
}
"""By the stock console, of messages."""


@pytest.mark.parametrize("value", [None, 5, [], "x", {"a": []}, [[[]]], True, -1])
@pytest.mark.parametrize("kind", TAKEN_FOR_GRANTED)
def test_a_message_has_the_fields_that_the_stock_console_takes_for_granted(kind: str, value: Any) -> None:
    console = pytest.importorskip("rlm_kernel.cli._console")
    sender, receiver = (made(key=b"k") for made in (console.Session, console.PlainSession))
    fields = TAKEN_FOR_GRANTED[kind]
    message = sender.msg(kind, dict.fromkeys(fields, value)) | {
        "parent_header": {"msg_id": value, "session": value}
    }
    _, frames = receiver.feed_identities(sender.serialize(message))
    told = receiver.deserialize(frames)
    assert {name: type(told["content"][name]) for name in fields} == fields
    assert all(type(part) is str for part in told["parent_header"].values())


def test_nothing_that_moves_the_cursor_comes_through_a_message() -> None:
    console = pytest.importorskip("rlm_kernel.cli._console")
    sender, receiver = (made(key=b"k") for made in (console.Session, console.PlainSession))
    content = {"text": "a\x1b[2J\tb\n", "\x9b1m": [{"data": ["\x07", 1, None, 2.5]}], "deep": [[["\u202e"]]]}
    frames = sender.serialize(sender.msg("stream", content))
    _, message = receiver.feed_identities(frames)
    assert receiver.deserialize(message)["content"] == {
        "name": "stdout", "text": "a�[2J\tb\n", "�1m": [{"data": ["�", 1, None, 2.5]}], "deep": [[["�"]]],
    }  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [
        [b"[]", b"1", b"{}", b"{}"],
        [b"{}", b"{}", b"{}", b"{"],
        [b"[" * 100_000] * 4,
        [b'{"msg_type": "stream", "version": "4.0"}', b"{}", b"{}", b"{}"],
        [b"{}", b"{}", b"{}"],
        [],
    ],
)
def test_a_malformed_message_does_not_end_the_console(parts: list[bytes]) -> None:
    console = pytest.importorskip("rlm_kernel.cli._console")
    session = console.PlainSession(key=b"k")
    for signature in (session.sign(parts), b"", b"x"):
        told = session.deserialize([signature, *parts])
        assert told["msg_type"] in ("", "stream")
        assert told["parent_header"] == {}


def test_dates_in_the_headers_of_a_message_are_not_read() -> None:
    console = pytest.importorskip("rlm_kernel.cli._console")
    sender, receiver = (made(key=b"k") for made in (console.Session, console.PlainSession))
    message = sender.msg("stream", {"text": "x"}) | {
        "parent_header": {"msg_id": "a", "dates": ["2029-01-01T00:00:00Z"] * 1000}
    }
    _, frames = receiver.feed_identities(sender.serialize(message))
    told = receiver.deserialize(frames)
    assert (told["header"], told["parent_header"], told["content"]["text"]) == (
        {"msg_type": "stream"},
        {"msg_id": "a"},
        "x",
    )
