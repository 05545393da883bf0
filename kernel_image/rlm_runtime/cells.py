"""Where a cell begins and ends, told once for each, and its interrupts.

A cell may run others inside of it (`%%capture`, `%rerun`, `get_ipython().run_cell(...)`), for which IPython
tells the same events again. These are a part of it: its calls are the cell's, and nothing ends before it
does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell


class Cells:
    """Hears of the cells that clients of the kernel send. Lives on the kernel's main thread."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._kernel = os.getpid()
        self._request: str | None = None
        self._inside = 0
        """How many cells run inside of the one that a client sent."""
        self._interrupts = 0
        self._followers: list[tuple[Callable[[ExecutionInfo], None], Callable[[ExecutionResult], None]]] = []
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)

    def follow(
        self, before: Callable[[ExecutionInfo], None], after: Callable[[ExecutionResult], None]
    ) -> None:
        """Have two functions called for each cell from now on, after those that follow already."""
        self._followers.append((before, after))

    def _begin(self, info: ExecutionInfo) -> None:
        parent: Any = self._shell.get_parent()  # type: ignore[attr-defined]
        request = parent.get("header", {}).get("msg_id")
        if request is not None and request == self._request:
            self._inside += 1
            return
        self._request, self._inside, self._interrupts = request, 0, 0
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)  # ipykernel takes it back after the request
        for before, _ in self._followers:
            before(info)

    def _end(self, result: ExecutionResult) -> None:
        if os.getpid() != self._kernel:
            _end_child(result)
        if self._inside:
            if (result.info.raw_cell or "").strip():  # of an empty cell IPython tells the end, and no begin
                self._inside -= 1
            return
        if self._interrupts > 1:
            sys.settrace(None)
        for _, after in self._followers:
            after(result)

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        """The first interrupt raises, as ever.

        Where code goes on, having caught everything (`except:` in a loop), a further one raises once more as
        soon as that code's next line begins, which is the first of what caught it, and nothing around catches
        that again.
        """
        self._interrupts += 1
        if self._interrupts > 1:
            frames = _own_frames(frame, self._shell.user_ns)
            if not frames:
                return  # it has ended and is being told
            for own in frames:
                own.f_trace = _raise
            sys.settrace(lambda *_: None)
        raise KeyboardInterrupt


def _own_frames(frame: FrameType | None, variables: dict[str, Any]) -> list[FrameType]:
    """Frames of the cells' own code around that frame; none if none of it runs.

    What libraries do about an interrupt is left to them.
    """
    frames = []
    while frame is not None:
        frames += [frame] if frame.f_globals is variables else []
        frame = frame.f_back
    return frames


def _raise(_frame: FrameType, event: str, _arg: Any) -> Any:
    if event == "line":  # and not as the exception itself passes through
        raise KeyboardInterrupt
    return _raise


def _end_child(result: ExecutionResult) -> None:
    """A process that code forked (os.fork) has come to the end of the cell.

    It must not go on as a second kernel on the same sockets.
    """
    error = result.error_before_exec or result.error_in_exec
    status = int(isinstance(error, (Exception, KeyboardInterrupt)))
    if isinstance(error, SystemExit):
        code = error.code
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
        status = code & 0xFF if isinstance(code, int) else 0 if code is None else 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
