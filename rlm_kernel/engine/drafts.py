"""What a model wrote for itself is taken off its reply: reasoning in tags, channels that are not for the
user, and what it went on to say after its own end. This is the one place, for the root model and for sub
models, before anything is run or delivered.

Reasoning comes apart from the reply where the provider's server knows the model's marks. Where it does not,
they stand in the text. A mark that code or a string speaks of is none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rlm_kernel.engine.blocks import blocks_of
from rlm_kernel.engine.python import strings_of

_NAME = r"(?:[\w-]{1,20}:)?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratch_?pad|inner_monologue)"  # noqa: E501
_VERB = r"[ \t]+(?-i:is|are|was|and|or|tags?|blocks?|elements?|occurs?|appears?|marks?)\b"
_OPEN = re.compile(
    rf"<{_NAME}(?:[ \t][^<>\n]{{0,100}})?>(?!{_VERB}"
    r")|\[THINK\]|◁think▷|<[|｜](?:begin_of_thought|START_THINKING|inner_prefix|think)[|｜]>"
    r"|<\|channel>thought\b|<unused94>thought\b",
    re.IGNORECASE,
)
"""What opens reasoning. With one of these words behind it, a sentence speaks of the tag."""
_CLOSE = re.compile(
    rf"</{_NAME}"
    r">|\[/THINK\]|◁/think▷|<[|｜](?:end_of_thought|END_THINKING|inner_suffix|/think)[|｜]>|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_EITHER = re.compile(f"{_OPEN.pattern}|{_CLOSE.pattern}", re.IGNORECASE)
_SELF = re.compile(rf"<{_NAME}[ \t]*/>", re.IGNORECASE)
_QUOTES = "\"'`"
_SPOKEN_OF = re.compile(r"(?<!`)(`{1,2})(?!`)[^`\n]{1,300}\1(?!`)|\"[^\"\n]{1,300}\"")
_ROUNDS = 3
"""How often a long reply is read for passages of reasoning.

A short one is read as often as it has such passages.
"""
_MARKS = 2_000
_CHANNEL = re.compile(
    r"(?:<\|start\|>[^<\n]{0,100})?<\|channel\|>(?P<name>[^<]{0,200})(?:<\|constrain\|>[^<]{0,60})?<\|message\|>"
)
_MARK = re.compile(f"{_CHANNEL.pattern}|{_EITHER.pattern}", re.IGNORECASE)
_LONGEST_MARK = 120
_BEGINS_MARK = re.compile(r"[<\[◁][^\n]*\Z")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNELS = re.compile(r"\Aanalysis(?=[A-Z\s]).*?assistant\s?final(?=\S|\s)", re.DOTALL)
"""Channels whose marks a server has dropped."""
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\s])")
_TURN_END = re.compile(
    r"(?:<[|｜](?:im_end|eot_id|eom_id|endoftext|end_of_text|end_of_turn|end▁of▁sentence|return|user|assistant)[|｜]>|<end_of_turn>|</s>)",
    re.IGNORECASE,
)
_NEXT_TURN = re.compile(
    r"\s*(?:<[|｜](?:im_start|start_header_id|User|start)[|｜]>|<start_of_turn>|\[INST\]|<s>|\Z)"
)
NEXT_TURN_LINE = re.compile(r"<[|｜](?:im_start|start_header_id|User)[|｜]>|<start_of_turn>|\[INST\]")
"""What stands on the line with which a model begins another turn."""
_WRAP = re.compile(r"<\|(?:begin|end)_of_solution\|>|<[|｜](?:START|END)_(?:RESPONSE|TEXT)[|｜]>")


def without_drafts(text: str) -> tuple[str, str]:
    """A reply without what the model wrote for itself, and that.

    The reply is as it came where there is nothing of the kind.
    """
    if not any(mark in text for mark in ("<", "[", "◁", "assistant")):
        return text, ""
    thoughts: list[str] = []
    rest = _of_channels(text, thoughts)
    rest = _of_tags(rest, thoughts)
    rest = _to_its_end(rest, thoughts)
    if rest == text:
        return text, ""
    return rest.strip("\n"), "\n\n".join(filter(None, (thought.strip() for thought in thoughts)))


def begins_in_thought(text: str) -> bool:
    """Whether a reply begins with reasoning that has an end and no mark at its beginning, which a chat
    template has written.
    """
    begin = text.lstrip()
    if _CLOSE.search(text) is None or _OPEN.match(begin):
        return False
    thoughts = without_drafts(text)[1]
    return bool(thoughts) and begin.startswith(thoughts[:40].rstrip())


def may_be_thought(rest: str) -> bool:
    """Whether what is left of a reply that goes on may still turn out to be reasoning, by the marks in it."""
    return _BARE_CHANNEL.match(rest) is not None or _OPEN.search(rest) is not None


def goes_past_its_end(text: str) -> bool:
    """Whether a reply goes on, after the mark of its end, with a turn that the model made up."""
    rest = _of_tags(_of_channels(text, []), [])
    ends = _outside_code(rest, list(itertools.islice(_TURN_END.finditer(rest), _MARKS)))
    following = (_NEXT_TURN.match(rest, mark.end()) for mark in ends)
    return any(found[0].strip() for found in following if found)


class Voice:
    """Tells the reasoning in a reply from its words as they come, to be shown: marks that come in pieces are
    put together, and left out.
    """

    def __init__(self, thinking: bool = False) -> None:
        self._thinking = thinking
        self._held = ""
        self._begins_line = True

    def say(self, piece: str) -> list[tuple[str, bool]]:
        """What is to be shown now, and whether it is reasoning."""
        shown: list[tuple[str, bool]] = []
        text = self._held + piece
        at = 0
        for mark in _MARK.finditer(text):
            if not self._changes(text[at : mark.start()], mark):
                continue
            self._show(text[at : mark.start()], shown)
            at, self._thinking = mark.end(), self._thinks(mark)
        begun = _BEGINS_MARK.search(text, max(at, len(text) - _LONGEST_MARK))
        held = begun.start() if begun else len(text)
        self._show(text[at:held], shown)
        self._held = text[held:]
        return shown

    def _show(self, text: str, shown: list[tuple[str, bool]]) -> None:
        if text:
            shown.append((text, self._thinking))
            last = text.rpartition("\n")[2]
            self._begins_line = not last.strip() and (self._begins_line or "\n" in text)

    def _changes(self, before: str, mark: re.Match[str]) -> bool:
        """Whether it is one of the model's own, and not one that a sentence or code speaks of."""
        line, whole = before.rpartition("\n")[2], "\n" in before
        begins_line = not line.strip() and (whole or self._begins_line)
        return self._thinking or begins_line or _CHANNEL.match(mark[0]) is not None

    def _thinks(self, mark: re.Match[str]) -> bool:
        if channel := _CHANNEL.match(mark[0]):
            return channel["name"].strip() == "analysis"
        return _CLOSE.fullmatch(mark[0]) is None


def _of_channels(text: str, thoughts: list[str]) -> str:
    """What stands in the channel for the user, and calls of tools; the other channels are thoughts."""
    if bare := _BARE_CHANNELS.match(text):
        thoughts.append(bare[0].removeprefix("analysis").rpartition("assistant")[0])
        return text[bare.end() :].lstrip()
    marks = _outside_code(text, list(_CHANNEL.finditer(text))) if "<|channel|>" in text else []
    if not marks:
        return text
    lead = text[: marks[0].start()]
    kept: list[str] = []
    (thoughts if "<|end|>" in lead else kept).append(lead.replace("<|end|>", ""))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        ended = [
            end
            for end in _CHANNEL_END.finditer(body)
            if not body[end.end() :].strip() or body.startswith("\n", end.end())
        ]
        body = body[: ended[0].start()] if ended else body
        name, _, to = mark["name"].partition(" to=")
        if to.strip() and not to.strip().startswith("browser"):
            kept.append(f"\n<tool_call>\n{body}\n</tool_call>\n")
        else:
            (thoughts if name.strip() == "analysis" else kept).append(body)
    return "".join(kept)


def _of_tags(text: str, thoughts: list[str]) -> str:
    """The text without what stands in tags for reasoning.

    An opener or a closer can be missing: chat templates write them for the model.
    """
    kept = ""
    text = _WRAP.sub("", _SELF.sub("", text)) if "<" in text else text
    room = _ROUNDS * len(text) + 100_000
    while (room := room - len(text)) > 0:
        start = len(text) - len(text.lstrip())
        if opened := _OPEN.match(text, start):
            end, after = _closed(text, opened.end())
            thoughts.append(text[opened.end() : end])
            text = text[after:]
            continue
        marks = _outside_code(text, list(itertools.islice(_EITHER.finditer(text), _MARKS)))
        mark = min(marks, key=lambda mark: mark.start(), default=None)
        if mark is None:
            break
        if _CLOSE.fullmatch(mark[0]):  # whose opener the chat template has written
            thoughts.append(kept + text[: mark.start()])
            kept, text = "", text[mark.end() :]
            continue
        begins_line = not text[: mark.start()].rpartition("\n")[2].strip()
        if not begins_line and not any(_CLOSE.fullmatch(other[0]) for other in marks):
            kept, text = kept + text[: mark.end()], text[mark.end() :]  # a word about the tag
            break
        kept, text = kept + text[: mark.start()], text[mark.start() :]
    return kept + text


def _closed(text: str, start: int) -> tuple[int, int]:
    """Where the reasoning ends that begins there, and where its closer does.

    A tag in quotes is one that the model thinks about.
    """
    depth, last = 1, None
    for mark in _EITHER.finditer(text, start):
        around = text[max(0, mark.start() - 1) : mark.start()] + text[mark.end() : mark.end() + 1]
        closes = _CLOSE.fullmatch(mark[0]) is not None
        last = mark if closes else last
        if any(quote in around for quote in _QUOTES) and not (closes and text.startswith("```", mark.end())):
            continue
        if closes:
            depth -= 1
            if depth <= 0:
                return mark.start(), mark.end()
        elif text[mark.end() : mark.end() + 3].startswith((".*", "(.")):
            depth += 1
    return (last.start(), last.end()) if last else (len(text), len(text))


def _to_its_end(text: str, thoughts: list[str]) -> str:
    """The text up to the mark of the end of a turn: what follows is a conversation that the model made up."""
    ends = _outside_code(text, list(itertools.islice(_TURN_END.finditer(text), _MARKS)))
    for mark in ends:
        if _NEXT_TURN.match(text, mark.end()):
            thoughts.append(text[mark.end() :])
            return text[: mark.start()]
    return text


def _outside_code(text: str, marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Those of the marks that no code, no string and no `code` in a sentence has."""
    if not marks:
        return []
    inside = _code_spans(text)
    found = []
    at = 0
    for mark in sorted(marks, key=lambda mark: mark.start()):
        while at < len(inside) and inside[at][1] <= mark.start():
            at += 1
        if at >= len(inside) or not inside[at][0] <= mark.start():
            found.append(mark)
    return found


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Where code speaks of things: strings and comments in blocks of Python, other blocks whole, and code in
    sentences.
    """
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    spans: list[tuple[int, int]] = []
    seen = 0
    for block in blocks_of(text):
        spans += _in_sentences(text, starts[seen], starts[block.first])
        begin, end = starts[min(block.first + 1, block.end)], min(starts[block.end], len(text))
        if block.language == "python" or (not block.label and strings_of(text[begin:end])):
            spans += [(begin + first, begin + last) for first, last in strings_of(text[begin:end])]
        elif block.closed and block.final is None:
            spans.append((begin, end))
        seen = block.end
    return spans + _in_sentences(text, starts[seen], len(text))


def _in_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(start + found.start(), start + found.end()) for found in _SPOKEN_OF.finditer(text[start:end])]
