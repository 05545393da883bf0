"""Tools: functions of the host under their names here, as the set-up cell declares them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlm_contract import HELPERS, ToolAnswer, ToolCall, ToolDeclared

from rlm_runtime import asyncwire, files, labels, remarks, wire
from rlm_runtime.delivery import plain
from rlm_runtime.schemas import Wanted

declared: dict[str, Callable[..., Any]] = {}
"""Name to function of all tools."""
_told: dict[str, tuple[str, str]] = {}
"""Name to signature and docstring."""
_listeners: list[Callable[[Mapping[str, Any]], None]] = []
_DOC = 300
"""Characters of a docstring's first paragraph that the root model is told."""
_FORM = re.compile(r"^\w+ = dict\(.*\)$", re.MULTILINE)
_VAR = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def tools(declarations: Sequence[ToolDeclared]) -> None:
    """Have functions of the host under their names: who runs this session calls them, and no other.

    Those that were declared before, and are not among these, are not told any more. Each may be called with
    positional and keyword arguments, from threads, and by `await name.async_(…)`.
    Raises ToolError.
    """
    made = {one["name"]: _function(_Tool(one)) for one in declarations}
    if taken := HELPERS & made.keys():
        raise ValueError(f"{', '.join(sorted(taken))}: the session has that name")
    declared.update(made)
    _told.clear()
    _told.update((one["name"], (one["signature"], one.get("doc", ""))) for one in declarations)
    for listener in _listeners:
        listener(made)


def on_declared(listener: Callable[[Mapping[str, Any]], None]) -> None:
    """Have a function called with tools as soon as they are declared."""
    _listeners.append(listener)


def described() -> list[tuple[str, str, str]]:
    """Name, signature, and the beginning of the docstring of each tool, for the root model."""
    return [(name, signature, _brief(doc)) for name, (signature, doc) in _told.items()]


def _brief(doc: str) -> str:
    """The first paragraph, and what values of its own classes look like."""
    first = " ".join(doc.partition("\n\n")[0].split())
    first = first if len(first) <= _DOC else f"{first[:_DOC]}…"
    return " ".join([first, *(form for form in _FORM.findall(doc) if form not in first)])


def _function(tool: _Tool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return tool.call(args, kwargs)

    async def async_(*args: Any, **kwargs: Any) -> Any:
        return await tool.call_async(args, kwargs)

    both: tuple[Any, ...] = (call, async_)
    for function in both:
        function.__name__ = function.__qualname__ = tool.name
        function.__module__ = "__main__"
        function.__doc__ = tool.doc
        function.__signature__ = tool.signature
    call.async_ = async_  # type: ignore[attr-defined]
    return call


class _Written:
    """An annotation or a default as it is written: nothing here evaluates it."""

    def __init__(self, node: ast.expr) -> None:
        self._text = ast.unparse(node)

    def __repr__(self) -> str:
        return self._text


_OF_ARGUMENTS = {
    "FINAL got a": "an argument is a",
    "which is no answer": "which cannot be sent",
    "this answer": "an argument",
    "delivered": "sent",
    "deliver": "send",
    "Deliver": "Send",
}
"""What `plain` says of an answer, and what that is of an argument."""


class _Tool:
    def __init__(self, told: ToolDeclared) -> None:
        self.name = told["name"]
        self._shown = f"{self.name}{told['signature']}"
        self.doc = told.get("doc", "") or f"A tool: {self._shown}"
        parameters = told.get("parameters", {})
        self.signature = _signature(told["signature"]) or _of_schema(parameters)
        self._paths = {
            name
            for name, schema in parameters.get("properties", {}).items()
            if '"path"' in json.dumps(schema)
        }
        """Arguments that are files: the name of a loaded one stands for its path."""
        try:
            self._wanted = Wanted(parameters) if parameters else None
        except TypeError:  # no schema that is understood here: the host checks the arguments all the same
            self._wanted = None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _result(wire.call("tool", self._body(args, kwargs)))

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = await asyncwire.call("tool", self._body(args, kwargs))
        return await asyncio.to_thread(_result, answer) if answer["files"] else answer["value"]

    def _body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ToolCall:
        """What is sent. Raises TypeError for arguments that the tool does not take."""
        try:
            given = dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as wrong:
            raise TypeError(f"{self.name}() {wrong}. It is called so: {self._shown}") from None
        try:
            arguments = plain(given, wire.session()["max_request"])
        except (ValueError, TypeError) as wrong:
            told = str(wrong)
            for word, here in _OF_ARGUMENTS.items():
                told = told.replace(word, here)
            raise TypeError(f"{self.name}(): {told}") from None
        for name in self._paths & arguments.keys():
            arguments[name] = _host_path(arguments[name])
        if self._wanted is not None:
            try:
                self._wanted.check(arguments)
            except ValueError as wrong:
                raise TypeError(f"{self.name}(): {wrong}. It is called so: {self._shown}") from None
        return {"name": self.name, "arguments": arguments}


def _host_path(value: Any) -> Any:
    """The host's path of a loaded file that is named, or of each of several."""
    if isinstance(value, list):
        return list(map(_host_path, value))
    return files.path_of(value) or value if isinstance(value, str) else value


def _result(answer: ToolAnswer) -> Any:
    """The value of a call. Files that came with it are loaded; without a value they are it: the text of one,
    a list of those of several. A file that cannot be read costs no value: the function has done its work.

    Raises FileRefused where there is no value and a file cannot be read.
    """
    texts = []
    for path in answer["files"]:
        try:
            texts.append(files.load_beside(path))
        except wire.FileRefused as refused:
            if answer["value"] is None:
                raise
            remarks.add(labels.on_a_line(path), f"this file of the result cannot be read: {refused}")
    remarks.tell()
    if answer["value"] is not None or not texts:
        return answer["value"]
    return texts[0] if len(texts) == 1 else texts


def _signature(text: str) -> inspect.Signature | None:
    """A signature as it is written; None for what is none."""
    try:
        (made,) = ast.parse(f"def f{text}: ...").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(made, ast.FunctionDef):
        return None
    given, kinds = made.args, inspect.Parameter
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    parts = [
        _parameter(
            one,
            kinds.POSITIONAL_OR_KEYWORD if place >= len(given.posonlyargs) else kinds.POSITIONAL_ONLY,
            default,
        )
        for place, (one, default) in enumerate(zip(positional, defaults, strict=True))
    ]
    parts += [_parameter(given.vararg, kinds.VAR_POSITIONAL, None)] if given.vararg else []
    parts += [
        _parameter(one, kinds.KEYWORD_ONLY, default)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    parts += [_parameter(given.kwarg, kinds.VAR_KEYWORD, None)] if given.kwarg else []
    returns = inspect.Signature.empty if made.returns is None else _Written(made.returns)
    return inspect.Signature(parts, return_annotation=returns)


def _parameter(one: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        one.arg,
        kind,
        default=empty if default is None else _Written(default),
        annotation=empty if one.annotation is None else _Written(one.annotation),
    )


def _of_schema(parameters: Mapping[str, Any]) -> inspect.Signature:
    """That of a tool of which only its parameters are known."""
    needed = parameters.get("required", [])
    names = [name for name in parameters.get("properties", {}) if name.isidentifier()]
    ordered = sorted(names, key=lambda name: name not in needed)
    parts = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if name in needed else _Written(ast.Constant(...)),
        )
        for name in ordered
    ]
    return inspect.Signature(parts)
