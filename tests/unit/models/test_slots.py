"""Places for a model's calls: never more than allowed, fewer after refusals, none in a pause, none lost."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.models.slots import CUT, Slots


async def held(slots: Slots, number: int) -> list[asyncio.Task[None]]:
    """So many calls that want a place, and keep it until they are cancelled."""

    async def hold() -> None:
        async with slots:
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold()) for _ in range(number)]
    await rounds()
    return tasks


async def rounds(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_more_calls_than_allowed_and_in_order() -> None:
    slots, begun = Slots(2), []
    go = asyncio.Event()

    async def call(number: int) -> None:
        async with slots:
            begun.append(number)
            await go.wait()

    tasks = [asyncio.create_task(call(number)) for number in range(6)]
    await rounds()
    assert begun == [0, 1]
    go.set()
    await asyncio.gather(*tasks)
    assert begun == list(range(6))


async def test_a_refusal_leaves_seven_tenths_of_the_calls_in_flight_once_a_round() -> None:
    slots = Slots(100)
    tasks = await held(slots, 20)
    began = slots._clock()
    await asyncio.sleep(0.001)
    slots.refused(began, None)
    assert slots.limit == int(20 * CUT)
    slots.refused(began, None)
    assert slots.limit == int(20 * CUT), "it began before the cut, and tells nothing of the new number"
    slots.refused(slots._clock() + 1, None)
    assert slots.limit < int(20 * CUT)
    await ended(tasks)


async def test_successes_add_one_a_round_up_to_what_was_allowed() -> None:
    slots = Slots(8)
    async with slots as began:
        slots.refused(began, None)
    assert slots.limit == 1
    for rounds_of_calls in range(2, 20):
        for _ in range(slots.limit + 1):
            slots.succeeded()
        assert slots.limit >= min(8, rounds_of_calls)
    assert slots.limit == 8


async def test_there_is_always_one_place() -> None:
    slots = Slots(1)
    for _ in range(5):
        async with slots as began:
            slots.refused(began + 1, None)
    assert slots.limit == 1


async def test_no_call_begins_in_a_pause_and_all_do_after_it() -> None:
    slots = Slots(10)
    async with slots as began:
        slots.refused(began, 0.05)
    loop = asyncio.get_running_loop()
    paused = loop.time()

    async def call() -> float:
        async with slots:
            return loop.time()

    assert min(await asyncio.gather(*(call() for _ in range(30)))) - paused >= 0.045


async def test_a_waiting_call_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    slots = Slots(1)
    first, second, third = await held(slots, 3)
    second.cancel()
    first.cancel()
    await rounds()
    assert (slots._now, len(slots._waiting)) == (1, 0)
    await ended([third])
    assert slots._now == 0


async def test_a_call_cancelled_as_its_place_comes_leaves_it_to_the_next() -> None:
    slots = Slots(1)
    first, second, third = await held(slots, 3)
    first.cancel()
    await asyncio.sleep(0)  # the place is the second's now, who has not run yet
    second.cancel()
    await rounds()
    assert slots._now == 1
    await ended([third])


@given(
    st.integers(1, 6),
    st.lists(st.sampled_from(["ok", "refused", "pause", "cancel"]), max_size=40),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_every_call_gets_its_place(
    most: int, fates: list[str], order: random.Random
) -> None:
    slots, now, peak = Slots(most), 0, 0

    async def call(fate: str) -> None:
        nonlocal now, peak
        async with slots as began:
            now += 1
            peak = max(peak, now)
            try:
                for _ in range(order.randrange(3)):
                    await asyncio.sleep(0)
                if fate == "ok":
                    slots.succeeded()
                else:
                    slots.refused(began, 0.0001 if fate == "pause" else None)
            finally:
                now -= 1

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(call(fate)) for fate in fates]
        for task, fate in zip(tasks, fates, strict=True):
            await asyncio.sleep(0)
            if fate == "cancel":
                task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_of_them())
    assert peak <= most
    assert (slots._now, len(slots._waiting)) == (0, 0)


# Places that an owner gives


async def test_an_owner_says_at_any_time_how_many_of_the_places_there_are() -> None:
    slots = Slots(64)
    slots.allow(7)
    tasks = await held(slots, 20)
    assert (slots.in_use, slots.wanted, slots.limit) == (7, 20, 7)
    slots.allow(9)
    await rounds()
    assert slots.in_use == 9
    slots.allow(0)
    await ended(tasks[:9])
    assert (slots.in_use, slots.wanted) == (0, 11), "what was in progress went on, and none began"
    slots.allow(1000)
    assert slots.limit == 64, "never more than the settings say"
    await rounds()
    assert slots.in_use == 11
    await ended(tasks)


async def test_a_refusal_is_told_once_a_round_and_does_not_raise_what_an_owner_gave() -> None:
    slots, told = Slots(64), []
    slots.on_refusal = told.append
    slots.allow(4)
    async with slots as began:
        slots.refused(began, None)
        slots.refused(began, 0.01)
    assert told == [None]
    for _ in range(1000):
        slots.succeeded()
    assert slots.limit == 4


async def test_no_call_begins_while_an_owner_holds_them() -> None:
    slots = Slots(10)
    slots.hold(0.05)
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with slots:
        assert loop.time() - before >= 0.045
