"""MCP servers as settings: the form of `mcpServers` in the files of other programs, and what is ours beside
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rlm_kernel.config.values import Folder, Name, Seconds, json_value, sendable, texts
from rlm_kernel.nearest import nearest
from rlm_kernel.secrets import names_secret, redact, secrets_in

MAX_SERVERS = 20
MAX_NAME = 100
"""Characters of a server's name."""
Permission = Literal["allow", "ask", "deny"]
"""Whether code may call a tool; "ask": the user is asked."""
_URL_NAMES = ("serverUrl", "httpUrl")
"""How other programs name `url`."""
_IGNORED = frozenset(
    ("alwaysAllow", "autoApprove", "description", "dev", "gallery", "iconUrl", "name", "trust", "version")
)
"""What other programs write beside it. Their permissions hold for them alone."""
_HTTP_TYPES = ("http", "streamable-http", "streamable_http", "streamableHttp")
_OPEN_HEADERS = ("accept", "accept-language", "content-type", "user-agent")
"""Headers that are no secrets."""
_FLAG = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_PASSWORD = re.compile(r"//[^/@:\s]*:([^/@\s]+)@")


def _texts_of(value: Any) -> Any:
    """Numbers and switches of a variable or header are written as texts; null is left out."""
    value = json_value(value)
    if not isinstance(value, Mapping):
        return value
    plain = {True: "true", False: "false"}
    return {
        name: plain[one] if isinstance(one, bool) else str(one) if isinstance(one, int | float) else one
        for name, one in value.items()
        if one is not None
    }


class MCPServer(BaseModel):
    """One MCP server: a program that is started (`command`), or an address (`url`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    command: Name | None = None
    """The program. It speaks on its stdin and stdout."""
    args: Annotated[list[str], BeforeValidator(texts)] = []
    env: Annotated[dict[str, str], BeforeValidator(_texts_of)] = Field(default={}, exclude=True, repr=False)
    """Variables for it beside PATH, HOME and the like; it gets no others. Never printed or serialised."""
    cwd: Folder | None = None
    """The folder in which it runs."""
    url: Name | None = None
    """The address of a server that speaks streamable HTTP."""
    headers: Annotated[dict[str, str], BeforeValidator(_texts_of), AfterValidator(sendable)] = Field(
        default={}, exclude=True, repr=False
    )
    """HTTP headers of each request to it. Never printed or serialised."""
    startup: Seconds = 60.0
    """Seconds until it must have told its tools: programs may be downloaded first."""
    timeout: Annotated[Seconds, Field(le=86_400)] = 60.0
    """Seconds that a call may take."""
    tools: Annotated[list[str], BeforeValidator(texts)] = ["*"]
    """Names or globs of the tools that code gets."""
    deny: Annotated[list[str], BeforeValidator(texts)] = []
    """Names or globs of tools that it does not get, although `tools` has them."""
    resources: Annotated[list[str], BeforeValidator(texts)] = ["*"]
    """Globs of addresses of resources that code may read."""
    permission: Permission | dict[str, Permission] = "ask"
    """Whether code may call its tools; or that by name or glob, of which the first that fits counts."""
    required: bool = False
    """Whether a run ends where the server does not start. Otherwise it is told, and goes on without it."""
    children: bool = False
    """Whether child RLMs have its tools."""
    disabled: bool = False

    def may_call(self, tool: str) -> Permission:
        """Whether code may call that tool."""
        if isinstance(self.permission, str):
            return self.permission
        return next((may for pattern, may in self.permission.items() if fits(tool, [pattern])), "ask")

    def secrets(self) -> list[str]:
        """What must be told nobody: values of headers, and what is named as a secret or stands like one."""
        found = [*secrets_in(self.env), *_in_args(self.args)]
        for value in (one for name, one in self.headers.items() if name.lower() not in _OPEN_HEADERS):
            found += dict.fromkeys((value, value.partition(" ")[2].strip() or value))
        for text in (*self.args, *self.env.values(), self.url or ""):
            found += _PASSWORD.findall(text)
        query = parse_qsl(urlsplit(self.url).query) if self.url else []
        return [*found, *(value for name, value in query if names_secret(name) or name.lower() == "key")]

    def shown(self) -> dict[str, Any]:
        """As people may see it: what was set, without secrets."""
        shown: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        for name in ("command", "args", "url"):
            if isinstance(value := shown.get(name), str):
                shown[name] = redact(value, self.secrets())
            elif value:
                shown[name] = [redact(one, self.secrets()) for one in value]
        for name, values in (("env", self.env), ("headers", self.headers)):
            if values:
                shown[name] = dict.fromkeys(values, "set")
        return shown

    @model_validator(mode="before")
    @classmethod
    def _as_others_write_it(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = {name: value for name, value in data.items() if name not in _IGNORED}
        for name in _URL_NAMES:
            if name in data:
                data.setdefault("url", data.pop(name))
        kind = data.pop("type", None) or data.pop("transport", None)
        if kind == "sse":
            raise ValueError(
                "rlm does not support the outdated transport sse: give the server's address for streamable "
                "HTTP, which often ends with /mcp"
            )
        if kind not in (None, "stdio", "local", "remote", *_HTTP_TYPES):
            raise ValueError("its type must be stdio or http")
        if "enabled" in data:
            data.setdefault("disabled", not data.pop("enabled"))
        for name in data:
            if name not in cls.model_fields:
                near = nearest(str(name), cls.model_fields)
                known = f"did you mean {near}?" if near else f"known settings: {', '.join(cls.model_fields)}"
                raise ValueError(f"{str(name)[:40]} is not a setting of an MCP server; {known}")
        return data

    @model_validator(mode="after")
    def _one_way(self) -> MCPServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server must have either a command or a url")
        if self.url is not None and urlsplit(self.url).scheme not in ("http", "https", ""):
            raise ValueError("the url of an MCP server must begin with https:// or http://")
        return self


def _in_args(args: list[str]) -> list[str]:
    """What follows an option such as --api-key."""
    found = []
    for place, one in enumerate(args):
        flag = _FLAG.fullmatch(one)
        if flag and names_secret(flag[1]):
            found += [flag[2] or (args[place + 1] if place + 1 < len(args) else "")]
    return [value for value in found if value]


def fits(name: str, patterns: list[str]) -> bool:
    """Whether a name is one of these, or fits one of these globs."""
    from fnmatch import fnmatchcase

    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def few_servers(servers: dict[str, MCPServer]) -> dict[str, MCPServer]:
    """The servers, if there are not too many, and their names will do. Raises ValueError."""
    if len(servers) > MAX_SERVERS:
        raise ValueError(f"{len(servers)} MCP servers are named; at most {MAX_SERVERS} are allowed")
    for name in servers:
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"the name of an MCP server must have 1 to {MAX_NAME} printable characters")
    return servers


def servers_in(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The servers in a file of this or another program, as they stand there; None if it has none."""
    mcp = content.get("mcp")
    for place in (content, mcp if isinstance(mcp, Mapping) else {}):
        for name in ("mcp_servers", "mcpServers", "servers"):
            if isinstance(found := place.get(name), Mapping):
                return found
    return None
