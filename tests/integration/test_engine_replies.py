"""Replies of the Docker engine that are lost, late or errors: no container is left, and the engine's words
are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.image_base import OLDEST_PYTHON, find_base
from rlm_kernel.sandbox.probe import sandbox_problem
from rlm_kernel.sandbox.room import look
from tests.support.engine_proxy import EngineProxy, engine_proxy

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
CREATE, START, REMOVE, WAIT = (
    "POST /containers/create",
    "POST /containers/[^/]+/start",
    "DELETE /containers/",
    "POST /containers/[^/]+/wait",
)
ATTACH = "POST /containers/[^/]+/attach"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, docker_client: Any) -> Iterator[EngineProxy]:
    """The way to the engine from here on; `docker_client` has its own."""
    with engine_proxy() as made:
        monkeypatch.setenv("DOCKER_HOST", made.address)
        yield made


def mine(docker_client: Any, owner: int | None = None) -> list[str]:
    label = f"{containers.LABEL}.owner={owner or os.getpid()}"
    return [found["Names"][0] for found in docker_client.api.containers(all=True, filters={"label": label})]


@pytest.mark.parametrize("lost", [{CREATE: 1}, {START: 1}, {CREATE: 1, REMOVE: 1}])
async def test_a_lost_reply_leaves_no_container(
    proxy: EngineProxy, sandbox: Any, docker_client: Any, lost: dict[str, int]
) -> None:
    proxy.lose.update(lost)
    with pytest.raises(DockerError) as told:
        await sandbox()
    assert not sum(proxy.lose.values())
    assert "Traceback" not in str(told.value)
    assert mine(docker_client) == []


async def test_an_engine_that_makes_it_later_leaves_none_either(
    proxy: EngineProxy, sandbox: Any, docker_client: Any
) -> None:
    proxy.lose[CREATE] = 1
    proxy.lose["GET /containers/[^/]+/json"] = 2  # nor does it tell of it at once
    with pytest.raises(DockerError):
        await sandbox()
    assert mine(docker_client) == []


async def test_a_run_that_is_interrupted_while_the_engine_makes_the_container_leaves_none(
    proxy: EngineProxy, sandbox: Any, docker_client: Any
) -> None:
    reached, loop = asyncio.Event(), asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(reached.set)
        time.sleep(0.5)

    proxy.lose[CREATE], proxy.on = 1, hold
    starting = asyncio.create_task(sandbox())
    await reached.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    # The fixture ends what was begun; the container is gone when that says so.
    proxy.lose.clear()


async def test_how_a_kernel_ended_is_known_without_the_engine_which_is_asked_only_where_a_container_was_killed(
    proxy: EngineProxy, sandbox: Any, docker_client: Any
) -> None:
    box = await sandbox()
    assert not any("/wait" in what for what in proxy.seen)
    proxy.fail[WAIT] = "containerd is not there"
    proxy.hang_up(WAIT)
    assert "ended with status 3" in " ".join((await box.run("import os; os._exit(3)")).notices)
    running = asyncio.create_task(box.run("print('on', flush=True)\nimport time; time.sleep(99)"))
    box.printed.clear()
    await box.printed.wait()
    docker_client.containers.get(box.container).kill()
    assert "lost with it: containerd is not there. A new kernel was started" in " ".join(
        (await running).notices
    )
    assert await box.text("print(6 * 7)") == "42"


@pytest.mark.parametrize("lost", [CREATE, ATTACH, START, REMOVE])
def test_the_probe_of_rlm_doctor_leaves_no_container(
    proxy: EngineProxy, kernel_image: ImageInfo, docker_client: Any, lost: str
) -> None:
    from rlm_kernel.sandbox.docker_host import connect

    client = connect()
    proxy.lose[lost] = 1
    try:
        problem = sandbox_problem(client, kernel_image.id)
    finally:
        client.close()
    assert (problem is None) == (lost == REMOVE)
    assert mine(docker_client) == []


def test_the_python_of_a_base_image_is_asked_for_and_read(
    kernel_image: ImageInfo, docker_client: Any
) -> None:
    base = find_base(docker_client, kernel_image.id, lambda _: None)
    assert base.version >= OLDEST_PYTHON
    assert base.glibc > (2, 0)
    assert mine(docker_client) == []


DOCTOR = "import sys; sys.argv = ['rlm', 'doctor']; from rlm_kernel.cli import main; main()"


@pytest.mark.parametrize("moment", [CREATE, START, WAIT])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_of_rlm_doctor_leaves_no_container(
    proxy: EngineProxy, kernel_image: ImageInfo, docker_client: Any, moment: str, number: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DOCTOR],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    ) as doctor:

        def hit() -> None:
            doctor.send_signal(number)
            time.sleep(1)

        proxy.lose[moment], proxy.on = 1, hit
        said, _ = doctor.communicate(timeout=60)
    assert not proxy.lose[moment], said
    assert doctor.returncode == 130, said
    assert "Traceback" not in said
    assert mine(docker_client, doctor.pid) == []


@contextlib.asynccontextmanager
async def never_started(docker_client: Any, kernel_image: ImageInfo) -> AsyncIterator[tuple[int, str]]:
    """Two containers that were made: one by a process that has ended, whose id is given, and one by this
    process, whose name is given.
    """
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    names = {}
    for owner, pid in {"gone": gone.pid, "alive": os.getpid()}.items():
        labels = (
            {f"{containers.LABEL}.session": "0" * 8}
            | containers.owner_labels()
            | {f"{containers.LABEL}.owner": str(pid)}
        )
        names[owner] = f"rlm-test-{os.getpid()}-{owner}"
        docker_client.containers.create(
            kernel_image.id, name=names[owner], labels=labels, network_mode="none"
        )
    try:
        yield gone.pid, names["alive"]
    finally:
        for name in names.values():
            containers.remove_late(docker_client, name)


async def test_what_a_killed_owner_made_and_never_started_goes_when_the_next_kernel_is_started(
    docker_client: Any, kernel_image: ImageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlm_kernel.sandbox import room

    async with never_started(docker_client, kernel_image) as (gone, alive):
        look(docker_client, 1)
        assert mine(docker_client, gone), "it may just be about to be started"
        monkeypatch.setattr(room, "JUST_MADE", -1.0)
        look(docker_client, 1)
        assert mine(docker_client, gone) == []
        assert mine(docker_client) == [f"/{alive}"]


async def test_what_a_killed_worker_made_and_never_started_goes_at_once(
    docker_client: Any, kernel_image: ImageInfo
) -> None:
    async with never_started(docker_client, kernel_image) as (gone, alive):
        containers.remove_unstarted([gone, os.getpid()])
        assert mine(docker_client, gone) == []
        assert mine(docker_client) == [f"/{alive}"]


FLOOD = """
import os
block = b"x" * (1 << 16)
own = {os.readlink(f"/proc/self/fd/{n}") for n in (1, 2)}
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        where = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        continue
    if where.startswith(("pipe:", "/dev/null")) and where not in own:
        os.set_blocking(number, False)
        try:
            os.write(number, block)
        except OSError:
            pass
print("done")
"""


def _all_of(listening: socket.socket) -> bytes:
    heard = b""
    with contextlib.suppress(TimeoutError):
        while piece := listening.recv(1 << 16):
            heard += piece
    return heard


async def test_nothing_that_code_writes_anywhere_reaches_the_engine(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox()
    container = docker_client.containers.get(box.container)
    listening = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1})
    listening._sock.settimeout(2)
    try:
        assert await box.text(FLOOD) == "done"
        assert "done" in await box.text(
            "import subprocess, sys\nprint(subprocess.run(['sh', '-c', 'echo a; echo b >&2; echo done']))"
            + FLOOD
        )
        assert b"x" * 100 not in await asyncio.to_thread(_all_of, listening._sock)
    finally:
        listening._sock.close()
        listening.close()
    assert container.attrs["HostConfig"]["LogConfig"]["Type"] == "none"
    assert Path(container.attrs["LogPath"] or ".") == Path()
