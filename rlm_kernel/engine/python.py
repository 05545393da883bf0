"""What a text is as Python: whether it parses, what it would do, where its strings end.

Nothing is run here.
"""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_MAGIC = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?:[\w.]+[ \t]*=[ \t]*)?[%!](?=[\w(/.~])[^\n]*|\?{1,2}[\w.]+[ "
    r"\t]*|[\w.]+\?{1,2}[ \t]*)$",
    re.MULTILINE,
)
_PROMPT = re.compile(r"^[ \t]*(?:>>>|In ?\[\d*\]:)(?: |$)")
_MORE = re.compile(r"^[ \t]*\.\.\.:?(?: |$)")
_INERT = (
    ast.Name,
    ast.Attribute,
    ast.Constant,
    ast.UnaryOp,
    ast.BinOp,
    ast.BoolOp,
    ast.Compare,
    ast.Tuple,
    ast.List,
    ast.Set,
    ast.Dict,
)
_IDLE = (ast.Pass, ast.AnnAssign, ast.Global, ast.Nonlocal, ast.Break, ast.Continue, ast.Return)
_LEXEME = re.compile(r"""\#|(?P<quote>'''|\"{3}|'|")|(?P<marks>`{3,}+)|[()（）]""")
_INSIDE = {
    "'''": re.compile(r"(?:[^'\\]|\\.|'(?!''))*+", re.DOTALL),
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*+', re.DOTALL),
    "'": re.compile(r"(?:[^'\\\n]|\\.)*+", re.DOTALL),
    '"': re.compile(r'(?:[^"\\\n]|\\.)*+', re.DOTALL),
}
_PARSED = 200_000
"""Characters of code beyond which it is not parsed here: that would take seconds.

It is taken for code that parses.
"""


_FIELDS = 200_000_000
"""Characters times braces of code with f-strings beyond which it is not parsed: Python's parser reads them
anew for each field.
"""
_F_STRING = re.compile(r"\b[fFrR]{1,2}[\"']")


def _readable(code: str) -> bool:
    """Whether it takes no long time to parse."""
    return len(code) <= _PARSED and (len(code) * code.count("{") <= _FIELDS or _F_STRING.search(code) is None)


def tree(code: str) -> ast.Module | None:
    """The syntax tree of code; None of what is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's invalid escapes are no news to the user
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def cell(code: str) -> ast.Module | None:
    """The syntax tree of a cell, in which IPython's magics and shell lines count as calls."""
    found = tree(code)
    if found is None and any(mark in code for mark in "%!?"):
        # A cell magic takes all that follows it, in whatever language.
        found = tree("magic()" if code.lstrip().startswith("%%") else _MAGIC.sub(r"\g<indent>magic()", code))
    return found


def parses(code: str) -> bool:
    """Whether it is Python, as far as that can be told here."""
    return not _readable(code) or cell(code) is not None


def acts(code: str, *, bare: bool = True) -> bool:
    """Whether code parses and does something when it is run: calls, assigns, imports, defines, loops.

    `bare`: expressions that only show something of a variable (`rows[0]`), and assignments of literals, count
    too. Without it, what could as well be the output of other code does not count.
    """
    found = cell(code) if _readable(code) else None
    return found is not None and any(_acts(node, bare) for node in found.body)


def _acts(node: ast.stmt, bare: bool) -> bool:
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Call) and not bare:
            return not _is_literal(value)
        if isinstance(value, ast.Subscript):
            return bare and not _is_literal(value.value)
        return not isinstance(value, _INERT)
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        return bare or not _is_literal(node.value)
    return not isinstance(node, _IDLE)


def _is_literal(node: ast.expr) -> bool:
    """Whether an expression could be what repr() gave of a value: a literal, or a constructor with literals,
    as Counter({'a': 1}).
    """
    if isinstance(node, ast.Call):
        name = (
            node.func.id
            if isinstance(node.func, ast.Name)
            else node.func.attr
            if isinstance(node.func, ast.Attribute)
            else ""
        )
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        return (
            name not in ("print", "display", "FINAL", "FINAL_VAR")
            and bool(given)
            and all(map(_is_literal, given))
        )
    return not any(isinstance(inner, ast.Name | ast.Call | ast.Await) for inner in ast.walk(node))


def only_delivers(code: str) -> bool:
    """Whether code does nothing but call FINAL or FINAL_VAR with what is there."""
    found = tree(code)
    return found is not None and all(
        isinstance(node, ast.Expr) and _delivers(node.value) for node in found.body
    )


def _delivers(node: ast.expr) -> bool:
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Name)
        or node.func.id not in ("FINAL", "FINAL_VAR")
    ):
        return False
    return not any(isinstance(inner, ast.Call) for value in node.args for inner in ast.walk(value))


_INPUT_NAMES = frozenset(
    {
        "context",
        "files",
        "peek",
        "grep",
        "chunks",
        "records",
        "load_file",
        "load_files",
        "list_files",
        "switch_to",
        "llm_query",
        "llm_query_batched",
    }
)


def looks_at_input(code: str) -> bool:
    """Whether code mentions the input at all. Code that does not parse is taken to."""
    found = tree(code)
    return found is None or any(
        isinstance(node, ast.Name) and node.id in _INPUT_NAMES for node in ast.walk(found)
    )


class Lexeme(NamedTuple):
    """A string (its `kind` is its quotes), a comment (#), a run of backticks (`) or a parenthesis.

    `open`: a string without an end.
    """

    kind: str
    start: int
    end: int
    open: bool = False


def lexemes(text: str, position: int = 0, *, comments: bool = True) -> Iterator[Lexeme]:
    """What stands in code, from there on.

    Quotes that open a string without an end are one lexeme; what follows them is read as code.
    """
    endless: dict[
        str, int
    ] = {}  # up to where strings of these quotes have no end: each place is looked at once for each kind
    while found := _LEXEME.search(text, position):
        start, position = found.span()
        if (quote := found["quote"]) is None:
            if found[0] == "#":
                if not comments:
                    continue
                line_end = text.find("\n", position)
                position = line_end if line_end >= 0 else len(text)
            yield Lexeme("`" if found["marks"] else found[0][0], start, position)
            continue
        if start >= endless.get(quote, 0):
            end = _INSIDE[quote].match(text, position).end()  # type: ignore[union-attr]  # it matches nothing, too
            if text.startswith(quote, end):
                position = end + len(quote)
                yield Lexeme(quote, start, position)
                continue
            # What begins there ended at no quotes, since all on the way are escaped; so will what begins at
            # one of these.
            endless[quote] = end
        yield Lexeme(quote, start, position, open=True)
        if len(quote) == 3:
            position = start + 2  # an empty string, and a quote


def end_of_code(text: str, marks: int) -> tuple[int | None, bool]:
    """Where the first run of at least so many backticks stands outside of strings and comments, since such a
    run is no Python; None where there is none. And whether the text ends inside a string of several lines, or
    has one that has no end.
    """
    for found in lexemes(text):
        if found.open and len(found.kind) == 3:
            return None, True
        if found.kind == "`" and found.end - found.start >= marks:
            return found.start, False
    return None, False


def strings_of(code: str) -> list[tuple[int, int]]:
    """Where strings and comments stand in code. One that has no end reaches to the end."""
    spans: list[tuple[int, int]] = []
    for found in lexemes(code):
        if found.open and len(found.kind) == 3:
            return [*spans, (found.start, len(code))]
        if found.kind == "#" or (found.kind in _INSIDE and not found.open):
            spans.append((found.start, found.end))
    return spans


def is_transcript(code: str) -> bool:
    """Whether code is a copy of what a terminal showed: it begins with a prompt, `>>>` or `In [1]:`."""
    return _PROMPT.match(code.lstrip("\n")) is not None


def without_prompts(code: str) -> str:
    """A transcript's code: prompts are taken off, and what was printed is left out."""
    if not is_transcript(code):
        return code
    lines: list[str] = []
    printed = False
    for line in code.split("\n"):
        if mark := _PROMPT.match(line):
            printed = False
        elif mark := _MORE.match(line):
            if printed:
                continue
        else:
            printed = True
            continue
        lines.append(line[mark.end() :])
    return "\n".join(lines)


_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff")) | dict.fromkeys(
    map(ord, "\u00a0\u2002\u2003\u2009\u202f\u3000"), " "
)
_CURLY = dict.fromkeys(map(ord, "“”„"), '"') | dict.fromkeys(map(ord, "‘’"), "'")
_NUMBERED = re.compile(r"^[ \t]*\d+(?:[:|.)] ?|\t|  )", re.MULTILINE)
_ADDED = re.compile(r"\+ "), re.compile(r"[+ ]")


def as_meant(code: str) -> str:
    """The code of a block: a transcript without its prompts; what parses as it is.

    What does not is taken without what copying, typesetting or escaping did to it, where it parses then:
    invisible signs, curly quotes, HTML's and JSON's escapes, numbers of lines, a diff's marks.
    """
    code = without_prompts(code)
    if parses(code):
        return code
    return next((mended for mend in _MENDS if (mended := mend(code)) != code and acts(mended)), code)


def _outside_strings(code: str) -> str:
    """The code without signs that are not seen; those in its strings stay."""
    parts: list[str] = []
    at = 0
    for begin, end in strings_of(code):
        parts += [code[at:begin].translate(_UNSEEN), code[begin:end]]
        at = end
    return "".join([*parts, code[at:].translate(_UNSEEN)])


def _unescaped(code: str) -> str:
    """Code in one line, whose line ends are written as in JSON."""
    if "\n" in code.strip() or "\\n" not in code:
        return code
    try:
        return str(json.loads(f'"{re.sub(_LONE_QUOTE, chr(92) + chr(34), code)}"'))
    except ValueError:
        return code


_LONE_QUOTE = r'(?<!\\)"'
_MENDS: tuple[Callable[[str], str], ...] = (
    _outside_strings,
    lambda code: code.translate(_UNSEEN | _CURLY),
    html.unescape,
    _unescaped,
    lambda code: _every_line(_NUMBERED, code),
    lambda code: _every_line(_ADDED[0], code),
    lambda code: _every_line(_ADDED[1], code),
)


def _every_line(mark: re.Pattern[str], code: str) -> str:
    """Code of several lines without a mark that each of them has."""
    lines = code.split("\n")
    if len(lines) < 2:
        return code
    return (
        "\n".join(mark.sub("", line, count=1) for line in lines)
        if all(not line.strip() or mark.match(line) for line in lines)
        else code
    )


_CODE_KEYS = re.compile(
    r"(?i)code|python|script|source|program|cell|input|arg|param|cmd|command|function|tool|action|content"
)


def code_in_json(text: str) -> str | None:
    """The code in a JSON object that models write as a call of a tool: {"code": "..."}, or deeper.

    None where there is none.
    """
    try:
        return _code_in(json.loads(text, strict=False), 0)
    except (ValueError, RecursionError):
        return None


def _code_in(value: Any, depth: int) -> str | None:
    if isinstance(value, str):
        if acts(value):
            return value
        return code_in_json(value) if value.lstrip().startswith("{") and depth < 4 else None
    if depth > 4:
        return None
    if isinstance(value, list):
        return next(
            (code for item in value[:20] if isinstance(item, dict) and (code := _code_in(item, depth + 1))),
            None,
        )
    if isinstance(value, dict):
        inner = (item for key, item in value.items() if _CODE_KEYS.search(key))
        return next((code for item in inner if (code := _code_in(item, depth + 1))), None)
    return None
