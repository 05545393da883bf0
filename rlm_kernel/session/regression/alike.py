"""Whether an answer is the expected one: to the letter, as a number, a list, JSON, or a text."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlm_kernel.bounded import shallow

How = Literal["auto", "exact", "number", "list", "json", "text", "judge"]
HOWS: tuple[How, ...] = get_args(How)
TOLERANCE = 1e-9
"""Of a number, relative to the greater of the two. Whole numbers are the same to the last digit."""
_MOST_LEFT = 500
"""Items without their like that are looked at in pairs, for numbers within the tolerance."""
_MOST_DIGITS = 4_000
_SEPARATORS = ",'\N{RIGHT SINGLE QUOTATION MARK}\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
"""Of thousands."""
_MINUS = "-\N{MINUS SIGN}\N{EN DASH}"
_MONEY = "$€£"
_DIGITS = (
    r"(?<![\w.,])(?<![^\W\d][-\N{EN DASH}])"  # no part of a word, as in GPT-4
    rf"[{_MINUS}+]?(?:\d{{1,3}}(?:[{_SEPARATORS}]\d{{3}})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{{1,3}})?"
    r"(?![\w]|[.,]\d)"
)
_BEFORE = rf"(?:(?<![\w.,])(?P<minus>[{_MINUS}])(?=[{_MONEY}]))?(?P<before>[{_MONEY}]?)\s?"
_ALONE = re.compile(rf"{_BEFORE}(?P<number>{_DIGITS})\s?(?P<after>[%{_MONEY}]?)\.?")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12}
_FOUND = re.compile(
    rf"(?P<than>(?<![-=])[<>\u2264\u2265]=?\s?)?{_BEFORE}(?P<number>{_DIGITS})(?P<more>\+(?!\d))?"
    rf"(?:\s?(?P<scale>{'|'.join(_SCALES)})\b)?\s?(?P<after>[%{_MONEY}]|per\s?cent\b)?",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
"""Of HTML or XML: the end of one before a number is no "greater than"."""
_CODE_NUMBER = re.compile(r"[^\d.]*0\d")
"""Of digits that begin with a nought, such as a postcode: without it they are others."""
_BULLET = re.compile(r"\s*(?:[-*+\N{BULLET}]|(?P<number>\d{1,6})[.)])\s+")
_NESTED = 2
"""Spaces before what belongs to the item above it."""
_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_BOLD = re.compile(r"\*\*(?=[^\s*])((?:(?!\*\*).)+)(?<=\S)\*\*", re.DOTALL)
_ITALIC = re.compile(
    r"(?<![\w*])\*(?=[^\s*])(?P<stars>[^*\n]+)(?<=\S)\*(?![\w*])"
    r"|(?<!\w)(?P<mark>__?)(?=[^\s_])(?P<lines>(?:[^_\n]|(?<=\w)_(?=\w))+)(?<=\S)(?P=mark)(?!\w)"
)
_BLOCK = re.compile(r"^[ \t]{0,3}(?:#{1,6}\s+|```\w*[ \t]*$)", re.MULTILINE)
_TABLE_RULE = re.compile(r"^[ \t]*\|[ \t|:-]+$\n?", re.MULTILINE)
_TABLE_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)
_KEPT = {"*": "\ue000", "_": "\ue001", "#": "\ue002", "|": "\ue003"}
"""Marks, and what stands for them in code, where they are none."""
_TRUTH = ({"true", "True"}, {"false", "False"})
"""As JSON and as Python has them."""
_IN_CODE = {ord(mark): kept for mark, kept in _KEPT.items()}
_PLAIN = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2039\u203a", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"')
    | dict.fromkeys("\u00ad\u200b\u2060\ufeff", "")
)
"""One kind of quotes, and nothing that has no width."""


@dataclass(frozen=True)
class Measure:
    """How answers are compared.

    `tolerance` of numbers, relative. `ordered`: the order of a list counts; None: only if the expected one is
    numbered.
    """

    how: How = "auto"
    tolerance: float = TOLERANCE
    ordered: bool | None = None

    def for_answer(self, expected: str) -> How:
        """How this answer is compared; never `auto`."""
        return _fitting(expected) if self.how == "auto" else self.how


def different(expected: str | None, answer: str | None, measure: Measure) -> str:
    """What differs, in a few words; "" if the answer is the expected one.

    None: there is none. `judge` compares as `text` does: whoever has a judge asks it about what differs.
    """
    if expected is None or answer is None:
        both = expected is None and answer is None
        return "" if both else "an answer, expected none" if expected is None else "no answer"
    if expected == answer:
        return ""
    return _COMPARE[measure.for_answer(expected)](expected, answer, measure)


def _fitting(expected: str) -> How:
    if _number_alone(expected) is not None:
        return "number"
    if isinstance(_parsed(expected), list | dict):
        return "json"
    lines = [line for line in expected.splitlines() if line.strip()]
    bullets = sum(bool(_BULLET.match(line)) for line in lines)
    return "list" if len(lines) > 1 and (bullets == len(lines) or _short_lines(lines)) else "text"


def _short_lines(lines: Sequence[str]) -> bool:
    """Lines that are names or values: no sentences, nothing of markdown."""
    return all(
        len(line) <= 60
        and not line.rstrip().endswith((".", ":", ";", "?", "!"))
        and line.lstrip()[0] not in "#>|`"
        for line in lines
    )


# Numbers


def _value(text: str) -> float | int | str:
    """The number; digits that are no number, such as a postcode, and too many of them, as they stand."""
    if _CODE_NUMBER.match(text) or len(text) > _MOST_DIGITS:
        return text
    plain = re.sub(f"[{_SEPARATORS}]", "", text)
    plain = re.sub(f"^[{_MINUS}]", "-", plain)
    return int(plain) if re.fullmatch(r"[-+]?\d+", plain) else float(plain)


def _number_alone(text: str) -> tuple[float | int, str] | None:
    """The number that the text is, and its sign of percent or money."""
    found = _ALONE.fullmatch(_unmarked(_unfenced(text)).strip())
    value = _value(found["number"]) if found else ""
    if found is None or isinstance(value, str):
        return None
    return -value if found["minus"] else value, found["after"] or found["before"]


def _numbers(text: str) -> set[tuple[float | int | str, str]]:
    """All numbers of a text with their signs. "More than 5" as a sign is another number than 5."""
    found: set[tuple[float | int | str, str]] = set()
    for match in _FOUND.finditer(_TAG.sub(" ", text)):
        value = _value(match["number"])
        if match["than"] or match["more"]:
            value = match.group()
        if not isinstance(value, str):
            value *= _SCALES.get((match["scale"] or "").lower(), 1) * (-1 if match["minus"] else 1)
        after = match["after"] or ""
        found.add((value, "%" if len(after) > 1 else after or match["before"]))
    return found


def _close(one: float, other: float, tolerance: float) -> bool:
    if isinstance(one, int) and isinstance(other, int) and tolerance <= TOLERANCE:
        return one == other  # a count of billions is not right within a few
    try:
        return math.isclose(one, other, rel_tol=tolerance) or (one != one and other != other)
    except OverflowError:  # a whole number that no float can be
        return one == other


def _number(expected: str, answer: str, measure: Measure) -> str:
    alone = _number_alone(expected), _number_alone(answer)
    texts = (expected, answer)
    wanted, given = ({one} if one else _numbers(text) for one, text in zip(alone, texts, strict=True))
    if len({value for value, _ in wanted}) != 1:
        return f"the expected answer is not a number: {_short(expected)}"
    if len({value for value, _ in given}) != 1:
        what = "several numbers" if given else "no number"
        return f"{what}: {_short(answer)}, expected {_short(expected)}"
    units = {unit for _, unit in wanted | given if unit}
    (one, _), (other, _) = next(iter(wanted)), next(iter(given))
    if isinstance(one, str) or isinstance(other, str):
        same = one == other
    else:
        same = _close(one, other, measure.tolerance)
    return "" if same and len(units) < 2 else f"{_short(answer)}, expected {_short(expected)}"


# Lists and JSON


def _items(text: str) -> tuple[list[Any], bool]:
    """The items of a list in any form, and whether they are numbered."""
    parsed = _parsed(text)
    if isinstance(parsed, list):
        return [_item(item) if isinstance(item, str) else item for item in parsed], False
    lines = [line for line in _unfenced(text).splitlines() if line.strip()]
    if any(map(_BULLET.match, lines)):  # a sentence before or behind the list is none of it
        lines = _bulleted(lines)
    marks = [_BULLET.match(line) for line in lines]
    items = [_item(_BULLET.sub("", line, count=1)) for line in lines]
    return items, bool(marks) and all(mark is not None and mark["number"] for mark in marks)


def _bulleted(lines: Sequence[str]) -> list[str]:
    """The lines with bullets, each with what is indented below it."""
    found: list[list[str]] = []
    first = 0
    for line in lines:
        mark = _BULLET.match(line)
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        if mark and not found:
            first = indent
        if found and indent >= first + _NESTED:
            found[-1].append(_BULLET.sub("- ", line, count=1))
        elif mark:
            found.append([line])
    return ["\n".join(item) for item in found]


def _item(text: str) -> Any:
    """An item: its number, if it is one without a sign."""
    number = _number_alone(text)
    if number is None:
        return plain(text)
    value, unit = number
    return f"{value:,}{unit}" if unit else value


def _list(expected: str, answer: str, measure: Measure) -> str:
    (wanted, numbered), (given, _) = _items(expected), _items(answer)
    return _of_items(wanted, given, measure, ordered=numbered if measure.ordered is None else measure.ordered)


def _of_items(wanted: list[Any], given: list[Any], measure: Measure, *, ordered: bool) -> str:
    if ordered:
        for number, (one, other) in enumerate(zip(wanted, given, strict=False), 1):
            if not _same(one, other, measure.tolerance):
                return f"item {number} is {_short(other)}, expected {_short(one)}"
        return "" if len(wanted) == len(given) else f"{len(given):,} items, expected {len(wanted):,}"
    gone, new = _without_like(wanted, given), _without_like(given, wanted)
    if len(gone) <= _MOST_LEFT and len(new) <= _MOST_LEFT:
        for one in list(gone):
            like = next((at for at, other in enumerate(new) if _same(one, other, measure.tolerance)), None)
            if like is not None:
                gone.remove(one)
                del new[like]
    told = [f"without {_few(gone)}"] if gone else []
    return "; ".join([*told, *([f"with {_few(new)}"] if new else [])])


def _without_like(ours: list[Any], theirs: list[Any]) -> list[Any]:
    """Our items that have none among theirs, each as often as it is."""
    there = Counter(map(_key, theirs))
    left = []
    for item in ours:
        if there[_key(item)]:
            there[_key(item)] -= 1
        else:
            left.append(item)
    return left


def _key(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _json(expected: str, answer: str, measure: Measure) -> str:
    wanted, given = _parsed(expected), _parsed(answer)
    if given is _NONE:
        return f"no JSON: {_short(answer)}"
    if wanted is _NONE:
        return f"the expected answer is not JSON: {_short(expected)}"
    if isinstance(wanted, list) and isinstance(given, list):
        return _of_items(wanted, given, measure, ordered=bool(measure.ordered))
    if isinstance(wanted, dict) and isinstance(given, dict):
        for name in {**wanted, **given}:
            if name not in given or name not in wanted:
                return f"{'without' if name in wanted else 'with'} the field {_short(name)}"
            if not _same(wanted[name], given[name], measure.tolerance):
                return f"{_short(name)} is {_short(given[name])}, expected {_short(wanted[name])}"
        return ""
    return "" if _same(wanted, given, measure.tolerance) else f"{_short(given)}, expected {_short(wanted)}"


def _same(one: Any, other: Any, tolerance: float) -> bool:
    """Two JSON values; numbers within the tolerance. True is no number."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return _close(one, other, tolerance)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name], tolerance) for name in one)
    if isinstance(one, str) and isinstance(other, str) and one != other and tolerance > TOLERANCE:
        ours, theirs = _number_alone(one), _number_alone(other)
        return bool(ours and theirs and ours[1] == theirs[1] and _close(ours[0], theirs[0], tolerance))
    return bool(one == other)


_NONE = object()
"""What is no JSON."""


def _parsed(text: str) -> Any:
    try:
        found = json.loads(_unfenced(text))
    except (ValueError, RecursionError):
        return _NONE
    return found if shallow(found) else _NONE


def _unfenced(text: str) -> str:
    found = _FENCE.match(text)
    return found[1] if found else text


# Texts


def plain(text: str) -> str:
    """A text without markdown's marks, and with one kind of quotes and spaces."""
    composed = unicodedata.normalize("NFC", _unfenced(text)).translate(_PLAIN)
    return " ".join(_unmarked(composed).split())


def _unmarked(text: str) -> str:
    """A text without markdown's marks, which come in pairs; `__init__`, `*.py` and `2**3` have none."""
    text = _CODE.sub(lambda found: found[1].translate(_IN_CODE), text)
    text = _TABLE_RULE.sub("", text)
    text = _TABLE_ROW.sub(lambda row: row.group().replace("|", " | "), text)
    text = _ITALIC.sub(_without_mark, _BOLD.sub(r"\1", _BLOCK.sub("", text)))
    return text.translate({ord(kept): mark for mark, kept in _KEPT.items()})


def _without_mark(found: re.Match[str]) -> str:
    if found["stars"]:
        return str(found["stars"])
    is_name = found["mark"] == "__" and found["lines"].isidentifier()
    return str(found.group() if is_name else found["lines"])


def _text(expected: str, answer: str, measure: Measure) -> str:
    one, other = plain(expected), plain(answer)
    if one == other or {one, other} in _TRUTH:
        return ""
    at = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    start = max(0, at - 20)
    return f"{_short(other[start : start + 80])}, expected {_short(one[start : start + 80])}"


def _exact(expected: str, answer: str, measure: Measure) -> str:
    return _text(expected, answer, measure) or "it differs in spaces or marks"


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(_short(item) for item in items[:3])
    return f"{shown} and {len(items) - 3:,} more" if len(items) > 3 else shown


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text[:400].split())
    return repr(f"{text[:77]}…" if len(text) > 80 else text)


_COMPARE: dict[str, Callable[[str, str, Measure], str]] = {
    "exact": _exact,
    "number": _number,
    "list": _list,
    "json": _json,
    "text": _text,
    "judge": _text,
}
