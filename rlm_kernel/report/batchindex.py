"""The traces of a batch as web pages that a person opens: a row for each question, with a search."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlm_kernel.pathtext import seen_from
from rlm_kernel.report import markup, outline, webpage

PAGE = "index.html"
"""The first page, in the folder of the traces."""
GENERATOR = "rlm batch"
"""What a page says that it was made by."""
PAGE_ROWS = 10_000
"""Rows of one page."""
_TEXT = 300
"""Characters of a question and of an answer that are shown."""
Rows = Callable[[], Iterator[Mapping[str, Any]]]
"""Gives the lines of a file of results; it is asked twice."""


@dataclass(frozen=True)
class Asked:
    """A row: what was asked, and what came of it."""

    id: str
    question: str
    status: str
    said: str
    """The first line of the answer, or why there is none."""
    cost: float
    money: str
    seconds: float
    link: str
    """To the trace; "" where there is none. `page`: to what `rlm export --html` made of it, beside it."""
    page: str


@dataclass
class Summary:
    """Of a file of results as a whole. `last`: the numbers of the lines that count, the last of each id."""

    last: frozenset[int]
    statuses: Counter[str]
    cost: float = 0.0
    unpriced: float = 0.0

    @classmethod
    def of(cls, rows: Iterator[Mapping[str, Any]]) -> Summary:
        last: dict[int, tuple[int, str]] = {}
        cost = unpriced = 0.0
        for number, row in enumerate(rows):
            last[hash(str(row["id"]))] = number, row["status"]  # of a million questions no text is held
            cost += _number(row.get("known_cost"))
            unpriced += _number(row.get("unpriced"))
        numbers, statuses = (
            frozenset(one for one, _ in last.values()),
            Counter(one for _, one in last.values()),
        )
        return cls(numbers, statuses, cost, unpriced)

    @property
    def told(self) -> str:
        names = {"answered": "answered", "no_answer": "without an answer", "failed": "failed"}
        counts = [f"{self.statuses[key]:,} {name}" for key, name in names.items() if self.statuses[key]]
        cost = outline.money_of(self.cost, int(self.unpriced))
        return " · ".join(filter(None, [", ".join(counts), cost]))


def pages(rows: Rows, folder: Path, beside: Path, title: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The names of the pages, and each in pieces, which are to be taken before the next page.

    Args:
        rows: as of the file of results.
        folder: of the traces, for which the links are.
        beside: the folder that the paths in the rows are relative to.
        title: what the batch is called.
    """
    about = Summary.of(rows())
    shown = (row for number, row in enumerate(rows()) if number in about.last)
    count = max(1, -(-len(about.last) // PAGE_ROWS))
    names = [PAGE, *(f"index-{number}.html" for number in range(2, count + 1))]
    for name in names:
        yield (
            name,
            webpage.page(
                "batch.html",
                style=webpage.file("style.css") + webpage.file("batch.css"),
                script=webpage.file("batch.js"),
                title=markup.plain(title),
                generator=GENERATOR,
                about=about,
                rows=(_asked(row, folder, beside) for row in itertools.islice(shown, PAGE_ROWS)),
                names=names,
                name=name,
            ),
        )


def _asked(row: Mapping[str, Any], folder: Path, beside: Path) -> Asked:
    cost, seconds, trace = _number(row.get("known_cost")), _number(row.get("seconds")), row.get("trace")
    link = page = ""
    if isinstance(trace, str) and trace:
        place = seen_from(beside / trace, folder)
        link = _link(place)
        shown = f"{os.path.splitext(place)[0]}.html"
        page = _link(shown) if link and os.path.isfile(folder / shown) else ""
    return Asked(
        _line(row["id"], 100),
        _line(row.get("question")),
        row["status"],
        _said(row),
        cost,
        outline.money_of(cost, int(_number(row.get("unpriced")))),
        seconds,
        link,
        page,
    )


def _said(row: Mapping[str, Any]) -> str:
    error = row.get("error") or {}
    if row["status"] == "failed":
        return _line(f"{error.get('kind')}: {error.get('message')}")
    if row["status"] == "no_answer":
        return _line(f"{row.get('stop_reason')}: {row.get('detail')}".removesuffix(": "))
    answer = str(row.get("answer") or "").strip()
    first = _line(answer.partition("\n")[0])
    return f"{first} …" if "\n" in answer and not first.endswith("…") else first


def _line(text: Any, most: int = _TEXT) -> str:
    return outline.one_line(markup.plain(str(text if text is not None else "")[: most * 8]), most)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0.0


def _link(place: str) -> str:
    """A relative address: nothing in it is a scheme or a host. On another drive of Windows a file's, and ""
    on another host, which whoever opens the page would sign in to.
    """
    if os.path.isabs(place):
        address = Path(place).as_uri()
        return address if address.startswith("file:///") else ""
    return quote(place.replace(os.sep, "/").encode("utf-8", "replace"), safe="/")
