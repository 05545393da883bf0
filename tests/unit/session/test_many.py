"""The places of many questions: taken in order, given back whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.errors import UsageError
from rlm_kernel.session import many
from rlm_kernel.session.many import Asker, _are_many, _Seats


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_places_are_taken_in_the_order_in_which_they_are_asked_for() -> None:
    seats, order = _Seats(), []
    seats.have(2)

    async def one(number: int) -> None:
        await seats.take()
        order.append(number)

    waiting = [asyncio.create_task(one(number)) for number in range(6)]
    await settle()
    assert order == [0, 1]
    seats.free()
    await settle()
    assert order == [0, 1, 2]
    seats.have(4)
    await settle()
    assert order == [0, 1, 2, 3, 4]
    seats.have(1)  # nobody is sent away
    for _ in range(3):
        seats.free()
        await settle()
    assert (order, seats.taken) == ([0, 1, 2, 3, 4], 1)
    seats.free()
    await asyncio.gather(*waiting)
    assert order == list(range(6))


@pytest.mark.parametrize("given", [False, True])
async def test_who_gives_up_keeps_no_place(given: bool) -> None:
    seats = _Seats()
    await seats.take()
    waiting = asyncio.create_task(seats.take())
    await settle()
    if given:
        seats.free()  # at the same moment
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not given:
        seats.free()
    await asyncio.wait_for(seats.take(), 1)
    assert seats.taken == 1


def test_what_a_kernel_that_runs_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_LATE_BYTES", 10)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text("x" * 5)
    large.write_text("x" * 11)
    assert not _are_many([])
    assert not _are_many([small, small])
    assert _are_many([small] * 21)
    assert _are_many([large])
    assert _are_many([tmp_path])


async def test_an_asker_that_was_not_entered_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was not entered"):
        await Asker(load_settings(None)).ask("Why?", trace=tmp_path / "t.ipynb")
