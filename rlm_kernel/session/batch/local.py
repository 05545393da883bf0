"""Questions of a batch, answered on this machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rlm_kernel.config import Settings
from rlm_kernel.engine.purse import LocalPurse
from rlm_kernel.errors import RLMError
from rlm_kernel.session.batch.doing import Doing, Meters
from rlm_kernel.session.batch.failures import failure_of
from rlm_kernel.session.batch.item import Done, Item
from rlm_kernel.session.batch.results import Paid
from rlm_kernel.session.batch.run import Budget
from rlm_kernel.session.many import Asker


def local_engine(
    settings: Settings, jobs: int | None, budget: Budget, paid: Paid, **options: Any
) -> LocalEngine:
    """The engine of a batch: its questions together stay within what is left of the budget.

    `paid`: by earlier runs; `options` as of `Asker`.
    """
    left = budget.left(paid)
    limited = left != Budget()
    purse = LocalPurse(cost=left.cost, tokens=left.tokens) if limited else None
    return LocalEngine(Asker(budget.of_each(settings), purse=purse, **options), jobs)


class LocalEngine:
    """An engine (`session.batch.engine`) over an `Asker`, which it opens and closes."""

    def __init__(self, asker: Asker, jobs: int | None = None) -> None:
        """`jobs`: questions at one time; None for as many as the asker has places."""
        self._asker = asker
        self._jobs = jobs
        self._turn = asyncio.Lock()
        """Questions begin in the order in which they came: an asyncio lock is handed on so."""
        self._freed = asyncio.Event()
        self._busy = 0
        self._meters = Meters()

    @property
    def places(self) -> int:
        """As of Engine."""
        return max(1, self._asker.places if self._jobs is None else self._jobs)

    def doing(self) -> Mapping[str, Doing]:
        """As of Engine."""
        return self._meters.read()

    async def __aenter__(self) -> Self:
        await self._asker.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._asker.__aexit__(*error)

    async def answer(self, item: Item, trace: Path) -> Done:
        """As of Engine."""
        async with self._turn:
            while self._busy >= self.places:
                self._freed.clear()
                await self._freed.wait()
            self._busy += 1
        try:
            return await self._answer(item, trace)
        finally:
            self._busy -= 1
            self._freed.set()

    async def _answer(self, item: Item, trace: Path) -> Done:
        began = time.monotonic()
        try:
            with self._meters.of(item.id) as view:
                result = await self._asker.ask(
                    item.question,
                    item.context,
                    trace=trace,
                    schema=item.schema,
                    view=view,
                    changes=item.changes,
                )
        except RLMError as error:
            failure = failure_of(error, item)
            place = trace if await asyncio.to_thread(os.path.lexists, trace) else None
            return Done(item, failure=failure, trace=place, seconds=time.monotonic() - began)
        return Done(item, result, trace=result.trace, seconds=time.monotonic() - began)
