"""Faults around a run, injected into real ones: it ends in words that a person understands, its trace is whole, and what can go on does."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import ANSWER, CALLS, MODELS, TEXT, Command, Script, answered, gone, kill, sound
from tests.support.tree import short_folder

pytestmark = pytest.mark.xdist_group("faults")
UNWRITTEN = 1.5
"""Seconds before a kill in which an answer may have come that is not in the trace: progress is saved twice a second."""


@pytest.fixture
def runtime() -> Iterator[str]:
    with short_folder() as folder:
        yield folder


class Kills:
    """Runs that are killed by SIGKILL, and then resumed."""

    def __init__(self, place: Path, runtime: str, script: Script) -> None:
        self._place = place
        self._runtime = runtime
        self._script = script
        self._text = place / "in.txt"
        self._text.write_text(TEXT)
        self.never_started = 0
        """Containers that were made when their owner was killed. They do not run; `rlm gc` removes them."""

    def begin(self, name: str) -> tuple[Command, BaseProcess, float]:
        folder = self._place / name
        folder.mkdir()
        command = Command(folder, self._runtime)
        began = time.monotonic()
        process = command.start("ask", f"{name} How long is it?", "-f", str(self._text), *MODELS, "--trace", "t.ipynb", "--json")
        return command, process, began

    def pace(self, at_once: int) -> list[float]:
        """Seconds from a run's begin to each of its requests, and to its end, with others at its side."""
        with ThreadPoolExecutor(at_once) as pool:
            Command(self._place, self._runtime).run("--help")  # whatever is imported once
            paces = list(pool.map(self._whole, [f"RUN{number}" for number in range(9000, 9000 + at_once)]))
        return [sorted(times)[at_once // 2] for times in zip(*paces, strict=True)]

    def _whole(self, name: str) -> list[float]:
        command, process, began = self.begin(name)
        process.join(110)
        assert process.exitcode == 0, command.err
        assert answered(command.out) == ANSWER
        asked = self._script.of(name)
        assert Counter((one.role, one.level) for one in asked) == CALLS
        return [*(one.at - began for one in asked), time.monotonic() - began]

    def killed(self, name: str, after: int, seconds: float) -> str:
        """Kill a run so many seconds after its nth request came (0: after its begin), and resume it. What its trace ended with."""
        command, process, began = self.begin(name)
        while len(self._script.of(name)) < after and process.is_alive():
            time.sleep(0.005)
        last = self._script.of(name)[after - 1].at if after else began
        process.join(max(0.0, last + seconds - time.monotonic()))
        died = time.monotonic()
        kill(process)
        pid = process.pid
        assert pid is not None
        self.never_started += gone(pid)
        if process.exitcode == 0:
            return "over"
        trace = command.folder / "t.ipynb"
        if not trace.exists():
            return "before the trace"
        before = sound(trace)
        if before.meta.status == "finished":
            return "closed"
        lost = self._lost(name, before, died)
        assert command.run("resume", "t.ipynb", "--json") == 0, (name, after, seconds, command.err)
        assert answered(command.out) == ANSWER, (name, after, seconds)
        after_all = sound(trace)
        assert (after_all.meta.status, after_all.meta.stop_reason) == ("finished", "answered")
        asked = Counter((one.role, one.level) for one in self._script.of(name))
        assert asked == CALLS + lost, (name, after, seconds, lost)
        assert {path.name for path in command.folder.iterdir()} <= {"out", "err", "t.ipynb", "t.children"}
        return before.cells[-1].id

    def _lost(self, name: str, trace: Any, died: float) -> Counter[tuple[str, int]]:
        """The requests that will be made again: those under way at the kill, or answered so shortly before that the trace has it not."""
        asked = self._script.of(name)
        calls = [call for cell in trace.cells if cell.meta for call in cell.meta.calls]
        known = Counter({("root", 0): sum(cell.kind == "model" for cell in trace.cells)})
        known["sub", 0] = sum(call.kind == "llm_query" for call in calls)
        whole_child = any(call.trace and call.error is None for call in calls)
        for key in (("root", 1), ("sub", 1)):
            known[key] = CALLS[key] if whole_child else 0  # a child that was cut off begins anew
        lost = Counter((one.role, one.level) for one in asked) - known
        for role, level in lost:
            if level == 0:
                mine = [one for one in asked if (one.role, one.level) == (role, level)]
                old = [one for one in mine if one.answered and one.answered < died - UNWRITTEN]
                assert len(mine) - lost[role, level] >= len(old), f"{name}: paid for, and not in the trace"
        return lost


def moments(pace: Sequence[float], number: int, seed: int = 6) -> list[tuple[int, float]]:
    """Moments spread evenly over a run, each as so many seconds after its nth request: runs are not all as quick as each other."""
    chance = random.Random(seed)
    found = []
    for n in range(number):
        moment = pace[-1] * (n + chance.random()) / number
        after = sum(at <= moment for at in pace[:-1])
        found.append((after, moment - (pace[after - 1] if after else 0.0)))
    return found


def kill_at(moments: Sequence[tuple[int, float]], kills: Kills, at_once: int) -> Counter[str]:
    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(lambda one: kills.killed(f"RUN{one[0]}", *one[1]), enumerate(moments)))


@pytest.mark.hostile
@pytest.mark.timeout(900)
def test_sigkill_of_the_command_at_a_hundred_moments(kernel_image: Any, script: Script, runtime: str, tmp_path: Path) -> None:
    kills = Kills(tmp_path, runtime, script)
    pace = kills.pace(4)
    ended = kill_at(moments(pace, 100), kills, 4)
    print(f"\nkilled within {pace[-1]:.1f} s, at:", dict(ended), "- containers never started:", kills.never_started)
    assert ended["over"] + ended["closed"] < 20
    assert len(ended) >= 6, "spread over the run"


def test_sigkill_of_the_command_at_some_moments(kernel_image: Any, script: Script, runtime: str, tmp_path: Path) -> None:
    kills = Kills(tmp_path, runtime, script)
    # As the trace begins, in a batch, with a child at work.
    ended = kill_at([(1, 0.0), (6, 0.0), (13, 0.0)], kills, 3)
    assert ended["over"] + ended["closed"] + ended["before the trace"] == 0
