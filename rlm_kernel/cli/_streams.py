"""The standard streams of the command, made safe once, before anything is printed.

Any of them may be closed, full, a pipe that nobody reads, a terminal that is gone, or in an encoding that
lacks what is printed. None of this may cost an answer that was paid for: a write never raises here. What
could not be written is known at the end, by `lost`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, TextIO

NOT_WRITTEN = 1
"""Exit code where there was something to print, and stdout did not take it."""
_WHY = {
    errno.EBADF: "it was closed",
    errno.EPIPE: "its reader has closed it",
    errno.EIO: "the terminal is gone",
}
_ESCAPED = "rlm-escaped"
"""The name of the error handler that escapes what an encoding lacks."""
at_end: Callable[[int], None] | None = None
"""Is told the exit code, once all else is written."""
_MODES = (os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)
"""What /dev/null is opened for in place of a closed stream.

The wrong way round, so that its use is an error, as it was before.
"""


class _Guarded(io.RawIOBase):
    """A stream whose first failure is kept in `error`; what is written after it goes nowhere.

    `escaped`: its encoding lacked characters.
    """

    error: OSError | None = None
    escaped = False

    def __init__(self, descriptor: int) -> None:
        # A console of Windows takes text alone, by a way of its own, whatever its code page.
        console = getattr(io, "_WindowsConsoleIO", io.FileIO) if os.isatty(descriptor) else io.FileIO
        self._raw: io.FileIO = console(descriptor, "w", closefd=False)

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                while (written := self._raw.write(data)) is None:
                    select.select(
                        (), (self,), ()
                    )  # another program made the pipe non-blocking, and it is full
                return written
            except OSError as error:
                self.error = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def make_safe() -> None:
    """Put safe streams in the place of the interpreter's.

    Those that somebody else has put there, such as a test, stay.
    """
    for descriptor, mode in enumerate(_MODES):
        _open_if_closed(descriptor, mode)
    codecs.register_error(_ESCAPED, _escape)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdout is sys.__stdout__:
        sys.stdout = sys.__stdout__ = _safe(sys.stdout, 1, _ESCAPED)  # type: ignore[misc, assignment]
    if sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _safe(sys.stderr, 2, "backslashreplace")  # type: ignore[misc, assignment]


def lost() -> OSError | None:
    """Why something could not be written to stdout; None if all of it was."""
    sys.stdout.flush()
    guard = _guard()
    return guard.error if guard else None


def lacking() -> str:
    """The encoding of stdout, if it lacked characters that were printed; else ""."""
    guard = _guard()
    return sys.stdout.encoding if guard and guard.escaped and not takes_all_of_unicode() else ""


def takes_all_of_unicode() -> bool:
    """Whether stdout takes any character as it is."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name.startswith("utf")


def _guard() -> _Guarded | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Guarded) else None


def _open_if_closed(descriptor: int, mode: int) -> None:
    """A file that is opened later must not become a standard stream, which others print to."""
    try:
        os.fstat(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free: this one


def _safe(stream: TextIO | None, descriptor: int, errors: str) -> TextIO:
    if stream is not None:
        stream.flush()
    guarded = io.BufferedWriter(_Guarded(descriptor))
    error = descriptor == 2
    return io.TextIOWrapper(
        guarded,
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors=errors,
        newline="\n",
        # Unbuffered (PYTHONUNBUFFERED) is by lines here: what goes to stdout and to stderr must come in its
        # order.
        line_buffering=error
        or getattr(stream, "line_buffering", False)
        or getattr(stream, "write_through", False),
    )


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if (guard := _guard()) is not None:
        guard.escaped = True
    return codecs.backslashreplace_errors(error)


def settle(code: int) -> int:
    """Write what is still to be written, and tell what could not be; the exit code, which is not 0 where
    something is lacking.
    """
    error, encoding = lost(), lacking()
    if error is not None:
        why = _WHY.get(error.errno or 0, error.strerror or str(error))
        print(f"rlm: the output could not be written completely: {why}.", file=sys.stderr)
    elif encoding:
        print(
            f"rlm: standard output is {encoding}; rlm escaped the characters that it lacks. "
            "PYTHONIOENCODING=utf-8 keeps them.",
            file=sys.stderr,
        )
    sys.stderr.flush()
    code = code or (NOT_WRITTEN if error is not None else 0)
    if (otel := sys.modules.get("rlm_kernel.views.otel")) is not None:
        otel.flush()
    if at_end is not None:
        at_end(code)
    return code
