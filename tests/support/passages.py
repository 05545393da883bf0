"""Built cases of prompts with known sources: passages of files, changed as code changes them on the way."""

from __future__ import annotations

import html
import itertools
import json
import random
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Change = Callable[[str, random.Random], str]
Span = tuple[str, int, int]
BOILERPLATE = "All rights reserved. This document is confidential and may not be copied or passed on.\n"
INSTRUCTIONS = (
    "Answer in one word: is this about shipping, billing or neither? The text:",
    "You are a careful reader. Extract all dates and names from the text below as JSON.",
    "Summarise for a colleague who has no time. Keep numbers as they are.",
)


def _numbered(text: str, chance: random.Random) -> str:
    first = chance.randrange(5_000)
    return "\n".join(f"{first + at}: {line}" for at, line in enumerate(text.split("\n")))


def _labelled(text: str, chance: random.Random) -> str:
    return "\n".join(f"[Line {at}] {line}" for at, line in enumerate(text.split("\n"), 1))


def _greplike(text: str, chance: random.Random) -> str:
    return "\n".join(f"notes/a-1.txt:{at}:{line}" for at, line in enumerate(text.split("\n"), 900))


def _padded(text: str, chance: random.Random) -> str:
    return "\n".join(f"    {at:>6} | {line}" for at, line in enumerate(text.split("\n"), 1))


def _under_headings(text: str, chance: random.Random) -> str:
    return "\n".join(
        f"## Entry {at}\nfrom a-1.txt, as it is: {line}" for at, line in enumerate(text.split("\n"))
    )


def _typeset(text: str, chance: random.Random) -> str:
    """As typesetters and web pages have it: dashes, curly quotes, hard and wide spaces."""
    spaces = iter("\u00a0\u2009\u3000 " * len(text))
    plain = text.replace("-", "\u2013").replace('"', "\u201d").replace(".", "\u3002")
    return "".join(next(spaces) if char == " " else char for char in plain)


CHANGES: Mapping[str, Change] = {
    "in an f-string": lambda text, _: text,
    "json.dumps": lambda text, _: json.dumps({"id": 7, "text": text}),
    "json.dumps twice": lambda text, _: json.dumps([json.dumps({"text": text}, ensure_ascii=False)]),
    "repr": lambda text, _: repr(text),
    "numbered lines": _numbered,
    "labelled lines": _labelled,
    "lines as grep has them": _greplike,
    "numbers in a column": _padded,
    "quoted with >": lambda text, _: "\n".join(f"> {line}" for line in text.split("\n")),
    "lines in bars": lambda text, _: "\n".join(f"| {line} |" for line in text.split("\n")),
    "collapsed spaces": lambda text, _: " ".join(text.split()),
    "wrapped anew": lambda text, chance: textwrap.fill(text, chance.randint(30, 100)),
    "dedented": lambda text, _: textwrap.dedent(text),
    "indented": lambda text, _: textwrap.indent(text, "\t  "),
    "stripped lines": lambda text, _: "\n".join(line.strip() for line in text.split("\n") if line.strip()),
    "in XML": lambda text, _: f"<document><page n='3'>{html.escape(text)}</page></document>",
    "in lower case": lambda text, _: "".join(char.lower() if char.isascii() else char for char in text),
    "repr of bytes": lambda text, _: repr(text.encode()),
    "lines under headings": _under_headings,
    "typeset": _typeset,
    "Windows line ends": lambda text, _: text.replace("\n", "\r\n"),
}


@dataclass
class Case:
    """Prompts and what they hold: `truth` by prompt, in bytes of files, with all places of the same."""

    files: dict[str, bytes]
    prompts: list[str] = field(default_factory=list)
    truth: list[list[Span]] = field(default_factory=list)

    def write(self, folder: Path) -> dict[str, Path]:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return {name: folder / name for name in self.files}


def prose(chance: random.Random, characters: int, alphabet: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    """Text of words that are as unequally frequent as those of a language, with lines that come again."""
    words = ["".join(chance.choices(alphabet, k=chance.randint(2, 9))) for _ in range(4_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    lines, size = [], 0
    while size < characters:
        line = " ".join(
            chance.choices(words, cum_weights=weights, k=chance.randint(4, 18))
        ).capitalize() + chance.choice(".?!")
        indent = " " * chance.choice((0, 0, 0, 2, 4))
        lines.append(BOILERPLATE if chance.random() < 0.02 else f"{indent}{line}\n")
        size += len(lines[-1])
    return "".join(lines)


def log(chance: random.Random, characters: int) -> str:
    """Lines that differ in little."""
    lines, size = [], 0
    while size < characters:
        lines.append(
            f"2026-03-{chance.randint(1, 28):02} {chance.randint(0, 23):02}:{chance.randint(0, 59):02}:"
            f"{chance.randint(0, 59):02} INFO worker-{chance.randint(1, 8)} request {chance.randrange(10**7)} served "
            f"in {chance.randint(1, 999)} ms\n"
        )
        size += len(lines[-1])
    return "".join(lines)


def table(chance: random.Random, characters: int) -> str:
    """Rows of a CSV file."""
    rows, size = ["id,name,amount,comment\n"], 0
    while size < characters:
        comment = "".join(chance.choices("abcdefghij klmnop", k=chance.randint(5, 60))).replace('"', "")
        rows.append(f'{chance.randrange(10**6)},"{comment}",{chance.uniform(0, 9999):.2f},{comment[::-1]}\n')
        size += len(rows[-1])
    return "".join(rows)


KINDS: Mapping[str, tuple[Callable[[random.Random, int], str], str]] = {
    "prose": (prose, "utf-8"),
    "log": (log, "utf-8"),
    "table": (table, "utf-8"),
    "Russian": (lambda chance, size: prose(chance, size, "абвгдежзиклмнопрстуфхцчшщыэюя"), "utf-8"),
    "Chinese": (lambda chance, size: prose(chance, size, "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年"), "utf-8"),
    "UTF-16": (prose, "utf-16"),
    "cp1252": (lambda chance, size: prose(chance, size, "abcdefghijklmnopqrstuvwxyzäöüßéè"), "cp1252"),
    "cp1251": (lambda chance, size: prose(chance, size, "абвгдежзиклмнопрстуфхцчшщыэюя"), "cp1251"),
    "UTF-8 with a mark": (lambda chance, size: prose(chance, size, "abcdefghijklmnopqrstuvwxyzäöü"), "utf-8-sig"),
}  # fmt: skip


def offset(text: str, place: int, encoding: str) -> int:
    """The byte of a file at which a character stands."""
    return (
        len(text[:place].encode(encoding))
        if place or encoding not in ("utf-16", "utf-8-sig")
        else len("".encode(encoding))
    )


def case(kind: str, change: Change, chance: random.Random, *, least: int = 200, prompts: int = 20) -> Case:
    """Prompts of one or more passages of a file, and as many of the model's own words."""
    make, encoding = KINDS[kind]
    text = make(chance, 60_000)
    made = Case({"a.txt": text.encode(encoding)})
    for _ in range(prompts):
        parts, truth = [chance.choice(INSTRUCTIONS)], []
        for start, end in _spans(text, chance, least):
            parts.append(change(text[start:end], chance))
            truth.append(("a.txt", offset(text, start, encoding), offset(text, end, encoding)))
        made.prompts.append("\n\n".join(parts))
        made.truth.append(truth)
        made.prompts.append(f"{chance.choice(INSTRUCTIONS)} {prose(chance, 600)}".replace(BOILERPLATE, ""))
        made.truth.append([])
    return made


def _spans(text: str, chance: random.Random, least: int) -> list[tuple[int, int]]:
    """One to three parts of a text that do not touch, from anywhere in a line, in any order."""
    found: list[tuple[int, int]] = []
    for _ in range(chance.randint(1, 3)):
        size = chance.randint(least, 6 * least)
        start = chance.randrange(len(text) - size)
        if all(start + size + 500 < low or high + 500 < start for low, high in found):
            found.append((start, start + size))
    return found


def score(claimed: Sequence[Iterable[Span]], truth: Sequence[Iterable[Span]]) -> tuple[float, float]:
    """Precision and recall by bytes, over all prompts."""
    both = of_claimed = of_truth = 0
    for one, other in zip(claimed, truth, strict=True):
        claims, truths = together(one), together(other)
        of_claimed += sum(end - start for _, start, end in claims)
        of_truth += sum(end - start for _, start, end in truths)
        both += sum(
            max(0, min(end, high) - max(start, low))
            for name, start, end in claims
            for other_name, low, high in truths
            if name == other_name
        )
    return both / of_claimed if of_claimed else 1.0, both / of_truth if of_truth else 1.0


def together(spans: Iterable[Span]) -> list[Span]:
    """Spans that do not overlap, for the same bytes."""
    found: list[Span] = []
    for name, start, end in sorted(spans):
        if found and found[-1][0] == name and start <= found[-1][2]:
            found[-1] = name, found[-1][1], max(found[-1][2], end)
        else:
            found.append((name, start, end))
    return found
