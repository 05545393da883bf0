"""Many host calls at once, and what is left of them when they are cut off: the list `partial_results`.

A batch's results are such a list from the beginning: in place of an answer that is not there yet it has a
falsy CallFailed. So whatever ends the batch (a time-out, a limit, an interrupt, an exception), nothing that
came is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from rlm_contract import Partial, Reply

from rlm_runtime import wire
from rlm_runtime.wire import CallFailed, HostCallError

TOGETHER = 1 << 20
"""Bytes of requests that are sent together, about."""
NO_ANSWER = CallFailed(wire.Cancelled("there was no answer when the batch was cut off"))
"""Stands in the results for what has not come yet."""


class Item(NamedTuple):
    """One call of a batch; `same` as of `wire.request`.

    In place of a body an error, if there can be none: the item alone fails.
    """

    body: Mapping[str, Any] | HostCallError
    same: object = None


class Deadline:
    """When the time-out of a batch is over: it stands still while the user is asked whether calls may be
    made.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._asking = wire.asking

    def left(self) -> float | None:
        """Seconds until then, less than 0 after it; None where there is none."""
        if self._end is None:
            return None
        return self._end + (wire.asking - self._asking) - time.monotonic()

    def pass_now(self) -> None:
        """If there is one, it is over."""
        if self._end is not None:
            self._end = float("-inf")


class _Left(NamedTuple):
    """Of a batch that was cut off: its cell, and its results, which may still grow."""

    cell: str
    results: list[Any]

    def told(self) -> Partial:
        """What the host is told of it."""
        answers = sum(not isinstance(result, CallFailed) for result in self.results)
        by_limit = any(isinstance(_error(result), wire.BudgetExceeded) for result in self.results)
        return self.cell, answers, len(self.results), by_limit


_left: list[_Left] = []
"""The last one, if there is any."""
_untold: list[_Left] = []
"""The same, as long as the host is not told of it."""
_followers: list[Callable[[list[Any]], None]] = []


def on_cut_off(follower: Callable[[list[Any]], None]) -> None:
    """Have a function called with the results of each batch that is cut off."""
    _followers.append(follower)


def _leave(results: list[Any]) -> None:
    if len(results) > 1:
        _left[:] = _untold[:] = [_Left(wire.current_cell, results)]
        for follower in _followers:
            follower(results)


def begin_cell() -> None:
    """A cell starts."""
    _gathered.clear()


def end_cell() -> None:
    """A cell ends: the host, and by it the model, is told that a batch was cut off."""
    for group in list(_gathered.values()):
        if group.pending:
            _leave(group.results)
    if _untold:
        with contextlib.suppress(HostCallError):
            wire.call("cut_off", {"partial": _untold.pop().told()})


def described(variables: Mapping[str, Any]) -> Partial | None:
    """The same of the one that was cut off last; None where the variable has become another's."""
    for left in _left:
        if variables.get("partial_results") is left.results:
            return left.told()
    return None


def _error(result: Any) -> HostCallError | None:
    return result.error if isinstance(result, CallFailed) else None


def _is_cut_off(result: Any) -> bool:
    """Whether an item has no answer because the whole was cut off."""
    error = _error(result)
    return isinstance(error, (wire.Cancelled, wire.BudgetExceeded)) or (
        isinstance(error, wire.LLMError) and error.timed_out
    )


@contextlib.contextmanager
def results_of(count: int) -> Iterator[list[Any]]:
    """The results of a batch of so many, to be filled; what ends it before all are there leaves them.

    One that was refused as a whole had not begun, and leaves nothing.
    """
    results: list[Any] = [NO_ANSWER] * count
    try:
        yield results
    except wire.BudgetExceeded:
        raise
    except BaseException:
        _leave(results)
        raise
    if any(map(_is_cut_off, results)):
        _leave(results)


def call_many(
    kind: Literal["llm_query", "rlm_query"],
    items: Iterable[Item],
    results: list[Any],
    places: Sequence[int],
    *,
    read: Callable[[int, Any], Any] = lambda _place, value: value,
    window: int | None = None,
    deadline: Deadline | None = None,
    done: Callable[[int], None] = lambda _place: None,
    about: tuple[int, str | None] = (0, None),
) -> None:
    """Ask for the results at these places, at once: an item for each; CallFailed for those that failed.

    `about`: tokens of all prompts together, as far as they are known before, and the model that is asked:
    from these the host reckons what the batch will cost.

    `read` makes a result of what was answered. At most `window` requests are under way (the session's, if not
    said), so that a batch of any length needs bounded memory on the host; items are made when they are sent,
    and `done` hears of each that has ended. After the `deadline` all that is left fails. Raises
    BudgetExceeded if every single item was refused for it.
    """
    most = int(wire.session()["window"])
    window = most if window is None else min(window, most)
    waiting: dict[str, int] = {}
    upcoming = iter(zip(places, items, strict=False))
    left = count = len(places)
    sent = 0
    wire.plan(count)
    together = bytearray(wire.plans([(kind, count, *about)]) if count else b"")

    def take(reply: Reply) -> None:
        nonlocal left
        place = waiting.pop(reply["call"], None)
        if place is None:
            return
        wire.received(reply["call"])
        left -= 1
        try:
            results[place] = read(place, wire.value_of(reply))
        except HostCallError as error:
            results[place] = CallFailed(error)
            if deadline is not None and isinstance(error, wire.LLMError) and error.timed_out:
                deadline.pass_now()  # in a replay this comes at once, and no more is asked, either
        done(place)

    try:
        while left:
            # Of those whose answers have come together the next are sent together.
            room = 0 if waiting and wire.has_reply() else window - len(waiting)
            for place, item in itertools.islice(upcoming, room):
                try:
                    call, made = wire.request(kind, _timed(item.body, deadline), item.same)
                except HostCallError as error:
                    results[place] = CallFailed(error)
                    done(place)
                    left -= 1
                    continue
                waiting[call] = place
                sent += 1
                together += made
                if len(together) > TOGETHER:
                    wire.transmit(together)
                    together.clear()
            wire.transmit(together)
            together.clear()
            if not waiting:
                continue
            take(wire.reply())
    except BaseException:
        for reply in wire.arrived():
            take(reply)
        wire.cancel(waiting)
        raise
    finally:
        if sent != count:
            wire.plan(sent - count)
            with contextlib.suppress(HostCallError):
                wire.transmit(wire.plans())
    refusals = [error for place in places if isinstance(error := _error(results[place]), wire.BudgetExceeded)]
    if count and len(refusals) == count:
        raise refusals[0]


def _timed(body: Mapping[str, Any] | HostCallError, deadline: Deadline | None) -> Mapping[str, Any]:
    """The request with what is left of a batch's time.

    Raises LLMError where that is nothing, and the error in a body's place.
    """
    if isinstance(body, HostCallError):
        raise body
    left = deadline.left() if deadline is not None else None
    if left is None:
        return body
    if left <= 0:
        raise wire.timed_out("not asked: the time-out of the whole batch was over")
    return {**body, "timeout": left}


class _Group:
    """Calls of asyncio code that overlap, in the order in which they were made: a batch, too."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.pending = 0


_gathered: WeakKeyDictionary[asyncio.AbstractEventLoop, _Group] = WeakKeyDictionary()
"""The last ones of the cell in progress."""


@contextlib.contextmanager
def gathered() -> Iterator[Callable[[Any], None]]:
    """A call of asyncio code: what takes its result. Cut off, it leaves those of all that it overlaps."""
    loop = asyncio.get_running_loop()
    group = _gathered.get(loop)
    if group is None or not group.pending:
        group = _gathered[loop] = _Group()
    results, place = group.results, len(group.results)
    results.append(NO_ANSWER)
    group.pending += 1

    def take(result: Any) -> None:
        results[place] = result

    try:
        yield take
    except HostCallError as error:
        take(CallFailed(error))
        if isinstance(error, (wire.Cancelled, wire.BudgetExceeded)):
            _leave(results)
        raise
    except (asyncio.CancelledError, KeyboardInterrupt):
        _leave(results)
        raise
    finally:
        group.pending -= 1
