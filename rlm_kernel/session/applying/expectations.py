"""What a cell gave, beside what it had given in the run that it was recorded in: whether that bears going on
without the root model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlm_kernel.engine import messages
from rlm_kernel.engine.protocols import CallRecord, CellResult
from rlm_kernel.trace.reader import TraceCell
from rlm_kernel.trace.schema import CallMeta

_ASKS = ("llm_query", "rlm_query")
_EMPTY = {
    "0", "0.0", "0.00", "-0.0", "0%", "0.0%", "[]", "{}", "()", "set()", "frozenset()", "counter()", "none",
    "dict_keys([])", "dict_values([])", "nan", "nat", "null", "inf", "-inf", "n/a", "<na>", "''", '""', "b''",
}  # fmt: skip
_NO_NUMBER = re.compile(r"\b(?:nan|NaN|NaT|None|<NA>|null|inf)\b")
_LABELLED = re.compile(r"^(?P<label>.*?\S\s*[:=]\s*)(?P<value>[^:=]*)$")
_TABLE = re.compile(r"^Empty DataFrame\b|^Series\(\[\]|^\[0 rows x \d+ columns\]", re.MULTILINE)
_NOTE = re.compile(r"^Note: .+$", re.MULTILINE)
_WARNING = re.compile(
    r"^(?:\S.*:\d+: )?(?!\w*(?:Deprecation|Future))(?P<kind>[A-Z]\w*Warning): .+$", re.MULTILINE
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?")
_GROWN, _BESIDE = 2.0, 10
"""Calls beyond so many times those of then, in proportion to the input, and so many beside, are too many."""


def surprise(cell: TraceCell, result: CellResult, share: float) -> str:
    """Why the root model has to look at what the cell gave; "" if it is of the kind that it was.

    `share`: how many times larger the input is.
    """
    then = _status(cell)
    if result.status != "ok":
        return _failed(cell, result, then)
    if then != "ok" or cell.edited or cell.never_run:
        return ""  # it failed then, and does not now; or there is nothing to compare it with
    before, now = messages.output_text(cell.outputs), messages.output_text(result.outputs)
    return (
        _emptied(before, now)
        or _noted(before, now)
        or _warned(before, now)
        or _no_number(before, now)
        or _calls(cell, result, share)
    )


def surprising_answer(then: str, now: str, code_page: str = "", names: str = "") -> str:
    """The same of an answer. `code_page`: the one in which the input was read by a guess; `names` of files,
    whose letters are none.
    """
    if not then:
        return ""
    if is_empty(now) and not is_empty(then):
        return f"the answer is {now.strip()[:40] or 'empty'}, and was not empty"
    if _NO_NUMBER.search(now) and not _NO_NUMBER.search(then):
        return f"the answer has {_NO_NUMBER.search(now).group()} in it"  # type: ignore[union-attr]
    if code_page and (
        other := next((char for char in now if not char.isascii() and char not in then + names), "")
    ):
        return f"the answer has {other!r} in it, and that the input is in {code_page} is a guess"
    return ""


def is_empty(text: str) -> bool:
    """Whether a result is one of nothing."""
    bare = text.strip()
    words = bare.casefold().split()
    if not words or bare.casefold() in _EMPTY or all(word in _EMPTY for word in words) or _TABLE.search(bare):
        return True
    try:
        return not _holds(json.loads(bare))
    except (ValueError, RecursionError):
        return False


def _holds(value: Any) -> bool:
    """Whether there is anything but nothing in a value of JSON."""
    if isinstance(value, dict):
        return any(map(_holds, value.values()))
    if isinstance(value, list):
        return any(map(_holds, value))
    return isinstance(value, bool) or (
        bool(value) and not (isinstance(value, float) and not math.isfinite(value))
    )


def _status(cell: TraceCell) -> str:
    if cell.meta is not None and cell.meta.status not in (None, "running"):
        return str(cell.meta.status)
    return "error" if any(output.get("output_type") == "error" for output in cell.outputs) else "ok"


def _failed(cell: TraceCell, result: CellResult, then: str) -> str:
    kinds, kinds_then = _errors(result.outputs), _errors(cell.outputs)
    if then == result.status and kinds == kinds_then:
        return ""  # as it failed then
    told = [str(output.get("evalue", ""))[:200] for output in result.outputs if _is_error(output)]
    why = f"{kinds[0]}: {told[0]}" if kinds else " ".join(result.notices)[:200]
    was = "" if then == "ok" else f" (then: {', '.join(kinds_then) or then})"
    return f"it ended with {'an error' if result.status == 'error' else result.status}{was}. {why}".strip()


def _is_error(output: Mapping[str, Any]) -> bool:
    return output.get("output_type") == "error"


def _errors(outputs: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(output.get("ename", ""))[:80] for output in outputs if _is_error(output)]


def _emptied(then: str, now: str) -> str:
    if is_empty(now) and not is_empty(then):
        return f"it gave {now.strip()[:40] or 'no output'}, and gave something then"
    if _TABLE.search(now) and not _TABLE.search(then):
        return "it gave an empty table, and none was empty then"
    values = _all_of(then, lambda value: not is_empty(value))
    for label, value in _labelled(now):
        if label in values and is_empty(value):
            return f"it gave {label.strip()} {value.strip() or 'nothing'}, and gave {values[label][:40]} then"
    return ""


def _labelled(text: str) -> list[tuple[str, str]]:
    """The lines that name a value: `errors: 17`."""
    found = (_LABELLED.match(line) for line in text.splitlines()[:10_000] if len(line) < 400)
    return [(match["label"], match["value"]) for match in found if match]


def _all_of(text: str, fits: Callable[[str], bool]) -> dict[str, str]:
    """Of each label whose values all fit, the last one; under "" the text itself, if it does. Rows of one
    form have the same labels.
    """
    found: dict[str, str] = {}
    others: set[str] = set()
    for label, value in [("", text), *_labelled(text)]:
        found[label] = value.strip()
        if not fits(value.strip()):
            others.add(label)
    return {label: value for label, value in found.items() if label not in others}


def _noted(then: str, now: str) -> str:
    """The kernel's notes on the data, which say that it is not as it seems."""
    known = {_bare(note) for note in _NOTE.findall(then)}
    new = next((note for note in _NOTE.findall(now) if _bare(note) not in known), "")
    return f"it says what it did not say then: {new[:300]}" if new else ""


def _warned(then: str, now: str) -> str:
    """Warnings of Python and of libraries: of mixed types, of dates, of means of nothing."""
    known = {match["kind"] for match in _WARNING.finditer(then)}
    new = next((match for match in _WARNING.finditer(now) if match["kind"] not in known), None)
    return f"it warns of what it did not warn of then: {new.group()[-300:]}" if new else ""


def _no_number(then: str, now: str) -> str:
    """Text where a number was: sums of text are text."""
    before = _all_of(then, lambda value: _NUMBER.fullmatch(value) is not None)
    for label, value in [("", now), *_labelled(now)]:
        if label in before and not _NUMBER.fullmatch(value.strip()):
            gave = f"{label.strip()} {value.strip()[:40]}".lstrip()
            return f"it gave {gave}, and the number {before[label][:40]} then"
    return ""


def _bare(note: str) -> str:
    return re.sub(r"\d[\d,.]*|'[^']*'", "", note)


def _calls(cell: TraceCell, result: CellResult, share: float) -> str:
    metas = [call for call in (cell.meta.calls if cell.meta else ()) if call.kind in _ASKS]
    then = len(metas) + (cell.meta.left_out if cell.meta else 0)
    made = [call for call in result.calls if call.kind in _ASKS]
    now = len(made) + result.left_out
    if (failed := _failures(made)) and not _failures(metas):
        return f"{failed:,} of its {now:,} sub-calls failed, and none did then"
    if then and not now:
        return f"it made no sub-call, and {then:,} then"
    if now > _GROWN * then * max(1.0, share) + _BESIDE:
        return f"it made {now:,} sub-calls, and {then:,} then: far more than the input has grown"
    empty, empty_then = _empty_answers(made), _empty_answers(metas)
    return (
        f"{empty:,} of its sub-calls gave an empty answer, and none did then"
        if empty and not empty_then
        else ""
    )


def _failures(calls: Sequence[CallRecord] | Sequence[CallMeta]) -> int:
    return sum(call.error is not None for call in calls)


def _empty_answers(calls: Sequence[CallRecord] | Sequence[CallMeta]) -> int:
    return sum(
        call.error is None and isinstance(call.answer, str) and not call.answer.strip() for call in calls
    )
