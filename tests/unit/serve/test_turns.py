"""Turns are fair, bounded, and given back however their owners end."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.serve.refusals import Refused
from rlm_kernel.serve.turns import Turns


async def test_one_who_asks_much_does_not_keep_others_waiting() -> None:
    turns, order = Turns(1, 10), list[str]()

    async def take(key: str) -> None:
        async with turns.turn(key):
            order.append(key)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(key) for key in ("a", "a", "a", "a", "b")))
    assert order.index("b") <= 2
    assert turns.taken == 0


async def test_a_client_has_no_more_turns_than_it_may_and_others_go_past_it() -> None:
    turns, done = Turns(3, 10), asyncio.Event()
    now: set[str] = set()

    async def take(key: str, number: int) -> None:
        async with turns.turn(key, 1 if key == "a" else None):
            now.add(f"{key}{number}")
            await done.wait()

    tasks = [asyncio.create_task(take(key, at)) for at, key in enumerate("aaabb")]
    for _ in range(3):
        await asyncio.sleep(0)
    assert now == {"a0", "b3", "b4"}
    done.set()
    await asyncio.gather(*tasks)
    assert len(now) == 5


async def test_who_leaves_the_line_gives_its_place_to_the_next() -> None:
    turns, places = Turns(1, 10), list[int]()
    async with turns.turn("a"):
        second = asyncio.create_task(_take(turns, "b"))
        await asyncio.sleep(0)
        third = asyncio.create_task(_take(turns, "c", places.append))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        assert places == [2, 1]
    await third
    assert turns.taken == 0


async def _take(turns: Turns, key: str, hear: object = None) -> None:
    async with turns.turn(key, None, hear or (lambda _: None)):  # type: ignore[arg-type]
        pass


async def test_a_turn_that_comes_as_its_owner_leaves_is_not_lost() -> None:
    turns = Turns(1, 10)
    for _ in range(20):
        async with turns.turn("a"):
            other = asyncio.create_task(_take(turns, "b"))
            await asyncio.sleep(0)
        other.cancel()
        await asyncio.wait({other})
        assert turns.taken == 0


async def test_no_client_has_more_than_half_of_the_places() -> None:
    turns = Turns(1, 3, shared=True)
    async with turns.entered("a"), turns.entered("a"):
        with pytest.raises(Refused) as refused:
            async with turns.entered("a"):
                pass
        assert refused.value.status == 429
        async with turns.entered("b"):
            assert turns.inside == 3
    assert turns.inside == 0


async def test_a_full_server_lends_a_place_for_each_run_that_waits_for_another_attempt_and_to_its_key_alone() -> (
    None
):
    turns = Turns(1, 3, shared=True)
    async with turns.entered("a"), turns.entered("a"), turns.entered("b"), turns.entered("b"):
        async with turns.entered("a", held=1) as place:
            assert place.lent
            for key, held in (("a", 1), ("b", 0)):
                with pytest.raises(Refused):
                    async with turns.entered(key, held=held):
                        pass
            assert turns.inside == 4
        async with turns.entered("a", held=1) as place:
            turns.keep(place)
            assert turns.inside == 5, "until the run's first attempt has left"
    assert turns.inside == 0
    async with turns.entered("a", held=1) as place:
        assert not place.lent
