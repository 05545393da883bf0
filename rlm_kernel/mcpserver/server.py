"""The MCP server: requests of the protocol, for any transport."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from rlm_kernel._version import __version__
from rlm_kernel.errors import InternalError, RLMError
from rlm_kernel.mcpserver import paths, tracetexts
from rlm_kernel.mcpserver.clients import Client
from rlm_kernel.mcpserver.doing import Doing, Rules, Told
from rlm_kernel.mcpserver.progress import Progress
from rlm_kernel.mcpserver.tools import INSTRUCTIONS, TOOLS
from rlm_kernel.printable import printable

_ROOTS_SECONDS = 10.0
"""Seconds that a client has to name its roots."""
_LOOK_SECONDS = 30.0
"""Between two looks for sessions that nobody uses."""
_STATE = "rlm"
MAX_CALLS = 64
"""Calls of one client at the same time."""
TOO_LONG = "rlm/too_long"
"""The method of a request that was too large to be read; a transport puts it in its place."""


class McpServer:
    """Serves clients until it is closed; a context manager.

    `protocol` is what a transport drives.
    """

    def __init__(self, rules: Rules, *, with_roots: bool) -> None:
        """`with_roots`: a client's roots count where the rules name no folders. Raises ConfigError."""
        self._doing = Doing(rules)
        self._with_roots = with_roots
        self._clients: set[Client] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._calls: dict[Client, int] = {}
        with (
            warnings.catch_warnings()
        ):  # roots are as good as gone in the protocol of 2026, which has no sessions
            warnings.simplefilter("ignore")
            self.protocol: Server[Any] = Server(
                "rlm_kernel",
                version=__version__,
                title="Recursive Language Models",
                instructions=INSTRUCTIONS,
                on_list_tools=self._list_tools,
                on_call_tool=self._call_tool,
                on_list_resources=self._list_resources,
                on_list_resource_templates=self._list_templates,
                on_read_resource=self._read_resource,
                on_roots_list_changed=self._roots_changed,
            )
        self.protocol.add_request_handler(TOO_LONG, types.RequestParams, self._too_long)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sessions that nobody uses end meanwhile, and everything in the end."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            for client in list(self._clients):
                self._end(client)
            # A signal that comes again must not leave a container.
            while self._endings:
                await asyncio.wait(list(self._endings))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for client in list(self._clients):
                with contextlib.suppress(Exception):  # what fails for one is tried again, and ends no other
                    await client.stop_idle(self._doing.rules.idle)

    def _client(self, ctx: Any) -> Client:
        """Who asks: each connection is a client of its own, and its state ends with it."""
        connection = ctx.session._connection  # the library has no other way to it
        client: Client | None = connection.state.get(_STATE)
        if client is None:
            client = self._doing.new_client()
            connection.state[_STATE] = client
            connection.exit_stack.callback(self._end, client)
            self._clients.add(client)
        return client

    def _end(self, client: Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            task = asyncio.create_task(client.end())
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    async def _roots(self, ctx: Any, client: Client) -> Sequence[Path]:
        """The folders that the client names; none where it cannot tell."""
        if not self._with_roots or self._doing.rules.folders:
            return ()
        capabilities = ctx.session.client_capabilities
        if capabilities is None or capabilities.roots is None:
            return ()
        if client.roots is None:
            try:
                async with asyncio.timeout(_ROOTS_SECONDS):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        told = await ctx.session.list_roots()
            except (MCPError, ValidationError, TimeoutError):
                return ()
            client.roots = await asyncio.to_thread(
                paths.folders_of, [str(root.uri) for root in told.roots[: paths.MAX_ROOTS]]
            )
        return client.roots

    async def _roots_changed(self, ctx: Any, params: Any) -> None:
        self._client(ctx).roots = None

    async def _list_tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.as_tool(name) for name, tool in TOOLS.items()])

    async def _call_tool(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            return _wrong(
                f"There is no tool {printable(params.name[:100])!r}. There are: {', '.join(TOOLS)}."
            )
        try:
            given = tool.asked.model_validate(params.arguments or {})
        except ValidationError as error:
            return _wrong(_what_is_wrong(error))
        client = self._client(ctx)
        if self._calls.get(client, 0) >= MAX_CALLS:
            return _wrong(f"You already have {MAX_CALLS} calls in progress. Wait for some of them.")
        self._calls[client] = self._calls.get(client, 0) + 1
        try:
            roots = await self._roots(ctx, client)
            progress = Progress(lambda number, line: ctx.session.report_progress(number, None, line))
            told = await client.work(tool.do(self._doing)(client, given, roots, progress))
        except RLMError as error:
            return _wrong(str(error))
        except Exception as error:
            return _wrong(str(InternalError.of(error)))
        finally:
            self._calls[client] -= 1
            if not self._calls[client]:
                del self._calls[client]
        return _result(told)

    async def _list_resources(self, ctx: Any, params: Any) -> types.ListResourcesResult:
        traces = reversed(self._client(ctx).traces)
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    name=name,
                    title=f"Trace {name}",
                    uri=f"{tracetexts.SCHEME}{name}",
                    description="What was done for an answer. With .ipynb behind its name: the notebook.",
                    mime_type=tracetexts.MARKDOWN,
                )
                for name in traces
            ]
        )

    async def _list_templates(self, ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
        about = (("", "A trace as markdown", tracetexts.MARKDOWN), (".ipynb", "A trace", tracetexts.NOTEBOOK))
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    name=f"trace{ending}",
                    uri_template=f"{tracetexts.SCHEME}{{name}}{ending}",
                    description=said,
                    mime_type=kind,
                )
                for ending, said, kind in about
            ]
        )

    async def _read_resource(
        self, ctx: Any, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        try:
            kind, text = await asyncio.to_thread(tracetexts.resource, self._client(ctx), uri)
        except RLMError as error:
            raise MCPError(code=types.INVALID_PARAMS, message=printable(str(error))) from None
        contents = types.TextResourceContents(uri=uri, mime_type=kind, text=text)
        return types.ReadResourceResult(contents=[contents])

    async def _too_long(self, ctx: Any, params: Any) -> types.EmptyResult:
        raise MCPError(
            code=types.INVALID_REQUEST,
            message="The message is too large. Pass large inputs as `paths`.",
        )


def _result(told: Told) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=told.text)],
        structured_content=dict(told.data),
        is_error=told.failed,
    )


def _wrong(message: str) -> types.CallToolResult:
    """What the model that called can read, and mend."""
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=printable(message))], is_error=True
    )


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:200]
    return f"The arguments are wrong: {where + ': ' if where else ''}{first['msg']}"
