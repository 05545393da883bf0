"""Many questions in one process, in real containers: a kernel for each, used once, and nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.config import load_settings
from rlm_kernel.errors import FileRefused, RLMError
from rlm_kernel.sandbox import containers, docker_host, room
from rlm_kernel.session.many import Asker
from rlm_kernel.session.result import Result
from tests.support.sandbox import until

MEMORY = "256m"
_FRESH = "```repl\nseen = 'mine' in globals()\nmine = 1\nFINAL(f'{seen} {context if context else None}')\n```"


def scripted(*replies: str, many: int = 1) -> ScriptedModels:
    return ScriptedModels([*replies] * many, str.upper)


@contextlib.asynccontextmanager
async def asking(models: ScriptedModels, **settings: Any) -> AsyncIterator[Asker]:
    chosen = {"sandbox.memory": MEMORY, **settings}
    async with Asker(load_settings(None, chosen), models=models) as asker:
        yield asker


@pytest.fixture
def left(kernel_image: Any, docker_client: Any) -> Any:
    """The names of this process's containers."""
    label = f"{containers.LABEL}.owner={os.getpid()}"

    def all_names() -> set[str]:
        found = docker_client.api.containers(all=True, filters={"label": label})
        return {name for one in found for name in one["Names"]}

    others = all_names()  # of tests before this one
    return lambda: sorted(all_names() - others)


async def test_each_question_has_a_kernel_that_no_other_had_and_nothing_is_left(
    left: Any, tmp_path: Path
) -> None:
    file = tmp_path / "f.txt"
    file.write_text("a file")
    given: list[Any] = [None, "a text", [file], {"a": "b"}, [tmp_path / "d"], "another"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in.txt").write_text("in a folder")
    async with asking(scripted(_FRESH, many=len(given))) as asker:
        assert asker.places >= 1
        asked = [
            asker.ask("What?", context, trace=tmp_path / f"{number}.ipynb")
            for number, context in enumerate(given)
        ]
        results = await asyncio.gather(*asked)
    answers = [str(result.answer) for result in results]
    assert all(answer.startswith("False ") for answer in answers), answers
    for answer, told in zip(
        answers, ["None", "a text", "a file", "'a': 'b'", "in a folder", "another"], strict=True
    ):
        assert told in answer
    assert all((tmp_path / f"{number}.ipynb").exists() for number in range(len(given)))
    assert left() == []


async def test_a_question_that_fails_and_one_that_is_given_up_harm_none(left: Any, tmp_path: Path) -> None:
    slow = "```repl\nimport time; time.sleep(1000)\n```"

    async with asking(scripted(slow)) as asker:
        hanging = asyncio.create_task(asker.ask("Wait", trace=tmp_path / "slow.ipynb"))
        await until(lambda: (tmp_path / "slow.ipynb").exists(), 60)
        with pytest.raises(FileRefused):
            await asker.ask("?", tmp_path / "not-there.txt", trace=tmp_path / "none.ipynb")
        hanging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hanging
    assert left() == []
    async with asking(scripted(_FRESH, many=4)) as asker:
        with pytest.raises(RLMError):
            await asker.ask("?", tmp_path / "not-there.txt", trace=tmp_path / "none.ipynb")
        with pytest.raises(RLMError):
            await asker.ask("?", trace=tmp_path / "no.ipynb", changes={"limits.turns": "many"})
        results = [await asker.ask("?", "x", trace=tmp_path / f"{n}.ipynb") for n in range(3)]
        assert [result.answer for result in results] == ["False x"] * 3
    assert left() == []


async def test_a_kernel_in_stock_that_dies_is_replaced(left: Any, docker_client: Any, tmp_path: Path) -> None:
    async with asking(scripted(_FRESH, many=2)) as asker:
        await until(lambda: bool(left()), 60)
        await asyncio.gather(*asker._stock._ready)
        for name in left():
            docker_client.containers.get(name.strip("/")).kill()
        result = await asker.ask("?", "x", trace=tmp_path / "t.ipynb")
        assert result.answer == "False x"
    assert left() == []


async def test_kernels_in_stock_are_given_up_for_a_command_that_waits(
    left: Any, docker_client: Any, tmp_path: Path
) -> None:
    async with asking(scripted(_FRESH)) as asker:
        await asyncio.gather(*asker._stock._ready)
        assert left()
        folder = room._line_of(docker_client.api.base_url)
        folder.mkdir(mode=0o700, exist_ok=True)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:  # noqa: ASYNC220
            ticket = folder / f"{time.time_ns() - 20 * 10**9:020}-{other.pid}-1"
            ticket.touch()
            await until(lambda: not left(), 60)
            other.kill()
        ticket.unlink(missing_ok=True)
        result = await asker.ask("?", "x", trace=tmp_path / "t.ipynb")
        assert result.answer == "False x"
    assert left() == []


async def test_what_is_changed_for_one_question_is_so_for_no_other(left: Any, tmp_path: Path) -> None:
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
    read = f"```repl\nimport os\nFINAL(open(next(filter(os.path.exists, {limit}))).read())\n```"
    async with asking(scripted("```repl\nprint(1)\n```", many=3)) as asker:
        result = await asker.ask("?", trace=tmp_path / "1.ipynb", changes={"limits.turns": 1})
        assert (result.answer, result.stop_reason) == (None, "turns")
    async with asking(scripted(read, many=2)) as asker:
        limited = await asker.ask("?", trace=tmp_path / "2.ipynb", changes={"sandbox.memory": "300m"})
        usual = await asker.ask("?", trace=tmp_path / "3.ipynb")
    assert int(str(limited.answer)) == 300 << 20
    assert int(str(usual.answer)) == 256 << 20
    assert left() == []


async def test_thirty_at_once_without_an_asker_pass_no_memory_and_leave_nothing(
    left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = _room_for(monkeypatch, 4)
    rlm = RLM(models=scripted(_FRESH, many=30), options={"sandbox.memory": MEMORY})
    results = await asyncio.gather(
        *(rlm.aask("?", str(number), trace=tmp_path / f"{number}.ipynb") for number in range(30))
    )
    assert sorted(int(str(result.answer).split()[1]) for result in results) == list(range(30))
    assert 0 < max(most) <= 4
    assert left() == []


async def test_thirty_at_once_that_are_given_up_leave_nothing(
    left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _room_for(monkeypatch, 4)
    rlm = RLM(models=scripted(_FRESH, many=30), options={"sandbox.memory": MEMORY})
    tasks = [
        asyncio.create_task(rlm.aask("?", str(number), trace=tmp_path / f"{number}.ipynb"))
        for number in range(30)
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError | Result) for one in ended), ended
    await until(lambda: left() == [], 30)


def _room_for(monkeypatch: pytest.MonkeyPatch, kernels: int) -> list[int]:
    """Have room for so many kernels of this process, whoever else has some; how many there were, at each
    look.
    """
    seen: list[int] = []
    facts = docker_host.Facts(
        rootless=False, podman=False, cpus=None, memory=int((kernels << 28) / room.SHARE) + 8, here=False
    )

    def connect(**known: bool) -> Any:
        client = docker_host.connect(**known)
        usual = client.api.containers

        def ours(**options: Any) -> list[Any]:
            mine = f"{containers.LABEL}.owner={os.getpid()}"
            found: list[Any] = usual(**options | {"filters": {"label": mine}})
            # One that has ended takes no memory while it waits for its removal.
            seen.append(sum(one["State"] in room._STATES for one in found))
            return found

        monkeypatch.setattr(client.api, "containers", ours)
        return client

    monkeypatch.setattr(room, "connect", connect)
    monkeypatch.setattr(room, "engine_facts", lambda _client: facts)
    return seen
