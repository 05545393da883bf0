"""Tool calls that nobody offered.

Models that were trained to call tools do so all the same, most of them to run Python.

What such a tool was to run stands in the reply's text as a block of code; of other tools it says there that
they were called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.models._bounds import load

_RUNS_CODE = re.compile(
    r"python|jupyter|interpreter|notebook|^(?:i?repl|run|exec|execute|code|run_?code|exec(?:ute)?_?code|sandbox)$|repl"
)
"""Names of tools that run Python."""
_RUNS_OTHER = re.compile(r"bash|shell|terminal|sql|javascript|node|powershell|container\.exec")
_CODE_NAMES = ("code", "source", "script", "python", "python_code", "program", "cell")
_FENCE = re.compile(r"(`{3,}+|~{3,}+)[\w.+-]*+[ \t]*+\n")
_BROKEN = re.compile(rf"""\s*\{{\s*["'](?:{"|".join(_CODE_NAMES)}|input)["']\s*:\s*(["'])(.*)""", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "/": "/"}
_SHOWN = 300


@dataclass(frozen=True)
class ToolCall:
    """A tool's name and its arguments, as they came: a text, which may be JSON, or a JSON object."""

    name: str
    arguments: Any = ""

    @property
    def code(self) -> str | None:
        """The Python that it was to run; None where it is another tool."""
        if _RUNS_OTHER.search(self.name.lower()):
            return None
        by_name = _RUNS_CODE.search(self.name.lower()) is not None
        found = _code_in(self.arguments, by_name=by_name)
        if found is None or not found.strip():
            return None
        return _unfenced(found)


def tool_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    """The tool calls of a message, of the old form and the new."""
    listed = message.get("tool_calls")
    given = [
        *(listed if isinstance(listed, list) else [listed] if isinstance(listed, Mapping) else []),
        message.get("function_call"),
    ]
    calls = []
    for item in given:
        if not isinstance(item, Mapping):
            continue
        function = item.get("function")
        inner: Mapping[str, Any] = function if isinstance(function, Mapping) else item
        name = (
            inner.get("name")
            or (function if isinstance(function, str) else None)
            or ("python" if "code" in inner else None)
        )
        arguments = next(
            (
                inner[key]
                for key in ("arguments", "input", "args", "parameters", "code")
                if inner.get(key) is not None
            ),
            "",
        )
        if isinstance(name, str) and name.strip():
            calls.append(ToolCall(_plain_name(name), arguments))
    return calls


def in_text(text: str, calls: Sequence[ToolCall]) -> tuple[str, tuple[str, ...]]:
    """The text with the code of the calls as blocks, and the names of those that run none.

    A text is never empty.
    """
    parts = [text] if text.strip() else []
    others = []
    for call in calls:
        if (code := call.code) is None:
            others.append(call.name)
        elif f"\n{code.strip()}\n" not in text:  # some servers leave it in the text as well
            parts.append(_block(code))
    if not parts:
        shown = "; ".join(f"{call.name}({_shown(call.arguments)})" for call in calls)
        parts.append(f"[called a tool: {shown}]")
    return "\n\n".join(parts), tuple(dict.fromkeys(others))


def _block(code: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}repl\n{code.rstrip()}\n{fence}"


def _plain_name(name: str) -> str:
    """The name alone: templates leave markers of channels on it, a namespace, or a number."""
    name = name[:1000].split("<|")[0].strip()
    return re.sub(r":\d+$", "", name).removeprefix("functions.").removeprefix("to=")[:100] or "?"


def _shown(arguments: Any) -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
    return " ".join(text.split())[:_SHOWN]


def _code_in(arguments: Any, *, by_name: bool) -> str | None:
    """Code in arguments: in the one text that is named so, in the only one there is, or all of it where that
    is no JSON.
    """
    if isinstance(arguments, str):
        try:
            arguments = load(arguments)
        except ValueError:
            return _not_json(arguments, by_name=by_name)
        if not isinstance(arguments, str | Mapping | list):  # code that is JSON, such as a number
            return str(arguments) if by_name else None
    if isinstance(arguments, str):
        return arguments if by_name else None
    if isinstance(arguments, list):
        return "\n".join(arguments) if by_name and all(isinstance(line, str) for line in arguments) else None
    if not isinstance(arguments, Mapping):
        return None
    texts = {
        str(name).lower(): _lines(value) for name, value in arguments.items() if _lines(value) is not None
    }
    named = [texts[name] for name in _CODE_NAMES if name in texts]
    if len(named) == 1 or (named and by_name):
        return named[0]
    return next(iter(texts.values())) if by_name and len(texts) == 1 else None


def _lines(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return (
        "\n".join(value)
        if isinstance(value, list) and value and all(isinstance(line, str) for line in value)
        else None
    )


def _unfenced(code: str) -> str:
    """The code in a fence, if all of it is in one."""
    whole = code.strip()
    begun = _FENCE.match(whole)
    if begun is None or not whole.endswith(begun[1], begun.end()):
        return code
    return whole[begun.end() : -len(begun[1])].rstrip()


def _without_end(text: str, quote: str) -> str:
    """A text without the quote, and perhaps a comma and braces, at its end."""
    end = text.rstrip().rstrip("}").rstrip().removesuffix(",").rstrip()
    return end.removesuffix(quote) if end.endswith(quote) else text


def _not_json(text: str, *, by_name: bool) -> str | None:
    """Arguments that are not JSON: code as it is, or JSON that broke at a quote or at its end."""
    if broken := _BROKEN.match(text):
        code = _without_end(broken[2], broken[1])
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), code, flags=re.DOTALL)
    return text if by_name and not text.lstrip().startswith("{") else None
