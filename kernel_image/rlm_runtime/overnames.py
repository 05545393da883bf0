"""Where code looks for something in the names or the characters of texts, and means texts and lines.

`context` is a dict of several, so `"ERROR" in context` and `for text in context` see names;
`for line in context` sees the characters of a single one. That raises nothing, and a count of it is wrong: 0.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_OF_TEXTS = ("context", "files")
_SEARCHES = frozenset({"search", "match", "findall", "finditer", "split"})
_METHODS = frozenset({"count", "find", "index"})
_CHANGES = frozenset({"lower", "upper", "casefold", "strip"})
_SECONDS = 0.3
_MOST_CHARS = 64 << 20
"""Characters of the texts that are looked through."""
_PIECE = 1 << 20
_CHARACTERS = 100_000
_REPEATS = re.compile(r"[*+{]")
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_SHOWN = 60


def looked_for(cell: ast.AST, variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the cell looks for in names or characters, and is in a text alone: each with a sentence."""
    until = time.monotonic() + _SECONDS
    for of, sought, in_loop in dict.fromkeys(_sought(cell)):
        value = variables.get(of)
        pattern = _compiled(sought)
        if type(value) is dict and value and all(type(name) is str for name in value):
            parts, whole = list(value), list(value.values())
            told = f"in no name of `{of}`, but in its texts. `in {of}` goes through the names, and "
            told += f"`in {of}.values()` through the texts"
        elif type(value) is str and in_loop:
            parts, whole = list(dict.fromkeys(value[:_CHARACTERS])), [value]
            told = f"no single character. `in {of}` goes through the characters, and "
            told += f"`in {of}.splitlines()` through the lines"
        else:
            continue
        if pattern is None or any(map(pattern.search, parts)):
            continue
        if any(map(pattern.search, _looked_through(whole, until))):
            yield sought, f"{sought[:_SHOWN]!r} is {told}."


def _looked_through(texts: Iterable[Any], until: float) -> Iterator[str]:
    """In pieces, as a search in one of them takes its time, too."""
    left = _MOST_CHARS
    for text in texts:
        if type(text) is str and (left := left - len(text)) > 0:
            for begin in range(0, len(text), _PIECE):
                if time.monotonic() > until:
                    return
                yield text[begin : begin + _PIECE]


def _compiled(sought: str) -> re.Pattern[str] | None:
    """In any case, as code may have changed that. None for what could take long."""
    if _REPEATS.search(_ESCAPED.sub("", sought)):
        return None
    try:
        return re.compile(sought, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError):
        return None


def _sought(cell: ast.AST) -> Iterator[tuple[str, str, bool]]:
    """What of the input a cell goes through, and what it looks for there, as a pattern; whether in a loop."""
    for node in ast.walk(cell):
        for loop in getattr(node, "generators", [node]):
            yield from _in_loop(loop, node)
        if isinstance(node, ast.Compare):
            for name in _OF_TEXTS:
                yield from ((name, sought, False) for sought in _looks_in(node, name))


def _in_loop(loop: ast.AST, whole: ast.AST) -> Iterator[tuple[str, str, bool]]:
    """The same of a loop, or of one in a comprehension, which is the whole then."""
    if isinstance(loop, ast.For | ast.AsyncFor | ast.comprehension):
        of, target = loop.iter, loop.target
        if (
            isinstance(of, ast.Call)
            and isinstance(of.func, ast.Name)
            and of.func.id == "enumerate"
            and of.args
        ):
            of, target = of.args[0], target.elts[-1] if isinstance(target, ast.Tuple) else target
        if (
            isinstance(of, ast.Name)
            and of.id in _OF_TEXTS
            and isinstance(target, ast.Name)
            and not _set_again(target, whole)
        ):
            yield from ((of.id, sought, True) for sought in _looks_in(whole, target.id))


def _set_again(target: ast.Name, loop: ast.AST) -> bool:
    """Whether the variable of a loop gets other values within it, as in `name = context[name]`."""
    return any(
        isinstance(node, ast.Name)
        and node.id == target.id
        and isinstance(node.ctx, ast.Store)
        and node is not target
        for node in ast.walk(loop)
    )


def _looks_in(where: ast.AST, name: str) -> Iterator[str]:
    """What is looked for in the variable of this name, as patterns."""
    for node in ast.walk(where):
        if (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], ast.In | ast.NotIn)
        ):
            if (text := _text(node.left)) and _is(node.comparators[0], name):
                yield re.escape(text)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            text = _text(node.args[0])
            if text and node.func.attr in _METHODS and _is(node.func.value, name):
                yield re.escape(text)
            elif text and node.func.attr in _SEARCHES and len(node.args) > 1 and _is(node.args[1], name):
                yield text


def _is(node: ast.expr, name: str) -> bool:
    """Whether it is the variable, or what str's methods make of it."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
        node = node.func.value
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and type(node.value) is str else ""
