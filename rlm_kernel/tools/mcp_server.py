"""One MCP server of a run: its tools, its calls, and its second start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from rlm_kernel.config import MCPServer
from rlm_kernel.config.servers import fits
from rlm_kernel.errors import RLMError
from rlm_kernel.secrets import MIN_LENGTH, known_secrets
from rlm_kernel.tools.mcp_connection import CallFailed, Connection, SessionOver
from rlm_kernel.tools.mcp_names import Signature, definition_digest, function_name, signature_of, wraps_result
from rlm_kernel.tools.mcp_results import Folder, files_of, result_of, told, without
from rlm_kernel.tools.tool import Call, Tool, ToolResult

MAX_PAGES = 100
"""Pages of one list."""
MAX_LISTED = 5_000
"""Entries of one list that are looked at."""
MAX_DOC = 1_500
"""Characters of what a server says of one tool and of its parameters."""
MAX_RESOURCES = 1_000
"""Resources that are listed."""
MAX_SIGNATURE = 1_000


class Server:
    """A configured server, started when its tools are asked for.

    `server` has all variables filled in. Belongs to one event loop.
    """

    def __init__(self, name: str, server: MCPServer, environ: Mapping[str, str], folder: Folder) -> None:
        self.name = name
        self.notes: list[str] = []
        """What the user should know of its tools: a sentence each."""
        self._server = server
        secrets = (*server.secrets(), *known_secrets(environ))
        self._secrets = [secret for secret in secrets if len(secret) >= MIN_LENGTH]
        self._folder = folder
        folder.hide(self._secrets)
        self._connection = Connection(name, server)
        self._again = True
        """Whether it may be started once more."""
        self._opening = asyncio.Lock()
        self._digests: dict[str, str] = {}
        self._has_resources = False

    async def start(self) -> list[Mapping[str, Any]]:
        """Start it, and what it says of its tools: those that the settings let through. Raises RLMError."""
        await self._connection.open()
        definitions = await self._definitions()
        self._has_resources = await self._offers_resources()
        self._digests = {str(one["name"]): definition_digest(one) for one in definitions}
        wanted = [one for one in definitions if self._is_wanted(str(one["name"]))]
        found = [one for one in wanted if not _is_a_task(one)]
        if len(found) < len(wanted):
            left_out = ", ".join(told(one["name"], 60) for one in wanted if _is_a_task(one))
            self.notes.append(
                f"MCP server {self.name!r}: left out what runs only as a task of the protocol: {left_out}."
            )
        for pattern in self._server.tools:
            if pattern != "*" and not any(fits(name, [pattern]) for name in self._digests):
                self.notes.append(f"MCP server {self.name!r} has no tool {pattern!r}.")
        return found

    async def close(self) -> None:
        """End it, with all that it started."""
        self._again = False
        await self._connection.close()

    def tools(self, definitions: Collection[Mapping[str, Any]], taken: set[str]) -> Iterator[Tool]:
        """Its tools as functions. `taken`: names that these must not have; theirs are added."""
        for definition in definitions:
            tool = self._tool(definition, taken)
            taken.add(tool.name)
            yield tool
        if self._has_resources:
            for tool in self._for_resources(taken):
                taken.add(tool.name)
                yield tool

    def _is_wanted(self, tool: str) -> bool:
        return fits(tool, self._server.tools) and self._is_allowed(tool)

    def _is_allowed(self, name: str) -> bool:
        return not fits(name, self._server.deny) and self._server.may_call(name) != "deny"

    def _tool(self, definition: Mapping[str, Any], taken: Collection[str]) -> Tool:
        theirs = str(definition["name"])
        output = definition.get("outputSchema")
        signature = signature_of(definition.get("inputSchema"), output)
        lines = (definition.get("description") or definition.get("title") or "", *signature.notes)
        return self._as_tool(
            function_name(self.name, theirs, taken),
            signature,
            # It is a stranger's text: whose it is stands before it.
            f"[MCP server {told(self.name, 60)}, in its own words] {self._said(lines)}",
            self._calling(theirs, signature, wraps_result(output)),
            theirs,
        )

    def _as_tool(self, name: str, signature: Signature, doc: str, call: Call, theirs: str) -> Tool:
        server = self._server
        text = self._clean(signature.text)
        return Tool(
            name=name,
            signature=text if len(text) <= MAX_SIGNATURE else "(**arguments)",
            doc=doc,
            call=call,
            parameters=signature.parameters,
            permission=server.may_call(theirs),
            seconds=server.startup + server.timeout,  # a call may have to start it again
            children=server.children,
        )

    def _said(self, lines: Iterable[object]) -> str:
        return told("\n".join(filter(None, map(self._clean, lines))), MAX_DOC) or "(nothing)"

    def _clean(self, text: object) -> str:
        """A text of the server for the prompt: without secrets, and without fences as of code."""
        shown = without(text, self._secrets) if isinstance(text, str) else ""
        return told(shown, MAX_DOC).replace("```", "'''").replace("~~~", "---")

    def _calling(self, theirs: str, signature: Signature, unwrap: bool) -> Call:
        async def call(given: Mapping[str, Any]) -> ToolResult:
            arguments = signature.arguments(given)
            raw = await self._ask("tools/call", {"name": theirs, "arguments": arguments}, theirs)
            return await result_of(raw, self._folder, self._read, unwrap=unwrap)

        return call

    # Resources

    async def _offers_resources(self) -> bool:
        """Whether it has any: many servers say that they may, and have none."""
        if "resources" not in self._connection.capabilities or not self._server.resources:
            return False
        lists = {"resources/list": "resources", "resources/templates/list": "resourceTemplates"}
        for method, field in lists.items():
            with contextlib.suppress(CallFailed):
                if await self._entries(method, field):
                    return True
        return False

    def _for_resources(self, taken: set[str]) -> Iterator[Tool]:
        listing = function_name(self.name, "resources", taken)
        reading = function_name(self.name, "resource", {*taken, listing})

        async def resources(_given: Mapping[str, Any]) -> ToolResult:
            found = await self._entries("resources/list", "resources")
            return ToolResult([self._resource(one) for one in found if self._may_read(one)][:MAX_RESOURCES])

        async def resource(given: Mapping[str, Any]) -> ToolResult:
            return ToolResult(None, await files_of(await self._read(str(given.get("uri", ""))), self._folder))

        # The settings know them by these names, as the tools by the server's.
        if self._is_allowed("resources"):
            about = f"Lists the resources of MCP server {told(self.name, 60)}: uri, name, type, size, about."
            yield self._as_tool(listing, signature_of({}, {"type": "array"}), about, resources, "resources")
        if self._is_allowed("resource"):
            wanted = {"properties": {"uri": {"type": "string"}}, "required": ["uri"]}
            text = f"Loads the resource of that uri into `files`, and gives its text; {listing}() has them."
            yield self._as_tool(reading, signature_of(wanted), text, resource, "resource")

    def _resource(self, one: Mapping[str, Any]) -> dict[str, Any]:
        names = {"uri": "uri", "name": "name", "mimeType": "type", "size": "size", "description": "about"}
        kept = {ours: one[theirs] for theirs, ours in names.items() if isinstance(one.get(theirs), str | int)}
        return {
            name: without(told(value, MAX_DOC), self._secrets) if isinstance(value, str) else value
            for name, value in kept.items()
        }

    def _may_read(self, one: Mapping[str, Any]) -> bool:
        return isinstance(uri := one.get("uri"), str) and fits(uri, self._server.resources)

    async def _read(self, uri: str) -> Mapping[str, Any]:
        if not fits(uri, self._server.resources):
            raise RLMError(f"The settings of MCP server {self.name!r} do not let code read {told(uri, 200)}.")
        return await self._ask("resources/read", {"uri": uri}, None)

    # Requests

    async def _ask(self, method: str, params: Mapping[str, Any], tool: str | None) -> Mapping[str, Any]:
        """The answer to a request, without secrets. Raises RLMError."""
        await self._ready()
        await self._unchanged(tool)
        seconds = self._server.timeout
        try:
            raw = await self._connection.ask(method, params, seconds)
        except SessionOver:  # it did nothing, so it may be asked again
            await self._ready()
            await self._unchanged(tool)
            raw = await self._connection.ask(method, params, seconds)
        found: Mapping[str, Any] = without(dict(raw), self._secrets)
        return found

    async def _ready(self) -> None:
        """Start it once more where it has ended since the last call."""
        async with self._opening:
            if self._connection.alive:
                return
            if not self._again:
                raise CallFailed(f"MCP server {self.name!r} has ended, and is not started a third time.")
            self._again = False
            await self._connection.close()
            self._connection = Connection(self.name, self._server)
            await self._connection.open()
            await self._compare()

    async def _unchanged(self, tool: str | None) -> None:
        """Raise where the tool is another one than the user and the model were told of."""
        if self._connection.changed:
            self._connection.settled()
            await self._compare()
        if tool is not None and tool not in self._digests:
            raise RLMError(
                f"MCP server {self.name!r} has changed its tool {told(tool, 80)} since the run began: it is "
                "not called any more."
            )

    async def _compare(self) -> None:
        now = {str(one["name"]): definition_digest(one) for one in await self._definitions()}
        self._digests = {name: digest for name, digest in self._digests.items() if now.get(name) == digest}

    async def _definitions(self) -> list[Mapping[str, Any]]:
        if "tools" not in self._connection.capabilities:
            return []
        found: dict[str, Mapping[str, Any]] = {}
        for one in await self._entries("tools/list", "tools"):
            if isinstance(name := one.get("name"), str) and name:
                found.setdefault(name, one)
        return list(found.values())

    async def _entries(self, method: str, field: str) -> list[Mapping[str, Any]]:
        """All entries of a list that comes in pages. Raises RLMError."""
        found: list[Mapping[str, Any]] = []
        seen: set[str] = set()
        params: dict[str, Any] = {}
        async with asyncio.timeout(self._server.startup):
            for _ in range(MAX_PAGES):
                page = await self._connection.ask(method, params, self._server.startup)
                entries = page.get(field)
                found += (
                    [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
                )
                cursor = page.get("nextCursor")
                if not isinstance(cursor, str) or cursor in seen or len(found) >= MAX_LISTED:
                    break
                seen.add(cursor)
                params = {"cursor": cursor}
        return found[:MAX_LISTED]


def _is_a_task(definition: Mapping[str, Any]) -> bool:
    """Whether a tool refuses to be called in the plain way."""
    execution = definition.get("execution")
    return isinstance(execution, Mapping) and execution.get("taskSupport") == "required"
