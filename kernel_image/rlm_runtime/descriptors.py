"""What processes and C code write to descriptors 1 and 2, taken up for the cell that they belong to."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import threading
from typing import Any

_PIECE = 64 << 10
_LAST_SECONDS = 0.25
"""For what was written before a cell ended, where its writer goes on."""


class Descriptor:
    """Reads the pipe that ipykernel has put behind a descriptor, in place of ipykernel's own thread.

    That thread may have read something, and not passed it on yet, when the cell ends: it would be lost to
    the cell. Here whoever reads passes on what was read before anybody else may look.
    """

    def __init__(self, stream: Any) -> None:
        """`stream`: one of ipykernel, whose thread is ended as its `close` does it."""
        stream._should_watch = False
        os.write(stream._original_stdstream_fd, b"\0")
        stream.watch_fd_thread.join()
        self._stream = stream
        self._pipe = stream._fid
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.Lock()
        self._over = False
        """Nobody can write there any more, or code has closed it."""
        os.set_blocking(self._pipe, False)
        threading.Thread(target=self._watch, name=f"descriptor of {stream.name}", daemon=True).start()

    def take_up(self) -> None:
        """Pass on what was written until now; not for ever, where its writer goes on."""
        if self._lock.acquire(timeout=_LAST_SECONDS):
            try:
                for _ in range(16):  # the pipe holds that much at most
                    if not self._pass_on():
                        return
            finally:
                self._lock.release()

    def _watch(self) -> None:
        pipe = select.poll()
        pipe.register(self._pipe, select.POLLIN)
        while not self._over:
            pipe.poll()
            with self._lock:
                self._pass_on()

    def _pass_on(self) -> bool:
        """Read a piece, if there is one."""
        try:
            piece = os.read(self._pipe, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        self._over = not piece
        if text := self._decoder.decode(piece):
            self._stream.write(text)
        with contextlib.suppress(OSError):  # the first process keeps the end of it
            os.write(self._stream._original_stdstream_copy, piece)
        return bool(piece)
