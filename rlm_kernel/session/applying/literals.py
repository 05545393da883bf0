"""The words and numbers in code that may have been read somewhere: of its strings those that are telling, and
numbers that are neither round nor small.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlm_kernel.engine import python

TOKEN = re.compile(r"\w+(?:[.:/@-]\w+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CLASS = re.compile(r"\\[AbBdDsSwWZnrt]")
_ROUND = re.compile(r"[1-9]0*|(?:15|25|50|75)0*|[1-9]00*1|1024|2048|4096|8192")
_LAYOUT = frozenset(
    {"figsize", "dpi", "indent", "ndigits", "decimals", "width", "bins", "rotation", "fontsize"}
)
"""Keywords whose values change nothing of what is found."""
_FAR, _FAR_STEP = 100, 500
_READ = 400_000
"""Characters of one output that are looked at."""
LONG = 60
"""Characters of a word that is looked at by its parts, and of words that are looked for as they stand."""
_SIMPLE, _LINE, _WORD, _FEW = 3, 20, 3, 2


@dataclass(frozen=True)
class Literal:
    """A string or a number in code. `answer`: it goes into what is delivered; `group`: of which list or set
    it is one; `small`: it takes one of a list, or is added to something; `place`: from there on
    a part is taken.
    """

    text: str
    number: bool = False
    answer: bool = False
    group: int = 0
    small: bool = False
    place: bool = False


def literals(code: str) -> list[Literal]:
    """The strings and numbers of code that may have been read somewhere."""
    try:
        tree = None if code.lstrip().startswith("%%") else python.cell(code)
        found = list(_Walk().of(tree)) if tree is not None else _words(code)
    except RecursionError:
        found = _words(code)
    return list(dict.fromkeys(found))


def _words(code: str) -> list[Literal]:
    """Of what cannot be looked at as Python."""
    return list(_of_constant(code, answer=False, group=1, index=False))


class _Walk:
    """Through code, for its literals."""

    def __init__(self) -> None:
        self._groups = 0

    def of(self, node: ast.AST, *, answer: bool = False, group: int = 0) -> Iterator[Literal]:
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            answer = answer or name in ("FINAL", "FINAL_VAR")
            for one in ast.iter_child_nodes(node):
                if (isinstance(one, ast.keyword) and one.arg in _LAYOUT) or (
                    name == "round" and _is_number(one)
                ):
                    continue
                if name == "print" and isinstance(one, ast.Constant | ast.JoinedStr):
                    yield from self._in_print(one)  # what is shown decides nothing
                else:
                    yield from self.of(one, answer=answer)
            return
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            self._groups += 1
            group = self._groups
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not group:
                self._groups += 1
                group = self._groups  # the words of a pattern, or of a list in one string
            yield from _of_constant(node.value, answer=answer, group=group, index=False)
            return
        if isinstance(node, ast.Subscript) and _places_of(node):
            yield from self.of(node.value, answer=answer)
            if isinstance(node.slice, ast.Slice) and _is_far(node.slice.lower):
                yield Literal(str(node.slice.lower.value), number=True, place=True)  # type: ignore[union-attr]
            for number in _places_of(node):
                yield from _of_constant(number, answer=answer, group=0, index=True)
            for one in ast.iter_child_nodes(node.slice):
                if not _is_number(one):
                    yield from self.of(one, answer=answer)
            return
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            for side in (node.left, node.right):
                if _is_number(side):
                    assert isinstance(side, ast.Constant)
                    yield from _of_constant(side.value, answer=answer, group=0, index=True)
        kept = group if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict) else 0
        for one in ast.iter_child_nodes(node):
            yield from self.of(one, answer=answer, group=kept)

    def _in_print(self, node: ast.expr) -> Iterator[Literal]:
        for one in ast.walk(node):
            if isinstance(one, ast.FormattedValue):
                yield from self.of(one.value)


def _places_of(node: ast.Subscript) -> list[float]:
    """The numbers by which it takes a part."""
    parts = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
    return [part.value for part in parts if isinstance(part, ast.Constant) and _is_number(part)]  # type: ignore[misc]


def _is_far(node: ast.AST | None) -> bool:
    """Whether it is a place that was looked up, and none at which one reads on."""
    if not isinstance(node, ast.Constant) or type(node.value) is not int:
        return False
    return node.value >= _FAR and node.value % _FAR_STEP != 0


def _is_number(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    )


def _of_constant(value: object, *, answer: bool, group: int, index: bool) -> Iterator[Literal]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if _is_telling(abs(value), text, index=index):
            yield Literal(text, number=True, answer=answer, group=group)
        elif index and value >= _FEW and (value < 10 or _ROUND.fullmatch(text) is None):
            yield Literal(text, number=True, small=True)
        return
    if isinstance(value, str):
        for text in dict.fromkeys(_of_string(value, answer=answer)):
            number = text.replace(".", "", 1).isdigit()
            yield Literal(text, number=number, answer=answer, group=group if not answer else 0)


def _is_telling(value: float, text: str, *, index: bool = False) -> bool:
    """Whether a number can have been read: bounds and sizes are round, and counters and places small."""
    return value >= (100 if index else 10) and _ROUND.fullmatch(text.lstrip("-")) is None


def _of_string(value: str, *, answer: bool) -> Iterator[str]:
    """What of a string may have been read: itself, its longer lines, and the words of it that are telling."""
    bare = plain(_CLASS.sub(" ", value).replace("\\", "")).strip()
    words = TOKEN.findall(bare)
    if len(words) > 1 and len(bare) <= LONG:
        yield bare
    yield from (line.strip() for line in bare.splitlines() if len(line.strip()) > _LINE and len(words) > 1)
    simple = len(words) <= _SIMPLE or answer or not re.search(r"\w \w+ \w", bare)
    for place, word in enumerate(
        part for found in words for part in dict.fromkeys([found, *found.split("/")])
    ):
        if word.isdecimal():
            if answer or _is_telling(int(word[:30]), word):
                yield word
        elif len(word) >= (_WORD - word.isupper()) and (simple or _stands_out(word, first=place == 0)):
            yield word


def _stands_out(word: str, *, first: bool) -> bool:
    """In a sentence: a name, or a sign of some kind."""
    return bool(re.search(r"[\d_@/:-]|\w\.\w", word)) or (word[:1].isupper() and not first)


def plain(text: str) -> str:
    """As much of a text as is looked at, and thousands without separators."""
    return _THOUSANDS.sub("", text[:_READ])
