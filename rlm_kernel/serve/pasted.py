"""What of a long message was pasted, and what is asked of it.

Chat programs send both as one text. What was pasted is recognized by how people and programs set it apart:
as a part of the message's content, in tags, in a fenced block, between quotes or lines of dashes, behind `>`,
or by a request that stands before or behind it. Whatever is not certain counts as pasted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from rlm_kernel.serve.asking import (
    CAPITALS,
    INTRO,
    LABEL,
    LINE,
    MARKER,
    THANKS,
    asks,
    is_label,
    is_marked,
    is_prose,
)

_EDGE = 2_000
"""Characters at each end of a text in which a request is looked for."""
_TOLD = 3
"""Lines that are no requests themselves, in a paragraph that asks something."""
_WRAPPING = 300
"""Characters around what a program sets apart in a part of its own, such as a file's name."""
_MOST = 50
"""Pieces of one message that become files of their own."""
_WRAPPERS = (
    "attached_files attachment attachments context contexts data doc docs document document_content "
    "documents email excerpt excerpts file file_content files input_text knowledge log logs passage passages "
    "pasted pasted_content pasted_text source sources text transcript"
)
_TAG = re.compile(rf"<({'|'.join(_WRAPPERS.split())})(?:\s[^<>\n]{{0,300}})?>", re.IGNORECASE)
_SIGNS = ("---", "===", "***")
_WORD = re.compile(r"[^\W\d_]+")
_MARKUP = re.compile(r"<\?xml|<!doctype|<html|<svg", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}(?!~))([^\n`]*)$", re.MULTILINE)
"""All of a line's `~` are its fence: one that may be shorter takes a time of their number squared."""
_RULE = re.compile(r"^[ \t]*[-=*_~#]{3}[^\n]*$", re.MULTILINE)
"""What may be a line of dashes, with or without words in it."""


class Span(NamedTuple):
    """A part of a text: from its character `start` to before `end`."""

    start: int
    end: int


def pasted(text: str, parts: Sequence[str], long: int) -> list[Span]:
    """What was pasted into a message, in order; all else of the text is what is asked, at most `long`
    characters. None where that is not certain.

    `parts`: those of the message's content, which make the text with line ends between them.
    """
    rules: tuple[Callable[[], Iterator[Span]], ...] = (
        lambda: _long_parts(parts, long // 2),
        lambda: _tagged(text),
        lambda: _fenced(text),
        lambda: _quoted(text),
        lambda: _ruled(text),
        lambda: _behind_signs(text),
        lambda: _between_requests(text),
    )
    for rule in rules:
        spans = (trimmed for span in rule() if (trimmed := _trimmed(text, span, long // 2)) is not None)
        found = list(islice(spans, _MOST + 1))
        if found and len(found) <= _MOST:
            outside = outside_of(text, found)
            if sum(map(len, outside)) <= long and any(_WORD.search(one) for one in outside):
                return found
    return []


def outside_of(text: str, spans: Sequence[Span]) -> list[str]:
    """What stands before, between and behind the spans: one text more than there are spans."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[edges[at] : edges[at + 1]] for at in range(0, len(edges), 2)]


def _trimmed(text: str, span: Span, least: int) -> Span | None:
    """Without blank lines around it; None where little is left."""
    start, end = span
    while (line := text.find("\n", start, end)) >= 0 and not text[start:line].strip():
        start = line + 1
    while end > start and text[end - 1].isspace():
        end -= 1
    end += text.startswith("\r\n", end) * 2 or text.startswith("\n", end)
    return Span(start, min(end, span.end)) if end - start > least else None


def _long_parts(parts: Sequence[str], least: int) -> Iterator[Span]:
    """The long ones, if the others ask something."""
    short = [part for part in parts if len(part) <= least]
    if sum(map(len, short)) > 2 * least or not any(
        asks(line) for part in short for line in part.splitlines()
    ):
        return  # more than may be asked, or nothing
    start = 0
    for part in parts:
        if len(part) > least:
            inside = _unwrapped(part)
            yield Span(start + inside.start, start + inside.end)
        start += len(part) + 1


def _tagged(text: str) -> Iterator[Span]:
    """From the first tag to the last one that ends its kind, or what a single tag has in it alone."""
    if _MARKUP.search(text[:_EDGE]):
        return
    span = Span(0, len(text))
    for _ in range(5):
        inside = _in_tag(text, span)
        if inside is None:
            break
        span, single = inside
        if not single:
            break
    if span != (0, len(text)):
        yield span


def _in_tag(text: str, around: Span) -> tuple[Span, bool] | None:
    """What the first tag in a part has in it, and whether it is the only one of its kind."""
    within = 0.8 * (around.end - around.start) if around.start else 0
    for opening in islice(_TAG.finditer(text, *around), _MOST):
        end = f"</{opening[1]}>"
        closing = text.rfind(end, opening.end(), around.end)
        if (
            text.startswith(end, opening.end()) or closing - opening.end() <= within
        ):  # a mention of it, or a small thing such as a name
            continue
        again = text.find(opening[0], opening.end(), closing), text.find(end, opening.end(), closing)
        if max(again) < 0:
            return Span(opening.end(), closing), True
        return Span(opening.start(), closing + len(end)), False  # with the tags between them
    return None


def _fenced(text: str) -> Iterator[Span]:
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            yield Span(opened.end() + 1, fence.start())
            opened = None


def _quoted(text: str) -> Iterator[Span]:
    for quotes in ('"""', "'''"):
        first, last = text.find(quotes), text.rfind(quotes)
        if 0 <= first < last and _only_words(text[:first], text[last + 3 :]):
            yield Span(first + 3, last)
            return


def _ruled(text: str) -> Iterator[Span]:
    """Between the first and the last line of dashes, or on one side of the only one."""
    rules = _rules(text)
    if not 0 < len(rules) <= 2:  # more of them are the text's own
        return
    first, last = rules[0], rules[-1]
    if len(rules) > 1 and _only_words(text[: first.start], text[last.end :]):
        yield Span(first.end, last.start)
    elif _only_words(text[: first.start]):
        yield _bare(text, Span(first.end, _tail(text)))
    elif _only_words(text[last.end :]):
        yield _bare(text, Span(_head(text), last.start))


def _rules(text: str) -> list[Span]:
    """Lines of dashes that set something apart: none that makes the line above it a heading."""
    found = []
    for rule in _RULE.finditer(text):
        line = rule[0].strip()
        above = text[text.rfind("\n", 0, max(0, rule.start() - 1)) + 1 : rule.start()].strip()
        of_one_sign = not line.strip(line[0]) and line[0] != "#"
        with_words = len(line) <= _WRAPPING and line[:3] in _SIGNS and line[-3:] in _SIGNS
        if (of_one_sign or with_words) and not (above and abs(len(above) - len(line)) <= 1):
            found.append(Span(*rule.span()))
    return found


def _unwrapped(part: str) -> Span:
    """What a part of a message's content sets apart itself, or all of it."""
    rules = _rules(part)
    framed = [Span(rules[0].end, rules[-1].start)] if len(rules) > 1 else []
    for inside in (*_tagged(part), *_fenced(part), *framed):
        if len(part) - inside.end + inside.start <= _WRAPPING:
            return inside
    return Span(0, len(part))


def _behind_signs(text: str) -> Iterator[Span]:
    """Lines that begin with `>`, as mails quote."""
    start = 0 if text.startswith(">") else text.find("\n>") + 1
    last = text.rfind("\n>")
    if last <= start or (start == 0 and not text.startswith(">")):
        return
    end = text.find("\n", last + 1)
    end = len(text) if end < 0 else end + 1
    inside = text[start:end]
    signed = inside.startswith(">") + inside.count("\n>")
    if signed >= 0.9 * (inside.count("\n") + 1) and _only_words(text[:start], text[end:]):
        yield Span(start, end)


def _only_words(*texts: str) -> bool:
    """Whether they are short, and words of a person of which some ask something."""
    lines = [line for text in texts for line in text[: _EDGE + 1].splitlines() if line.strip()]
    return (
        all(len(text) <= _EDGE for text in texts)
        and any(map(asks, lines))
        and all(is_prose(line) or asks(line) or is_label(line) for line in lines)
    )


def _between_requests(text: str) -> Iterator[Span]:
    """Between what is asked at the beginning and at the end.

    One end asks; where both seem to, they say the same, or labels tell the text from what is asked
    (`Question: …`, `Context:`): else it is not certain which does.
    """
    head, tail = _head(text), _marked(text) or _tail(text)
    begins, ends = head > 0, tail < len(text)
    if ends and not begins:
        head = _label_end(text)
    bare = _bare(text, Span(head, tail))
    labelled = bool(text[head : bare.start].strip() or text[bare.end : tail].strip())
    same = text[:head].split() == text[tail:].split()
    marked = is_marked(text[:head]) or is_marked(text[tail:])
    if (begins or ends) and (begins != ends or labelled or same or marked):
        yield bare


def _marked(text: str) -> int:
    """Where a label near the end says that a request follows, and is nowhere else; 0: there is none."""
    groups, _ = _groups(text, Span(max(0, len(text) - _EDGE), len(text)))
    for start, end in (line for group in groups for line in group):
        found = MARKER.match(text[start:end].strip())
        if found is not None and text.find(found[0]) >= start:
            return start
    return 0


def _label_end(text: str) -> int:
    """Where a text begins by a label near the beginning, before which are a person's words; 0 where there is
    none.
    """
    groups, _ = _groups(text, Span(0, min(len(text), _EDGE)))
    for start, end in (line for group in groups for line in group):
        line = text[start:end]
        if is_label(line) and LABEL.fullmatch(line.strip()):
            return end
        if not (is_prose(line) or asks(line) or is_label(line)):
            break
    return 0


def _bare(text: str, span: Span) -> Span:
    """Without labels and lines of dashes around it."""
    start, end = span
    while (line := text.find("\n", start, end)) >= 0 and (
        not (first := text[start:line].strip()) or (is_label(first) and not CAPITALS.fullmatch(first))
    ):
        start = line + 1
    while (line := text.rfind("\n", start, end)) >= 0 and (
        not (last := text[line:end].strip()) or (is_label(last) and not CAPITALS.fullmatch(last))
    ):
        end = line
    return Span(start, end + text.startswith("\n", end))


def _head(text: str) -> int:
    """Where a request at the beginning ends; 0 where there is none."""
    groups, whole = _groups(text, Span(0, min(len(text), _EDGE)))
    found = 0
    for number, group in enumerate(groups[:4]):
        lines = [text[start:end] for start, end in group]
        asking = [at for at, line in enumerate(lines) if asks(line)]
        prose = all(is_prose(line) or asks(line) for line in lines)
        cut = number == len(groups) - 1 and not whole
        introduces = (
            prose and not cut and sum(map(len, lines)) <= LINE and bool(INTRO.match(lines[0].strip()))
        )
        if asking and asking[0] <= 3 and all(map(is_prose, lines[: asking[0]])) and (not found or prose):
            if prose and not cut and sum(map(len, lines)) <= LINE and len(lines) - len(asking) <= _TOLD:
                found = group[-1].end
                continue
            last = asking[0]
            while last + 1 in asking:
                last += 1
            return group[last].end
        if introduces and (not found or lines[-1].rstrip().endswith(":")):
            found = group[-1].end if found else found
            continue
        break
    return found


def _tail(text: str) -> int:
    """Where a request at the end begins; the text's length where there is none."""
    groups, whole = _groups(text, Span(max(0, len(text) - _EDGE), len(text)))
    found = len(text)
    for number, group in enumerate(reversed(groups)):
        lines = [text[start:end] for start, end in group]
        asking = [at for at, line in enumerate(lines) if asks(line)]
        prose = all(is_prose(line) or asks(line) for line in lines)
        cut = number == len(groups) - 1 and not whole
        short = sum(map(len, lines)) <= LINE and not cut and len(lines) - len(asking) <= _TOLD
        further = found < len(text)
        if not further and short and number == 0 and not asking and THANKS.fullmatch(" ".join(lines).strip()):
            continue
        if not asking or (further and not (short and prose and _goes_on(lines))):
            break
        if prose and short:
            found = group[0].start
            continue
        first = asking[-1]
        if len(lines) - first > 3:
            break
        while first - 1 in asking:
            first -= 1
        return group[first].start
    return found


def _goes_on(lines: Sequence[str]) -> bool:
    """Whether what is asked began with these lines, and goes on in what stands behind them."""
    return lines[-1].rstrip().endswith(":") or bool(MARKER.match(lines[0].strip()))


def _groups(text: str, window: Span) -> tuple[list[list[Span]], bool]:
    """The lines of a part of a text, in groups between blank lines; lines that are cut off are left out.
    And whether the part is the whole text.
    """
    ends = [window.start - 1, *(at.start() for at in re.finditer("\n", text[window.start : window.end]))]
    ends = [ends[0], *(end + window.start for end in ends[1:]), window.end]
    lines = [Span(start + 1, end) for start, end in pairwise(ends)]
    if window.start > 0:
        lines = lines[1:]
    if window.end < len(text):
        lines = lines[:-1]
    groups: list[list[Span]] = [[]]
    for line in lines:
        if text[line.start : line.end].strip():
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group], window == Span(0, len(text))
