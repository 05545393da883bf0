"""The tools of a run: opened for as long as it lives, and checked before code can have them."""

from __future__ import annotations

import builtins
import contextlib
import keyword
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from rlm_contract import HELPERS

from rlm_kernel.errors import UsageError
from rlm_kernel.session.environment import Host
from rlm_kernel.tools.tool import Tool

MAX_TOOLS = 200
"""Of one run: all stand in the prompt."""
_RESERVED = frozenset((*HELPERS, *dir(builtins), *keyword.kwlist, *keyword.softkwlist))


@contextlib.asynccontextmanager
async def opened(host: Host) -> AsyncIterator[Host]:
    """The host with its sources of tools opened: its `tools` can be called until the context ends.

    They are those that it was given, and those of the MCP servers of its settings.

    Raises UsageError for names that cannot be had in the kernel, and what the sources raise.
    """
    async with contextlib.AsyncExitStack() as stack:
        found: list[Tool] = []
        for one in host.tools:
            found += [one] if isinstance(one, Tool) else await stack.enter_async_context(one.opened())
        if host.settings.mcp.servers:
            from rlm_kernel.session.mcp_servers import mcp_servers

            taken = {*HELPERS, *(tool.name for tool in found)}
            servers = mcp_servers(host.settings, host.say, taken)
            found += await stack.enter_async_context(servers.opened())
        check_names(found)
        yield replace(host, tools=tuple(found))


def check_names(tools: Sequence[Tool]) -> None:
    """Raise UsageError for tools that cannot have their names in the kernel."""
    if len(tools) > MAX_TOOLS:
        raise UsageError(
            f"These are {len(tools):,} tools; a run has {MAX_TOOLS} at most.",
            hint="All of them stand in the prompt: leave out those that the question does not need.",
        )
    seen: set[str] = set()
    for tool in tools:
        name, shown = tool.name, repr(tool.name[:100])
        if not name.isidentifier() or not name.isascii() or len(name) > 64 or name.startswith("_"):
            raise UsageError(
                f"No tool can be called {shown}: code in the kernel could not call it.",
                hint="Its name begins with a letter and has up to 64 letters, digits and underscores.",
            )
        if name in _RESERVED:
            raise UsageError(
                f"No tool can be called {shown}: the kernel has that name already.",
                hint="Give it another one: tool(function, name=…)",
            )
        if name in seen:
            raise UsageError(
                f"Two tools are called {shown}.", hint="Give one another name: tool(function, name=…)"
            )
        seen.add(name)
