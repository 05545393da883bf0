"""The places of one model over several processes: never more calls than places, and each has its share."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_kernel.models.shared_slots import SharedSlots
from rlm_kernel.models.slots import CUT


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """Has calls in progress up to what it was given last, and asks for places as it wants them."""

    def __init__(self, shared: SharedSlots, name: str) -> None:
        self.shared, self.name = shared, name
        self.allowed = self.in_use = self.waiting = 0
        self.answer: int | None = None

    def want(self, more: int) -> None:
        self.waiting += more
        self.begin()

    def begin(self) -> None:
        begun = max(0, min(self.waiting, self.allowed - self.in_use))
        self.in_use, self.waiting = self.in_use + begun, self.waiting - begun

    def end(self, number: int) -> None:
        self.in_use -= min(number, self.in_use)
        self.begin()

    def ask(self) -> None:
        """The answer is on its way; what the last one said holds until it is here."""
        self.hear()
        self.answer, _ = self.shared.ask(self.name, self.in_use + self.waiting, self.in_use)

    def hear(self) -> None:
        if self.answer is not None:
            self.allowed, self.answer = self.answer, None
        self.begin()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "end", "ask", "ask", "hear", "die"]), st.integers(0, 4), st.integers(0, 9)
    ),
    max_size=120,
)


@example(most=1, steps=[("want", 0, 3), ("want", 1, 1)])  # fewer places than processes that want one
@given(st.integers(1, 12), STEPS)
def test_there_are_never_more_calls_than_places_however_late_answers_come(
    most: int, steps: list[tuple[str, int, int]]
) -> None:
    shared = SharedSlots(most)
    processes = {name: Process(shared, str(name)) for name in range(5)}
    for number, (what, which, amount) in enumerate(steps):
        process = processes[which]
        match what:
            case "want":
                process.want(amount)
            case "end":
                process.end(amount)
            case "ask":
                process.ask()
            case "hear":
                process.hear()
            case "die":
                shared.forget(process.name)
                processes[which] = Process(shared, f"{which}-{number}")
        assert sum(one.in_use for one in processes.values()) <= most
    # All have what they want in the end, if each asks from time to time and calls come to their end.
    for _ in range(sum(one.waiting + one.in_use for one in processes.values()) + 10):
        for process in processes.values():
            process.ask()
            process.hear()
            process.end(1)
    assert not any(one.waiting or one.in_use for one in processes.values())


def settled(shared: SharedSlots, **wanted: int) -> dict[str, int]:
    """What each has after some rounds of asking, with as many calls in progress as it may have."""
    given = dict.fromkeys(wanted, 0)
    for _ in range(4):
        for name, number in wanted.items():
            given[name], _ = shared.ask(name, number, min(number, given[name]))
    return given


def test_those_who_want_much_share_what_the_others_leave() -> None:
    assert settled(SharedSlots(64), a=100, b=100, c=4) == {"a": 30, "b": 30, "c": 4}
    assert settled(SharedSlots(64), a=10, b=0) == {"a": 11, "b": 1}, "one ahead, where some are left"
    assert settled(SharedSlots(11), a=10, b=0, c=0) == {"a": 11, "b": 0, "c": 0}
    assert settled(SharedSlots(4), a=0, b=0, c=0, d=0, e=30) == {"a": 0, "b": 0, "c": 0, "d": 0, "e": 4}
    assert sum(settled(SharedSlots(7), **{f"p{n}": 3 for n in range(20)}).values()) == 7


def test_no_place_is_left_over_where_more_are_wanted() -> None:
    assert sorted(settled(SharedSlots(9), a=1, b=3, c=3, d=3).values()) == [1, 2, 3, 3]


def test_a_process_that_comes_later_gets_its_share_when_the_others_have_heard_of_theirs() -> None:
    shared = SharedSlots(10)
    assert settled(shared, a=20) == {"a": 10}
    assert shared.ask("b", 20, 0) == (0, 0.0)
    assert shared.ask("a", 20, 10) == (5, 0.0)
    assert shared.ask("b", 20, 0) == (0, 0.0), "it may not have heard yet"
    assert shared.ask("a", 20, 5) == (5, 0.0)
    assert shared.ask("b", 20, 0) == (5, 0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(1, 30))
def test_where_more_want_a_place_than_there_are_places_each_has_its_turn(
    most: int, many: int, ticks: int
) -> None:
    """Each process has calls without end, of `ticks` fifths of a second, and asks five times a second."""
    clock = Clock()
    shared = SharedSlots(most, clock=clock)
    processes = [Process(shared, str(number)) for number in range(many)]
    ends: dict[Process, list[int]] = {one: [] for one in processes}
    done = dict.fromkeys(processes, 0)
    seconds = 400
    for tick in range(5 * seconds):
        clock.now = tick / 5
        for one in processes:
            ready = sum(end <= tick for end in ends[one])
            ends[one] = [end for end in ends[one] if end > tick]
            done[one] += ready
            before = one.in_use - ready
            one.want(3 - one.waiting)
            one.end(ready)
            one.ask()
            one.hear()
            ends[one] += [tick + ticks] * (one.in_use - before)
        assert sum(one.in_use for one in processes) <= most
    possible = 5 * seconds * most / ticks
    assert sum(done.values()) >= 0.7 * possible
    assert min(done.values()) >= 0.4 * max(done.values()), done


def test_nobody_waits_for_a_process_that_asks_no_more() -> None:
    clock = Clock()
    shared = SharedSlots(1, clock=clock)
    assert shared.ask("a", 5, 0) == (1, 0.0)
    assert shared.ask("b", 5, 0) == (0, 0.0)  # and is never heard of again
    clock.now = 30.0
    assert shared.ask("a", 5, 1) == (1, 0.0)


def test_the_places_of_a_process_that_is_gone_are_free() -> None:
    shared = SharedSlots(10)
    settled(shared, a=20)
    for _ in range(2):
        shared.forget("a")
    assert shared.ask("b", 20, 0) == (10, 0.0)


def test_a_refusal_of_one_cuts_the_places_of_all_once_a_round_and_they_grow_again() -> None:
    clock = Clock()
    shared = SharedSlots(100, clock=clock)
    settled(shared, a=10, b=10)
    for _ in range(5):
        shared.refused()
    assert shared.limit == int(20 * CUT)
    assert settled(shared, a=10, b=10) == {"a": 7, "b": 7}
    clock.now = 4.5
    settled(shared, a=10, b=10)
    assert shared.limit == 18
    clock.now = 1000
    settled(shared, a=100)
    assert shared.limit == 100


def test_all_hold_their_calls_for_as_long_as_the_provider_says() -> None:
    clock = Clock()
    shared = SharedSlots(10, clock=clock)
    shared.refused(30.0)
    shared.refused(5.0)
    clock.now = 10.0
    assert shared.ask("other", 1, 0)[1] == 20.0
    clock.now = 31.0
    assert shared.ask("other", 1, 0)[1] == 0.0
