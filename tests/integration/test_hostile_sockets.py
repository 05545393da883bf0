"""Code in the container attacks the host by the sockets between them: the host's memory stays bounded, and
the session answers.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.protocols import HostCall
from tests.support.hostile_sockets import BROKER, FOLDER, JUPYTER, TOOLS

MOST = 200 << 20
"""Bytes of memory that an attack may cost the host."""
QUICK_BROKER = [
    "any bytes",
    "bytes changed at random",
    "requests of any size",
    "requests without end",
    "names of other cells",
    "nested and growing bodies",
    "replies that nobody reads",
]
QUICK_JUPYTER = [
    "faked replies and states",
    "wrong keys, large signatures, other versions",
    "outputs that grow",
]


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Watch:
    """Samples this process's memory, from when it is made."""

    def __init__(self) -> None:
        self.start = self.peak = memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, memory())

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self.peak - self.start


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    try:
        yield watch
    finally:
        watch.end()


class Attacked:
    """A session that is attacked. `held` has a line for each attack."""

    def __init__(self, box: Any, watch: Watch, seconds: float) -> None:
        self.box = box
        self.watch = watch
        self.seconds = seconds
        self.held: list[str] = []
        box.broker.handlers["llm_query"] = self._answer
        box.broker.handlers["final"] = self._answer
        box.kernel._tell = lambda _event: None

    async def _answer(self, call: HostCall) -> Any:
        text = call.body.get("prompt", "")
        await asyncio.sleep(0)
        return text if isinstance(text, str) and text.startswith("echo") else "ok"

    async def survives(self, name: str, code: str, seed: int) -> None:
        """Attack, and then use the session."""
        self.watch.peak = memory()
        tools = TOOLS.replace("SEED", str(seed))
        code = code.replace("SECONDS", f"{self.seconds}").replace("SEED", str(seed))
        started = time.monotonic()
        attack = await self.box.run(f"{tools}\n{code}\nprint('tries', count)")
        text = "".join(str(output.get("text", "")) for output in attack.outputs)
        tries = text.rpartition("tries ")[2].split("\n")[0][:10] if "tries " in text else "?"
        seconds = time.monotonic() - started
        # What it left may need a cell to be noticed.
        answer = ""
        for _ in range(3):
            answer = await self.box.text(
                "print(1 + 1, llm_query('echo still there'), len(llm_query_batched(['x'] * 100)))"
            )
            if "2 echo still there 100" in answer:
                break
        grown = max(0, self.watch.grown >> 20)
        self.held.append(f"{name:<45} {tries:>7} tries {seconds:5.1f} s  {attack.status:<8} +{grown} MB")
        assert "2 echo still there 100" in answer, (name, seed, answer, attack.outputs)
        assert self.watch.grown < MOST, (name, seed, grown)
        if attack.status == "error":
            assert "Traceback" not in str(attack.outputs), (name, attack.outputs)


@pytest.fixture
async def attacked(sandbox: Any, request: pytest.FixtureRequest) -> Any:
    seconds = 5 if request.node.get_closest_marker("hostile") else 1
    box = await sandbox(cell_timeout=30 if seconds > 1 else 10, grace=2, pids=512)
    await box.text("print(llm_query('echo warm'))")
    with watched() as watch:
        session = Attacked(box, watch, seconds)
        yield session
    print("\n" + "\n".join(session.held) + f"\nrefused: {dict(box.broker.refused)}")


@pytest.mark.hostile
async def test_floods_and_malformed_messages_on_the_broker(attacked: Attacked) -> None:
    for seed, name in enumerate(QUICK_BROKER):
        await attacked.survives(name, BROKER[name], seed)
    assert not attacked.box.broker._tasks
    assert attacked.box.broker._bytes == 0


async def test_floods_and_malformed_messages_on_the_jupyter_sockets(attacked: Attacked) -> None:
    for seed, name in enumerate(QUICK_JUPYTER):
        await attacked.survives(name, JUPYTER[name], seed)


async def test_code_that_floods_takes_fills_and_empties_the_folder_of_its_sockets_harms_itself_alone(
    attacked: Attacked,
) -> None:
    for seed, name in enumerate(FOLDER):
        await attacked.survives(name, FOLDER[name], seed)
    box = attacked.box
    told = await box.text(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "try: ThreadPoolExecutor(1).submit(llm_query, 'by a new connection').result()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert "the host cannot be reached: " in told
    assert (await box.run("import os; os._exit(1)")).status == "died"
    assert await box.text("print(llm_query('echo next'))") == "echo next"


async def test_an_error_too_large_to_be_sent_ends_its_cell_all_the_same(sandbox: Any) -> None:
    box = await sandbox()
    started = time.monotonic()
    result = await box.run("raise ValueError('x' * 9 * 1024 * 1024)")
    assert result.status == "error"
    assert time.monotonic() - started < 10
    assert await box.text("print('next')") == "next"


async def test_a_kernel_that_closes_its_connections_is_replaced_and_the_model_told(sandbox: Any) -> None:
    box = await sandbox()
    await box.run("kept = 5")
    result = await box.run(f"{TOOLS.replace('SEED', '0')}\n{JUPYTER['its own sockets, closed']}")
    assert result.status == "died"
    assert "code in it closed its connection to the host" in result.notices[0]
    assert "kept" in result.notices[0]
    assert await box.text("print(llm_query('next'))") == "echo next"


@pytest.mark.hostile
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("attacks", "seed"), [(BROKER, 1), (JUPYTER, 2)], ids=["broker", "jupyter"])
async def test_every_attack_on_the_sockets_in_any_order(
    attacked: Attacked, attacks: dict[str, str], seed: int
) -> None:
    names = list(attacks)
    random.Random(seed).shuffle(names)
    for number, name in enumerate(names):
        await attacked.survives(name, attacks[name], 100 * seed + number)
