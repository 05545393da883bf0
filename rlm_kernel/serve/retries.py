"""Clients that do not wait for their answer and ask again: the run waits for the next attempt.

The libraries of OpenAI, and what is built on them, give up after a time-out of theirs and send the same
request again, up to twice if nobody says otherwise. A run that ended with the first attempt would be paid for
each time, and never be answered where it takes longer than the time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

HELD_SECONDS = 12.0
"""That a run waits for the next attempt: the libraries wait 8 at most."""
_TIME_OUTS = ("x-stainless-read-timeout", "x-stainless-timeout")
"""Headers in which OpenAI's libraries for Python and for JavaScript tell their time-out, in seconds."""
_RETRIES = "x-stainless-retry-count"
"""The header by which they are known as libraries that ask again."""
_NEARLY = 0.9
"""Of its time-out: the library for JavaScript tells whole seconds, and begins to count before it sends."""


@dataclass(frozen=True)
class Attempt:
    """One request of a key's client, as far as another may be the same. Made by `attempt_of`.

    `patience`: seconds that its client waits, if it tells; `asks_again`: for all that is known the client may
    ask again whenever it leaves; `began`: on the monotonic clock.
    """

    key: str
    digest: bytes
    patience: float | None
    asks_again: bool
    began: float

    @property
    def waited_out(self) -> bool:
        """Whether the client has waited for as long as it wanted to."""
        return self.patience is not None and time.monotonic() - self.began >= self.patience * _NEARLY


def attempt_of(key: str, headers: Mapping[str, str], body: bytes, began: float) -> Attempt:
    """The request of a key's client."""
    name = headers.get("idempotency-key", "")
    digest = hashlib.sha256(f"{key}\n{name!r}\n".encode())
    digest.update(body)
    patience = patience_of(headers)
    # The library for JavaScript tells no time-out that its client has for all requests.
    unknown = patience is None and _RETRIES in headers
    return Attempt(key, digest.digest(), patience, bool(name) or unknown, began)


def patience_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that the client says it waits; None where it says nothing that makes sense."""
    for header in _TIME_OUTS:
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(header, "")[:20])
            if math.isfinite(seconds) and seconds > 0:
                return seconds
    return None


class Exchange(Protocol):
    """What answers an attempt, and may answer another of the same request."""

    attempt: Attempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""


class Retries:
    """Runs whose client has gone, and may come again."""

    def __init__(self) -> None:
        self._held: dict[asyncio.Future[bool], tuple[Attempt, Exchange]] = {}
        """By what tells whether it was taken. Who asks the same several times at once has as many."""
        self._closed = False

    async def hold(self, attempt: Attempt, exchange: Exchange) -> bool:
        """Wait for the next attempt. False where none came."""
        if self._closed:
            return False
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._held[taken] = attempt, exchange
        try:
            async with asyncio.timeout(HELD_SECONDS):
                return await taken
        except TimeoutError:
            return not taken.cancelled()  # it was taken at the last moment
        finally:
            del self._held[taken]

    def take(self, attempt: Attempt) -> Exchange | None:
        """What the same request has begun, for this attempt of it: the oldest that nobody has taken."""
        for taken, (earlier, exchange) in self._held.items():
            if earlier.digest == attempt.digest and not taken.done():
                taken.set_result(True)
                exchange.attempt = attempt
                return exchange
        return None

    def held(self, key: str) -> int:
        """How many runs of a key wait for their next attempt."""
        return sum(earlier.key == key and not taken.done() for taken, (earlier, _) in self._held.items())

    def close(self) -> None:
        """Hold nothing any more."""
        self._closed = True
        for taken in self._held:
            if not taken.done():
                taken.set_result(False)
