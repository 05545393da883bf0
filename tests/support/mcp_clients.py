"""Clients of `rlm mcp`, and the server as they start it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.docker_host import connect

MODELS = ("-m", "openai/root", "--sub-model", "openai/sub")
TOKEN = "a-token-of-the-tests-0123456789"
_RUN = re.compile(r"run: (.*)")


def runs(messages: list[dict[str, Any]]) -> str:
    """A root model that runs what the last question names: `run: CODE`."""
    asked = [code for message in messages for code in _RUN.findall(str(message["content"]))]
    return f"```repl\n{asked[-1]}\n```"


def rlm(*arguments: str) -> list[str]:
    """The command, as a process of its own."""
    return [sys.executable, "-m", "rlm_kernel", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "RLM_SANDBOX__MEMORY": "1g"}


def made_by(pid: int) -> list[str]:
    """Names of the containers that a process has made and that are still there."""
    client = connect()
    try:
        wanted = {"label": f"{containers.LABEL}.owner={pid}"}
        return [one["Names"][0] for one in client.api.containers(all=True, filters=wanted) if one["Names"]]
    finally:
        client.close()


def on_stdio(folder: Path, *arguments: str) -> tuple[StdioServerParameters, Path]:
    """The server as a client starts it, and the file that its process id comes to."""
    pid = folder / "pid"
    command = " ".join(f"'{one}'" for one in rlm("mcp", *arguments, *MODELS))
    parameters = StdioServerParameters(
        command="/bin/sh",
        args=["-c", f"echo $$ > '{pid}'; exec {command}"],
        env=environment(),
        cwd=str(folder),
    )
    return parameters, pid


async def call(client: Client, tool: str, **given: Any) -> Any:
    """A tool's result, which is no error."""
    result = await client.call_tool(tool, given)
    assert not result.is_error, result.content[0].text
    return result.structured_content


async def refused(client: Client, tool: str, **given: Any) -> str:
    """What a tool says that it does not do."""
    result = await client.call_tool(tool, given)
    assert result.is_error, result.structured_content
    return str(result.content[0].text)


class Raw:
    """A server on stdin and stdout, and whoever writes what they like to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    def send(self, message: Any) -> None:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        assert self.process.stdin is not None
        self.process.stdin.write(raw)

    def request(self, number: int, method: str, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    def call(self, number: int, tool: str, **given: Any) -> None:
        meta = {"progressToken": number}
        self.request(number, "tools/call", name=tool, arguments=given, _meta=meta)

    def cancel(self, number: int) -> None:
        told = {"requestId": number}
        self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told})

    async def message(self) -> dict[str, Any]:
        """The next message; everything on stdout has to be one."""
        assert self.process.stdout is not None
        async with asyncio.timeout(100):
            line = (await self.process.stdout.readline()).decode()
        assert line, "the server has ended"
        self.lines.append(line)
        found = json.loads(line)
        assert found["jsonrpc"] == "2.0"
        return dict(found)

    async def reply(self, number: int) -> dict[str, Any]:
        while (found := await self.message()).get("id") != number or "method" in found:
            pass
        return found

    async def initialize(self) -> None:
        client = {"name": "raw", "version": "1"}
        self.request(0, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        await self.reply(0)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})


@contextlib.asynccontextmanager
async def raw(folder: Path, *arguments: str) -> AsyncIterator[Raw]:
    process = await asyncio.create_subprocess_exec(
        *rlm("mcp", str(folder), *arguments, *MODELS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 27,
        env=environment(),
        cwd=folder,
    )
    try:
        client = Raw(process)
        await client.initialize()
        yield client
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(60):
                await process.wait()


@contextlib.asynccontextmanager
async def on_http(folder: Path, *arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A server's address and process; it is ended with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *rlm("mcp", str(folder), "--http", "0", *arguments, *MODELS),
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), "RLM_MCP_TOKEN": TOKEN},
        cwd=folder,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"listening on" not in (line := await process.stderr.readline()):
                assert line, "the server has ended"
        yield line.decode().split()[-1], process
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(60):
                await process.communicate()
