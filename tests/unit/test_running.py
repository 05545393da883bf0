"""Which kept sessions this version can join, by what their folder says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import KernelManager

from rlm_contract import VERSION
from rlm_kernel.sandbox.channels import Connection
from rlm_kernel.sandbox.rundir import RunDir, sweep
from rlm_kernel.session.running import depot_of, other_version

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def folder(tmp_path: Path, text: bytes) -> Path:
    (tmp_path / "session.json").write_bytes(text)
    return tmp_path


def test_a_session_of_this_version_can_be_joined() -> None:
    run = RunDir.create(max_request=1, window=1, idle=60)
    try:
        assert not other_version(run.path)
        run.leave()
        adopted = RunDir.adopt(run.path)
        assert adopted is not None
        assert (adopted.token, adopted.idle) == (run.token, 60)
        adopted.leave()
    finally:
        run.remove()


NO_VERSION = [
    b"",
    b"[]",
    b"1",
    b"null",
    b"\xff",
    b"{",
    b"[" * 100_000,
    b'{"told": 1}',
    b'{"told": {"protocol": "1"}}',
    b'{"told": {"protocol": [1]}}',
    b'{"told": {}}',
    b'{"protocol": 1}',
]


@pytest.mark.parametrize("text", NO_VERSION)
def test_what_says_no_version_or_cannot_be_read_is_another_versions(tmp_path: Path, text: bytes) -> None:
    assert other_version(folder(tmp_path, text))
    assert RunDir.adopt(tmp_path) is None


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run = RunDir.create(max_request=1, window=1, idle=1)
    told = run.path / "session.json"
    told.unlink()
    if kind == "pipe":
        os.mkfifo(told)
    elif kind == "folder":
        told.mkdir()
    else:
        told.symlink_to("/dev/zero")
    run.leave()
    assert run.session_id not in sweep()
    assert other_version(run.path)
    assert RunDir.adopt(run.path) is None


@given(said=JSON)
def test_whatever_it_says_is_no_traceback(said: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = folder(tmp_path_factory.mktemp("s"), json.dumps({"version": said}).encode())
    assert other_version(place) == (said != VERSION)


def test_a_folder_that_is_gone_is_no_other_version(tmp_path: Path) -> None:
    assert not other_version(tmp_path / "gone")


GOOD = {"transport": "ipc", "ip": "/x/k", "key": "k", "signature_scheme": "hmac-sha256"} | {
    f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)
}


@pytest.mark.parametrize("text", [*NO_VERSION, b'{"key": 5}', json.dumps(GOOD | {"ip": [1]}).encode(), b"{" * 100_000])
def test_a_connection_file_that_is_damaged_is_as_if_it_were_gone(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "connection.json"
    assert Connection.read(file) is None
    file.write_bytes(text)
    assert Connection.read(file) is None


@given(field=st.sampled_from(sorted(GOOD)), said=JSON)
def test_what_a_connection_file_says_is_taken_by_jupyter_or_not_at_all(
    field: str, said: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("s") / "connection.json"
    file.write_text(json.dumps(GOOD))
    assert Connection.read(file) == GOOD
    file.write_text(json.dumps(GOOD | {field: said}))
    found = Connection.read(file)
    if found is not None:
        KernelManager().load_connection_info(found)


def test_no_folder_of_ours_has_a_name_that_an_engine_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    odd.mkdir()
    short = Path("/tmp", f"rlm-odd-{os.getpid()}-\udcff")
    short.mkdir()
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        run = RunDir.create(max_request=1, window=1)
    finally:
        short.rmdir()
    try:
        assert run.path.parent != short
        assert depot_of(odd / "files", run) == run.path / "depot"
        assert depot_of(tmp_path / "files", run) == tmp_path / "files"
        assert depot_of(None, run) == run.path / "depot"
    finally:
        run.remove()
