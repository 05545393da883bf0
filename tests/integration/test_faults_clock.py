"""The machine's clock is put forward or back by a day while a run goes on."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, CALLS, MODELS, TEXT, Script, answered, sound
from tests.support.model_server import ModelServer
from tests.support.tree import containers

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.hostile]
DAY = 86_400.0


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts this process's wall clock forward by so many seconds; the machine's stays as it is."""
    ahead, real = 0.0, time.time

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=ahead)

    def forward(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    for name in (
        "session.ask",
        "session.resume",
        "sandbox.kernel",
        "sandbox.cleanup",
        "models.cache",
        "models.litellm_models",
    ):
        importlib.import_module(f"rlm_kernel.{name}")
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    for name, module in list(sys.modules.items()):
        if name.startswith("rlm_kernel.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Moved)
    return forward


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
@pytest.mark.parametrize("moment", [("root", 1), ("sub", 3), ("sub", 10), ("root", 5)])
def test_a_jump_of_the_clock_changes_nothing(
    rlm: Rlm,
    script: Script,
    openai_env: ModelServer,
    put: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    moment: tuple[str, int],
    jump: float,
) -> None:
    """Not the limits in seconds, nor waits for a rate limit, the lease, the cache or the account."""
    monkeypatch.setenv("RLM_SUB_LLM__TEMPERATURE", "0")
    Path("in.txt").write_text(TEXT)
    script.faults[moment] = lambda: (put(jump), openai_env.fail("rate_limit", retry_after="1", model="sub"))
    options = ("--timeout", "100", "--cache", "--json")
    done = rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", "t.ipynb", *options)
    assert (done.returncode, answered(done.stdout)) == (0, ANSWER), done.stderr
    assert script.asked == CALLS
    trace = sound(Path("t.ipynb"))
    assert trace.meta.totals is not None
    metas = [cell.meta for cell in trace.cells if cell.meta]
    assert all(
        0 <= seconds < 60 for seconds in (trace.meta.totals.seconds, *(meta.seconds or 0 for meta in metas))
    )
    assert all(0 <= call.seconds < 60 for meta in metas for call in meta.calls)
    assert containers(os.getpid()) == []
    put(-2 * jump)
    again = rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", "u.ipynb", *options)
    assert (again.returncode, answered(again.stdout)) == (0, ANSWER), again.stderr
    assert (script.asked - CALLS)["sub", 0] == 0, "answered by the cache"
    assert rlm("replay", "t.ipynb").returncode == 0
