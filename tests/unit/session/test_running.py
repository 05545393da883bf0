"""Kernels that are started, joined, left and closed; and which kept sessions can be joined, by what their
folder says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import KernelManager
from rlm_contract import VERSION

from rlm_kernel.config import load_settings
from rlm_kernel.engine.events import Event, Listener, Noted
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.channels import Connection
from rlm_kernel.sandbox.rundir import RunDir, sweep
from rlm_kernel.session.environment import Host, new_folder
from rlm_kernel.session.running import (
    GivenFiles,
    Left,
    Lost,
    depot_of,
    join_kernel,
    new_kernel,
    other_version,
)

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


@pytest.mark.parametrize(
    "text", [*NO_VERSION, b'{"key": 5}', json.dumps(GOOD | {"ip": [1]}).encode(), b"{" * 100_000]
)
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


def test_no_folder_of_ours_has_a_name_that_an_engine_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


# RunningKernel


class FakeKernel:
    """In place of `sandbox.kernel.DockerKernel`."""

    failure: Exception | None = None

    def __init__(self, spec: Any, _broker: Any, *, cell_timeout: float | None, tell: Listener) -> None:
        self.spec = spec
        self.tell = tell
        self.done: list[str] = []

    async def start(self) -> None:
        async with self.spec.admit():
            self.done.append("started")
        if self.failure is not None:
            raise self.failure

    async def join(self, _set_up: Any) -> bool:
        self.done.append("joined")
        return False

    async def stop(self) -> None:
        self.done.append("stopped")

    async def leave(self) -> None:
        self.done.append("left")


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def admitted(*_: Any) -> AsyncIterator[None]:
        await asyncio.sleep(0.05)
        yield

    monkeypatch.setattr("rlm_kernel.sandbox.kernel.DockerKernel", FakeKernel)
    monkeypatch.setattr("rlm_kernel.sandbox.room.admitted", admitted)


async def made(**options: Any) -> Any:
    return await new_kernel(Host(load_settings(None)), IMAGE, GivenFiles(), **options)


def calls(ledger: Ledger, tell: Listener) -> HostCalls:
    async def locate(_asked: str, _asking: object) -> Any:
        return {}

    return HostCalls(SubCalls(None, ledger), tell, locate)


IMAGE: Any = SimpleNamespace(id="sha256:1", tag="t")


@pytest.mark.usefixtures("_fake")
async def test_a_kernel_is_started_for_what_it_is_attached_for_and_closed_by_who_started_it() -> None:
    heard: list[Event] = []
    work = calls(Ledger(Limits()), heard.append)
    running = await made()
    folder = running.environment.run.path
    async with running.attached(work, heard.append):
        assert running.kernel.done == ["started"]
        running.kernel.tell(Noted("heard"))
    assert running.kernel.done == ["started", "stopped"]
    assert not folder.exists()
    lent = await made()
    async with lent:
        await lent.start()
        for name in ("one", "two"):
            async with lent.attached(work, heard.append):
                lent.kernel.tell(Noted(name))
        assert lent.kernel.done == ["started"]
    assert [event.text for event in heard if isinstance(event, Noted)] == ["heard", "one", "two"]


@pytest.mark.usefixtures("_fake")
async def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKernel, "failure", KernelError("It does not start."))
    running = await made()
    with pytest.raises(KernelError):
        await running.start()
    assert running.kernel.done == ["started", "stopped"]
    assert not running.environment.run.path.exists()
    await running.close()


@pytest.mark.usefixtures("_fake")
async def test_waiting_for_room_is_not_of_the_runs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    ledger = Ledger(Limits())
    monkeypatch.setattr(ledger, "waited", waited.append)
    async with (await made()).attached(calls(ledger, print), print):
        assert waited[0] >= 0.05
    running = await made(queued=False)
    async with running.attached(calls(ledger, print), print):
        assert waited[1] < waited[0], "it did not ask for room"


@pytest.mark.usefixtures("_fake")
async def test_a_kernel_that_does_not_answer_is_lost_and_leaves_nothing() -> None:
    run = RunDir.create(max_request=1, window=1, idle=60)
    run.leave()
    found = await join_kernel(Left(run.path, [], run.path / "depot"), Host(load_settings(None)), IMAGE)
    assert found == Lost("Its container was gone or did not answer")
    assert not run.path.exists()


def test_as_many_calls_are_under_way_as_the_sub_model_takes() -> None:
    for concurrency, most in ((8, 128), (200, 400), (1000, 1024)):
        run = new_folder(load_settings(None, {"sub_llm.concurrency": concurrency}), replayed=True)
        assert (run.told["window"], run.told["replayed"]) == (most, True)
        run.remove()
