"""The MCP servers of the settings as one source of tools: started together, with names that are distinct."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.config import MCPServer
from rlm_kernel.errors import InternalError, RLMError, SetupError
from rlm_kernel.scratch import scratch
from rlm_kernel.tools.mcp_filling import Lookup, filled
from rlm_kernel.tools.mcp_results import Folder
from rlm_kernel.tools.mcp_server import Server
from rlm_kernel.tools.tool import Tool

MAX_TOOLS = 150
"""Of all servers of a run: all stand in the prompt."""


@dataclass(frozen=True)
class Started:
    """What came of starting a server: its tools, or why there are none."""

    name: str
    tools: Sequence[Tool] = ()
    problem: RLMError | None = None
    notes: Sequence[str] = ()


async def _from_environment(name: str) -> str | None:
    return os.environ.get(name)


@dataclass(frozen=True)
class MCPServers:
    """A `ToolSource` of MCP servers.

    `servers`: by name, as the settings have them; `say` hears of those that do not start; `lookup` knows the
    variables that they name; `taken`: names of functions that their tools must not have.
    """

    servers: Mapping[str, MCPServer]
    say: Callable[[str], None]
    lookup: Lookup = _from_environment
    taken: Collection[str] = field(default=())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Tool]]:
        """The tools of all servers that start, until the context ends.

        Raises RLMError where a server does not start that is `required`.
        """
        async with self.started() as servers:
            for server in servers:
                if server.problem is not None and self.servers[server.name].required:
                    raise server.problem
            for server in servers:
                for note in server.notes:
                    self.say(note)
                if server.problem is not None:
                    self.say(f"{server.problem.message} The run continues without its tools.")
            yield [tool for server in servers for tool in server.tools]

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Sequence[Started]]:
        """What came of starting each server, in their order. All are ended with the context."""
        wanted = {name: server for name, server in self.servers.items() if not server.disabled}
        if not wanted:
            yield []
            return
        _needs_library()
        with scratch("mcp") as folder:
            files = Folder(folder)
            running: list[Server] = []
            try:
                opening = (self._open(name, one, files, running) for name, one in wanted.items())
                found = await asyncio.gather(*opening)
                yield self._named(dict(zip(wanted, found, strict=True)))
            finally:
                await _close(running)

    async def _open(
        self, name: str, server: MCPServer, files: Folder, running: list[Server]
    ) -> tuple[Server, list[Mapping[str, Any]]] | RLMError:
        try:
            one = Server(name, await filled(name, server, self.lookup), os.environ, files)
            running.append(one)
            return one, await one.start()
        except TimeoutError:
            return RLMError(f"MCP server {name!r} did not list its tools within {server.startup:g} seconds.")
        except Exception as error:
            return InternalError.of(error)

    def _named(self, found: Mapping[str, tuple[Server, list[Mapping[str, Any]]] | RLMError]) -> list[Started]:
        taken, started = set(self.taken), []
        for name, one in found.items():
            if isinstance(one, RLMError):
                started.append(Started(name, problem=one))
            else:
                server, definitions = one
                left = MAX_TOOLS - sum(len(other.tools) for other in started)
                tools = list(server.tools(definitions, taken))
                if len(tools) > left:
                    server.notes.append(_too_many(name, len(tools), left))
                started.append(Started(name, tools[:left], notes=server.notes))
        return started


def _too_many(name: str, there: int, left: int) -> str:
    return (
        f"MCP server {name!r} has {there} tools; the code gets the first {left} of them: a run has "
        f"{MAX_TOOLS} at most. The setting `tools` of a server chooses which."
    )


def _needs_library() -> None:
    import importlib.util

    if importlib.util.find_spec("mcp") is None:
        raise SetupError(
            "MCP servers need the package mcp, which is not installed.",
            hint="Type: pip install 'rlm-kernel[mcp]'",
        )


async def _close(servers: Sequence[Server]) -> None:
    """End all of them, together, though this is cancelled meanwhile."""
    closing = [asyncio.ensure_future(server.close()) for server in servers]
    cancelled = None
    while pending := [one for one in closing if not one.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
