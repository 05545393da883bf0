"""An engine of a batch that answers without a container, and batches at work with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Self

from rlm_kernel.engine.protocols import Totals, Usage
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Item
from rlm_kernel.session.batch.output import Places, ready
from rlm_kernel.session.batch.questions import of_program
from rlm_kernel.session.batch.run import Heard, How
from rlm_kernel.session.result import Result

Answering = Callable[[Item], Awaitable[Done]]


def answered(item: Item, cost: float = 0.0, tokens: int = 0) -> Done:
    totals = Totals(known_cost=cost, root_usage=Usage(tokens, 0))
    return Done(item, Result("yes", None, Path("t.ipynb"), "answered", False, "", totals), seconds=0.1)


async def at_once(item: Item) -> Done:
    return answered(item)


class Stub:
    """An engine with so many places."""

    def __init__(self, answer: Answering = at_once, places: int = 4) -> None:
        self._answer, self.places = answer, places
        self.begun: list[str] = []
        self.running = self.most = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self.running

    def doing(self) -> dict[str, Doing]:
        return {}

    async def answer(self, item: Item, trace: Path) -> Done:
        self.begun.append(item.question)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answer(item)
        finally:
            self.running -= 1


PLAINLY, NOBODY = How(), Heard()


async def run(
    engine: Stub,
    questions: Iterable[Any],
    out: Path | None = None,
    how: How = PLAINLY,
    heard: Heard = NOBODY,
    traces: Path = Path("traces"),
) -> list[Done]:
    async with ready(of_program(questions), lambda _: engine, Places(out, traces), how, "") as made:
        return [done async for done in made.batch.run(made.entries, heard)]


async def count(engine: Stub, questions: Iterable[Any], out: Path) -> int:
    async with ready(of_program(questions), lambda _: engine, Places(out), PLAINLY, "") as made:
        return sum([1 async for _ in made.batch.run(made.entries)])
