"""What each key has used, and may use: a purse that its questions share, over days and restarts."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rlm_kernel import system
from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.limits import ROUNDING
from rlm_kernel.engine.purse import LocalPurse, Payment, Spent
from rlm_kernel.errors import ConfigError
from rlm_kernel.loops import to_its_end
from rlm_kernel.serve.keys import Key, read_object, write_whole
from rlm_kernel.serve.refusals import Refused
from rlm_kernel.session.environment import Say, silent

KEEP_SECONDS = 5.0
"""Between two looks at what is to be written down of the questions that run."""


class Used(BaseModel):
    """What a key has used in all, and on the last day on which it was: US dollars, tokens, a day of UTC."""

    cost: float = 0.0
    tokens: int = 0
    day: str = ""
    cost_of_day: float = 0.0


class Account:
    """Implements `Purse` for all questions of one key: each call of a model is held back before it is made,
    and counts when it ends, on the day on which it does. Lives on one event loop.
    """

    def __init__(
        self, key: Key, used: Used | None = None, admitted: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`used`: what the key has used before. `admitted` is awaited before a call is made."""
        used = used or Used()
        self._key = key
        self._admitted = admitted
        self._purse = LocalPurse(spent=Spent(used.cost, used.tokens), whose=f"The key {key.name}")
        self._day = used.day
        self._before = used.cost - used.cost_of_day
        """What was used before this day."""
        self._limit()

    @asynccontextmanager
    async def paying(self, asked: Asked) -> AsyncIterator[Payment]:
        """As of `Purse`."""
        self._turn_day()
        async with self._purse.paying(asked) as payment:
            try:
                if self._admitted is not None:
                    await self._admitted()
                yield payment
            finally:
                self._turn_day()  # it counts on the day that has begun meanwhile

    @property
    def used(self) -> Used:
        return self._used_with(0.0, 0.0)

    @property
    def at_most(self) -> Used:
        """The same, with what the calls that are on their way may use."""
        more = self._purse.in_flight
        return self._used_with(more.cost, more.tokens)

    def _used_with(self, cost: float, tokens: float) -> Used:
        self._turn_day()
        spent = self._purse.spent
        return Used(
            cost=spent.cost + cost,
            tokens=math.ceil(spent.tokens + tokens),
            day=self._day,
            cost_of_day=spent.cost + cost - self._before,
        )

    def left(self) -> tuple[float | None, int | None]:
        """US dollars and tokens that are left, with nothing held back for calls in flight; None is no limit.

        Raises Refused where that is nothing.
        """
        used = self.used
        today = None if self._key.cost_per_day is None else self._key.cost_per_day - used.cost_of_day
        costs = [today, None if self._key.cost is None else self._key.cost - used.cost]
        cost = min((one for one in costs if one is not None), default=None)
        tokens = None if self._key.tokens is None else self._key.tokens - used.tokens
        if (cost is not None and cost <= ROUNDING) or (tokens is not None and tokens <= 0):
            lasting = (tokens is not None and tokens <= 0) or (
                self._key.cost is not None and self._key.cost - used.cost <= ROUNDING
            )
            daily = not lasting
            raise Refused(
                429,
                f"The key {self._key.name} has used up its limit{' today' if daily else ''}.",
                code="insufficient_quota",
                retry_after=_until_tomorrow() if daily else None,
            )
        return cost, tokens

    def _turn_day(self) -> None:
        if (today := _today()) != self._day:
            self._day, self._before = today, self._purse.spent.cost
            self._limit()

    def _limit(self) -> None:
        key = self._key
        day = None if key.cost_per_day is None else self._before + key.cost_per_day
        cost = min((one for one in (key.cost, day) if one is not None), default=None)
        self._purse.allow(cost=cost, tokens=key.tokens)


class Accounts:
    """Those of all keys, and the file beside the keys' that has what each has used.

    What a call may use is in the file before the call is made: a server that is killed writes nothing in its
    end, and the calls that were on their way are billed all the same.
    """

    def __init__(self, keys: Path | None = None, say: Say = silent) -> None:
        """`keys`: the file of keys; None: nothing is written down. Blocking. Raises ConfigError."""
        self._say = say
        self._path = None if keys is None else keys.with_name(f"{keys.name}.used")
        self._read = {} if self._path is None else _read_used(self._path)
        """Of keys that have not asked since, and of some that may be gone."""
        self._accounts: dict[str, Account] = {}
        self._writing = asyncio.Lock()
        self._wanted = self._written = 0
        """How often `keep` was called, and how many of these have what they wanted in the file."""
        self._kept: dict[str, dict[str, Any]] = {}
        """What was written last."""
        self._failing = False
        """It could not be written, which is told once."""

    def of(self, key: Key) -> Account:
        if key.name not in self._accounts:
            self._accounts[key.name] = Account(key, self._read.get(key.name), self.keep)
        return self._accounts[key.name]

    async def keep(self) -> None:
        """Write down what was used, to its end also where it is cancelled. Where that fails it is told, and
        no question fails of it: what was used counts all the same, and is written the next time.
        """
        if self._path is not None and self._accounts:
            await to_its_end(self._keep(self._path))  # a thread that was left would write an older state last

    async def _keep(self, path: Path) -> None:
        self._wanted += 1
        mine = self._wanted
        async with self._writing:  # else an older state might be written last
            if self._written >= mine:  # many calls that begin at one time are written together
                return
            wanted = self._wanted
            used = self._read | {name: one.at_most for name, one in self._accounts.items()}
            content = {name: one.model_dump() for name, one in used.items()}
            self._written = wanted
            if content == self._kept:
                return
            try:
                await asyncio.to_thread(write_whole, path, content)
            except ConfigError as error:
                if not self._failing:
                    self._say(f"{error} After a restart, the usage since then would be lost.")
                self._failing = True
            else:
                self._kept, self._failing = content, False

    async def keep_up(self) -> None:
        """Write down what was used every few seconds, where it has changed, for as long as it goes on: what a
        call has used may be more than what it might use when it was made.
        """
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await self.keep()


@contextmanager
def alone(keys: Path | None) -> Iterator[None]:
    """Have a file of keys to oneself: each of two servers would allow a key all that it may use, and write
    its own count over the other's. Blocking. Raises ConfigError where another server has it.
    """
    if keys is None:
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that cannot be written to, or without locks
            file = os.open(keys.with_name(f"{keys.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, file)
            if not system.lock(file):
                raise ConfigError(
                    f"Another rlm serve uses the key file {keys}, and counts what its keys use.",
                    hint="Stop the other server, or give each server its own key file, such as a copy.",
                )
        yield


def _read_used(path: Path) -> dict[str, Used]:
    if not path.exists():
        return {}
    try:
        return {name: Used.model_validate(one) for name, one in read_object(path).items()}
    except ValidationError:
        raise ConfigError(
            f"{path}, which records what keys have used, cannot be read.",
            hint="Restore it, or delete it: then all keys start from zero.",
        ) from None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _until_tomorrow() -> int:
    now = datetime.now(UTC)
    return 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
