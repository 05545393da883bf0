"""`rlm tools`: the tools of the MCP servers of the settings, and whether code may call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import JSON, SettingsOptions, with_options
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.config import Settings
    from rlm_kernel.tools.mcp import Started


@with_options
def tools(as_json: JSON = False, *, options: SettingsOptions) -> None:
    """Start the MCP servers of the settings, and list their tools as code sees them.

    Exit code 1 if one of them does not start.
    """
    started = started_servers(options.settings())
    if as_json:
        typer.echo(json_line({"servers": [_as_json(server) for server in started]}))
    elif not started:
        typer.echo("rlm: no MCP servers are configured (mcp_servers in config.json, or --mcp FILE)", err=True)
    else:
        typer.echo(printable("\n\n".join(map(_shown, started))))
    if any(server.problem is not None for server in started):
        raise typer.Exit(1)


def started_servers(settings: Settings) -> Sequence[Started]:
    """What comes of starting the MCP servers of the settings, which are ended again. Raises RLMError."""
    import asyncio

    from rlm_contract import HELPERS

    from rlm_kernel.session.environment import silent
    from rlm_kernel.session.mcp_servers import mcp_servers

    async def start() -> Sequence[Started]:
        async with mcp_servers(settings, silent, HELPERS).started() as found:
            return found

    return asyncio.run(start())


def _as_json(server: Started) -> dict[str, object]:
    return {
        "name": server.name,
        "problem": server.problem.message if server.problem else None,
        "notes": list(server.notes),
        "tools": [
            {"name": tool.name, "signature": tool.signature, "doc": tool.doc, "permission": tool.permission}
            for tool in server.tools
        ],
    }


def _shown(server: Started) -> str:
    if server.problem is not None:
        return f"{server.name}: {server.problem}"
    width = max((len(tool.permission) for tool in server.tools), default=0)
    lines = [f"  {tool.permission:{width}}  {tool.name}{tool.signature}" for tool in server.tools]
    notes = [f"  {note}" for note in server.notes]
    return "\n".join([f"{server.name}: {len(server.tools)} tools", *lines, *notes])
