"""What a server may spend, and how many kernels it has."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.errors import BudgetExceeded, UsageError
from rlm_kernel.mcpserver.budget import MAX_WAITING, Budget, Kernels


def test_questions_at_the_same_time_cannot_pass_the_total_together() -> None:
    budget = Budget(1.0)
    with budget.share(0.6) as first, budget.share(0.6) as second:
        assert first.limit == 0.6
        assert second.limit == pytest.approx(0.4)
        with pytest.raises(BudgetExceeded, match="set aside"), budget.share(0.1):
            pass
        first.spent = 0.5
    assert budget.spent == 0.5
    with budget.share(None) as rest:
        assert rest.limit == pytest.approx(0.5)


def test_without_a_total_each_question_has_its_own_limit() -> None:
    with Budget().share(None) as share:
        assert share.limit is None


def test_what_a_failed_question_has_spent_counts() -> None:
    budget = Budget(1.0)

    def fail() -> None:
        with budget.share(None) as share:
            share.spent = 0.25
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert budget.spent == 0.25


async def test_kernels_are_waited_for_and_sessions_are_refused() -> None:
    kernels = Kernels(1)
    kernels.take()
    with pytest.raises(UsageError, match="in use"):
        kernels.take()
    had = asyncio.Event()

    async def wait() -> None:
        async with kernels.one():
            had.set()

    waiting = [asyncio.create_task(wait()) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="wait for a kernel"):
        await wait()
    waiting[0].cancel()
    kernels.give()
    await asyncio.wait(waiting)
    assert had.is_set()
    kernels.take()
