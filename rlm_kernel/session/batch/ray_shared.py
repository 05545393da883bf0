"""What the workers of a batch share over a cluster: the budget, and the places for calls of each model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.purse import LocalPurse, RemotePurse, Spent, Ticket, Used
from rlm_kernel.models.shared_slots import SharedSlots
from rlm_kernel.models.slots import Slots

_ASK_SECONDS = 0.2


class Shared:
    """An actor on the driver's node, which has it, and ends with it."""

    def __init__(self, cost: float | None, tokens: int | None) -> None:
        """The limits of all questions together; None is no limit."""
        self._purse = LocalPurse(cost=cost, tokens=tokens)
        self._slots: dict[str, SharedSlots] = {}

    async def admit(self, ticket: Ticket, asked: Asked) -> str:
        """As of LocalPurse."""
        return await self._purse.admit(ticket, asked)

    async def end(self, ticket: Ticket, used: Used) -> None:
        """As of LocalPurse."""
        self._purse.end(ticket, used)

    async def slots(
        self, holder: str, wanted: Mapping[str, tuple[int, int, int]]
    ) -> dict[str, tuple[int, float]]:
        """For each model what `SharedSlots.ask` gives. `wanted`: most places by the settings, those that are
        wanted, and those in use.
        """
        return {
            name: self._slots.setdefault(name, SharedSlots(most)).ask(holder, many, in_use)
            for name, (most, many, in_use) in wanted.items()
        }

    async def refused(self, name: str, retry_after: float | None) -> None:
        """As of SharedSlots."""
        if name in self._slots:
            self._slots[name].refused(retry_after)

    async def forget(self, holder: str) -> None:
        """A worker is gone."""
        self._purse.forget(holder)
        for slots in self._slots.values():
            slots.forget(holder)

    async def spent(self) -> Spent:
        """By all questions so far."""
        return self._purse.spent


def purse_of(holder: str, shared: Any) -> RemotePurse:
    """A worker's purse, which asks the actor."""

    async def admit(ticket: Ticket, asked: Asked) -> str:
        told: str = await shared.admit.remote(ticket, asked)
        return told

    return RemotePurse(holder, admit, lambda ticket, used: shared.end.remote(ticket, used))


async def share(holder: str, shared: Any, slots: Mapping[str, Slots]) -> None:
    """Have the places of each model as the actor gives them, until it is cancelled."""

    def tell(name: str, retry_after: float | None) -> None:
        shared.refused.remote(name, retry_after)

    for name, own in slots.items():
        own.allow(0)
        own.on_refusal = lambda retry_after, name=name: tell(name, retry_after)  # type: ignore[misc]
    while slots:
        wanted = {name: (own.most, max(own.wanted, own.in_use), own.in_use) for name, own in slots.items()}
        with contextlib.suppress(Exception):  # without the actor all ends soon
            for name, (places, pause) in (await shared.slots.remote(holder, wanted)).items():
                slots[name].allow(places)
                if pause:
                    slots[name].hold(pause)
        await asyncio.sleep(_ASK_SECONDS)
