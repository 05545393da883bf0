"""Tools of Python functions: what is told of them is their signature and docstring, and their arguments are
checked by their type hints.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import itertools
import threading
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ToolError, UsageError
from rlm_kernel.tools.hints import Shown, default_told, fields_of, said_of, type_told
from rlm_kernel.tools.tool import Permission, Tool, ToolResult, ToolSource

MAX_ITEMS = 500_000
"""Of what a generator gives."""
_WRAPPED = ("func", "coroutine", "fn", "function", "forward", "_run")
"""Where LangChain, llama-index, FastMCP, pydantic-ai, smolagents and CrewAI keep the function of a tool."""
_VAR = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    doc: str | None = None,
    permission: Permission = "allow",
    seconds: float = 60.0,
    children: bool = False,
) -> Tool:
    """Make a tool of a function, for `RLM(tools=[…])`, with another name, docstring or permission.

    Args:
        function: any callable, sync or async. A sync function runs in its own thread.
        name: its name in the kernel. Default: the name of the function.
        doc: the description for the model. Default: the function's docstring.
        permission: "allow"; "ask" asks the user before each call; "deny" refuses all calls.
        seconds: time limit of a call.
        children: whether child RLMs have the tool, too.

    Raises:
        UsageError: the function cannot be a tool.
    """
    if where := wrapped_in(function):
        given = type(function)
        raise UsageError(
            f"A {given.__name__} of {given.__module__.partition('.')[0]} cannot be a tool: its function can.",
            hint=f"Give its function, which is its attribute {where}: tool(it.{where}, name=…, doc=…)",
        )
    kind = _refused(function)
    if kind:
        raise UsageError(f"{_name(function)} is {kind}, which cannot be a tool.", hint=_HINT)
    if not 0 < seconds < 1e9:
        raise UsageError(
            f"A tool cannot have a time limit of {seconds} seconds.", hint="Give a number above 0."
        )
    called = _Function(function)
    told = inspect.cleandoc(doc) if doc is not None else _doc(function)
    return Tool(
        name if name is not None else _name(function),
        called.shown(),
        "\n\n".join(filter(None, [told, *called.forms()])),
        called,
        called.parameters(),
        permission,
        seconds,
        children,
    )


_HINT = "Give a function: def, async def, a method, or any callable object."


def tools_of(given: Sequence[Any]) -> list[Tool | ToolSource]:
    """Tools, sources of tools and functions as tools. Raises UsageError."""
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise UsageError(
            f"tools must be a list of functions, not {type(given).__name__}.", hint="RLM(tools=[function])"
        )
    return [one if isinstance(one, Tool) or hasattr(one, "opened") else tool(one) for one in given]


def _refused(function: Any) -> str:
    """What a value is that cannot be a tool; "" for one that can."""
    if inspect.isasyncgenfunction(inspect.unwrap(function) if callable(function) else function):
        return "an async generator"
    call = getattr(function, "__call__", None)  # noqa: B004 - it is looked at, not tested
    if call is not None and inspect.isasyncgenfunction(call):
        return "an async generator"
    if inspect.isclass(function) and issubclass(function, BaseException):
        return "an exception"
    return "" if callable(function) else f"a {type(function).__name__}"


def wrapped_in(given: Any) -> str:
    """Where a tool of another library has its function; "" for what is no such tool. It cannot be called, or
    its own signature says nothing: (*args, **kwargs).
    """
    if inspect.isroutine(given) or inspect.isclass(given) or isinstance(given, functools.partial):
        return ""
    if callable(given):
        with contextlib.suppress(ValueError, TypeError):
            told = {one.kind for one in inspect.signature(given).parameters.values()}
            if not told & set(_VAR) or told - {*_VAR, inspect.Parameter.KEYWORD_ONLY}:
                return ""
    return next((where for where in _WRAPPED if inspect.isroutine(getattr(given, where, None))), "")


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _name(function.func)
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _doc(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _doc(function.func)
    function = inspect.unwrap(function)
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        own = getattr(type(function).__call__, "__doc__", None) or type(function).__doc__
        return inspect.cleandoc(own or "")
    return inspect.getdoc(function) or ""


class _Function:
    """Calls a function with arguments by name, once they are checked."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        try:
            self._signature = inspect.signature(function)
        except (ValueError, TypeError):  # of some builtins nothing is known
            self._signature = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])
        hints = _hints(function)
        self._hints = {
            name: hints.get(name, Any if isinstance(one.annotation, str) else _annotation(one))
            for name, one in self._signature.parameters.items()
        }
        self._returns = hints.get("return", self._signature.return_annotation)
        self._adapters = {
            name: _adapter(hint, self._signature.parameters[name]) for name, hint in self._hints.items()
        }

    async def __call__(self, arguments: Mapping[str, Any]) -> ToolResult:
        args, kwargs = self._bound(arguments)
        if inspect.iscoroutinefunction(self._function):
            return _result(await self._function(*args, **kwargs))
        found = await _in_thread(lambda: _taken(self._function(*args, **kwargs)))
        return _result(await found if inspect.isawaitable(found) else found)

    def _bound(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Raises ToolError."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        left = dict(arguments)
        by_name = False
        """A positional argument before it is left to its default."""
        for name, one in self._signature.parameters.items():
            if one.kind is one.VAR_POSITIONAL:
                values = left.pop(name, [])
                if not isinstance(values, list) or (values and by_name):
                    raise self._wrong(f"the further arguments *{name} are a list, with all before it given")
                args += [self._checked(name, value) for value in values]
            elif one.kind is one.VAR_KEYWORD:
                more = left.pop(name, {})
                if not isinstance(more, dict) or set(more) & set(kwargs):
                    raise self._wrong(f"the further arguments **{name} have names of their own")
                kwargs |= {key: self._checked(name, value) for key, value in more.items()}
            elif name in left:
                value = self._checked(name, left.pop(name))
                if one.kind is one.KEYWORD_ONLY or by_name:
                    if one.kind is one.POSITIONAL_ONLY:
                        raise self._wrong(f"{name} needs all arguments before it")
                    kwargs[name] = value
                else:
                    args.append(value)
            elif one.default is one.empty:
                raise self._wrong(f"the argument {name!r} is missing")
            else:
                by_name = True
        if left:
            raise self._wrong(f"there is no argument {next(iter(left))[:100]!r}")
        return args, kwargs

    def _checked(self, name: str, value: Any) -> Any:
        from pydantic import ValidationError

        try:
            return self._adapters[name].validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f"[{part!r}]" for part in problem["loc"])
            raise self._wrong(f"{name}{place}: {problem['msg']}") from None

    def _wrong(self, what: str) -> ToolError:
        return ToolError(f"TypeError: {what}. It is called so: {_name(self._function)}{self.shown()}")

    def shown(self) -> str:
        """The signature as it is told: types without their modules, and no default that is long or no plain
        value.
        """
        parameters = [
            one.replace(
                annotation=one.empty if one.annotation is one.empty else Shown(type_told(self._hints[name])),
                default=one.empty if one.default is one.empty else Shown(default_told(one.default)),
            )
            for name, one in self._signature.parameters.items()
        ]
        returns = self._returns
        if returns is not inspect.Signature.empty:
            returns = Shown(type_told(returns))
        return str(inspect.Signature(parameters, return_annotation=returns))

    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments by name."""
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        found: dict[str, Any] = {}
        defs: dict[str, Any] = {}
        for name, adapter in self._adapters.items():
            try:
                schemas, more = TypeAdapter.json_schemas([(name, "validation", adapter)])
            except (PydanticUserError, ValueError, TypeError, RecursionError):
                found[name] = {}
                continue
            defs |= more.get("$defs", {})
            kind, schema = self._signature.parameters[name].kind, schemas[name, "validation"]
            found[name] = (
                {"type": "array", "items": schema}
                if kind is inspect.Parameter.VAR_POSITIONAL
                else {"type": "object", "additionalProperties": schema}
                if kind is inspect.Parameter.VAR_KEYWORD
                else schema
            )
        needed = [
            name
            for name, one in self._signature.parameters.items()
            if one.default is one.empty and one.kind not in _VAR
        ]
        return (
            {"type": "object", "properties": found, "additionalProperties": False}
            | ({"required": needed} if needed else {})
            | ({"$defs": defs} if defs else {})
        )

    def forms(self) -> list[str]:
        """What is said of arguments in their hints, `city: The city's name`, and what values of the
        function's own classes look like, `Order = dict(item: str)`: a line each.
        """
        found: dict[str, None] = {}
        for name, hint in self._hints.items():
            if about := said_of(hint):
                found[f"{name}: {about}"] = None
        for hint in self._hints.values():
            for kind in (hint, *typing.get_args(hint)):
                if fields := fields_of(kind):
                    shown = ", ".join(f"{name}: {type_told(of)}" for name, of in fields.items())
                    found[f"{kind.__name__} = dict({shown})"] = None
        return list(found)


def _hints(function: Any) -> dict[str, Any]:
    """The type hints of a callable; those that cannot be had are missing."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isclass(function):
        function = function.__init__
    elif not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # of names that are imported for type checkers alone
        return {}


def _annotation(one: inspect.Parameter) -> Any:
    return Any if one.annotation is one.empty else one.annotation


def _adapter(hint: Any, one: inspect.Parameter) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError
    from pydantic.fields import FieldInfo

    if isinstance(one.default, FieldInfo):
        raise UsageError(
            f"The default of {one.name} is a pydantic Field, which the function itself would get.",
            hint="Write Annotated[type, Field(…)] = default.",
        )
    try:
        return TypeAdapter(hint)
    except (PydanticUserError, TypeError, NameError, SyntaxError, RecursionError):
        if typing.is_typeddict(hint):  # before Python 3.12 pydantic takes no other than this one
            return TypeAdapter(_typed_dict(hint))
        return TypeAdapter(Any)  # a class that nothing can be checked by


def _typed_dict(hint: Any) -> Any:
    """The same as of typing_extensions; as any dict where its hints cannot be had."""
    import typing_extensions

    try:
        fields = typing.get_type_hints(hint, include_extras=True)
        return typing_extensions.TypedDict(hint.__name__, fields, total=hint.__total__)  # type: ignore[operator]
    except Exception:
        return dict[str, Any]


def _taken(found: Any) -> Any:
    """What a function gave; of a generator its items, which come while it may still take its time."""
    if not isinstance(found, Iterator) or hasattr(found, "read") or inspect.isawaitable(found):
        return found
    items = list(itertools.islice(found, MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        raise ValueError(f"the function gave more than {MAX_ITEMS:,} items")
    return items


def _result(found: Any) -> ToolResult:
    if isinstance(found, ToolResult):
        return found
    if isinstance(found, Path):
        return ToolResult(files=(found,))
    if isinstance(found, list | tuple) and found and all(isinstance(one, Path) for one in found):
        return ToolResult(files=tuple(found))
    return ToolResult(_taken(found))


async def _in_thread(work: Callable[[], Any]) -> Any:
    """What it gives, from a thread that nothing waits for: one that never ends holds nobody up."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)

    def main() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as raised:  # SystemExit, too: it ends none but the call
            error = _Raised(raised)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=main, name="rlm-tool", daemon=True).start()
    try:
        return await done
    except _Raised as raised:
        if isinstance(raised.error, StopIteration):  # which no coroutine may raise
            raise ToolError(f"StopIteration: {raised.error}") from None
        raise raised.error from None


class _Raised(Exception):
    """Carries what was raised in a thread: a future takes no StopIteration, and SystemExit would end the
    loop.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
