"""Child RLMs, as far as they come without a container."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.prompts import load_profile
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox.child_input import ChildInput
from rlm_kernel.session import answering
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.environment import Host
from rlm_kernel.session.models import ModelSet
from rlm_kernel.views.live import LiveView


class Kernels:
    """In place of `session.pool.KernelPool`: kernels without files, with which nothing is to be done."""

    taken = 0

    @asynccontextmanager
    async def kernel(self, *_: Any) -> AsyncIterator[Any]:
        self.taken += 1
        grants = SimpleNamespace(paths=[], places=dict)
        image = SimpleNamespace(tag="t", id="i")
        yield SimpleNamespace(
            environment=SimpleNamespace(host=Host(load_settings(None)), run=RUN, image=image, grants=grants)
        )


RUN = SimpleNamespace(session_id="abcd1234")


class Parent:
    """An RLM that asks for children; `begun` are their traces as it heard of them."""

    def __init__(self, folder: Path) -> None:
        self.kernels: Any = Kernels()
        self.begun: list[str] = []
        self.view = LiveView(quiet=True)
        names: Any = {"root": "scripted/root", "sub": "scripted/sub"}
        family = Family(ModelSet(ScriptedModels([]), names, load_profile("default")), self.kernels)
        on: Any = SimpleNamespace(run=RUN)
        self.children = Children(on, folder / "trace.ipynb", family, self.view)

    async def ask(self, handed: ChildInput) -> Any:
        ledger = Ledger(Limits(depth=1)).child()
        return await self.children.ask(
            "Q", handed, None, name="turn-01-a", ledger=ledger, begun=self.begun.append
        )


async def test_a_child_that_is_cut_off_before_it_has_a_trace_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        looking.set()
        go_on.wait(10)
        return []

    monkeypatch.setattr(answering, "metas_of", slow)
    parent = Parent(tmp_path)
    asking = asyncio.create_task(parent.ask(ChildInput()))
    await asyncio.to_thread(looking.wait, 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    assert (parent.begun, list(parent.view.children)) == ([], []), "nobody would hear of its end"


async def test_a_child_whose_trace_cannot_be_written_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "trace.children").write_text("in the way")
    parent = Parent(tmp_path)
    with pytest.raises(TraceError):
        await parent.ask(ChildInput())
    assert (parent.begun, list(parent.view.children)) == ([], [])


async def test_what_is_too_much_is_refused_and_leaves_room_for_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_COPIED", 10)
    parent = Parent(tmp_path)
    monkeypatch.setattr(parent.children, "_inputs", fail(LookupError()))
    for size, error in ((11, UsageError), (10, LookupError), (1, UsageError)):
        with pytest.raises(error):
            await parent.ask(ChildInput("digest", size, (), "text"))
    assert parent.kernels.taken == 1


def fail(error: Exception) -> Callable[..., Any]:
    async def raises(*_: Any) -> Any:
        raise error

    return raises
