"""The keyboard of a terminal, as POSIX has it or Windows: what was typed before anybody read it, and a line
that can be called off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

_LOOK_SECONDS = 0.03
"""Between two looks at a keyboard that cannot be waited for."""

if sys.platform == "win32":
    import msvcrt

    def _keys() -> str:
        """What was typed and not read.

        A key without a character, such as an arrow, comes as two, and is left out.
        """
        read = ""
        while msvcrt.kbhit():
            if (key := msvcrt.getwch()) in ("\0", "\xe0"):
                msvcrt.getwch()
            else:
                read += key
        return read

    def typed_ahead(file: int) -> str:
        return _keys()

    def is_more_typed(file: int) -> bool:
        return msvcrt.kbhit()

    def forget_typed(file: int) -> None:
        _keys()

    @contextlib.contextmanager
    def as_it_was(file: int) -> Iterator[Callable[[float, float], None]]:
        def swallow(quiet: float, longest: float) -> None:
            until = time.monotonic() + longest
            last = time.monotonic()
            while (now := time.monotonic()) < until and now - last < quiet:
                last = now if _keys() else last
                time.sleep(_LOOK_SECONDS)

        yield swallow

    async def line(file: int) -> str:
        read = ""
        while True:
            for key in _keys():
                if key == "\x03":
                    raise KeyboardInterrupt
                if key in "\r\n":
                    print(file=sys.stderr)
                    return read
                read = read[:-1] if key == "\b" else read + key
                print("\b \b" if key == "\b" else key, end="", file=sys.stderr, flush=True)
            await asyncio.sleep(_LOOK_SECONDS)

else:
    import termios

    def typed_ahead(file: int) -> str:
        """What was typed while nothing read it, and is still in the terminal's buffer, lines that were not
        ended among it.
        """
        read = b""
        with contextlib.suppress(termios.error, OSError):
            before = termios.tcgetattr(file)
            at_once = [*before[:6], [*before[6]]]
            at_once[3] &= ~termios.ICANON
            at_once[6][termios.VMIN] = at_once[6][termios.VTIME] = 0
            termios.tcsetattr(file, termios.TCSANOW, at_once)
            try:
                while part := os.read(file, 1 << 16):
                    read += part
            finally:
                termios.tcsetattr(file, termios.TCSANOW, before)
        return read.decode(errors="replace")

    def is_more_typed(file: int) -> bool:
        """Whether something was typed, or pasted, that nobody has read."""
        return bool(select.select((file,), (), (), 0)[0])

    def forget_typed(file: int) -> None:
        """Forget what was typed so far."""
        termios.tcflush(file, termios.TCIFLUSH)

    @contextlib.contextmanager
    def as_it_was(file: int) -> Iterator[Callable[[float, float], None]]:
        """Have the terminal afterwards as it was, whatever a program in between makes of it.

        Gives a function that takes away what is typed, unseen, until nothing was for `quiet` seconds, and for
        `longest` seconds at most.
        """
        before = termios.tcgetattr(file)
        hidden = [*before[:6], [*before[6]]]
        hidden[3] &= ~(termios.ICANON | termios.ECHO)

        def swallow(quiet: float, longest: float) -> None:
            termios.tcsetattr(file, termios.TCSANOW, hidden)
            until = time.monotonic() + longest
            while (left := until - time.monotonic()) > 0:
                if not select.select((file,), (), (), min(quiet, left))[0] or not os.read(file, 1 << 16):
                    break
            termios.tcflush(file, termios.TCIFLUSH)

        try:
            yield swallow
        finally:
            termios.tcsetattr(file, termios.TCSADRAIN, before)

    async def line(file: int) -> str:
        """A line, waited for on the loop: a thread that reads could not be called off."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(file, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
            return os.read(file, 4096).decode(errors="replace")
        finally:
            loop.remove_reader(file)
