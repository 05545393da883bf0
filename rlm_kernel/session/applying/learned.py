"""Words and numbers in a trace's code that the root model had read in what earlier cells printed: on another
input they may be those of yesterday.

A word counts as read where it stood in an output before, and neither in the question nor in code before that.
It may stay where it is a name of a column, or stands in what is printed now at the same place, or, if that
was an excerpt of the input, anywhere in the input of now. All else is stale.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlm_kernel.session.applying.literals import LONG, TOKEN, Literal, literals, plain

Standing = Callable[[Sequence[str]], Awaitable[Sequence[bool]]]
"""Which of some texts stand in the input of now."""
_WHOLE = re.compile(r"^<input-\w+ ", re.MULTILINE)
"""With this begins an input in the first message that is shown whole."""
_USUAL = {
    "error", "errors", "err", "warn", "warning", "info", "debug", "trace", "fatal", "critical", "exception",
    "true", "false", "yes", "no", "none", "null", "nan", "get", "post", "put", "delete", "head", "id", "name",
}  # fmt: skip
"""Words that code looks for without having read them anywhere."""
_ASKED = 60
"""Texts that are looked for in the input, for one cell."""
_LINE, _WORD, _FEW = 20, 3, 2
"""Characters of a line that shows an excerpt, and of a word; members of a list."""
_COUNTING = 400
"""Characters of a line that may be one of a list, or a result with its name."""
_MOST = 2_000
"""Literals of a cell that are looked at: code that has more has data in it."""


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

    def __post_init__(self) -> None:
        self.then, self.now = plain(self.then), plain(self.now)

    @cached_property
    def places(self) -> dict[str, set[tuple[int, int]]]:
        return _places(self.then)

    @cached_property
    def places_now(self) -> dict[str, set[tuple[int, int]]]:
        return _places(self.now)

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
        lines = (line.strip() for line in where.splitlines() if len(line) < _COUNTING)
        return {line for line in lines if mark.match(line)}

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
        self._known = plain(question)
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
        self._known += f"\n{plain(question)}"

    def ran(self, cell: str, code: str, then: str, now: str) -> None:
        """A cell has run."""
        self._known += f"\n{plain(code)}"
        self._outputs.append(Output(cell, then, now))

    async def stale(self, code: str) -> str:
        """What of the code was read in outputs of then and may not be so now; "" if nothing."""
        found = await asyncio.to_thread(literals, code)
        if len(found) > _MOST:
            return f"it has more than {_MOST:,} words and numbers in it, which may be data of the first run"
        found = await asyncio.to_thread(self._unknown, found)
        if place := next((one for one in found if one.place), None):
            return f"it takes a part of something from place {place.text} on, which may be elsewhere now"
        learned = await asyncio.to_thread(self._learned, found)
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

    def _unknown(self, found: Sequence[Literal]) -> list[Literal]:
        folded = self._known.casefold().replace("_", " ")
        return [one for one in found if not self._is_known(one, folded)]

    def _learned(self, found: Sequence[Literal]) -> dict[Literal, list[Output]]:
        return {one: sources for one in found if (sources := self._sources(one))}

    def _is_known(self, one: Literal, folded: str) -> bool:
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
        return re.search(rf"(?<!\w){re.escape(stem)}{ending}(?!\w)", folded) is not None

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


def _is_charset(text: str) -> bool:
    try:
        codecs.lookup(text)
    except (LookupError, ValueError):
        return False
    return True


def _places(text: str) -> dict[str, set[tuple[int, int]]]:
    """Each word with the lines, and the places in them, where it stands; its parts, too, if it has some."""
    found: dict[str, set[tuple[int, int]]] = {}
    for number, line in enumerate(text.splitlines()):
        for place, match in enumerate(TOKEN.finditer(line)):
            word = match.group()
            for one in {word, *re.split(r"[.:/@-]", word)} if len(word) < LONG else (word,):
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
