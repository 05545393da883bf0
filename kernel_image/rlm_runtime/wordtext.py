"""The text of Word files (.docx): as it stands with all changes accepted, in the order of the document.

The XML is walked itself, because what python-docx calls a paragraph's text lacks tracked insertions, content
controls and text boxes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator
from typing import IO, Any

from rlm_runtime.unpacking import TooMuch
from rlm_runtime.wordmath import formula
from rlm_runtime.wordnumbers import Numbers
from rlm_runtime.xmlwalk import child_of, name_of, value_of

_TURNED_OFF = ("0", "false", "off", "none")
_SKIPPED = frozenset(
    (
        "del",
        "moveFrom",
        "delText",
        "delInstrText",
        "instrText",
        "pPr",
        "rPr",
        "sdtPr",
        "tblPr",
        "tblGrid",
        "Fallback",
        "sectPr",
        "rt",
    )
)
_AROUND = ("footnote", "endnote", "comment", "header", "footer")
"""What stands beside a document, in the order in which it follows it."""
_PART = re.compile(r"(header|footer|footnote|endnote|comment)s?\d*\.xml")
_MARKS = {
    "tab": "\t",
    "ptab": "\t",
    "noBreakHyphen": "-",
    "softHyphen": "",
    "footnoteReference": "",
    "endnoteReference": "",
}
RAISED, LOWERED = "\0", "\1"
"""Stand before and behind text that is above the line; XML has neither."""
_POWER = re.compile(rf"(?<=\S){RAISED}(?=[-+\u2212]?[0-9])")
_DEEP = 100


class Parts:
    """The parts of a document that is a zip of XML; `damaged` says which of them are, as they are read."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        """`room`: bytes that the parts may unpack to together. Raises zipfile.BadZipFile."""
        self._archive = zipfile.ZipFile(file)
        self._names = dict.fromkeys(self._archive.namelist()).keys()
        self._room = room
        self.damaged: list[str] = []

    def names(self) -> Collection[str]:
        """The names of all parts, in the order of the file."""
        return self._names

    def bytes_of(self, name: str) -> bytes:
        with self._archive.open(name) as part:
            data = part.read(self._room + 1)
        self._room -= len(data)
        if self._room < 0:
            raise TooMuch(f"{name} in it unpacks to too much for memory")
        return data

    def root(self, name: str) -> Any:
        """A part as XML; of a damaged one what comes before the damage."""
        from lxml import etree

        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=True,
            recover=True,
            remove_comments=True,
            remove_pis=True,
        )
        root = etree.fromstring(self.bytes_of(name), parser)
        if root is None:
            raise ValueError("it is no XML")
        if any(error.level >= etree.ErrorLevels.FATAL for error in parser.error_log):
            self.damaged.append(f"{name} is damaged, and was read up to there")
        return root


def word_text(file: IO[bytes], room: int) -> tuple[str, list[str]]:
    """The text of a Word file, and what of it could not be read.

    Raises what zipfile and lxml raise where there is no text at all.
    """
    parts = Parts(file, room)
    main = _main_part(parts)
    lines = _lines(parts.root(main), _numbers(parts, main.rpartition("/")[0]))
    around: dict[str, list[str]] = {kind: [] for kind in _AROUND}
    for name in sorted(parts.names(), key=number_in):
        kind = _PART.fullmatch(name.removeprefix(main.rpartition("/")[0]).lstrip("/"))
        if kind is None:
            continue
        try:
            found = _notes(parts.root(name), kind[1])
        except Exception as error:  # a broken part costs that part
            parts.damaged.append(f"{name} could not be read ({type(error).__name__}: {error})")
            continue
        around[kind[1]] += [line for line in found if line not in around[kind[1]]]
    return "\n".join([*lines, *(line for kind in _AROUND for line in around[kind])]), parts.damaged


def _numbers(parts: Parts, folder: str) -> Numbers:
    """What counts the document's headings and lists."""
    roots: list[Any] = []
    for name in (f"{folder}/numbering.xml", f"{folder}/styles.xml"):
        try:
            roots.append(parts.root(name.lstrip("/")) if name.lstrip("/") in parts.names() else None)
        except TooMuch:
            raise
        except Exception as error:  # what it counts has no numbers then
            parts.damaged.append(f"{name} could not be read ({type(error).__name__}: {error})")
            roots.append(None)
    return Numbers(*roots)


def number_in(name: str) -> tuple[str, int]:
    """What a part is sorted by: its name, and the number at its end."""
    found = re.search(r"(\d+)\.xml$", name)
    return (name[: found.start()], int(found[1][:9])) if found else (name, 0)


def _main_part(parts: Parts) -> str:
    """The name of the document itself, by the file's own list of what is what."""
    names = parts.names()
    try:
        for link in parts.root("_rels/.rels"):
            if link.get("Type", "").endswith("/officeDocument"):
                target: str = link.get("Target", "").lstrip("/")
                if target in names:
                    return target
    except Exception:  # without the list, by its usual name
        pass
    found = [name for name in names if re.fullmatch(r"word/document\d*\.xml", name)]
    if not found:
        raise ValueError("there is no Word document in it")
    return found[0]


def _notes(root: Any, kind: str) -> list[str]:
    """The lines of a part beside the document: headers and footers, and each footnote, endnote or comment
    after its number.
    """
    if kind in ("header", "footer"):
        return [f"[{kind}] {line}" for line in _lines(root) if line.strip()]
    found = []
    for note in root:
        if name_of(note) != kind or value_of(note, "type") in (
            "separator",
            "continuationSeparator",
            "continuationNotice",
        ):
            continue
        text = " ".join(line.strip() for line in _lines(note) if line.strip())
        who = f" by {author}" if kind == "comment" and (author := value_of(note, "author")) else ""
        found += [f"[{kind} {value_of(note, 'id')}{who}] {text}"] if text else []
    return found


def _lines(root: Any, numbers: Numbers | None = None) -> list[str]:
    """The lines of a part: a paragraph each, a table's row each."""
    walk = _Walk(numbers or Numbers(None, None))
    walk.blocks(root, 0)
    walk.end()
    return walk.lines


class _Walk:
    """Goes through blocks, and gathers lines."""

    def __init__(self, numbers: Numbers) -> None:
        self.lines: list[str] = []
        self._numbers = numbers
        self._open: list[str] = []
        self._boxes: list[str] = []

    def end(self, label: str = "") -> None:
        """The paragraph ends, and what was in its text boxes follows. `label`: its number."""
        text = label + "".join(self._open)
        if text or (self._open and not self._boxes):
            self.lines += text.split("\n")
        self._open.clear()
        self.lines += self._boxes
        self._boxes = []

    def blocks(self, parent: Any, depth: int) -> None:
        for block in parent:
            name = name_of(block)
            if name == "p":
                self._paragraph(block, depth)
            elif name == "tbl":
                self.end()
                self.lines += _rows(block, depth, self._numbers)
            elif name not in _SKIPPED and depth < _DEEP:
                self.blocks(block, depth + 1)

    def _paragraph(self, paragraph: Any, depth: int) -> None:
        self._open.append(with_powers("".join(self._inline(paragraph, depth))))
        mark = child_of(paragraph, "pPr", "rPr")
        if mark is None or (child_of(mark, "del") is None and child_of(mark, "moveFrom") is None):
            # Else its end was deleted, and it goes on in the next one.
            self.end(self._numbers.label(paragraph))

    def _inline(self, parent: Any, depth: int) -> Iterator[str]:
        for piece in parent:
            name = name_of(piece)
            if name in (
                "t",
                "r",
                "hyperlink",
                "ins",
                "moveTo",
                "sdt",
                "sdtContent",
                "smartTag",
                "fldSimple",
                "AlternateContent",
                "Choice",
            ):
                if name == "t":
                    yield piece.text or ""
                elif name != "r" or not _is_hidden(piece):
                    raised = name == "r" and _is_raised(piece)
                    yield RAISED if raised else ""
                    yield from self._inline(piece, depth + 1) if depth < _DEEP else ()
                    yield LOWERED if raised else ""
            elif name in ("br", "cr"):
                yield "\n"
            elif name == "oMath":
                yield formula(piece)
            elif name == "sym":
                yield _symbol(piece)
            elif name in _MARKS:
                yield _MARKS[name]
                if name.endswith("Reference"):
                    yield f"[{name.removesuffix('Reference')} {value_of(piece, 'id')}]"
            elif name == "txbxContent":
                self._box(piece, depth)
            elif name not in _SKIPPED and depth < _DEEP:
                yield from self._inline(piece, depth + 1)

    def _box(self, box: Any, depth: int) -> None:
        if depth < _DEEP:
            walk = _Walk(self._numbers)
            walk.blocks(box, depth + 1)
            walk.end()
            self._boxes += walk.lines


def _is_hidden(run: Any) -> bool:
    hidden = child_of(run, "rPr", "vanish")
    return hidden is not None and (value_of(hidden, "val") or "1").lower() not in _TURNED_OFF


def with_powers(text: str) -> str:
    """A text with a sign before digits that are raised: 10 and 6 are no 106."""
    whole = text.replace(LOWERED + RAISED, "")  # one power may be in several runs
    return _POWER.sub("^", whole).replace(RAISED, "").replace(LOWERED, "")


def _is_raised(run: Any) -> bool:
    align = child_of(run, "rPr", "vertAlign")
    return align is not None and value_of(align, "val") == "superscript"


def _symbol(piece: Any) -> str:
    try:
        code = int(value_of(piece, "char") or "", 16)
    except ValueError:
        return ""
    # Symbol fonts have their characters in a range of private use.
    return (
        chr(code - 0xF000)
        if 0xF020 <= code <= 0xF0FF
        else chr(code)
        if 0x20 <= code < 0xD800 or 0xE000 <= code < 0x110000
        else ""
    )


def _rows(table: Any, depth: int, numbers: Numbers) -> list[str]:
    """A line for each row, with tabs between cells. A merged cell has its text once, and its place kept."""
    lines: list[str] = []
    for row in _inside(table, "tr", depth):
        if child_of(row, "trPr", "del") is not None:
            continue
        cells: list[str] = []
        for cell in _inside(row, "tc", depth):
            walk = _Walk(numbers)
            if depth < _DEEP:
                walk.blocks(cell, depth + 1)
                walk.end()
            merged = child_of(cell, "tcPr", "vMerge")
            continued = merged is not None and (value_of(merged, "val") or "continue") == "continue"
            cells.append(
                ""
                if continued
                else " ".join(line.strip().replace("\t", " ") for line in walk.lines if line.strip())
            )
            span = child_of(cell, "tcPr", "gridSpan")
            width = (value_of(span, "val") or "1") if span is not None else "1"
            cells += [""] * (min(int(width), 100) - 1 if width.isdecimal() and len(width) < 9 else 0)
        lines.append("\t".join(cells).rstrip("\t"))
    return lines


def _inside(parent: Any, wanted: str, depth: int) -> Iterator[Any]:
    """Rows of a table, or cells of a row, also those in content controls and insertions."""
    for child in parent:
        if name_of(child) == wanted:
            yield child
        elif name_of(child) in ("sdt", "sdtContent", "ins", "moveTo", "customXml") and depth < _DEEP:
            yield from _inside(child, wanted, depth + 1)
