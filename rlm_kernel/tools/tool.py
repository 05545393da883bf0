"""What a tool is: a function of the host that code in the kernel calls by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Permission = Literal["allow", "ask", "deny"]
"""Whether code may call a tool; "ask": the user is asked."""


@dataclass(frozen=True)
class ToolResult:
    """Result of a call: a `value` that JSON can hold, and `files` on the host that the kernel may read."""

    value: Any = None
    files: Sequence[Path] = ()


AllowCall = Callable[[str, Mapping[str, Any]], Awaitable[bool | Literal["always"]]]
"""Asks the user whether code may call the tool of that name with these arguments; "always": in this run from
now on, whatever the arguments.
"""
Call = Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
"""Does the call with its arguments by name; what it raises becomes an exception in the cell."""


@dataclass(frozen=True)
class Tool:
    """A function of the host that code in the kernel can call by a name.

    `parameters`: JSON schema of the arguments, an object. `signature`: the signature in Python's form,
    "(city: str, days: int = 3) -> dict", for the prompt. `doc`: its docstring. `seconds`: time limit of a
    call. `children`: whether child RLMs have it, too.
    """

    name: str
    signature: str
    doc: str
    call: Call
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    permission: Permission = "allow"
    seconds: float = 60.0
    children: bool = False


class ToolSource(Protocol):
    """Where tools come from that must be opened first, such as an MCP server."""

    def opened(self) -> AbstractAsyncContextManager[Sequence[Tool]]:
        """Its tools, which can be called until the context ends. Raises RLMError."""
