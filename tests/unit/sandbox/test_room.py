"""Room for kernels: what counts, who waits, and what is said meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import containers, line, room
from rlm_kernel.sandbox.room import Room, admitted, look
from tests.support.sandbox import until

GIB = 1 << 30


class Engine:
    """In place of a DockerClient: `total` bytes, and the containers that run, by limit and idle time."""

    base_url = "http+docker://test"

    def __init__(self, total: int = 8 * GIB) -> None:
        self.total = total
        self.listed: list[dict[str, Any]] = []
        self.used = 100 << 20
        self.failing: Exception | None = None
        self.api = self

    def add(
        self, memory: str | None = "2147483648", idle: str | None = "0", state: str = "running", **more: Any
    ) -> None:
        labels = {f"{containers.LABEL}.owner": str(os.getpid()), f"{containers.LABEL}.session": "1"}
        labels |= {f"{containers.LABEL}.memory": memory} if memory is not None else {}
        labels |= {f"{containers.LABEL}.idle": idle} if idle is not None else {}
        self.listed.append(
            {"Id": str(len(self.listed)), "State": state, "Created": 2**40, "Labels": labels, **more}
        )

    def info(self) -> dict[str, Any]:
        if self.failing:
            raise self.failing
        return {"MemTotal": self.total}

    def version(self) -> dict[str, Any]:
        return {}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return list(self.listed)

    def inspect_container(self, _: str) -> dict[str, Any]:
        return {"HostConfig": {"Memory": GIB}}

    def stats(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"memory_stats": {"usage": self.used + 5, "stats": {"inactive_file": 5}}}

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    made = Engine()
    monkeypatch.setattr(room, "connect", lambda **_: made)
    monkeypatch.setattr(room, "first_base", lambda: tmp_path)
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(room, "SOON", 0.0)
    monkeypatch.setattr(room, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(room, "_lines", set())
    return made


def test_a_kernel_counts_by_its_limit_and_an_idle_session_by_what_it_uses(engine: Any) -> None:
    engine.add()
    engine.add(idle="3600")
    engine.add(idle=None)  # of an earlier version, which does not say
    engine.add(memory=None)
    engine.add(state="exited")
    found = look(engine, 2 * GIB)
    assert (found.kernels, found.kept, found.taken) == (4, 2, 3 * GIB + 2 * engine.used)
    assert found.budget == 6 * GIB
    engine.total *= 4
    assert look(engine, 2 * GIB).taken == 7 * GIB, (
        "where there is room anyway, nobody waits for what idle ones use"
    )


@pytest.mark.parametrize(
    ("found", "memory", "many"),
    [
        (Room(6 * GIB), 2 * GIB, 3),
        (Room(6 * GIB, 2 * GIB, kernels=1), 2 * GIB, 2),
        (Room(6 * GIB, 5 * GIB, kernels=2), 2 * GIB, 0),
        (Room(6 * GIB, 9 * GIB, kernels=2), 2 * GIB, 0),
        (Room(6 * GIB, free=4 * GIB), 2 * GIB, 1),
        (Room(6 * GIB, 0, free=GIB), 2 * GIB, 1),  # the first is let in, whatever there is
        (Room(6 * GIB, GIB, free=GIB, kernels=1), 2 * GIB, 0),
        (
            Room(6 * GIB, GIB, free=GIB, kernels=3, kept=3),
            2 * GIB,
            1,
        ),  # idle ones keep nobody waiting for hours
        (Room(6 * GIB, GIB, kernels=1, kept=1), 8 * GIB, 1),
        (Room(6 * GIB, 3 * GIB, kernels=2, kept=1), 8 * GIB, 0),
        (Room(GIB), 8 * GIB, 1),
        (Room(1 << 62, kernels=5), 2 * GIB, 1 << 31),  # an engine that does not tell its memory
    ],
)
def test_how_many_fit(found: Room, memory: int, many: int) -> None:
    assert found.fitting(memory) == many


@pytest.mark.parametrize("total", [None, 0])
def test_an_engine_that_does_not_tell_its_memory_keeps_nobody_waiting(engine: Any, total: int | None) -> None:
    engine.total = total
    for _ in range(50):
        engine.add()
    assert look(engine, 2 * GIB).fitting(2 * GIB) > 0


async def test_who_finds_no_room_waits_is_told_and_is_let_in_when_one_has_ended(engine: Any) -> None:
    for _ in range(3):
        engine.add()
    said: list[str] = []
    waiting = asyncio.create_task(_enter(said))
    await until(lambda: bool(said))
    assert said == [
        "waiting for memory: 3 kernels have 6.0 of 6.0 GiB, and this one needs 2.0 (sandbox.memory), since "
        "0 s."
    ]
    engine.listed.pop()
    await asyncio.wait_for(waiting, 5)


async def test_it_is_said_again_while_nothing_changes(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TELL_SECONDS", 0.05)
    for _ in range(3):
        engine.add()
    said: list[str] = []
    waiting = asyncio.create_task(_enter(said))
    await until(lambda: len(said) >= 3)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    engine.listed.pop()
    await asyncio.wait_for(
        asyncio.create_task(_enter([], memory=1)), 5
    )  # who was interrupted is in nobody's way


async def test_who_may_wait_for_so_long_only_is_refused_with_what_to_do(engine: Any) -> None:
    for _ in range(3):
        engine.add()
    with pytest.raises(DockerError, match="not enough memory for another kernel") as told:
        await _enter([], wait=0.05)
    assert "rlm stop" in told.value.hint


async def test_thirty_at_once_are_let_in_one_after_the_other_as_there_is_room(engine: Any) -> None:
    most, inside = 0, 0

    async def one() -> None:
        nonlocal most, inside
        async with admitted(2 * GIB, lambda _: None):
            engine.add()
            inside += 1
            most = max(most, inside)
        await asyncio.sleep(0.2)
        inside -= 1
        engine.listed.pop()

    async with asyncio.timeout(30):
        await asyncio.gather(*(one() for _ in range(30)))
    assert most == 3


HOLDER = """
import asyncio, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from rlm_kernel.sandbox import room
from tests.unit.sandbox.test_room import Engine
room.connect, room.first_base = lambda **_: Engine(), lambda: Path(sys.argv[1])
async def main():
    async with room.admitted(1, print):
        print("inside", flush=True)
        await asyncio.sleep(100)
asyncio.run(main())
"""


async def test_the_turn_of_a_process_that_is_killed_goes_to_the_next(engine: Any, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLDER, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == "inside\n"
        said: list[str] = []
        waiting = asyncio.create_task(_enter(said))
        await until(lambda: bool(said))
        assert said[0].startswith("waiting: other commands")
        other.kill()
        await asyncio.wait_for(waiting, 10)


async def test_one_that_is_stopped_keeps_nobody_waiting(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "STOPPED_SECONDS", 2.0)
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLDER, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == "inside\n"
        other.send_signal(signal.SIGSTOP)
        try:
            await asyncio.wait_for(_enter([]), 20)
        finally:
            other.kill()


async def test_who_came_first_goes_first(engine: Any) -> None:
    for _ in range(3):
        engine.add()
    order: list[int] = []

    async def one(number: int) -> None:
        async with admitted(2 * GIB if number else 4 * GIB, lambda _: None):
            order.append(number)

    waiting = []
    for number in range(12):
        waiting.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.02)
    engine.listed.pop()  # enough for all but the first: it is not overtaken
    await asyncio.sleep(0.1)
    assert order == []
    engine.listed.pop()
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
    assert order == list(range(12))


@pytest.mark.parametrize("what", ["file", "link", "closed"])
async def test_where_there_can_be_no_line_the_count_alone_decides(
    engine: Any, tmp_path: Path, what: str
) -> None:
    async with admitted(1, lambda _: None):
        folder = tmp_path / os.listdir(tmp_path)[0]
        assert len(os.listdir(folder)) == 1
    assert os.listdir(tmp_path) == [], "nothing is left of who was let in"
    elsewhere = tmp_path / "elsewhere"
    if what == "file":
        folder.touch()
    elif what == "link":
        elsewhere.mkdir()
        folder.symlink_to(elsewhere)
        (elsewhere / f"0-{os.getpid()}-0").touch()
    else:
        folder.mkdir(mode=0)
    await asyncio.wait_for(_enter([]), 5)


async def test_strange_files_in_the_line_keep_nobody_waiting_for_long(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "STOPPED_SECONDS", 0.5)
    async with admitted(1, lambda _: None):
        folder = tmp_path / os.listdir(tmp_path)[0]
    folder.mkdir()
    for name in ("0", "0-", "0-x-y", f"0-{10**30}-z", "0-1-\udcff"):
        (folder / name).touch()
    (folder / "0-0-folder").mkdir()
    (folder / "0-0-link").symlink_to("/dev/zero")
    await asyncio.wait_for(_enter([]), 10)


async def test_of_many_in_one_process_a_few_look_and_all_go_in_in_order(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, open_now, most, order = 0, 0, 0, []

    def connect(**_: Any) -> Any:
        nonlocal connected, open_now, most
        connected, open_now = connected + 1, open_now + 1
        most = max(most, open_now)
        return engine

    def close() -> None:
        nonlocal open_now
        open_now -= 1

    monkeypatch.setattr(room, "connect", connect)
    monkeypatch.setattr(engine, "close", close)

    async def one(number: int) -> None:
        async with admitted(1, lambda _: None):
            order.append(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(300)))
    assert (order, connected) == (list(range(300)), 300)
    assert most <= room.STARTS


async def test_who_gives_up_waiting_is_in_nobodys_way(engine: Any) -> None:
    for _ in range(3):
        engine.add()
    waiting = [asyncio.create_task(_enter([])) for _ in range(100)]
    await asyncio.sleep(0.05)
    for task in waiting[:-1]:
        task.cancel()
    engine.listed.pop()
    await asyncio.wait_for(waiting[-1], 10)
    assert all(task.cancelled() for task in waiting[:-1])


async def test_who_waits_for_memory_hears_of_an_end_in_its_own_process_at_once(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 1000.0)
    for _ in range(3):
        engine.add()
    said: list[str] = []
    waiting = asyncio.create_task(_enter(said))
    await until(lambda: bool(said))
    engine.listed.pop()
    room.ended()
    await asyncio.wait_for(waiting, 10)


async def test_once_its_container_is_made_the_next_command_is_let_in(engine: Any, tmp_path: Path) -> None:
    async with admitted(GIB, lambda _: None) as made:
        folder = tmp_path / os.listdir(tmp_path)[0]
        assert len(os.listdir(folder)) == 1
        made()
        assert not folder.exists()
        await asyncio.wait_for(_enter([]), 5)


async def test_a_command_of_another_process_that_waits_is_noticed(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SOON", 2.0)
    async with admitted(GIB, lambda _: None):
        folder = tmp_path / os.listdir(tmp_path)[0]
        assert not room.others_wait(), "it is this process's own"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:  # noqa: ASYNC220
        (folder / f"{time.time_ns():020}-{other.pid}-1").touch()
        assert not room.others_wait(), "it has just come"
        waits = folder / f"{time.time_ns() - 10 * 10**9:020}-{other.pid}-1"
        waits.touch()
        assert not room.others_wait(), "there is room: it is just slow"
        for _ in range(3):
            engine.add()
        assert room.others_wait()
        engine.listed.clear()
        waits.rename(folder / f"{time.time_ns() - 20 * 10**9:020}-{other.pid}-1")
        assert room.others_wait(), "it wants more than others do"
        other.kill()
    assert not room.others_wait()


async def _enter(said: list[str], memory: int = 2 * GIB, wait: float | None = None) -> None:
    async with admitted(memory, said.append, wait):
        pass
