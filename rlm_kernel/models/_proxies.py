"""Which proxy a request goes by, as the environment says: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in
capitals or not.
"""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_USABLE = ("http", "https")
_PASSWORD = re.compile(r"//[^/@\s]+@")


class UnusableProxy(ValueError):
    """The environment names a proxy that cannot be used."""


@dataclass(frozen=True)
class Proxy:
    """A proxy's address, and the variable that names it."""

    url: str
    source: str

    def __str__(self) -> str:
        """For people: without a password."""
        return f"{_PASSWORD.sub('//', self.url)} ({self.source})"

    def check(self) -> None:
        """Raises UnusableProxy."""
        if urlsplit(self.url).scheme not in _USABLE:
            raise UnusableProxy(f"the proxy {self} is not an HTTP proxy, and only those can be used")


def proxy_for(url: str, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for a request to that address; None for none."""
    environ = os.environ if environ is None else environ
    parts = urlsplit(url)
    host, scheme = (parts.hostname or "").lower(), parts.scheme.lower()
    if _set(environ, "no_proxy") and _exempt(host, _port(parts.port, scheme), _set(environ, "no_proxy")[1]):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        if found := _set(environ, name):
            return Proxy(found[1] if "://" in found[1] else f"http://{found[1]}", found[0])
    if environ is not os.environ or urllib.request.getproxies_environment():
        return None
    system = urllib.request.getproxies().get(scheme)  # macOS and Windows keep it elsewhere
    return (
        Proxy(system, "the system's settings") if system and not urllib.request.proxy_bypass(host) else None
    )


def _set(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The variable and its value, the one in small letters first; empty where there is none."""
    for variable in (name, name.upper()):
        if value := environ.get(variable, "").strip().strip("\"'"):
            return variable, value
    return ()


def _port(port: int | None, scheme: str) -> int:
    return port or (443 if scheme == "https" else 80)


def _exempt(host: str, port: int, listed: str) -> bool:
    return any(_matches(entry, host, port) for entry in re.split(r"[,\s]+", listed.lower()) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means the host: *, a name with all below it, an address, a network, each
    perhaps with a port.
    """
    if entry == "*":
        return True
    if bracketed := re.fullmatch(r"\[([0-9a-f:.]+)\](?::(\d+))?", entry):
        entry, wanted = bracketed[1], bracketed[2]
    elif entry.count(":") == 1:
        entry, _, wanted = entry.partition(":")
    else:
        wanted = None
    if wanted and wanted.isdigit() and int(wanted) != port:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
