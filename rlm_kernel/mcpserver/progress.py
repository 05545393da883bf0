"""What is told to a client while a question is answered.

Clients end a call of which they hear nothing, many after a minute, so something is said every few seconds,
whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from rlm_kernel.engine.events import CallFinished, CellStarted, ChildEvent, Event, RunOpened, TurnStarted
from rlm_kernel.printable import printable

Send = Callable[[float, str], Awaitable[None]]
"""Sends a number that grows, and a line."""
SOON, QUIET = 0.5, 5.0
"""Seconds: between two lines at least, and at most."""
_LONGEST = 200


class Progress:
    """A run's events as lines; the last one is sent, at most every half second."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._line = "starting the kernel"
        self._turn = self._cells = self._calls = 0
        self._account: RunOpened | None = None
        self._news = asyncio.Event()
        self._number = 0.0

    def say(self, line: str) -> None:
        """Something about the set-up."""
        self._line = printable(" ".join(line.split()))[:_LONGEST]
        self._news.set()

    def hear(self, event: Event) -> None:
        """An event of the run."""
        while isinstance(event, ChildEvent):
            event = event.event
        match event:
            case RunOpened():
                self._account = self._account or event
            case TurnStarted(turn=turn):
                self._turn = max(turn, self._turn)
            case CellStarted():
                self._cells += 1
            case CallFinished(call=call) if call.kind in ("llm_query", "rlm_query"):
                self._calls += 1
            case _:
                return
        self.say(self._told())

    @property
    def cost(self) -> float:
        """US dollars that the run has cost so far, as far as that is known."""
        totals = self._account.account.totals() if self._account is not None else None
        return (totals.cost or 0.0) if totals is not None else 0.0

    def _told(self) -> str:
        money = f", ${self.cost:.4f}" if self.cost else ""
        cells = f"{self._cells} cell{'' if self._cells == 1 else 's'}"
        calls = f"{self._calls} call{'' if self._calls == 1 else 's'} of models"
        return f"turn {self._turn}, {cells}, {calls}{money}"

    @contextlib.asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Send what comes while something is done, and at its end what has not been sent yet."""
        sending = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if self._news.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON):
                    await self._send_line()

    async def _send_line(self) -> None:
        self._number += 1
        self._news.clear()
        with contextlib.suppress(Exception):  # the client has left; the run's end is not for this to say
            await self._send(self._number, self._line)

    async def _go_on(self) -> None:
        while True:
            await self._send_line()
            await asyncio.sleep(SOON)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    await self._news.wait()
