"""One connection to an MCP server: in a task of its own, as the library's scopes are entered and left in one
task, whoever opens and closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.config import MCPServer
from rlm_kernel.errors import RLMError
from rlm_kernel.secrets import redact_cut
from rlm_kernel.tools.mcp_gate import Gate
from rlm_kernel.tools.mcp_results import told

if TYPE_CHECKING:
    import anyio
    from mcp import ClientSession
    from mcp.client._transport import TransportStreams
    from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

_FAREWELL = 2.0
"""Seconds to say goodbye to a server at an address."""
_SLACK = 5.0
"""Seconds beyond a call's time, after which it is left even if the server does not read what it is sent."""
_OTHER_METHOD = -32601
"""JSON-RPC: the method is not known."""
for _name in ("mcp", "client"):
    # Without a handler, Python writes the library's errors to stderr, with what the server sent.
    logging.getLogger(_name).addHandler(logging.NullHandler())


class CallFailed(RLMError):
    """A request to a server failed. `gone`: the connection is at its end."""

    def __init__(self, message: str, *, gone: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.gone = gone


class SessionOver(CallFailed):
    """The server has forgotten the session, and did nothing."""


class Connection:
    """A server that was started or reached, and answers.

    `server` has all variables filled in. Belongs to one event loop.
    """

    def __init__(self, name: str, server: MCPServer) -> None:
        self.name = name
        self.capabilities: Mapping[str, Any] = {}
        self._server = server
        self._gate = Gate()
        self._said = bytearray()
        self._dispatcher: JSONRPCDispatcher[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._task is not None and not self._task.done() and not self._gate.over.is_set()

    @property
    def changed(self) -> bool:
        """Whether the server has said that its tools are others now."""
        return self._gate.changed

    def settled(self) -> None:
        """Its tools were listed again."""
        self._gate.changed = False

    async def open(self) -> None:
        """Start or reach the server, and greet it. Raises RLMError."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._own(ready), name=f"MCP server {self.name}")
        try:
            await asyncio.shield(ready)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection, and a program with all that it started. Does so although it is cancelled."""
        self._gate.end()
        if self._scope is not None:
            import anyio

            self._scope.deadline = anyio.current_time() + _FAREWELL
        cancelled = None
        while self._task is not None and not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """The answer to a request, as the server wrote it. Raises CallFailed."""
        from mcp.shared.exceptions import MCPError
        from mcp.types import CONNECTION_CLOSED, INVALID_REQUEST, PARSE_ERROR, REQUEST_TIMEOUT

        if self._dispatcher is None or not self.alive:
            raise CallFailed(self._gone(), gone=True)
        try:
            async with asyncio.timeout(seconds + _SLACK):
                # Not the session's own methods: these refuse all tools for what is odd with one of them, and
                # check results by whatever patterns the server gives.
                found = await self._dispatcher.send_raw_request(method, dict(params), {"timeout": seconds})
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise CallFailed(self._late(seconds)) from None
            if error.code == INVALID_REQUEST and error.message == "Session terminated":
                self._gate.end()
                raise SessionOver(self._gone(), gone=True) from None
            if error.code == CONNECTION_CLOSED or self._gate.over.is_set():
                self._gate.end("" if error.message == "Connection closed" else error.message)
                raise CallFailed(self._gone(), gone=True) from None
            why, self._gate.why = self._gate.why, ""
            if error.code == PARSE_ERROR:
                why = "its answer is no message of the protocol"
            raise CallFailed(f"MCP server {self.name!r}: {self._told(why or error.message)}") from None
        except TimeoutError:
            raise CallFailed(self._late(seconds)) from None
        except Exception as error:
            raise CallFailed(f"MCP server {self.name!r}: {self._told(str(error))}") from None
        return found if isinstance(found, Mapping) else {}

    # The task

    async def _own(self, ready: asyncio.Future[None]) -> None:
        import anyio

        error: BaseException | None = None
        try:
            with anyio.CancelScope() as self._scope:
                async with self._transport() as (read, write):
                    await self._serve(read, write, ready)
        except BaseException as caught:
            error = _leaf(caught)
            if isinstance(caught, asyncio.CancelledError):
                raise
        finally:
            self._gate.end()
            if not ready.done():
                ready.set_exception(self._not_started(error))
                ready.exception()  # whoever waited may have been cancelled

    async def _serve(self, read: Any, write: Any, ready: asyncio.Future[None]) -> None:
        import anyio
        from mcp import ClientSession
        from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
        from mcp.types import Implementation

        dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(read, write)
        who = Implementation(name="rlm_kernel", version=__version__)
        # It answers pings, and refuses what else a server may want: no model, no user, no folder is its.
        async with ClientSession(dispatcher=dispatcher, client_info=who) as session:
            with anyio.fail_after(self._server.startup):
                await self._greet(session)
            self._dispatcher = dispatcher
            if not ready.done():
                ready.set_result(None)
            await self._gate.over.wait()

    async def _greet(self, session: ClientSession) -> None:
        result = await session.initialize()
        self.capabilities = result.capabilities.model_dump(exclude_none=True)

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        from rlm_kernel.tools.mcp_address import reached
        from rlm_kernel.tools.mcp_program import Program, running

        server = self._server
        if server.url is not None:
            return reached(
                server.url, server.headers, self._gate, max(server.timeout, server.startup) + _SLACK
            )
        program = Program(server.command or "", tuple(server.args), server.env, server.cwd)
        return running(program, self._gate, self._said)

    # Errors

    def _told(self, text: str) -> str:
        secrets = self._server.secrets()
        text = told(redact_cut(text, secrets), 500).rstrip(".")
        return text if text.endswith("?") else f"{text}."

    def _late(self, seconds: float) -> str:
        return f"MCP server {self.name!r} did not answer within {seconds:g} seconds."

    def _gone(self) -> str:
        why = f"The connection to MCP server {self.name!r} has ended"
        if self._gate.why:
            return self._told(f"{why}: {self._gate.why}")
        return self._told(f"{why}{self._last_words()}")

    def _last_words(self) -> str:
        said = map(str.strip, self._said.decode("utf-8", "replace").splitlines())
        lines = [line for line in said if any(map(str.isalnum, line))]  # and no borders of boxes
        return f". It last wrote: {' / '.join(lines[-3:])[-300:]}" if lines else ""

    def _not_started(self, error: BaseException | None) -> RLMError:
        server = self._server
        about = f"MCP server {self.name!r}"
        if (
            isinstance(error, FileNotFoundError | NotADirectoryError)
            and server.cwd
            and not server.cwd.is_dir()
        ):
            return CallFailed(self._told(f"{about}: there is no folder {server.cwd}"))
        if isinstance(error, FileNotFoundError):
            hint = "Install it so that it is in PATH, or give its full path."
            return CallFailed(self._told(f"{about}: there is no program {server.command}"), hint=hint)
        if isinstance(error, TimeoutError):
            text = f"{about} did not start within {server.startup:g} seconds{self._last_words()}"
            return CallFailed(
                self._told(text), hint="Give it more time with its setting `startup`, in seconds."
            )
        why = self._gate.why or _reason(error)
        why = f": {why}" if why else ""
        if server.url is not None:
            return CallFailed(self._told(f"{about} cannot be reached at {server.url}{why}"))
        return CallFailed(self._told(f"{about} does not start{why}{self._last_words()}"))


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        inner = [one for one in error.exceptions if not isinstance(one, asyncio.CancelledError)]
        error = (inner or list(error.exceptions))[0]
    return error


def _reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, asyncio.CancelledError):
        return ""
    text = ""
    with contextlib.suppress(Exception):
        text = str(error)
    if getattr(error, "code", None) == _OTHER_METHOD:
        return "it does not support MCP, or only a later version, or not at this address"
    if text == "Connection closed":
        return "it ended at once"
    return text or type(error).__name__
