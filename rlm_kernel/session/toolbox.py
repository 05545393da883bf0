"""The tools of a run: opened for as long as it lives, declared in the kernel, and called within bounds."""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import itertools
import json
import keyword
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlm_contract import HELPERS

from rlm_kernel.config import parse_size
from rlm_kernel.engine.protocols import PauseTimer
from rlm_kernel.errors import RLMError, ToolError, UsageError
from rlm_kernel.printable import printable
from rlm_kernel.secrets import known_secrets, redact
from rlm_kernel.session.environment import Host
from rlm_kernel.session.plainvalues import NO_CONTEXT
from rlm_kernel.session.toolfiles import ToolFiles
from rlm_kernel.tools.tool import AllowCall, Tool, ToolResult, ToolSource

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import FileGrants

MAX_TOOLS = 200
"""Of one run: all stand in the prompt."""
MAX_DECLARED = 1_000_000
"""Characters of the code that declares them."""
MAX_SIGNATURE, MAX_DOC, MAX_PARAMETERS = 2_000, 8_000, 100_000
"""Characters of one tool."""
MAX_REFUSALS = 20
"""Questions to which the user said no: after them they are asked no more."""
TOOLS_CELL = "tools"
"""The id of a cell that declares tools after the set-up cells."""
_PATHS = ("path", "file-path", "directory-path")
_DEPTH = 100
"""Of a schema and a value, in which paths are looked for."""
_STEPS = 1_000_000
"""Parts of schemas and values that are looked at for paths, of one call."""
_NONE = "tools([])"
_ERROR = 2_000
"""Characters of what a function said of its failure."""
_IN_GROUP = 5
"""Failures of a group that are told."""
_RESERVED = frozenset((*HELPERS, *dir(builtins), *keyword.kwlist, *keyword.softkwlist))


@contextlib.asynccontextmanager
async def opened(host: Host) -> AsyncIterator[Host]:
    """The host with its sources of tools opened: its `tools` can be called until the context ends.

    They are those that it was given, and those of the MCP servers of its settings.

    Raises UsageError for names that cannot be had in the kernel, and what the sources raise.
    """
    async with contextlib.AsyncExitStack() as stack:
        found: list[Tool] = []
        for one in host.tools:
            found += [one] if isinstance(one, Tool) else await stack.enter_async_context(one.opened())
        if host.settings.mcp.servers:
            from rlm_kernel.session.mcp_servers import mcp_servers

            taken = {*HELPERS, *(tool.name for tool in found)}
            servers = mcp_servers(host.settings, host.say, taken)
            found += await stack.enter_async_context(servers.opened())
        check_names(found)
        yield replace(host, tools=tuple(found))


def check_names(tools: Sequence[Tool]) -> None:
    """Raise UsageError for tools that cannot have their names in the kernel."""
    if len(tools) > MAX_TOOLS:
        raise UsageError(
            f"There are {len(tools):,} tools; a run can have at most {MAX_TOOLS}.",
            hint="All of them go into the prompt. Give fewer functions. The setting `tools` of an MCP "
            "server selects its tools; `rlm tools` lists them.",
        )
    seen: set[str] = set()
    for tool in tools:
        name, shown = tool.name, repr(tool.name[:100])
        if not name.isidentifier() or not name.isascii() or len(name) > 64 or name.startswith("_"):
            raise UsageError(
                f"No tool can be called {shown}: code in the kernel could not call it.",
                hint="A name must begin with a letter and have at most 64 letters, digits and underscores: "
                "tool(function, name=…)",
            )
        if name in _RESERVED:
            raise UsageError(
                f"No tool can be called {shown}: the kernel has that name already.",
                hint="Give it another name: tool(function, name=…)",
            )
        if name in seen:
            raise UsageError(
                f"Two tools have the name {shown}.",
                hint="Give one of them another name: tool(function, name=…)",
            )
        seen.add(name)


def declared(tools: Iterable[Tool | ToolSource]) -> str:
    """The code that makes opened tools in the kernel; "" for none. Raises UsageError."""
    found = [tool for tool in tools if isinstance(tool, Tool)]
    check_names(found)
    if not found:
        return ""
    told = map(_told, found)
    code = "tools([\n" + "".join(f"    {one!r},\n" for one in told) + "])"
    if len(code) > MAX_DECLARED:
        raise UsageError(
            f"The declarations of these tools take {len(code):,} characters; at most {MAX_DECLARED:,} are "
            "allowed.",
            hint="Give fewer tools, or shorter docstrings.",
        )
    return code


def _told(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "signature": _line(tool.signature)[:MAX_SIGNATURE]}
    if doc := printable(tool.doc.strip())[:MAX_DOC]:
        told["doc"] = doc
    parameters = dict(tool.parameters)
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        if len(plain := json.dumps(parameters)) <= MAX_PARAMETERS:
            told["parameters"] = json.loads(plain)
    return told


def _line(text: str) -> str:
    return " ".join(printable(text).split())


class _Cell(Protocol):
    @property
    def id(self) -> str: ...


def undeclared(tools: Sequence[Tool | ToolSource], cells: Iterable[str]) -> str:
    """The code that declares the tools, or that there are none, where the last of these cells (their code)
    that declares any does not declare these; else "".
    """
    last = next((found for cell in reversed(list(cells)) if (found := _declaration(cell))), "")
    code = declared(tools) or (_NONE if last else "")
    return code if code.strip() != last.strip() else ""


def _declaration(cell: str) -> str:
    """The call of `tools` in a cell's code."""
    if "tools([" not in cell:
        return ""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.parse(cell).body:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call)
                and isinstance(node.value.func, ast.Name)
                and node.value.func.id == "tools"
            ):
                return ast.get_source_segment(cell, node) or ""
    return ""


def free_id(name: str, cells: Iterable[_Cell]) -> str:
    """The id, with a number behind it if a cell has it already."""
    taken = {cell.id for cell in cells}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


class Toolbox:
    """Implements `engine.protocols.Tools` over the opened tools of a host.

    Nothing that was not given can be called. So many calls are under way at once, each for so long, with
    arguments and results of so many bytes. Files that a tool gives are granted to the kernel.
    """

    def __init__(self, host: Host, grants: FileGrants, trace: Path) -> None:
        """`trace`: files that tools give are kept beside it."""
        self._tools = {tool.name: tool for tool in host.tools if isinstance(tool, Tool)}
        self._limits = host.settings.tools
        self._size = parse_size(self._limits.size)
        self._permission = _Permission(host.allow_call)
        self._grants = grants
        self._files = ToolFiles(grants, trace, parse_size(self._limits.kept))
        self._places = asyncio.Semaphore(self._limits.at_once)

    def has(self, name: str) -> bool:
        return name in self._tools

    async def call(
        self, name: str, arguments: Mapping[str, Any], pause_timer: PauseTimer, asking: PauseTimer
    ) -> dict[str, Any]:
        tool = self._tools[name]
        size = await asyncio.to_thread(lambda: len(json.dumps(arguments)))
        if size > self._size:
            raise ToolError(
                f"The arguments of {name} have {size:,} bytes; {self._size:,} at most (tools.size)."
            )
        arguments = await asyncio.to_thread(self._with_files, tool, arguments)
        await self._permission.check(tool, arguments, asking)
        with pause_timer():  # a call has a time of its own
            async with self._places:
                result = await self._done(tool, arguments)
        try:
            value, files = await self._files.of(name, result, self._size)
        except RLMError as error:
            why = error.message.removeprefix(NO_CONTEXT)
            raise ToolError(f"The result of {name} cannot be taken: {why}") from error
        except Exception as error:  # the methods of a value are the tool's own
            raise ToolError(f"The result of {name} cannot be taken: {_worded(error)}") from error
        return {"value": value, "files": [str(path) for path in files]}

    def _with_files(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, with where files are that are arguments (`Path`): those of the session alone.

        Blocking. Raises ToolError.
        """
        # Large data for a tool that takes no files is not looked through.
        shown = json.dumps(tool.parameters, default=str)
        if not any(f'"{kind}"' in shown for kind in _PATHS):
            return dict(arguments)
        places = _Places(self._grants, tool.parameters.get("$defs", {}))
        try:
            return dict(places.placed(tool.parameters, dict(arguments)))
        except RLMError as error:
            raise ToolError(f"FileRefused: {error.message}") from error

    async def _done(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
        seconds = min(tool.seconds, self._limits.timeout)
        task = asyncio.current_task()
        assert task is not None
        stopped = task.cancelling()
        try:
            async with asyncio.timeout(seconds) as limit:
                return await tool.call(arguments)
        except RLMError as error:
            raise error if isinstance(error, ToolError) else ToolError(_cut(str(error))) from error
        except asyncio.CancelledError as error:
            if task.cancelling() > stopped:
                raise
            raise ToolError("CancelledError: the function was cancelled") from error
        except BaseException as error:  # SystemExit, too: it ends none but the call
            if isinstance(error, TimeoutError) and limit.expired():
                raise ToolError(f"TimeoutError: {tool.name} gave no result within {seconds:g} s.") from error
            raise ToolError(_worded(error)) from error


class _Places:
    """Puts the host's path in the place of each file that a JSON schema has in a value, however deep."""

    def __init__(self, grants: FileGrants, defs: Any) -> None:
        self._grants = grants
        self._defs = defs if isinstance(defs, dict) else {}
        self._left = _STEPS

    def placed(self, schema: Any, value: Any, depth: int = _DEPTH) -> Any:
        """The value with real paths. Raises FileRefused for a file that is not of the session."""
        if not isinstance(schema, dict):
            return value
        self._step()
        if not depth:
            raise ToolError("The argument is nested too deep.")
        if isinstance(name := schema.get("$ref"), str):
            value = self.placed(self._defs.get(name.removeprefix("#/$defs/")), value, depth - 1)
        if isinstance(value, str):
            if any(one.get("format") in _PATHS for one in self._meant(schema, depth)):
                return str(self._grants.locate(value).source)
            return value
        for one in _forms(schema):
            value = self.placed(one, value, depth - 1)
        if isinstance(value, list):
            first = schema.get("prefixItems")
            first = first if isinstance(first, list) else []
            rest = [schema.get("items")] * (len(value) - len(first))
            return [self.placed(*pair, depth - 1) for pair in zip([*first, *rest], value, strict=False)] + (
                value[len(first) + len(rest) :]
            )
        if isinstance(value, dict):
            known = schema.get("properties")
            known, others = known if isinstance(known, dict) else {}, schema.get("additionalProperties")
            return {
                key: self.placed(known.get(key, others), inner, depth - 1) for key, inner in value.items()
            }
        return value

    def _step(self) -> None:
        """Count: a schema may be a stranger's, and lead to itself in many ways. Raises ToolError."""
        self._left -= 1
        if self._left < 0:
            raise ToolError("The argument has too many parts, or its schema too many ways.")

    def _meant(self, schema: Any, depth: int) -> Iterator[Mapping[str, Any]]:
        """The schema, and those that it offers for the same value, but for what `$ref` names."""
        if isinstance(schema, dict) and depth:
            self._step()
            yield schema
            for one in _forms(schema):
                named = one.get("$ref") if isinstance(one, dict) else None
                yield from self._meant(
                    self._defs.get(named.removeprefix("#/$defs/")) if isinstance(named, str) else one,
                    depth - 1,
                )


def _forms(schema: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(found := schema.get(name), list):
            yield from found


class _Permission:
    """Whether code may call a tool; the user is asked one question at a time, and none twice."""

    def __init__(self, ask: AllowCall | None) -> None:
        self._ask = ask
        self._one = asyncio.Lock()
        self._always: set[str] = set()
        self._refused: set[str] = set()

    async def check(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        asking: PauseTimer,
    ) -> None:
        """Raises ToolError."""
        if tool.permission == "allow":
            return
        if tool.permission == "deny" or not await self._asked(tool.name, arguments, asking):
            raise ToolError(f"PermissionError: the user does not allow this call of {tool.name}.")

    async def _asked(self, name: str, arguments: Mapping[str, Any], asking: PauseTimer) -> bool:
        if self._ask is None:
            return False
        same = f"{name} {json.dumps(arguments, sort_keys=True)}"
        with asking():
            async with self._one:
                if name in self._always:
                    return True
                if same in self._refused or len(self._refused) >= MAX_REFUSALS:
                    return False
                answer = await self._ask(name, arguments)
                if answer == "always":
                    self._always.add(name)
                elif answer is not True:
                    self._refused.add(same)
                return answer is True or answer == "always"


def _worded(error: BaseException) -> str:
    """Type and message of a failure, without secrets, and nothing of where it happened."""
    told = _said(error)
    if isinstance(error, BaseExceptionGroup):  # of those in a TaskGroup it says only how many there are
        told += f": {'; '.join(map(_said, itertools.islice(_single(error), _IN_GROUP)))}"
    return _cut(redact(told, known_secrets(os.environ)))  # libraries name addresses with their keys


def _said(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = ""
    return f"{type(error).__name__}: {message}".removesuffix(": ")


def _single(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group that are no groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _single(error)
        else:
            yield error


def _cut(text: str) -> str:
    text = printable(text.encode("utf-8", "replace").decode())
    return text if len(text) <= _ERROR else f"{text[:_ERROR]}…"
