"""Words and numbers in a trace's code that the root model had read in what earlier cells printed: on another
input they may be those of yesterday.

A word counts as read where it stood in an output before, and neither in the question nor in code before that.
It may stay where it is a name of a column, or stands in what is printed now at the same place, or, if that
was an excerpt of the input, anywhere in the input of now. All else is stale.
"""

from __future__ import annotations

import ast
import codecs
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rlm_kernel.engine import python

Standing = Callable[[Sequence[str]], Awaitable[Sequence[bool]]]
"""Which of some texts stand in the input of now."""
_TOKEN = re.compile(r"\w+(?:[.:/@-]\w+)*")
_WHOLE = re.compile(r"^<input-\w+ ", re.MULTILINE)
"""With this begins an input in the first message that is shown whole."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CLASS = re.compile(r"\\[AbBdDsSwWZnrt]")
_ROUND = re.compile(r"[1-9]0*|(?:15|25|50|75)0*|[1-9]00*1|1024|2048|4096|8192")
_USUAL = {
    "error", "errors", "err", "warn", "warning", "info", "debug", "trace", "fatal", "critical", "exception",
    "true", "false", "yes", "no", "none", "null", "nan", "get", "post", "put", "delete", "head", "id", "name",
}  # fmt: skip
"""Words that code looks for without having read them anywhere."""
_LAYOUT = frozenset(
    {"figsize", "dpi", "indent", "ndigits", "decimals", "width", "bins", "rotation", "fontsize"}
)
"""Keywords whose values change nothing of what is found."""
_READ = 400_000
"""Characters of one output that are looked at."""
_ASKED = 60
"""Texts that are looked for in the input, for one cell."""
_SIMPLE, _LINE, _LONG = 3, 20, 60
_WORD, _FEW = 3, 2
_FAR, _FAR_STEP = 100, 500


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


@dataclass
class Output:
    """What the root model had read of a cell then, and what the cell gave now. `excerpt`: it shows the input
    itself; None: not known yet. `whole`: all of it.
    """

    cell: str
    then: str
    now: str
    excerpt: bool | None = None
    whole: bool = False
    places: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    places_now: dict[str, set[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.then, self.now = _plain(self.then), _plain(self.now)
        self.places, self.places_now = _places(self.then), _places(self.now)

    def had(self, text: str) -> bool:
        """Whether it had a word or number, or words of several."""
        return text in self.places or (bool(re.search(r"\W", text)) and _stands(text, self.then))

    def counted(self, text: str) -> bool:
        """Whether a line began or ended with a small number: that of a list, or a result."""
        return bool(self._counting(text, self.then))

    @staticmethod
    def _counting(text: str, where: str) -> set[str]:
        mark = re.compile(
            rf"[\[(#]?{re.escape(text)}(?:[\].:)]|\s)|.*(?:[:=]\s*|\s\s){re.escape(text)}$|{re.escape(text)}$"
        )
        return {line.strip() for line in where.splitlines() if mark.match(line.strip())}

    def counted_there(self, text: str) -> bool:
        """Whether the same lines are there now."""
        return self._counting(text, self.then) <= set(map(str.strip, self.now.splitlines()))

    def has(self, text: str) -> bool:
        return text in self.places_now or (bool(re.search(r"\W", text)) and _stands(text, self.now))

    def has_there(self, text: str) -> bool:
        """Whether it has it now at a place where it had it then."""
        if text in self.places:
            return bool(self.places[text] & self.places_now.get(text, set()))
        then, now = _line_of(text, self.then), _line_of(text, self.now)
        return bool(then & now)

    @property
    def is_list(self) -> bool:
        """Whether it may have told all that there was."""
        return self.whole or not self.excerpt

    @property
    def same_words(self) -> bool:
        return _words(self.places) == _words(self.places_now)


class Learned:
    """Hears what each cell gave then and now, and tells what code has of it that is stale."""

    def __init__(self, question: str, standing: Standing) -> None:
        self._known = _plain(question)
        self._outputs: list[Output] = []
        self._columns: frozenset[str] = frozenset()
        self._standing = standing

    def told(self, then: str, now: str, columns: Collection[str]) -> None:
        """The first message of then, and that of now; `columns`: names that both inputs have."""
        whole = _WHOLE.search(then) is not None
        self._outputs.append(Output("", then, now, excerpt=True, whole=whole))
        self._columns = frozenset(columns)

    def asked(self, question: str) -> None:
        """A further question."""
        self._known += f"\n{_plain(question)}"

    def ran(self, cell: str, code: str, then: str, now: str) -> None:
        """A cell has run."""
        self._known += f"\n{_plain(code)}"
        self._outputs.append(Output(cell, then, now))

    async def stale(self, code: str) -> str:
        """What of the code was read in outputs of then and may not be so now; "" if nothing."""
        found = [one for one in literals(code) if not self._is_known(one)]
        if place := next((one for one in found if one.place), None):
            return f"it takes a part of something from place {place.text} on, which may be elsewhere now"
        learned = {one: sources for one in found if (sources := self._sources(one))}
        if not learned:
            return ""
        await self._look(learned)
        doubtful = {one: self._doubtful(one, sources) for one, sources in learned.items()}
        ask = list(dict.fromkeys(one.text for one, doubts in doubtful.items() if doubts is None))[:_ASKED]
        there = dict(zip(ask, await self._standing(ask), strict=True)) if ask else {}
        for one, doubts in doubtful.items():
            if doubts or (doubts is None and not there.get(one.text)):
                return _told(one, learned[one])
        return self._group(learned)

    def _is_known(self, one: Literal) -> bool:
        text = one.text
        if text in self._columns or text.casefold() in _USUAL or _is_charset(text):
            return True
        if one.number or text[:1].isdigit():
            return (
                re.search(rf"(?<![\w.]){re.escape(text)}(?:st|nd|rd|th)?(?![\w]|\.\d)", self._known)
                is not None
            )
        # "errors" in a question, and ERROR in code.
        stem = text.casefold().rstrip("s").replace("_", " ")
        ending = r"\w{0,3}" if len(stem) > _WORD else "s?"
        known = self._known.casefold().replace("_", " ")
        return re.search(rf"(?<!\w){re.escape(stem)}{ending}(?!\w)", known) is not None

    def _sources(self, one: Literal) -> list[Output]:
        if one.small:
            return [output for output in self._outputs[1:] if output.counted(one.text)]
        return [output for output in self._outputs if output.had(one.text)]

    async def _look(self, learned: dict[Literal, list[Output]]) -> None:
        """See which of the outputs are excerpts of the input."""
        unknown = {id(one): one for sources in learned.values() for one in sources if one.excerpt is None}
        for output in unknown.values():
            lines = [line.strip() for line in output.now.splitlines() if len(line.strip()) >= _LINE][:8]
            found = await self._standing(lines) if lines else []
            output.excerpt = bool(lines) and 2 * sum(found) >= len(lines)

    def _doubtful(self, one: Literal, sources: Sequence[Output]) -> bool | None:
        """Whether it is stale; None where that depends on whether it stands in the input."""
        ask = False
        for output in sources:
            if output.counted_there(one.text) if one.small else output.has_there(one.text):
                continue
            if not output.excerpt or one.answer:
                return True
            ask = ask or not output.has(one.text)
        return None if ask else False

    def _group(self, learned: dict[Literal, list[Output]]) -> str:
        """A list of what there was then, which may have other members now."""
        groups: dict[int, list[Literal]] = {}
        for one in learned:
            if one.group:
                groups.setdefault(one.group, []).append(one)
        for members in groups.values():
            sources = {
                id(output): output
                for one in members
                for output in learned[one]
                if output.whole or not output.excerpt
            }
            if len(members) >= _FEW and any(not output.same_words for output in sources.values()):
                return _told(members[0], list(sources.values()), "is one of a list that may be another now")
        return ""


def _told(one: Literal, sources: Sequence[Output], how: str = "") -> str:
    place = f"what {sources[-1].cell} printed" if sources[-1].cell else "the first message"
    shown = one.text if one.number else repr(one.text[:80])
    return f"it has {shown}, which the root model had read in {place} of the first run" + (
        f", and which {how}" if how else ", and which is not there now"
    )


def literals(code: str) -> list[Literal]:
    """The strings and numbers of code that may have been read somewhere."""
    tree = None if code.lstrip().startswith("%%") else python.cell(code)
    found = _of_constant(code, answer=False, group=1, index=False) if tree is None else _Walk().of(tree)
    return list(dict.fromkeys(found))


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


def _is_charset(text: str) -> bool:
    try:
        codecs.lookup(text)
    except (LookupError, ValueError):
        return False
    return True


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
    plain = _plain(_CLASS.sub(" ", value).replace("\\", "")).strip()
    words = _TOKEN.findall(plain)
    if len(words) > 1 and len(plain) <= _LONG:
        yield plain
    yield from (line.strip() for line in plain.splitlines() if len(line.strip()) > _LINE and len(words) > 1)
    simple = len(words) <= _SIMPLE or answer or not re.search(r"\w \w+ \w", plain)
    for place, word in enumerate(
        part for found in words for part in dict.fromkeys([found, *found.split("/")])
    ):
        if word.isdigit():
            if answer or _is_telling(int(word[:30]), word):
                yield word
        elif len(word) >= (_WORD - word.isupper()) and (simple or _stands_out(word, first=place == 0)):
            yield word


def _stands_out(word: str, *, first: bool) -> bool:
    """In a sentence: a name, or a sign of some kind."""
    return bool(re.search(r"[\d_@/:-]|\w\.\w", word)) or (word[:1].isupper() and not first)


def _plain(text: str) -> str:
    return _THOUSANDS.sub("", text[:_READ])


def _places(text: str) -> dict[str, set[tuple[int, int]]]:
    """Each word with the lines, and the places in them, where it stands; its parts, too, if it has some."""
    found: dict[str, set[tuple[int, int]]] = {}
    for number, line in enumerate(text.splitlines()):
        for place, match in enumerate(_TOKEN.finditer(line)):
            word = match.group()
            for one in {word, *re.split(r"[.:/@-]", word)} if len(word) < _LONG else (word,):
                found.setdefault(one, set()).add((number, place))
    return found


def _line_of(text: str, where: str) -> set[int]:
    return {number for number, line in enumerate(where.splitlines()) if _stands(text, line)}


def _stands(text: str, where: str) -> bool:
    at = where.find(text)
    while at >= 0:
        before, after = where[at - 1 : at], where[at + len(text) : at + len(text) + 1]
        if not (_joins(before, text[:1]) or _joins(text[-1:], after)):
            return True
        at = where.find(text, at + 1)
    return False


def _joins(left: str, right: str) -> bool:
    return bool(left and right and re.match(r"\w\w", left + right))


def _words(places: Collection[str]) -> set[str]:
    return {word for word in places if not word.replace(".", "", 1).isdigit()}
