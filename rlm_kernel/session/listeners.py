"""One Trace that tells several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from rlm_kernel.engine.protocols import Trace


class _Everyone:
    def __init__(self, listeners: tuple[Trace, ...]) -> None:
        self._listeners = listeners

    def __getattr__(self, event: str) -> Callable[..., None]:
        def tell(*args: Any, **kwargs: Any) -> None:
            for listener in self._listeners:
                getattr(listener, event)(*args, **kwargs)

        return tell


def everyone(*listeners: Trace) -> Trace:
    """A Trace that passes every event on, in this order."""
    return cast(Trace, _Everyone(listeners))
