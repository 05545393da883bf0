"""Kernels for child RLMs: started ahead, no more at once than there are places, and all ended whatever
happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.errors import BudgetExceeded, DockerError, KernelError
from rlm_kernel.sandbox.grants import Grant
from rlm_kernel.session import pool
from rlm_kernel.session.environment import Host
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.running import GivenFiles

IMAGE: Any = None


@dataclass
class FakeKernel:
    """In place of `session.running.RunningKernel`."""

    machine: Machine
    number: int
    paths: list[Path]
    known_as: list[Path]
    kernel: Any = field(default_factory=lambda: SimpleNamespace(alive=True))
    ended: int = 0

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        await self.machine.ends.wait()
        self.ended += 1
        if self.machine.gone:
            raise DockerError("The engine is gone.")


class Machine:
    """Makes kernels as `session.running.new_kernel` does, as soon as `starts` is set; ends them as soon as
    `ends` is.
    """

    def __init__(self) -> None:
        self.made: list[FakeKernel] = []
        self.asked = 0
        self.starts, self.ends = asyncio.Event(), asyncio.Event()
        self.starts.set()
        self.ends.set()
        self.failure: Exception | None = None
        self.gone = False

    async def make(self, _host: Any, _image: Any, files: GivenFiles, **_: Any) -> FakeKernel:
        self.asked += 1
        await self.starts.wait()
        if self.failure is not None:
            raise self.failure
        self.made.append(FakeKernel(self, len(self.made), list(files.paths), list(files.known_as)))
        return self.made[-1]

    @property
    def running(self) -> int:
        return sum(not live.ended for live in self.made)


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(pool, "new_kernel", made.make)
    return made


@asynccontextmanager
async def kernels(**changes: Any) -> AsyncIterator[KernelPool]:
    chosen = {"limits.depth": 1, "sandbox.children": 2} | {
        name.replace("_", "."): value for name, value in changes.items()
    }
    async with KernelPool(Host(load_settings(None, chosen)), IMAGE) as made:
        yield made


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Child:
    """Holds a kernel until it is let go."""

    def __init__(self, source: KernelPool, level: int = 1, **options: Any) -> None:
        self.live: Any = None
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._work(source, level, options))

    async def _work(self, source: KernelPool, level: int, options: dict[str, Any]) -> None:
        async with source.kernel(level, **options) as self.live:
            await self._go.wait()

    async def go(self) -> None:
        self._go.set()
        await self.task


async def test_nothing_is_started_before_a_child_is_asked_for(machine: Machine) -> None:
    async with kernels():
        await settle()
    assert machine.asked == 0


async def test_the_next_kernel_is_started_ahead_and_taken_by_the_next_child(machine: Machine) -> None:
    async with kernels() as source:
        first = Child(source)
        await settle()
        assert (first.live.number, machine.asked) == (0, 2)
        machine.starts.clear()
        second = Child(source)
        await settle()
        assert second.live.number == 1, "it did not have to wait"
        await first.go()
        await second.go()
        machine.starts.set()
    assert [live.ended for live in machine.made] == [1, 1, 1]


async def test_no_more_work_at_once_than_there_are_places(machine: Machine) -> None:
    async with kernels(sandbox_children=3) as source:
        children = [Child(source) for _ in range(10)]
        most = 0
        while not all(child.task.done() for child in children):
            await settle()
            working = [child for child in children if child.live is not None and not child.task.done()]
            most = max(most, len(working))
            assert machine.running <= 3 + 1, "and one ahead"
            await working[0].go()
        assert most == 3
    assert machine.running == 0


async def test_a_place_is_free_only_when_its_kernel_has_ended(machine: Machine) -> None:
    async with kernels(sandbox_children=1) as source:
        first, second = Child(source), Child(source)
        await settle()
        machine.ends.clear()
        await asyncio.wait_for(first.go(), 1)  # who asked the child need not wait for that
        await settle()
        assert second.live is None
        machine.ends.set()
        await settle()
        assert second.live is not None
        await second.go()


async def test_levels_do_not_take_each_others_places(machine: Machine) -> None:
    async with kernels(sandbox_children=1, limits_depth=3) as source:
        deep = [Child(source, level) for level in (1, 2, 3)]
        await settle()
        assert all(child.live is not None for child in deep)
        other = Child(source, 1)
        await settle()
        assert other.live is None
        for child in [*deep, other]:
            await child.go()


async def test_with_files_a_kernel_is_started_anew_under_their_names(machine: Machine) -> None:
    grant = Grant(Path("/known"), Path("/real"), PurePosixPath("/rlm/files/3"), False)
    async with kernels() as source:
        plain = Child(source)
        await settle()
        child = Child(source, grants=[grant])
        await settle()
        assert (child.live.paths, child.live.known_as) == ([Path("/real")], [Path("/known")])
        assert plain.live.paths == []
        await child.go()
        await plain.go()
    assert machine.running == 0


async def test_a_warm_kernel_that_has_died_is_not_given(machine: Machine) -> None:
    async with kernels() as source:
        first = Child(source)
        await settle()
        machine.made[1].kernel.alive = False
        second = Child(source)
        await settle()
        assert second.live.number == 2
        assert machine.made[1].ended == 1
        await first.go()
        await second.go()


async def test_a_start_ahead_that_failed_is_no_concern_of_the_child_that_comes_later(
    machine: Machine,
) -> None:
    async with kernels() as source:
        machine.starts.clear()
        first = Child(source)
        await settle()
        machine.starts.set()
        await settle(1)
        machine.failure = DockerError("There is no room.")  # as the next is started
        await settle()
        assert first.live is not None
        machine.failure = None
        second = Child(source)
        await settle()
        assert second.live is not None
        await first.go()
        await second.go()
    assert machine.running == 0


async def test_a_refusal_starts_nothing_and_frees_the_place(machine: Machine) -> None:
    def refuse() -> None:
        raise BudgetExceeded("It is used up.", limit="cost")

    async with kernels(sandbox_children=1) as source:
        for _ in range(3):
            with pytest.raises(BudgetExceeded):
                await Child(source, check=refuse).task
        assert machine.asked == 0
        child = Child(source)
        await settle()
        await child.go()


async def test_a_start_that_fails_is_told_and_frees_the_place(machine: Machine) -> None:
    machine.failure = KernelError("It does not start.")
    async with kernels(sandbox_children=1) as source:
        for _ in range(3):
            with pytest.raises(KernelError, match="does not start"):
                await Child(source).task
        machine.failure = None
        child = Child(source)
        await settle()
        await child.go()
    assert machine.running == 0


@pytest.mark.parametrize("named", [False, True])
async def test_children_that_are_cut_off_as_they_start_leave_nothing(machine: Machine, named: bool) -> None:
    grant = Grant(Path("/known"), Path("/real"), PurePosixPath("/rlm/files/3"), False)
    machine.starts.clear()
    async with kernels(sandbox_children=2) as source:
        children = [Child(source, grants=[grant] if named else []) for _ in range(4)]
        await settle()
        assert machine.asked == 2
        for child in children:
            child.task.cancel()
        await settle()
        for child in children:
            child.task.cancel()  # a second time, as the end of a cell does
        done, _ = await asyncio.wait([child.task for child in children], timeout=1)
        assert len(done) == 4, "nobody waits for a start that is of no use any more"
        machine.starts.set()
    assert machine.running == 0
    assert [live.ended for live in machine.made] == [1] * len(machine.made)


async def test_the_end_waits_for_all_even_if_it_is_cut_off_itself(machine: Machine) -> None:
    machine.ends.clear()
    leaving = asyncio.Event()

    async def run() -> None:
        async with kernels() as source:
            child = Child(source)
            await settle()
            await child.go()
            leaving.set()

    task = asyncio.create_task(run())
    await leaving.wait()
    await settle()
    task.cancel()
    await settle()
    assert not task.done()
    machine.ends.set()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert machine.running == 0


async def test_an_engine_that_is_gone_hides_nothing(machine: Machine) -> None:
    machine.gone = True
    async with kernels() as source:
        child = Child(source)
        await settle()
        await child.go()
