"""Traces made of traces: one that tells several, one that can be shut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from rlm_kernel.engine.protocols import Trace


class Gate:
    """Passes events on to a Trace while it is `open`, which at first it is not. Another `listener` may take its place."""

    def __init__(self, listener: Trace | None = None) -> None:
        self.listener = listener
        self.open = False

    def __getattr__(self, event: str) -> Callable[..., None]:
        def tell(*args: Any, **kwargs: Any) -> None:
            if self.open:
                getattr(self.listener, event)(*args, **kwargs)

        return tell

    def as_trace(self) -> Trace:
        return cast(Trace, self)


class _Everyone:
    def __init__(self, listeners: tuple[Trace | Gate | None, ...]) -> None:
        self._listeners = [listener for listener in listeners if listener is not None]

    def __getattr__(self, event: str) -> Callable[..., None]:
        def tell(*args: Any, **kwargs: Any) -> None:
            failed: Exception | None = None
            for listener in self._listeners:
                try:
                    getattr(listener, event)(*args, **kwargs)
                except Exception as error:
                    failed = failed or error
            if failed is not None:
                raise failed

        return tell


def everyone(*listeners: Trace | Gate | None) -> Trace:
    """A Trace that passes every event on, in this order; with nobody to hear it, to nobody.

    All hear it, also where one of them raises; the first error is raised then.
    """
    return cast(Trace, _Everyone(listeners))
