"""When a worker of a cluster ends by itself: without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.session.batch import ray_files, ray_worker
from rlm_kernel.session.batch.item import Item
from rlm_kernel.session.batch.ray_worker import Order, Worker

RUN = "0123456789abcdef" * 2


class _Asker:
    """One whose answers take for ever."""

    places = 1

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.stopped = False

    async def ask(self, *_given: Any, **_named: Any) -> Any:
        self.asked.set()
        try:
            await asyncio.Future()
        finally:
            self.stopped = True


async def _here(work: Any, *given: Any) -> Any:
    return work(*given)


@pytest.fixture
async def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A worker that looks all the time whether it was asked something, and answers a question; `ended` is what
    its process ended with.
    """
    monkeypatch.setattr(ray_files.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_worker, "_LISTEN_SECONDS", 0)
    monkeypatch.setattr(asyncio, "to_thread", _here)
    ended: list[int] = []
    monkeypatch.setattr(ray_worker.os, "_exit", ended.append)
    worker, asker = Worker("holder", None), _Asker()
    worker._asker, worker._store = asker, ray_files.Store("holder")
    worker._stack.callback(worker._store.close)
    answering = asyncio.create_task(worker.answer(RUN, Order(Item("a", "?"), "a.ipynb")))
    await asker.asked.wait()
    listening = asyncio.create_task(worker._listen())
    yield SimpleNamespace(worker=worker, asker=asker, ended=ended, answering=answering, listening=listening)
    for task in (answering, listening):
        task.cancel()
    await asyncio.wait([answering, listening])
    await worker.close()


async def test_a_worker_whose_driver_is_silent_stops_its_questions_and_ends(busy: Any) -> None:
    await busy.listening
    assert busy.ended == [1]
    assert busy.asker.stopped
    assert not busy.worker._store.folder.exists()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not busy.answering.done()  # a reply would be taken for an answer


async def test_a_worker_whose_driver_asks_now_and_then_goes_on(busy: Any) -> None:
    for _ in range(20):
        for _ in range(ray_worker._SILENT - 2):
            await asyncio.sleep(0)
        await busy.worker.state()
    assert not busy.listening.done()
    assert not busy.asker.stopped
