"""Where the questions of a batch are answered: what the batch asks of such a place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Item


class Engine(Protocol):
    """Answers questions, as many at once as it has places. An async context manager: when it has been left,
    no container is there any more.
    """

    @property
    def places(self) -> int:
        """How many questions it can answer at once, now; at least 1. It may change while it works."""
        ...

    def doing(self) -> Mapping[str, Doing]:
        """What the questions that are being answered have used so far, by their ids; about a second old.

        From any thread.
        """
        ...

    async def answer(self, item: Item, trace: Path) -> Done:
        """Answer a question, with its trace at that place here.

        It waits until there is a place. What concerns this question alone is a failure in what it gives.
        Cancelled, it leaves nothing behind. Raises RLMError for what would fail every other question, too.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...
