"""What a search that found nothing may have meant: the line of the input with the words of its pattern."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from typing import Any

_SEARCHES = frozenset({"grep", "search", "match", "fullmatch", "findall", "finditer", "compile"})
_NO_WORDS = re.compile(r"\\.|\(\?[a-zA-Z-]+\)|\[[^\]]*\]|\{[^}]*\}")
"""Of a pattern: what is no word of the text."""
_WORD = re.compile(r"[^\W\d_]{3,}")
_OTHERS = (
    (r"\\\|", r"`\|` is the character |, and `|` means `or`"),
    (r"\[\[:\w+:\]", r"sets such as `[[:digit:]]` are not known: write `[0-9]` or `\d`"),
    (r"\\[<>]", r"`\<` and `\>` are the characters < and >: write `\b`"),
)
"""What patterns of other programs have, and what it is in Python's."""
_OVER_LINES = re.compile(r"(?:\\n|\n)[^?*$)|]")
_SETS = re.compile(r"\[\^?\]?[^\]]*\]")
_MOST_WORDS = 8
_MOST_CHARS = 64 << 20
"""Characters of a text that is looked through."""
_SECONDS = 0.5
_SHOWN = 200
"""Characters of the line."""


def line_with_words(cell: ast.AST, context: Any) -> str:
    """A sentence that shows it, for the first pattern of the cell that has one; "" where there is none."""
    until = time.monotonic() + _SECONDS
    for pattern in _patterns(cell):
        words = list(dict.fromkeys(word.lower() for word in _WORD.findall(_NO_WORDS.sub(" ", pattern))))
        if not 1 < len(words) <= _MOST_WORDS:
            continue
        for text in _texts(context):
            if line := _with_all(words, text, until):
                return (
                    f"No line fits {pattern[:100]!r}, but one has these words: {line!r}. Correct the pattern."
                )
    return ""


def as_elsewhere(pattern: str) -> str:
    """What of a pattern that found nothing means something else in other programs; "" for none."""
    whole = pattern.replace(r"\\", " ")  # a backslash of the text, which makes nothing of what follows it
    bare = _SETS.sub("", whole)
    for sign, told in _OTHERS:
        if re.search(sign, whole if sign.startswith(r"\[\[") else bare):
            return f"grep takes Python's patterns, in which {told}."
    if _OVER_LINES.search(bare):
        return "grep looks at each line alone. re.finditer(pattern, text) finds what goes over several."
    return ""


def _patterns(cell: ast.AST) -> Iterator[str]:
    for node in ast.walk(cell):
        if isinstance(node, ast.Call) and node.args and _called(node.func) in _SEARCHES:
            first = node.args[0]
            if isinstance(first, ast.Constant) and type(first.value) is str:
                yield first.value


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _texts(context: Any) -> Iterator[str]:
    """The texts of the input that are no larger than is looked through."""
    texts = list(context.values()) if isinstance(context, dict) else [context]
    for text in texts:
        if isinstance(text, str) and len(text) <= _MOST_CHARS:
            yield text


def _with_all(words: list[str], text: str, until: float) -> str:
    """The first line of the text with all the words, in any order and case, cut around them."""
    longest = max(words, key=len)
    for hit in re.finditer(re.escape(longest), text, re.IGNORECASE):
        begin, end = text.rfind("\n", 0, hit.start()) + 1, text.find("\n", hit.end())
        line = text[begin : end if end >= 0 else len(text)]
        if all(word in line.lower() for word in words):
            if len(line) <= _SHOWN:
                return line
            left = max(0, hit.start() - begin - _SHOWN // 2)
            return line[left : left + _SHOWN]
        if time.monotonic() > until:
            return ""
    return ""


def found_nothing(error: BaseException, said: str) -> bool:
    """Whether an error is what comes of taking the first of nothing."""
    if type(error) is IndexError:
        return "list index out of range" in said
    return type(error) is StopIteration or (type(error) is ValueError and "empty" in said)
