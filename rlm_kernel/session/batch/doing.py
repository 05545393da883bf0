"""How far the questions are that are being answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from rlm_kernel.engine.events import Event, Listener, RunOpened
from rlm_kernel.engine.protocols import Account


@dataclass(frozen=True)
class Doing:
    """What a question has used so far, with its children: `turns` of its root model, all other `calls`,
    `tokens`, and `cost` in US dollars, as far as prices are known. `node` as of `Done`.
    """

    turns: int = 0
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    node: str = ""


class Meters:
    """Reads what questions use while they are answered. Nothing is sent, kept or waited for."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[Listener]:
        """For the run of the question of this id, as long as the context lasts."""

        def hear(event: Event) -> None:
            if isinstance(event, RunOpened):
                self._accounts[name] = event.account

        try:
            yield hear
        finally:
            self._accounts.pop(name, None)

    def read(self) -> dict[str, Doing]:
        """What each has used, by its id; one that has not begun yet is not in it. From any thread."""
        found = {name: account.totals() for name, account in dict(self._accounts).items()}
        return {
            name: Doing(used.turns, used.calls, used.usage.total, used.known_cost)
            for name, used in found.items()
        }
