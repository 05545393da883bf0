"""The MCP servers of the settings as a source of tools, with the variables that the host knows."""

from __future__ import annotations

import os
from collections.abc import Collection

from rlm_kernel.config import Settings, load_api_keys
from rlm_kernel.session.environment import Say
from rlm_kernel.tools.mcp import MCPServers


def mcp_servers(settings: Settings, say: Say, taken: Collection[str] = ()) -> MCPServers:
    """The servers that the settings name.

    `say` hears of those that do not start; `taken`: names of functions that their tools must not have.
    """
    load_api_keys()  # of `.env`, as models have them
    return MCPServers(settings.mcp.servers, say, known_variable, taken)


async def known_variable(name: str) -> str | None:
    """A variable of the environment, or what the keyring has under its name. Raises KeyringError."""
    from rlm_kernel.models._keyring import ask_keyring

    if value := os.environ.get(name):
        return value
    found = await ask_keyring(name)
    return found.value if found is not None else None
