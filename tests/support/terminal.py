"""A command in a real pseudo-terminal, typed at and read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import signal

from tests.support.sandbox import until

_CODES = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")


class Terminal:
    """A command in a terminal of its own. `keyboard` takes what is typed; `seen` is all that it wrote."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self.seen = b""
        self._mark = 0

    async def __aenter__(self) -> Terminal:
        self.keyboard, terminal = pty.openpty()
        # The terminal is none that says where its cursor is.
        environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "PYTHONFAULTHANDLER": "1"}
        self.process = await asyncio.create_subprocess_exec(
            *self._command, preexec_fn=lambda: os.login_tty(terminal), pass_fds=[terminal], env=environment
        )
        os.close(terminal)
        asyncio.get_running_loop().add_reader(self.keyboard, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.keyboard)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self.keyboard)

    def _read(self) -> None:
        try:
            self.seen += os.read(self.keyboard, 65536)
        except OSError:  # the command has closed its end
            asyncio.get_running_loop().remove_reader(self.keyboard)

    async def type(self, line: str, until_seen: str, times: int = 1) -> None:
        """Type a line, and wait until a text has been seen so often since; with no line, since what was
        waited for before.
        """
        if line:
            self._mark = len(self.seen)
            os.write(self.keyboard, line.encode())
        wanted = until_seen.encode()
        try:
            await until(
                lambda: self.seen.count(wanted, self._mark) >= times or self.process.returncode is not None
            )
        except TimeoutError:
            raise AssertionError(f"{until_seen!r} was not seen: {await self._stuck()}") from None
        assert wanted in self.seen[self._mark :], self.seen[self._mark :]
        for _ in range(times):
            self._mark = self.seen.find(wanted, self._mark) + len(wanted)

    @property
    def text(self) -> str:
        """What it wrote, without codes for the terminal."""
        return _CODES.sub(b"", self.seen).decode(errors="replace").replace("\r\n", "\n")

    async def ended(self) -> int:
        """Wait for the command's end; its exit code."""
        try:
            return await asyncio.wait_for(self.process.wait(), 60)
        except TimeoutError:
            raise AssertionError(f"it did not end: {await self._stuck()}") from None

    async def _stuck(self) -> str:
        """What was seen, and where each thread of the command is."""
        self.process.send_signal(signal.SIGABRT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), 10)
        return self.text[-6000:]
