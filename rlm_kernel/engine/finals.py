"""FINAL(...) and FINAL_VAR(...) in prose: how far one reaches, and what kind of answer stands in it."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlm_kernel.engine import python

FINAL = re.compile(r"[*_`#$ \t]*+(?:</?\w+>)?[*_`]*+(?P<name>FINAL_VAR|FINAL)[*_`]*+[(（]")
"""How a line begins that delivers an answer in prose.

Chinese and Japanese have parentheses of their own, which models mix with these.
"""
_NOTHING = re.compile(r"(?:[^\w()\[\]{}\"'<>\n]|</?\w+>)*+$", re.MULTILINE)
"""What may follow on the line of the closing parenthesis: marks, no words."""
_NOTHING_BACKWARDS = re.compile(r"(?:[^\w()\[\]{}\"'<>\n]|>\w++/?<)*+")
_COMMENT = re.compile(r";?[ \t]*#[^\n]*$", re.MULTILINE)
_BRACKET = re.compile(
    r"(?P<no>(?<=\s)[:;=]['-]?\)|(?<![\w)])(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{2,4})\)(?=[ \t]+\S))|[()（）]"
)
"""A parenthesis.

`no`: in a smiley, or behind the number of an item, which closes only what was opened inside the answer.
"""
_OPENING, _CLOSING = ("(", "（"), (")", "）")
_FENCE = re.compile(r"[ \t]*(?P<marks>`{3,}+|~{3,}+)(?P<info>[^\n`]*)$")
_TEMPLATE = re.compile(
    r"(?:(?:insert|put|write|enter|give|type)\s)?(?:(?:the|your|my|an?)\s)?(?:(?:final|actual|short|exact|computed|complete)\s)*"
    r"(?:answer|value|result|response|output|text|string|expression|variable(?:\sname)?|name)(?:\s(?:goes\s)?here|\stext|\sstring)?"
)
_MARKED = re.compile(
    r"`([^`]+)`|``([^`]+)``|\*\*([^*]+)\*\*|“([^“”]+)”|‘([^‘’]+)’|«([^«»]+)»|「([^「」]+)」|„([^„“”]+)[“”]"
)
_HOLE = re.compile(
    r"(?<![\w\\$^/{}`\"'])\{(?P<name>[^\W\d]\w*)(?:\.\w+|\[[^\[\]{}\\\n]*\]|\([^(){}\\\n]*\))*(?:![rsa])?(?::[^{}\n]*)?\}(?!\})"
)
"""A name in braces, with what may follow it in an f-string.

LaTeX, templates and paths of URLs have braces, too.
"""
_F_STRING = re.compile(r"\b[fF][rR]?[\"']")
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w \t,.'/-]*>|\.{2,}|…|_{2,}|\?+")


@dataclass(frozen=True)
class ProseFinal:
    """FINAL(...) or FINAL_VAR(...) at the start of a line outside code.

    `text` is what stands between the parentheses.
    """

    kind: Literal["FINAL", "FINAL_VAR"]
    text: str


def final_at(text: str) -> tuple[ProseFinal | None, int]:
    """The FINAL or FINAL_VAR that the text begins with, and how many characters of the text it takes.

    None where words follow it on its line: then the sentence speaks of it.
    """
    opened = FINAL.match(text)
    if opened is None:
        return None, 0
    kind: Literal["FINAL", "FINAL_VAR"] = "FINAL" if opened["name"] == "FINAL" else "FINAL_VAR"
    start = opened.end()
    close = _expression_end(text, start)
    if close is None:
        close = _prose_end(text, start)
    if close < 0:
        return None, 0
    return ProseFinal(kind, text[start:close].strip()), min(close + 1, len(text))


def final_in_sentence(text: str) -> ProseFinal | None:
    """The last FINAL(...) of a text that ends a line, wherever on it, as in `So it is FINAL(3)`."""
    starts = [found.start() for found in re.finditer(r"\bFINAL(?:_VAR)?[*_`]*+[(（]", text)][-5:]
    return next(filter(None, (final_at(text[start:])[0] for start in reversed(starts))), None)


def whole_final(code: str) -> ProseFinal | None:
    """The answer of a block that holds FINAL(...) alone, in words that are no Python."""
    code = code.strip()
    final, length = final_at(code)
    return (
        final
        if final is not None and not _NOTHING.sub("", code[length:]).strip() and not python.parses(code)
        else None
    )


def _expression_end(text: str, start: int) -> int | None:
    """Where the parenthesis closes, if it holds an expression of Python."""
    depth = 0
    for found in python.lexemes(text, start, comments=False):
        depth += (found.kind in _OPENING) - (found.kind in _CLOSING)
        if depth < 0:
            at = found.start
            ends_line = _NOTHING.match(text, at + 1) or _COMMENT.match(text, at + 1)
            return at if ends_line and python.tree(f"f({text[start:at]}\n)") else None
    return None


def _prose_end(text: str, start: int) -> int:
    """Where an answer in words ends: at the last parenthesis of its paragraph that ends a line and closes
    nothing in the answer.

    A paragraph is one that has such a parenthesis; code in the answer is passed over. An answer that is not
    closed reaches to the end; -1 where it is closed in the middle of a line alone.
    """
    depth, found, middle, last, smiley = 0, None, False, None, None
    for begin, end in _lines_outside_code(text, start):
        if found is not None and not text[begin:end].strip():
            break
        marks_from = end - _NOTHING_BACKWARDS.match(text[begin:end][::-1]).end()  # type: ignore[union-attr]  # it matches nothing, too
        for bracket in _BRACKET.finditer(text, begin, end):
            if bracket[0] in "(（":
                depth += 1
                continue
            ends_line = bracket.end() >= marks_from
            last = bracket.end() - 1 if ends_line else last
            if depth:
                depth -= 1
            elif bracket["no"]:
                smiley = last if ends_line else smiley
                middle = (
                    middle or bracket.start() == start
                )  # `FINAL(3) is it`, unless a parenthesis follows that closes
            else:
                found, middle = (bracket.start(), middle) if ends_line else (found, True)
    if found is None and middle and depth == 0:
        return -1
    unclosed = last if depth else smiley
    return next(at for at in (found, unclosed, len(text)) if at is not None)


def _lines_outside_code(text: str, start: int) -> list[tuple[int, int]]:
    """Where the lines from there on begin and end, without those of fenced code that has an end."""
    outside: list[tuple[int, int]] = []
    inside: list[tuple[int, int]] = []
    fence = ""
    begin = start
    while begin <= len(text):
        at = text.find("\n", begin)
        end = at if at >= 0 else len(text)
        mark = (
            _FENCE.match(text, begin, end)
            if begin > start and text.find("```", begin, end) + text.find("~~~", begin, end) > -2
            else None
        )
        if fence:
            inside.append((begin, end))
            if mark and mark["marks"].startswith(fence) and not mark["info"].strip():
                fence, inside = "", []
        elif mark:
            fence, inside = mark["marks"], [(begin, end)]
        else:
            outside.append((begin, end))
        begin = end + 1
    return outside + inside


def is_template(text: str) -> bool:
    """Whether an answer is the placeholder of an instruction, as FINAL(answer) or FINAL(<your answer>), and
    says nothing.
    """
    plain = text.strip().strip("\"'`*").strip()
    bare = re.sub(r"[\s_-]+", " ", plain.strip("<>[]{}()\"'`*. ").lower())
    return not bare or _TEMPLATE.fullmatch(bare) is not None or _PLACEHOLDER.fullmatch(plain) is not None


@dataclass(frozen=True)
class Meant:
    """What stands in FINAL(...): a `text`, with the `value` where it is one of JSON; or `source` to evaluate.

    With both it is source if one of the `names` in it is there, and else the text.
    """

    text: str | None
    source: str = ""
    value: Any = None
    names: frozenset[str] = frozenset()

    def call(self) -> str:
        """The cell that delivers it."""
        if not self.source:
            return f"FINAL({self.text!r})"
        source = f"{self.source}\n" if "#" in self.source else self.source
        if self.text is None:
            return f"FINAL({source})"
        return (
            f"FINAL(({source}) if {{{', '.join(map(repr, sorted(self.names)))}}} & globals().keys() else "
            f"{self.text!r})"
        )


def unmarked(text: str) -> str:
    """A text without the quotes or the marks of Markdown that stand around all of it, as `n`, **42** or
    “Paris”. Python's quotes stay.
    """
    marked = _MARKED.fullmatch(text.strip())
    return next(filter(None, marked.groups())) if marked else text.strip()


def meaning(text: str) -> Meant:
    """What the words or the code in FINAL(...) are."""
    if text[:1] in ("{", "[") and (data := _json(text)) is not None:
        return Meant(text, value=data)
    called = python.tree(f"f({text}\n)")
    call = (
        called.body[0].value
        if called and len(called.body) == 1 and isinstance(called.body[0], ast.Expr)
        else None
    )
    if not isinstance(call, ast.Call):
        return Meant(None, text) if re.match(r"[fF][rR]?[\"']", text) else _words(text)
    if not call.args and len(call.keywords) == 1 and (keyword := call.keywords[0]).arg:
        value = meaning(ast.get_source_segment(f"f({text}\n)", keyword.value) or text)
        if is_template(keyword.arg) or value.text is None:  # FINAL(answer="...")
            return value
        return replace(value, text=text, value=None)  # FINAL(x = 3)
    parts = [*call.args, *(keyword.value for keyword in call.keywords)]
    if len(parts) == 1 and isinstance(parts[0], ast.Constant):
        return _constant(parts[0].value, text)
    if _is_figures(parts, text):
        return Meant(text)
    nodes = [node for part in parts for node in ast.walk(part)]
    source = f"({text})" if len(parts) > 1 else text
    if _is_code(nodes, text):
        return Meant(None, source)
    return Meant(text, source, names=frozenset(node.id for node in nodes if isinstance(node, ast.Name)))


def _json(text: str) -> Any:
    """The object or the list of a JSON text; None where it is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None


def _no_json(constant: str) -> Any:
    raise ValueError(constant)


def _words(text: str) -> Meant:
    """A text; where it has names in braces, as an f-string whose f was forgotten, the text that results if
    one of them is there.
    """
    holes = [] if "```" in text or _F_STRING.search(text) else list(_HOLE.finditer(text))
    if not holes:
        return Meant(text)
    parts: list[str] = []
    at = 0
    for hole in holes:
        parts += [text[at : hole.start()].replace("{", "{{").replace("}", "}}"), hole[0]]
        at = hole.end()
    parts.append(text[at:].replace("{", "{{").replace("}", "}}"))
    return Meant(text, f"f{''.join(parts)!r}", names=frozenset(hole["name"] for hole in holes))


def _constant(value: Any, text: str) -> Meant:
    if isinstance(value, str):
        return _words(value)
    plain = isinstance(value, int | float) and not isinstance(value, bool) and json.dumps(value) == text
    return Meant(text, value=value if plain else None)


def _is_figures(parts: list[ast.expr], text: str) -> bool:
    """Whether it is a date, a range, a fraction, or a number with commas, rather than something to
    compute.
    """
    return re.fullmatch(r"[+-]?[\d.,:/_-]+(?: ?[-/,] ?[\d.]+)*", text.strip()) is not None and (
        len(parts) > 1 or not text.startswith("-") or "," in text
    )


def _is_code(nodes: list[ast.AST], text: str) -> bool:
    """Whether it can be nothing but code: it has calls, indexing, containers or strings."""
    if any(
        isinstance(
            node, ast.JoinedStr | ast.List | ast.Dict | ast.Set | ast.ListComp | ast.GeneratorExp | ast.Lambda
        )
        for node in nodes
    ):
        return True
    for node in nodes:
        opener = {ast.Call: "(", ast.Subscript: "["}.get(type(node))
        if opener is None:
            continue
        head = (
            node.func
            if isinstance(node, ast.Call)
            else node.value
            if isinstance(node, ast.Subscript)
            else None
        )
        # Words have a space before a parenthesis: `Paris (France)`.
        if head is not None and f"f({text}\n)".split("\n")[(head.end_lineno or 1) - 1].encode()[
            head.end_col_offset or 0 :
        ].startswith(opener.encode()):
            return True
    strings = any(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in nodes)
    numbers = not any(isinstance(node, ast.Name) for node in nodes)
    return strings or numbers or (re.fullmatch(r"[^\W\d]\w*", text) is not None and "_" in text.strip("_"))
