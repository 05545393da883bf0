"""The lease: a container ends with its owner, whatever code in it does to live on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import DockerError, KernelError
from rlm_kernel.sandbox import provisioner
from rlm_kernel.session.running import discard
from tests.support.attacks import ATTACKS, HOLD_THE_GIL, LIMITS, STOP
from tests.support.sandbox import until

MOST = 30
"""Seconds that a container may outlive its owner."""
OWNER = """
import asyncio, sys
from rlm_kernel.sandbox.broker import Broker
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import find_image
from tests.support.sandbox import Sandbox, until

async def main():
    connections, accept = [], Broker.accept
    Broker.accept = lambda broker, channel: (connections.append(channel), accept(broker, channel))
    box = Sandbox(find_image(connect()), cell_timeout=None, idle=float(sys.argv[2]))
    await box.start()
    print(box.run_dir.path, box.container, flush=True)
    before = len(connections)
    running = asyncio.create_task(box.run(sys.argv[1]))
    await until(lambda: len(connections) > before, 60)
    print("on", flush=True)
    await running

asyncio.run(main())
"""


@pytest.fixture
def owner(kernel_image: Any) -> Iterator[Any]:
    """Starts a process that owns a container in which a cell attacks; gives it, and what it owns, once the
    attack goes on.
    """
    made: list[tuple[subprocess.Popen[str], Path]] = []

    def start(cell: str, idle: float = 0) -> tuple[subprocess.Popen[str], str]:
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, cell, str(idle)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        folder, name = process.stdout.readline().split()
        made.append((process, Path(folder)))
        assert process.stdout.readline() == "on\n"
        return process, name

    yield start
    for process, folder in made:
        with process:
            process.kill()
        discard(folder)


def running(docker_client: Any, name: str) -> bool:
    return bool(docker_client.containers.list(ignore_removed=True, filters={"name": name}))


def end(docker_client: Any, name: str, most: float) -> float:
    """Seconds until it is gone."""
    begun = time.monotonic()
    asyncio.run(
        until(
            lambda: not docker_client.containers.list(all=True, ignore_removed=True, filters={"name": name}),
            most,
        )
    )
    return time.monotonic() - begun


IN_SHORT = (STOP,)
each = [name if name in IN_SHORT else pytest.param(name, marks=pytest.mark.hostile) for name in ATTACKS]
attacks = pytest.mark.parametrize("attack", each)


@attacks
def test_a_cell_that_attacks_and_holds_the_gil_ends_with_its_owner(
    owner: Any, docker_client: Any, attack: str
) -> None:
    process, name = owner(ATTACKS[attack] + HOLD_THE_GIL)
    # Whatever a limit of its own does to the first process ends the container.
    assert running(docker_client, name) or attack == LIMITS
    process.kill()
    end(docker_client, name, MOST)


@pytest.mark.hostile
@attacks
def test_no_attack_lengthens_the_idle_time_of_a_kept_session(
    owner: Any, docker_client: Any, attack: str
) -> None:
    process, name = owner(ATTACKS[attack], idle=5)
    assert running(docker_client, name) or attack == LIMITS
    process.kill()
    assert end(docker_client, name, 5 + MOST) > 4 or attack == LIMITS


STOPPED = """
import asyncio
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import find_image
from tests.support.sandbox import Sandbox

CODE = "import time\\nfor n in range(300): print(n, end=' '); time.sleep(0.01)\\nprint(llm_query('on'))"

async def main():
    box = Sandbox(find_image(connect()), cell_timeout=None)
    await box.start()
    running = asyncio.create_task(box.text(CODE))
    await box.printed.wait()
    print("printed", flush=True)
    print(await running, flush=True)
    await box.stop()

asyncio.run(main())
"""


def test_an_owner_that_is_stopped_for_a_while_loses_nothing(kernel_image: Any) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "printed\n"
        owner.send_signal(signal.SIGSTOP)
        time.sleep(5)  # longer than the cell and its call take
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout.readline().split() == [*map(str, range(300)), "echo", "on"]
        assert owner.wait(30) == 0


async def test_nobody_inside_can_look_into_the_first_process(sandbox: Any) -> None:
    box = await sandbox()
    assert await box.text(LOOK) == "[]"


LOOK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
for name in ("mem", "environ", "maps", "auxv", "syscall", "fd", "fd/0", "cwd", "root", "exe", "map_files", "stack", "io"):
    for look in (os.listdir, os.readlink, lambda path: open(path, "rb").read(1), lambda path: open(path, "r+b", 0).write(b"1")):
        try:
            look(f"/proc/1/{name}")
            found.append(name)
        except OSError:
            pass
for name in ("oom_score_adj", "oom_adj", "sched", "autogroup", "timerslack_ns", "comm", "clear_refs", "coredump_filter", "attr/current"):
    try:
        open(f"/proc/1/{name}", "wb", 0).write(b"0")
        found.append(name)
    except OSError:
        pass
word = ctypes.create_string_buffer(8)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
here, there = Vector(ctypes.addressof(word), 8), Vector(id(None), 8)
calls = {
    "attach": lambda: libc.ptrace(16, 1, 0, 0),
    "seize": lambda: libc.ptrace(0x4206, 1, 0, 0),
    "read": lambda: libc.process_vm_readv(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0),
    "write": lambda: libc.process_vm_writev(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0),
    "descriptor": lambda: libc.syscall(438, os.pidfd_open(1), 0, 0),
}
for name, call in calls.items():
    try:
        if call() >= 0:
            found.append(name)
    except OSError:
        pass
print(found)
"""


async def test_the_kernels_own_process_can_look_into_itself(sandbox: Any) -> None:
    box = await sandbox()
    assert (
        await box.text("import os; print(os.getpid() != 1, len(os.listdir('/proc/self/fd')) > 3)")
        == "True True"
    )


async def test_zombies_do_not_pile_up(sandbox: Any) -> None:
    box = await sandbox()
    text = await box.text(
        "import os, subprocess, time\n"
        "subprocess.run(['sh', '-c', 'for each in $(seq 300); do (sleep 0 &); "
        "done'])\n"  # more than there may be processes
        "def processes():\n"
        "    return [each for each in os.listdir('/proc') if each.isdigit()]\n"
        "deadline = time.monotonic() + 20\n"
        "while len(processes()) > 2 and time.monotonic() < deadline:\n"
        "    time.sleep(0.05)\n"
        "print(len(processes()))"
    )
    assert text == "2"


async def test_docker_stop_is_quick(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox()
    container = docker_client.containers.get(box.container)
    begun = time.monotonic()
    await asyncio.to_thread(container.stop, timeout=30)
    assert time.monotonic() - begun < 10
    assert (await box.kernel._provisioner.exited).status == 128 + 15


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the Python code that containers run in the kernel's place; `python`: what runs it."""

    def put(code: str, python: str = "/opt/rlm/bin/python") -> None:
        usual = provisioner.container_options
        instead = {"command": [python, "-c", code]}
        monkeypatch.setattr(
            provisioner, "container_options", lambda *given, **named: usual(*given, **named) | instead
        )

    return put


async def test_the_last_words_of_a_container_that_ends_as_it_starts_are_told(
    sandbox: Any, command: Callable[..., None]
) -> None:
    command("import sys; print('x' * 10_000_000, 'last', file=sys.stderr); sys.exit('words')")
    with pytest.raises(
        KernelError, match=r"ended as it started \((status 1|its status is not known)"
    ) as caught:
        await sandbox()
    assert caught.value.message.endswith("x last\nwords")
    assert len(caught.value.message) < 9_000


async def test_the_last_words_of_a_container_that_starts_no_kernel_are_told(
    sandbox: Any, command: Callable[..., None]
) -> None:
    command("import time; print('waiting', flush=True); time.sleep(1000)")
    with pytest.raises(KernelError, match="did not start within 3 s") as caught:
        await sandbox(start_timeout=3.0)
    assert caught.value.message.endswith("waiting")


async def test_an_image_without_what_is_to_be_run_is_told_and_leaves_nothing(
    sandbox: Any, command: Callable[..., None], docker_client: Any
) -> None:
    command("", python="/none")
    with pytest.raises(DockerError, match=r"/none.*no such file"):
        await sandbox()
    owner = {"label": f"rlm-kernel.owner={os.getpid()}"}
    await until(lambda: not docker_client.containers.list(all=True, ignore_removed=True, filters=owner))
