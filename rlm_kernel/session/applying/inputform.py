"""The form of an input as the root model was told of it: what of it is another one now.

Both are read from the first message to the root model, which the trace has: the one of then, and the one that
would be sent now. So traces need nothing beside it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.session.applying.rowforms import date_form, other_date, other_line, other_unit

_FORM = re.compile(
    r"^Form: (?:(?P<file>[^\n]{1,200}?): )?"
    r"(?P<what>a table|JSON lines|mail|sections|lines|JSON|like JSON)(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
_KINDS = re.compile(r"^Kinds: (?P<kinds>[^\n]+)$", re.MULTILINE)
_CONTEXT = re.compile(r"^Context: (?P<kind>[\w.]+)", re.MULTILINE)
_NOTE = re.compile(r"^Note: (?P<note>[^\n]+)$", re.MULTILINE)
_NAMES = re.compile(r'(?:"(?:[^"\\]|\\.)*"(?:, )?)+')
_ONE = re.compile(r'"(?:[^"\\]|\\.)*"')
_FIRST = re.compile(r"(?:rows\[0\]|the first) is (?P<row>\{.*\})")
_CHARSET = re.compile(r"read as [\w.-]+|bytes that are not UTF-8 read as [\w.-]+")
_TEXTS = ("str", "LazyText")
_BY_PLACE = re.compile(
    r"\.split\(|csv\.reader|\.iloc\b|itertuples|\.values\b|header\s*=\s*None|re\.\w+\(|grep\("
)
_OPENS = re.compile(r"\bopen\(|read_text\(|read_bytes\(|read_csv\(|fileinput|decode\(")
_READS_ITSELF = re.compile(
    r"\bread_(?:csv|table|fwf)\(|\bcsv\.|\bDictReader\(|\bjson\.load|\A(?!.*\brecords\().*\bsplit\(",
    re.DOTALL,
)
"""Code to which numbers are what they are in the file, and not what `records` makes of them."""
_NAMELESS = "names are not in the text"
_BLANK = re.compile(r"have no number but ''$|fewer fields than columns")
"""What is no other form: values that are missing."""
_SHOWN = 6


@dataclass(frozen=True)
class Table:
    """One form: what it is, the names of its columns or keys in order, and of the first row the kinds of the
    values, how it has dates, and its line. `remarks`: how its numbers are written, and what is left out.
    """

    what: str
    names: Sequence[str]
    kinds: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    line: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class InputForm:
    """What a first message tells of the input."""

    kind: str
    kinds: frozenset[str]
    tables: Sequence[Table]
    notes: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """Of all columns and keys."""
        return frozenset(name for table in self.tables for name in table.names)

    @classmethod
    def told(cls, message: str) -> InputForm | None:
        """By the message; None where it tells of no input."""
        context = _CONTEXT.search(message)
        if context is None:
            return None
        kinds = _KINDS.search(message)
        parts = re.split(r", | and ", kinds["kinds"]) if kinds else []
        return cls(
            "text" if context["kind"] in _TEXTS else context["kind"],
            frozenset(re.sub(r"[\d,]+", "", part).strip() for part in parts),
            [_table(match) for match in _FORM.finditer(message)],
            frozenset(match["note"] for match in _NOTE.finditer(message)),
        )


def _table(match: re.Match[str]) -> Table:
    told = re.split(r"; (?:rows = records|for row in|data = )", match["rest"], maxsplit=1)[0]
    listed = _NAMES.search(told)
    names = [json.loads(one) for one in _ONE.findall(listed.group())] if listed else []
    first = _FIRST.search(match["rest"])
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|[\d,]+', "", told.split(";")[0])
    plain = "" if match["what"] == "lines" else re.sub(r"\b(?:with )?the columns?\b|\bwith\b|\s+", " ", bare)
    what = " ".join(f"{match['what']} {plain}".split()).rstrip(" ,")
    row = _row(first["row"]) if first else {}
    line = row.get("text") if match["what"] == "lines" else ""
    return Table(
        what,
        names,
        _kinds_of(row),
        {str(key): form for key, value in row.items() if (form := date_form(value))},
        line if isinstance(line, str) else "",
        [remark.strip() for remark in told.split(";")[1:]],
    )


def _row(row: str) -> dict[Any, Any]:
    try:
        found: Any = ast.literal_eval(row)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return {}  # it was cut
    return found if isinstance(found, dict) else {}


def _kinds_of(row: dict[Any, Any]) -> dict[str, str]:
    known = {str: "text", int: "number", float: "number", bool: "yes or no", list: "list", dict: "dict"}
    return {
        str(key): "nothing" if value in ("", None) else known.get(type(value), "value")
        for key, value in row.items()
    }


def broken(then: InputForm | None, now: InputForm | None, code: str) -> str:
    """How the input of now has another form than that of then, for the code that reads it; "" where it has
    the same.

    More columns are no other form where the code takes columns by their names, nor is another order.
    """
    if then is None or now is None:
        return ""
    if then.kind != now.kind:
        return f"context is a {now.kind}, and was a {then.kind}"
    if then.kinds != now.kinds:
        gone, new = sorted(then.kinds - now.kinds), sorted(now.kinds - then.kinds)
        return f"the kinds of files are others: {_listed([*new, *(f'no {kind}' for kind in gone)])}"
    return _tables(then, now, code) or _notes(then, now, code)


def _notes(then: InputForm, now: InputForm, code: str) -> str:
    known = {_plain(note) for note in then.notes}
    for note in now.notes:
        plain = _plain(note)
        if not plain or plain in known:
            continue  # another charset, which the kernel has read rightly
        return f"of how it was read there is something new to be told: {note[:200]}"
    charsets = [{found for note in form.notes for found in _CHARSET.findall(note)} for form in (then, now)]
    if charsets[0] != charsets[1] and _OPENS.search(code):
        return "the text is encoded otherwise, and the code opens the file itself"
    return ""


def guessed(then: InputForm | None, now: InputForm | None) -> str:
    """A code page in which the input of now was read, and that of then was not: such is a guess by its words,
    and letters beyond ASCII may be others; "" if there is none.
    """
    known = {found for note in (then.notes if then else ()) for found in _CHARSET.findall(note)}
    new = {found for note in (now.notes if now else ()) for found in _CHARSET.findall(note)} - known
    pages = sorted(found.rpartition(" ")[2].rstrip(".") for found in new)
    return next((page for page in pages if not page.upper().startswith("UTF")), "")


def _plain(note: str) -> str:
    """A note without its file's name, numbers, and what it says of a charset."""
    bare = _CHARSET.sub("", note.partition(": ")[2] or note)
    return re.sub(r"[\d,]+|[;:]|\s+", " ", bare).strip()


def _tables(then: InputForm, now: InputForm, code: str) -> str:
    if not then.tables:
        return ""  # it was just text: the code counts on no form
    if not now.tables:
        return f"it was {then.tables[0].what}, and is not any more"
    for table in now.tables:
        faults = [_other(old, table, code) for old in then.tables]
        if all(faults):
            return faults[0]
    return next((fault for old in then.tables if (fault := _gone(old, now.tables, code))), "")


def _gone(old: Table, tables: Sequence[Table], code: str) -> str:
    faults = [_other(old, table, code) for table in tables]
    return faults[0] if all(faults) else ""


def _other(old: Table, new: Table, code: str) -> str:
    """How a table is another one."""
    if old.what != new.what:
        return f"it is {new.what}, and was {old.what}"
    gone = [name for name in old.names if name not in new.names]
    added = [name for name in new.names if name not in old.names]
    if old.what == "lines":
        # The names of their fields are the kernel's, and some of them words that all lines have.
        named = [name for name in gone if re.search(rf"[\"']{re.escape(name)}[\"']", code)]
        if named:
            return f"without {_listed(named)}"
        if added and re.search(r"\[-\d", code) and re.search(r"\.r?split\(", code):
            return f"lines have {_listed(added)}, and the code may count words from their end"
        return other_unit(gone, added, code) or other_line(old.line, new.line, code)
    if gone:
        return f"without {_listed(gone)}" + (f", and with {_listed(added)}" if added else "")
    moved = list(new.names[: len(old.names)]) != list(old.names)
    if moved and _BY_PLACE.search(code):
        return f"its columns have another order ({_listed(new.names)}), and the code may take them by place"
    if added and not moved and _BY_PLACE.search(code):
        if re.search(r"\[-\d", code):
            return f"with {_listed(added)} at its end, and the code may count columns from there"
        if _NAMELESS in old.what:
            return f"it has {len(new.names):,} columns, and had {len(old.names):,}"
    other = [
        name
        for name, kind in old.kinds.items()
        if kind != "nothing" and new.kinds.get(name, kind) not in (kind, "value")
    ]
    if other:
        return f"{_listed(other)} began with {old.kinds[other[0]]} and begins with {new.kinds[other[0]]}"
    shown = {name: new.dates.get(name, "") for name in new.kinds}  # a row of much text is cut
    dates = (other_date(name, old.dates, shown, code) for name in old.names)
    return next(filter(None, dates), "") or _written_otherwise(old, new, code)


def _written_otherwise(old: Table, new: Table, code: str) -> str:
    """What the kernel tells of the new rows and did not of the old, where code reads them itself."""
    known = {_plain_remark(remark) for remark in old.remarks}
    for remark in new.remarks:
        if _plain_remark(remark) in known or _BLANK.search(remark):
            continue
        if _READS_ITSELF.search(code):
            return f"there is something new to be told of its rows: {remark[:200]}"
    return ""


def _plain_remark(remark: str) -> str:
    """A remark without its values and numbers."""
    return re.sub(r"'(?:[^'\\]|\\.)*'|[\d,.]+", "", remark)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(repr, names[:_SHOWN]))}{more}"
