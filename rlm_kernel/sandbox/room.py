"""Room for kernels in the memory of the engine's machine: commands wait for it instead of being killed for
want of it.

What kernels have is read from the engine, by the labels of their containers, so that it is the same for all
processes and users of an engine, here or on another host. One that runs counts by its limit, as it may take
that at any time; one of a kept session by what it uses, as it may be idle for hours. Each user's commands
wait in a line (`sandbox.line`), so that whoever asks first is let in first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rlm_kernel import system
from rlm_kernel.config import SandboxSettings, parse_size
from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import containers, line
from rlm_kernel.sandbox.container_spec import Made
from rlm_kernel.sandbox.docker_host import connect, engine_facts
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.line import place_in
from rlm_kernel.sandbox.rundir import JUST_MADE, first_base
from rlm_kernel.sandbox.usage import use_of

if TYPE_CHECKING:
    from docker import DockerClient

SHARE = 0.75
"""Of the machine's memory, and of what is free of it, for kernels."""
LOOK_SECONDS = 1.0
TURN_SECONDS = 0.1
"""Between two looks at the line, which cost nothing."""
SOON = 2.0
"""Seconds of waiting of which nothing is said: the others start their kernels, which takes no longer."""
LONG = 15.0
"""Seconds of waiting for memory that is not there, even where kernels start slowly."""
TELL_SECONDS = 30.0
"""Between two words to the user while nothing changes."""
_STATES = ("created", "restarting", "running", "paused")
_GIB = 1 << 30
STARTS = (os.cpu_count() or 1) + 1
"""Kernels that one event loop starts at once: more would only be slower."""
_AT_ONCE = 10
"""Requests: as many connections as docker-py keeps."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Room:
    """Bytes: what `kernels` that run have `taken` of `budget`, and what is `free` on the machine, where that
    is known. `kept`: how many of them are of kept sessions.
    """

    budget: int
    taken: int = 0
    free: int | None = None
    kernels: int = 0
    kept: int = 0

    def fitting(self, memory: int) -> int:
        """How many more kernels of so many bytes each there is room for.

        For one there always is where none runs but those of kept sessions, which may be idle for hours: it
        may use less than its limit.
        """
        left = self.budget - self.taken
        if self.free is not None:
            left = min(left, int(self.free * SHARE))
        return max(left // memory, 1 if self.kernels == self.kept else 0)

    def __str__(self) -> str:
        kept = f", {self.kept} of them of kept sessions (rlm stop ends one)" if self.kept else ""
        free = f"; {self.free / _GIB:.1f} GiB are free" if self.free is not None else ""
        have = f"{self.kernels} kernel{' has' if self.kernels == 1 else 's have'}"
        return f"{have} {self.taken / _GIB:.1f} of {self.budget / _GIB:.1f} GiB{kept}{free}"


def look(client: DockerClient, wanted: int) -> Room:
    """The room there is now, for one who wants so many bytes. Blocking.

    Containers that were never started, and whose owner on this machine is gone, are removed. Raises
    DockerError.
    """
    with docker_errors():
        total = engine_facts(client).memory
        ours = client.api.containers(all=True, filters={"label": f"{containers.LABEL}.owner"})
        _sweep(client, ours)
        counted = [
            one
            for one in ours
            if one["State"] in _STATES
            and not _is_stale(one)
            and f"{containers.LABEL}.session" in one["Labels"]
        ]
        kept = [
            one for one in counted if one["Labels"].get(f"{containers.LABEL}.idle") != "0"
        ]  # earlier versions do not say
        limits = {one["Id"]: _limit(client, one) for one in counted}
        room = Room(
            int(total * SHARE) if total else 1 << 62,
            sum(limits.values()),
            _free(total),
            len(counted),
            len(kept),
        )
        if room.budget - room.taken >= wanted or not kept:
            return room
        # Engines take a second to tell what one uses: they are asked only where it matters, and for all at
        # once.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            unused = sum(pool.map(lambda one: max(0, limits[one["Id"]] - _used(client, one)), kept))
    return replace(room, taken=room.taken - unused)


def _is_stale(one: Mapping[str, Any]) -> bool:
    return bool(one["State"] == "created" and time.time() - one["Created"] > JUST_MADE)


def _sweep(client: DockerClient, ours: list[dict[str, Any]]) -> None:
    """Remove what was made and never started, or has ended and stayed, and whose owner was killed.

    Nothing else would end it.
    """
    for one in ours:
        old = one["State"] in ("created", "exited", "dead") and time.time() - one["Created"] > JUST_MADE
        if old and containers.is_left(one["Labels"]):
            containers.remove_late(client, one["Id"])


def _limit(client: DockerClient, one: Mapping[str, Any]) -> int:
    """The memory that a container may take; 0 if it is gone."""
    from docker.errors import NotFound

    with contextlib.suppress(ValueError):
        return int(one["Labels"].get(f"{containers.LABEL}.memory", ""))
    try:  # an earlier version's
        return int(client.api.inspect_container(one["Id"])["HostConfig"]["Memory"])
    except NotFound:
        return 0


def _used(client: DockerClient, one: Mapping[str, Any]) -> int:
    """The memory that a container uses; its limit where the engine does not tell."""
    from docker.errors import APIError

    try:
        used = use_of(client, one["Id"])
    except APIError:
        used = None
    return _limit(client, one) if used is None else used.memory


def _free(total: int) -> int | None:
    """The machine's free memory, if it is this one: no other has the same memory to the byte."""
    ours = system.memory()
    return ours[1] if ours is not None and ours[0] == total else None


_ENOUGH = 8
"""Kernels at once that are enough: for more, idle ones are not looked at."""


def fitting(memory: int) -> int:
    """How many kernels of so many bytes each there is room for now. Blocking. Raises DockerError."""
    client = connect()
    try:
        return look(client, memory * _ENOUGH).fitting(memory)
    finally:
        client.close()


_lines: set[Path] = set()
"""Those that this process has been in."""


def others_wait() -> bool:
    """Whether a command of another process of this user waits for room. Blocking. Raises DockerError.

    One that has waited for a while wants more than is usual, whatever room there is for that.
    """
    if not any(line.others_wait(folder, SOON) for folder in _lines):
        return False
    usual = parse_size(SandboxSettings().memory)
    return any(line.others_wait(folder, LONG) for folder in _lines) or not fitting(usual)


class _Starts:
    """The kernels that one event loop starts: so many at once, in order.

    The others wait here, for nothing but each other: only those that are let in look at the line of all
    commands, and at the engine.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(STARTS)
        self._looking: set[asyncio.Future[None]] = set()

    def ended(self) -> None:
        """A kernel has ended: there may be room now."""
        for future in self._looking:
            if not future.done():
                future.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Until a kernel has ended, but for so many seconds at most."""
        future = asyncio.get_running_loop().create_future()
        self._looking.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._looking.discard(future)


_starts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Starts] = WeakKeyDictionary()


def _here() -> _Starts:
    return _starts.setdefault(asyncio.get_running_loop(), _Starts())


def ended() -> None:
    """To be told when a kernel of this event loop has ended."""
    _here().ended()


@contextlib.asynccontextmanager
async def admitted(memory: int, say: Say, wait: float | None = None) -> AsyncIterator[Made]:
    """Wait until there is room for a kernel of so many bytes, and until it is its turn to start.

    While one is inside and its container is not made, no other command of this user is let in; and of those
    of this event loop only a few are inside at once, until their kernels are up. `say` hears what is waited
    for. After `wait` seconds, if so many are given, DockerError.
    """
    starts, waiting = _here(), _Waiting(say, wait)
    async with contextlib.AsyncExitStack() as gate:
        await waiting.at(starts.gate, "waiting: others start their kernels first")
        gate.callback(starts.gate.release)
        async with contextlib.AsyncExitStack() as inside:
            client = await asyncio.to_thread(connect, known=True)
            inside.callback(client.close)
            folder = _line_of(client.api.base_url)
            _lines.add(folder)
            place = await inside.enter_async_context(place_in(folder))
            while True:
                if not place.is_first():
                    waiting.tell("waiting: other commands start their kernels first")
                    await asyncio.sleep(TURN_SECONDS)
                elif (room := await asyncio.to_thread(look, client, memory)).fitting(memory):
                    break
                else:
                    wanted = f"{memory / _GIB:.1f} (sandbox.memory)"
                    waiting.tell(f"waiting for memory: {room}, and this one needs {wanted}")
                    await starts.pause(LOOK_SECONDS)
            yield place.leave


class _Waiting:
    """Says why one waits, and says so again now and then."""

    def __init__(self, say: Say, most: float | None) -> None:
        self._say = say
        self._most = most
        self._begun = time.monotonic()
        self._told = ("", 0.0)

    async def at(self, gate: asyncio.Semaphore, why: str) -> None:
        """Wait in front of a gate, and go in."""
        if not gate.locked():
            await gate.acquire()  # at once
            return
        going = asyncio.create_task(gate.acquire())
        try:
            while not going.done():
                seconds = self.tell(why)
                await asyncio.wait({going}, timeout=seconds)
        except BaseException:
            if not going.cancel() and not going.cancelled() and going.result():
                gate.release()
            raise

    def tell(self, why: str) -> float:
        """Say it, if it is time; the seconds until that is so again. Raises DockerError after the most."""
        now = time.monotonic()
        if self._most is not None and now - self._begun >= self._most:
            raise DockerError(
                f"There was not enough memory for another kernel within {self._most:.0f} s: {why}.",
                hint="End other kernels (`rlm stop`, `rlm gc`), or give each kernel less memory "
                "(RLM_SANDBOX__MEMORY=1g).",
            )
        left = TELL_SECONDS if self._most is None else self._begun + self._most - now
        if now - self._begun < SOON:
            return min(left, self._begun + SOON - now)
        if why.split(":")[0] != self._told[0] or now - self._told[1] >= TELL_SECONDS:
            self._told = why.split(":")[0], now
            self._say(f"{why}, since {now - self._begun:.0f} s.")
        return min(left, TELL_SECONDS)


def _line_of(engine: str) -> Path:
    """The folder of this user's line for an engine."""
    return first_base() / f"rlm_line-{system.ids()[0]}-{hashlib.sha256(engine.encode()).hexdigest()[:8]}"
