"""Large outputs wait for those before them, so that a kernel which says more than its clients read does not
queue it in memory.

ZeroMQ counts the messages of its queue and not their bytes: a thousand pictures would fill the container, and
what the kernel says next, that it is idle above all, would come after all of them.
"""

from __future__ import annotations

import threading
from typing import Any

import zmq

TOGETHER = 8 << 20
"""Bytes that are queued before the next output waits until those are on their way."""
PATIENCE = 5.0
"""Seconds that a client which does not read can hold up the outputs of all."""


class Paced:
    """Wraps the `send_multipart` of ipykernel's iopub thread in place."""

    def __init__(self, thread: Any) -> None:
        self._thread = thread
        self._send = thread.send_multipart
        thread.send_multipart = self.send_multipart
        self._queued = 0
        """Bytes since the last output that is followed."""
        self._followed: zmq.MessageTracker | None = None
        self._given_up = False

    def send_multipart(self, parts: list[Any], *args: Any, **kwargs: Any) -> None:
        """Called by any thread, and by processes that code forked, in which the iopub thread does not run."""
        self._queued += sum(map(len, parts))
        if (
            self._queued < TOGETHER
            or not self._thread.thread.is_alive()
            or threading.current_thread() is self._thread.thread
        ):
            self._send(parts, *args, **kwargs)
            return
        self._wait()
        last = zmq.Frame(parts[-1], track=True, copy=False, copy_threshold=0)
        self._queued, self._followed = 0, last.tracker
        self._send([*parts[:-1], last], copy=False)

    def _wait(self) -> None:
        """Until the last one that is followed is on its way.

        One that takes too long is not waited for again.
        """
        followed = self._followed
        if followed is None or followed.done:
            self._given_up = False
        elif not self._given_up:
            try:
                followed.wait(PATIENCE)
            except zmq.NotDone:
                self._given_up = True
