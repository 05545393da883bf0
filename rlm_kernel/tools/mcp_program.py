"""An MCP server that is a program: started in a process group of its own, and ended with all that it started.

The library has such a transport, too. This one bounds what the program sends, hears why it ends, and ends
its process group also where its first process ended by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.bounded import TooMuch, parse
from rlm_kernel.tools.mcp_gate import MAX_MESSAGE, TOO_MUCH, Gate

if TYPE_CHECKING:
    from anyio.abc import ObjectReceiveStream, ObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage

GRACE = 2.0
"""Seconds after its stdin was closed, and again after SIGTERM."""
_TAIL = 4_000
"""Bytes of what it wrote to stderr that are kept."""
_CHUNK = 64 << 10


@dataclass(frozen=True)
class Program:
    """What is started, all variables filled in."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@asynccontextmanager
async def running(program: Program, gate: Gate, said: bytearray) -> AsyncIterator[TransportStreams]:
    """The program's messages, and where to send some. It is ended with the context.

    `said` gets the end of what it writes to stderr. Raises OSError where it cannot be started.
    """
    import anyio
    from mcp.shared.message import SessionMessage

    # Nothing is awaited from the start of the process to the `finally` that ends it.
    with _errors() as errors:
        process = await _started(program, errors)
        try:
            into, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            write, out = anyio.create_memory_object_stream[SessionMessage](0)
            async with anyio.create_task_group() as tasks, read, write:
                tasks.start_soon(_reading, process, into, gate)
                tasks.start_soon(_writing, process, out, gate)
                if process.stderr is not None:
                    tasks.start_soon(_listening, process, said)
                try:
                    yield read, write
                finally:
                    gate.end()
                    with anyio.CancelScope(shield=True):
                        await _ended(process)
                    tasks.cancel_scope.cancel()
        finally:
            # A task that asyncio itself cancels is not shielded.
            _kill(process)


async def _started(program: Program, errors: Any) -> Any:
    from mcp.client.stdio import get_default_environment

    env = get_default_environment() | dict(program.env)
    if sys.platform == "win32":
        from mcp.os.win32.utilities import create_windows_process, get_windows_executable_command

        command = get_windows_executable_command(program.command)
        return await create_windows_process(command, list(program.args), env, errors, program.cwd)
    import anyio

    return await anyio.open_process(
        [program.command, *program.args], env=env, cwd=program.cwd, stderr=errors, start_new_session=True
    )


def _errors() -> Any:
    """Where it writes its stderr: a pipe, or on Windows a file that goes."""
    import contextlib
    import subprocess

    if sys.platform == "win32":
        return tempfile.TemporaryFile("w")
    return contextlib.nullcontext(subprocess.PIPE)


async def _reading(process: Any, into: ObjectSendStream[SessionMessage | Exception], gate: Gate) -> None:
    """Give on the messages of its lines until it ends, or sends too much."""
    import anyio

    async with into:
        try:
            async for line in _lines(process.stdout, gate):
                message = _message(line, gate)
                if message is None:
                    if not gate.noise(len(line)):
                        return
                elif gate.hears(message, len(line)):
                    await into.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return
        finally:
            gate.end()


async def _lines(stdout: Any, gate: Gate) -> AsyncIterator[bytes]:
    import anyio

    left = bytearray()
    while not gate.over.is_set():
        try:
            chunk = await stdout.receive(_CHUNK)
        except anyio.EndOfStream:
            return
        looked = len(left)
        left += chunk
        while (end := left.find(b"\n", looked)) >= 0:
            yield bytes(left[:end])
            del left[: end + 1]
            looked = 0
        if len(left) > MAX_MESSAGE:
            gate.end(f"it sent a message of more than {MAX_MESSAGE >> 20} MiB")


def _message(line: bytes, gate: Gate) -> SessionMessage | None:
    """The message of a line; None for a line of a log. What takes too much memory ends the connection."""
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    if not line.lstrip().startswith(b"{"):
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_python(parse(line), by_name=False))
    except TooMuch:
        gate.end(TOO_MUCH)
    except (ValueError, RecursionError):
        pass  # a line of a log, after all
    return None


async def _writing(process: Any, out: ObjectReceiveStream[SessionMessage], gate: Gate) -> None:
    import anyio

    async with out:
        try:
            async for message in out:
                gate.sent(message)
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(text.encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            gate.end()


async def _listening(process: Any, said: bytearray) -> None:
    import anyio

    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        while True:
            said += await process.stderr.receive(_CHUNK)
            del said[:-_TAIL]


async def _ended(process: Any) -> None:
    """Close its stdin, wait for it to end, then end its whole group. Every wait has an end."""
    import anyio

    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    await _wait(process)
    if sys.platform == "win32":
        from mcp.os.win32.utilities import terminate_windows_process_tree

        await terminate_windows_process_tree(process)
    else:
        from mcp.os.posix.utilities import terminate_posix_process_tree

        await terminate_posix_process_tree(process, GRACE)
    await _wait(process)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await pipe.aclose()


async def _wait(process: Any) -> None:
    """Until it has ended, or the grace is over.

    Not `process.wait()`: that waits for its pipes, too, which what it started may hold.
    """
    import anyio

    with anyio.move_on_after(GRACE):
        while process.returncode is None:  # noqa: ASYNC110 (nothing else tells it)
            await anyio.sleep(0.01)


def _kill(process: Any) -> None:
    if process.returncode is None:
        with suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:  # it warns if it is left open while something holds a pipe
        with suppress(OSError):
            transport.close()
