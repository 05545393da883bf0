"""Hears the root model's reply piece by piece, and ends it where nothing more of it can count.

That is where the model goes on, after its code, with an output that it made up, or after its own end with
another turn, or says the same over and over. What was heard is read by the reader of whole replies
(`engine.replies`), at the ends of lines that may begin such a thing. So it does not matter how a reply came
in pieces. All looks together take time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlm_kernel.engine import messages as say
from rlm_kernel.engine import python
from rlm_kernel.engine.blocks import language
from rlm_kernel.engine.drafts import (
    NEXT_TURN_LINE,
    Voice,
    begins_in_thought,
    goes_past_its_end,
    may_be_thought,
    without_drafts,
)
from rlm_kernel.engine.replies import OUTPUT_LINE, OUTPUT_SAID, parse_reply

_FENCE = re.compile(r"[\s>*\-\d.]{0,40}(?:`{3,}|~{3,})[ \t]*(?P<label>[\w-]{0,40})")
_PLAIN = frozenset({"text", "txt", "plain", "plaintext", "none"})
"""Labels under which models also show what is no output."""
_LOOKS_INTO = 3
"""Lines of a block that may be a made-up output, of which one must tell."""
_READ_AGAIN = 4, 100_000
"""How often, and of how many characters besides, what was heard may be read."""
_STEP = 4_096
"""Characters after which it is looked whether the reply says the same over and over."""
_ENOUGH = 256
"""Characters at the end by which the place is found where it said them before."""
_SAME = 4 * _STEP
"""Characters at the end of the reply that must be the same over and over, four times at least."""


class Hearing:
    """One reply, as it comes: `Watch.heard`.

    `tell` hears the pieces, with True those of the reasoning. `late`: the model's reasoning may stand before
    the reply without a mark at its beginning, so that nothing counts before its end.
    """

    def __init__(self, tell: Callable[[str, bool], None], *, late: bool = False) -> None:
        self._tell = tell
        self._late = late
        self.again()

    def again(self) -> None:
        """The reply begins anew."""
        self._voice = Voice(self._late)
        self._thoughts: list[str] = []
        self._text: list[str] = []
        self._line: list[str] = []
        self._heard = 0
        self._read = 0
        self._inside = 0
        """Lines of a block that are still to be looked into."""
        self._said = ""
        """The last line with words in it."""
        self._fresh: list[str] = []
        self._tail = ""
        self.kept: str | None = None
        """What counts of a reply that was ended; None where it was not."""
        self.why = ""
        """Why it was, for the root model."""

    def __call__(self, piece: str, thought: bool) -> bool:
        """Whether more is to come. Nothing counts that comes after the end."""
        if self.kept is not None:
            return False
        if thought:
            self._thoughts.append(piece)
            self._tell(piece, True)
            return True
        for part, within in self._voice.say(piece):
            self._tell(part, within)
        return self._take(piece)

    @property
    def words(self) -> str:
        """What was said so far, without reasoning."""
        return without_drafts("".join(self._text))[0]

    @property
    def thoughts(self) -> str:
        """The reasoning so far."""
        return "\n\n".join(filter(None, ("".join(self._thoughts), without_drafts("".join(self._text))[1])))

    @property
    def was_late(self) -> bool:
        """The reply began with reasoning that had no mark at its beginning."""
        return begins_in_thought("".join(self._text))

    def _take(self, piece: str) -> bool:
        at = 0
        while at < len(piece):
            step = at + _STEP - self._heard % _STEP
            line_end = piece.find("\n", at, step) + 1
            end = min(line_end or step, len(piece))
            self._text.append(piece[at:end])
            self._line.append(piece[at:end])
            self._fresh.append(piece[at:end])
            self._heard += end - at
            if line_end and self._made_up():
                return False
            if self._heard % _STEP == 0 and self._loops():
                return False
            at = end
        return True

    def _made_up(self) -> bool:
        """Whether the line that has ended here tells that an output is made up."""
        line, self._line = "".join(self._line), []
        if not self._may_begin(line) or not self._affordable():
            return False
        text = "".join(self._text)
        rest, _ = without_drafts(text)
        if (self._late and not begins_in_thought(text)) or may_be_thought(rest):
            return False
        if NEXT_TURN_LINE.search(line) and goes_past_its_end(text):
            self.kept = rest if _has_an_end(rest) else None
            return self.kept is not None
        self.kept = _before_made_up(rest)
        self.why = say.INVENTED if self.kept is not None else ""
        return self.kept is not None

    def _may_begin(self, line: str) -> bool:
        """Whether a look at what was heard may tell something new."""
        if not line.strip():
            return False
        said, self._said = self._said, line
        if OUTPUT_LINE.match(line) or NEXT_TURN_LINE.search(line):
            return True
        if opened := _FENCE.match(line):
            kind = language(opened["label"])
            shown = kind == "output" and opened["label"].lower() not in _PLAIN
            announced = kind != "python" and OUTPUT_SAID.search(said[-200:].rstrip()) is not None
            self._inside = _LOOKS_INTO if shown or announced else 0
            return False
        if not self._inside:
            return False
        self._inside -= 1
        return True

    def _affordable(self) -> bool:
        self._read += self._heard
        if self._read <= _READ_AGAIN[0] * self._heard + _READ_AGAIN[1]:
            return True
        self._read -= self._heard
        return False

    def _loops(self) -> bool:
        """Whether the reply says the same over and over."""
        self._tail, self._fresh = (self._tail + "".join(self._fresh))[-_SAME:], []
        end = len(self._tail) - _ENOUGH
        period = end - self._tail.rfind(self._tail[-_ENOUGH:], 0, -1)
        if len(self._tail) < _SAME or period > _STEP or self._tail[period:] != self._tail[:-period]:
            return False
        text = "".join(self._text)
        begin = len(text) - _SAME
        while begin and text[begin - 1] == text[begin - 1 + period]:
            begin -= 1
        once = begin + period
        line_end = text.find("\n", once - 1, once + period) + 1
        self.kept, self.why = without_drafts(text[: line_end or once])[0], say.LOOPED
        return True


def _has_an_end(text: str) -> bool:
    """Whether nothing of a reply is open, so that a mark after it is the model's own."""
    parsed = parse_reply(text)
    delivers = parsed.final is not None and not parsed.cells
    return not parsed.empty and (parsed.settled or delivers)


def _before_made_up(text: str) -> str | None:
    """A reply up to where it goes on with an output that no cell gave; None where that is not certain."""
    parsed = parse_reply(text)
    if parsed.made_up is None or not parsed.settled or not all(map(python.parses, parsed.cells)):
        return None
    kept = "\n".join(text.replace("\r\n", "\n").split("\n")[: parsed.made_up]).rstrip()
    return kept if parse_reply(kept).cells == parsed.cells else None
