"""Listeners made of listeners: one that tells several, one that can be shut, one that makes spans, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Callable

from rlm_kernel.engine.events import Event, Listener
from rlm_kernel.session.environment import silent


class Gate:
    """Passes events on to a listener while it is `open`, which at first it is not.

    Another `listener` may take the place of the first.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.open = False

    def __call__(self, event: Event) -> None:
        if self.open and self.listener is not None:
            self.listener(event)


def everyone(*listeners: Listener | None) -> Listener:
    """A listener that passes every event on, in this order; with nobody to hear it, to nobody.

    All hear it, also where one of them raises; the first error is raised then.
    """
    present = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        failed: Exception | None = None
        for listener in present:
            try:
                listener(event)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    return tell


async def with_spans(listener: Listener | None, say: Callable[[str], None]) -> Listener | None:
    """The listener, and OpenTelemetry's spans where they are wanted (`views.otel`); `say` hears why not, and
    later, in a thread of the spans, why none arrive.
    """
    from rlm_kernel.views import otel

    if not otel.is_wanted(os.environ):
        return listener
    told: list[str] = []
    known = False

    def hear(line: str) -> None:
        if not known:
            told.append(line)
            return
        with contextlib.suppress(Exception):  # who hears it may be gone
            _tell(line, say)

    made = await asyncio.to_thread(otel.spans, os.environ, hear)
    known = True
    for line in told:
        _tell(line, say)
    return listener if made is None else everyone(listener, made)


def _tell(line: str, say: Callable[[str], None]) -> None:
    if say is silent:
        warnings.warn(line, RuntimeWarning, stacklevel=3)
    say(line)
