"""MCP over stdin and stdout, for a client that starts the server itself.

stdout carries the protocol alone: whatever else prints there, also a child process, goes to stderr. A line is
read up to a limit. The end of stdin is the end of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server

from rlm_kernel.mcpserver.doing import Rules
from rlm_kernel.mcpserver.server import TOO_LONG, McpServer

MAX_MESSAGE = 40 << 20
"""Bytes of a message."""
_AHEAD = 16
"""Messages that are read before they are taken."""
_EDGE = 300
"""Bytes at a message's ends in which its id is looked for."""
_ID = re.compile(rb'"id"\s*:\s*(\d{1,15}|"[A-Za-z0-9_.:-]{1,100}")')


async def serve(rules: Rules) -> None:
    """Serve the client at stdin until that ends. Cancelling it ends it. Raises ConfigError."""
    server = McpServer(rules, with_roots=True)
    with _own_stdin() as stdin:
        async with server.running(), stdio_server(stdin=_Lines(stdin)) as (read, write):  # type: ignore[arg-type]
            await serve_loop(server.protocol, read, write, lifespan_state={})


@contextlib.contextmanager
def _own_stdin() -> Any:
    """Stdin for this module alone; child processes and libraries find an empty one."""
    own = os.fdopen(os.dup(0), "rb", closefd=False)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    yield own  # never closed: the thread may still wait in it


class _Lines:
    """The lines of a file, read in a thread that ends with the process, as a read cannot be cancelled."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(_AHEAD)

    def __aiter__(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="rlm-mcp-stdin", daemon=True).start()
        return self._each()

    async def _each(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None:
            yield line

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError, OSError, ValueError):  # the loop has ended
            try:
                while line := self._line():
                    if line.strip():
                        self._put(loop, line.decode("utf-8", "replace"))
            finally:
                self._put(loop, None)

    def _put(self, loop: asyncio.AbstractEventLoop, line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(self._lines.put(line), loop).result()

    def _line(self) -> bytes:
        """The next line; of one that is too long, a request that is answered with an error in its place."""
        line = self._file.readline(MAX_MESSAGE)
        if len(line) < MAX_MESSAGE or line.endswith(b"\n"):
            return line
        head, tail = line[:_EDGE], line[-_EDGE:]
        while True:
            rest = self._file.readline(1 << 20)
            tail = (tail + rest)[-_EDGE:]
            if not rest or rest.endswith(b"\n"):
                break
        found = _ID.search(head) or next(reversed(list(_ID.finditer(tail))), None)
        print(f"rlm: skipped a message of more than {MAX_MESSAGE:,} bytes.", file=sys.stderr)
        if found is None:
            return b"\n"
        return b'{"jsonrpc":"2.0","id":%s,"method":"%s"}\n' % (found[1], TOO_LONG.encode())
