"""A kernel that outlives its owner for a while: left, joined by another, at rest again, ended when nobody
comes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import engine_address
from rlm_kernel.sandbox import kernel as kernel_module
from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.session.running import discard
from tests.support.sandbox import Sandbox, until

Make = Callable[..., Sandbox]
_OWNER = """
import asyncio, sys
from tests.support.sandbox import Sandbox
from rlm_kernel.sandbox.image import find_image
from rlm_kernel.sandbox.docker_host import connect

async def silent(prompt):
    print("asked", flush=True)
    await asyncio.sleep(1000)

async def main():
    sandbox = Sandbox(find_image(connect(), None), llm=silent, idle=60)
    await sandbox.start()
    await sandbox.run("x = 41")
    print(sandbox.run_dir.path, flush=True)
    await sandbox.run("y = 1\\nllm_query('never answered')\\ny = 2")

asyncio.run(main())
"""


@pytest.fixture
async def made(kernel_image: ImageInfo) -> AsyncIterator[Make]:
    """Makes sandboxes, each in a folder of its own or in one that was left; nothing of them stays."""
    all_made: list[Sandbox] = []

    def make(folder: Path | None = None, **options: Any) -> Sandbox:
        run = RunDir.adopt(folder) if folder else None
        assert run is not None or folder is None
        all_made.append(Sandbox(kernel_image, run_dir=run, **{"idle": 60, **options}))
        return all_made[-1]

    yield make
    for sandbox in all_made:
        await sandbox.stop()
        await asyncio.to_thread(discard, sandbox.run_dir.path)


def running(docker_client: Any, name: str) -> bool:
    return bool(docker_client.containers.list(ignore_removed=True, filters={"name": name}))


async def test_a_kernel_that_was_left_is_as_it_was_for_the_next_owner(made: Make) -> None:
    first = made()
    await first.start()
    await first.run("x = 41; prompts = []")
    second = made(await first.leave())
    assert await second.join()
    assert await second.kernel.variables() == {"x": "int", "prompts": "list, 0 long"}
    assert await second.text("print(x + 1, llm_query('to the new owner'))") == "42 echo to the new owner"
    third = made(await second.leave())
    assert await third.join()
    assert await third.text("print(x)") == "41"


async def test_a_kernel_on_another_engine_is_told_and_not_given_up(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made()
    await first.start()
    await first.run("x = 41")
    second = made(await first.leave())
    assert second.run_dir.engine == engine_address.find().place
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(second.run_dir, "launches", 7)
        elsewhere.setattr(second.run_dir, "engine", "ssh://me@far")
        with pytest.raises(DockerError, match="is on the Docker engine at ssh://me@far") as caught:
            await second.join()
    assert "export DOCKER_HOST=ssh://me@far" in caught.value.hint
    third = made(await second.leave())
    assert await third.join()
    assert await third.text("print(x)") == "41"


async def test_after_its_owner_was_killed_in_a_cell_the_kernel_comes_to_rest(made: Make) -> None:
    sandbox = made(await asyncio.to_thread(_left_by_a_killed_owner))
    assert await sandbox.join()
    assert await sandbox.text("print(x, y)") == "41 1"


def _left_by_a_killed_owner() -> Path:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert owner.stdout.readline() == "asked\n"
        owner.kill()
    return folder


async def test_a_kernel_that_nobody_takes_over_ends_after_its_idle_time(
    made: Make, docker_client: Any
) -> None:
    sandbox = made(idle=6)  # longer than from one sign of life to the next
    await sandbox.start()
    ended = asyncio.create_task(
        asyncio.to_thread(docker_client.containers.get(sandbox.container).wait, condition="removed")
    )
    late = made(await _after(ended, sandbox))
    assert not await late.join()


async def _after(ended: asyncio.Task[Any], sandbox: Sandbox) -> Path:
    folder = await sandbox.leave()
    await asyncio.wait_for(ended, 30)
    return folder


async def test_a_kernel_that_does_not_come_to_rest_is_not_joined(
    made: Make, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "JOIN_SECONDS", 1.0)
    sandbox = made()
    await sandbox.start()
    # A thread that takes the interpreter for itself, once the cell that began it has ended: its call is
    # refused then.
    await sandbox.run(
        "import ctypes, threading, time\n"
        "def block():\n"
        "    while True:\n"
        "        try:\n"
        "            llm_query('is the cell still there?'); time.sleep(0.05)\n"
        "        except Exception:\n"
        "            ctypes.PyDLL(None).sleep(1000)\n"
        "threading.Thread(target=block, daemon=True).start()"
    )
    await until(lambda: sandbox.broker.refused["cell"] > 0)
    second = made(await sandbox.leave(), grace=0.5)
    assert not await second.join()
    await second.stop()
    assert not running(docker_client, second.container)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "fake", ["sock.sendall(os.urandom(100_000)); sock.close()", "held.append(sock)"], ids=["noise", "silence"]
)
async def test_what_has_taken_the_kernels_addresses_is_not_joined(
    made: Make, docker_client: Any, fake: str
) -> None:
    sandbox = made()
    await sandbox.start()
    ran = await sandbox.run(
        "import os, socket, threading\nheld = []\n"
        "def serve(listener):\n    while True:\n        sock, _ = listener.accept()\n"
        f"        try: {fake}\n        except OSError: pass\n"
        "for number in range(1, 6):\n    os.unlink(f'/rlm/run/k-{number}')\n    listener = "
        "socket.socket(socket.AF_UNIX)\n"
        "    listener.bind(f'/rlm/run/k-{number}')\n    listener.listen()\n"
        "    threading.Thread(target=serve, args=(listener,), daemon=True).start()"
    )
    assert ran.status == "ok", ran.outputs
    second = made(await sandbox.leave())
    assert not await second.join()
    await second.stop()
    assert not running(docker_client, second.container)
