"""Filling in `${NAME}` in what is set of an MCP server, from the environment and the keyring."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.config import MCPServer
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import hold, is_secret_name

Lookup = Callable[[str], Awaitable[str | None]]
"""The value of a variable; None where it is not set."""
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_ANY = re.compile(r"\$\{[^}]{0,60}\}")
_PLACES: Mapping[str, Callable[[], Path]] = {
    "userHome": Path.home,
    "workspaceFolder": Path.cwd,
    "workspaceRoot": Path.cwd,
}
"""What other programs name so."""
_KNOWN = frozenset(("HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "USER"))
"""Variables that are no secrets, wherever they are filled in."""


async def filled(name: str, server: MCPServer, lookup: Lookup) -> MCPServer:
    """The server with each `${NAME}` replaced in its command, arguments, variables, address and headers.

    `${NAME:-this}` has a value for where it is not set. What is filled in and may be a secret is held, so
    that no text has it. Raises ConfigError for a variable that is not set.
    """
    values = {}
    for text in _texts(server):
        if odd := next((one for one in _ANY.findall(text) if not _VARIABLE.fullmatch(one)), None):
            raise ConfigError(
                f"MCP server {name!r} has {odd}, which rlm does not support.",
                hint="Write ${NAME} for a variable of the environment.",
            )
        for variable, otherwise in _VARIABLE.findall(text):
            value = str(_PLACES[variable]()) if variable in _PLACES else await lookup(variable)
            if not value and f"${{{variable}:-" not in text.replace("${env:", "${"):
                raise ConfigError(
                    f"MCP server {name!r} needs {variable}, which is not set.",
                    hint=f"Set {variable} in the environment, or put it into the keyring: "
                    f"rlm auth add {variable}",
                )
            values[variable] = value or otherwise
    done = _with(server, values)
    for secret in (*_secret(server, values), *done.secrets()):
        hold(secret)
    return done


def _texts(server: MCPServer) -> Iterator[str]:
    yield from (server.command or "", server.url or "", str(server.cwd or ""))
    yield from (*server.args, *server.env.values(), *server.headers.values())


def _with(server: MCPServer, values: Mapping[str, str]) -> MCPServer:
    def fill(text: str) -> str:
        return _VARIABLE.sub(lambda found: values[found[1]] or found[2] or "", text)

    return server.model_copy(
        update={
            "command": fill(server.command) if server.command else None,
            "url": fill(server.url) if server.url else None,
            "args": [fill(one) for one in server.args],
            "cwd": Path(os.path.expanduser(fill(str(server.cwd)))) if server.cwd else None,
            "env": {key: fill(value) for key, value in server.env.items()},
            "headers": {key: fill(value) for key, value in server.headers.items()},
        }
    )


def _secret(server: MCPServer, values: Mapping[str, Any]) -> Iterator[str]:
    """What was filled in and is named as a secret, or stands where secrets do and is no path."""
    private = "".join((*server.env.values(), *server.headers.values()))
    in_private = {variable for variable, _ in _VARIABLE.findall(private)}
    for variable, value in values.items():
        elsewhere = variable in _KNOWN or variable in _PLACES or os.path.exists(value)
        if is_secret_name(variable) or (variable in in_private and not elsewhere):
            yield value
