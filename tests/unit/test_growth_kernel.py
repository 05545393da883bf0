"""The work of each public helper grows with its input, and not with its square."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from rlm_runtime import (
    api,
    asyncwire,
    batches,
    citing,
    delivery,
    display,
    files,
    hints,
    hosttools,
    pictures,
    queries,
    tables,
    wire,
)
from rlm_runtime.formats import read_file
from rlm_runtime.htmltext import html_text
from rlm_runtime.lazytext import LazyText
from rlm_runtime.pdfpages import pdf_page
from rlm_runtime.pdftext import pdf_text
from rlm_runtime.readers import decode
from rlm_runtime.schemas import Wanted
from rlm_runtime.search import search
from rlm_runtime.source import Source
from rlm_runtime.wordtext import word_text

from tests.support.filekinds import pdf, run, tarred, word, zipped
from tests.support.growth import LIMIT, growth

LOG = "2026-11-28 10:00:{:02} INFO worker {} took {} ms\n"


def log(lines: int) -> str:
    return "".join(LOG.format(n % 60, n % 7, n % 97) for n in range(lines))


def consumed(made: Any) -> None:
    """Work through it: many helpers give an iterator."""
    for _ in made:
        pass


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A host that grants each file, and answers each call at once."""

    def call(kind: str, body: dict[str, Any], _same: Any = None) -> Any:
        if kind == "file":
            return {
                "inside": body["path"],
                "path": body["path"],
                "directory": Path(body["path"]).is_dir(),
                "ignore": [],
            }
        return {"history": [], "budget": {}, "llm_query": "1"}.get(kind)

    def call_many(
        kind: str, items: Any, results: list[Any], places: Any, *, done: Any = None, **_: Any
    ) -> None:
        for place, _item in zip(places, items, strict=True):
            results[place] = "1"
            if done is not None:
                done(place)

    async def acall(*_: Any) -> str:
        return "1"

    monkeypatch.setattr(wire, "call", call)
    monkeypatch.setattr(batches, "call_many", call_many)
    monkeypatch.setattr(asyncwire, "call", acall)
    monkeypatch.setattr(wire, "hand", lambda name, piece: None)
    monkeypatch.setattr(wire, "unhand", lambda name: None)
    monkeypatch.setattr(wire, "session", lambda: {"max_request": 1 << 26})
    before = dict(files.files), dict(files._loaded), files.active()
    yield
    for kept, was in ((files.files, before[0]), (files._loaded, before[1])):
        kept.clear()
        kept.update(was)  # type: ignore[arg-type]
    files._activate(before[2])


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of so many small files, once for each number."""

    def make(count: int) -> Path:
        path = tmp_path / str(count)
        if not path.exists():
            path.mkdir()
            for number in range(count):
                (path / f"{number}.txt").write_text(f"file {number}\nsome words\n")
        return path

    return make


@pytest.fixture
def lazy(tmp_path: Path) -> Callable[[int], LazyText]:
    """Makes a text on disk of so many lines, some beyond ASCII, with several blocks."""

    def make(lines: int) -> LazyText:
        path = tmp_path / f"{lines}.log"
        if not path.exists():
            path.write_text(log(lines).replace("worker 3", "wörker 3"))
        return LazyText(Source(path, block=1 << 16), 1 << 18)

    return make


def unload() -> None:
    files.files.clear()
    files._loaded.clear()
    files._left_out.clear()
    files._activate(None)


def loaded(path: Path) -> None:
    unload()
    with contextlib.redirect_stdout(io.StringIO()):
        files.load_files([str(path)])


def loaded_one_by_one(path: Path) -> None:
    unload()
    for file in path.iterdir():
        files.load_file(str(file))


def active(value: Any) -> Any:
    files._activate(value)
    return value


def texts(count: int) -> dict[str, str]:
    return {f"{number}.txt": f"file {number}\nsome words\nneedle {number}\n" for number in range(count)}


def of_files(count: int) -> dict[str, str]:
    """So many loaded files."""
    unload()
    files.files.update(texts(count))
    files._loaded.update({name: files.Loaded(f"/{name}", "utf-8", False, "") for name in files.files})
    files._activate_files()
    return files.files


def of_one_file(lines: int) -> str:
    """A loaded file of so many lines."""
    of_files(1)
    files.files["0.txt"] = log(lines).replace("worker 3", "wörker 3")
    files._activate_files()
    return str(files.files["0.txt"])


def cited(passages: dict[str, str]) -> None:
    for name, passage in passages.items():
        with contextlib.suppress(ValueError):  # it stands nowhere
            citing.cite(passage, name)
    citing._given.clear()
    citing._marks.clear()


def variables(count: int) -> None:
    names = {f"name_{number}": "x" for number in range(count)}
    api._shell[:] = [SimpleNamespace(user_ns=names, user_ns_hidden={})]  # type: ignore[list-item]


def final_var(_: Any) -> None:
    for _ in range(5):
        with pytest.raises(NameError):
            api.FINAL_VAR("nothing")


def checked(value: Any) -> None:
    Wanted({"type": "array", "items": {"type": "object", "required": ["a"]}}).of(value)


async def many(asked: list[str]) -> None:
    await asyncio.gather(*map(queries.allm_query, asked))


def hinted(names: list[str]) -> None:
    error = NameError("name 'nam_1' is not defined", name="nam_1")
    hints.hint(error, "a text", names)


def written(count: int) -> None:
    stream = display.CappedStream(SimpleNamespace(write=lambda text: len(text), flush=lambda: None))
    for _ in range(count):
        stream.write("a line of output\n")
    stream.cell_ended()


def wide(lines: list[str]) -> None:
    assert tables.find(lines, "t.csv", cut=False)


class Frame:
    """As much of a DataFrame as is asked for."""

    def __init__(self, columns: list[str], rows: int) -> None:
        self.columns = columns
        self.index = type("RangeIndex", (), {"name": None, "start": 0, "step": 1})()
        self._rows = list(range(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, _place: Any) -> Frame:
        return self

    @property
    def iloc(self) -> Frame:
        return self

    def tolist(self) -> list[int]:
        return self._rows

    def itertuples(self) -> None: ...


def of_bytes(data: bytes, name: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        read_file(Path(file.name), name)


# Name of a helper (or `helper: what of it`) to what makes its input of a size, what is measured, and the size
# to begin with.
CASES: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any], int]] = {
    "pdf_page: pages": (
        lambda n: [pdf(*["a page"] * n)] * n,
        lambda pages: [pdf_page(data, number, side=100) for number, data in enumerate(pages, 1)],
        5,
    ),
    "llm_query: pictures": (
        lambda n: numpy.zeros((n, 100, 3), "uint8"),
        lambda pixels: pictures.encoded([pixels], 1568),
        1_000,
    ),
    "peek: str": (
        lambda n: active("x" * n),
        lambda text: [files.peek(at, at + 1_000) for at in range(0, len(text), 1_000)],
        3_000_000,
    ),
    "peek: dict": (lambda n: active(texts(n)), lambda _: [files.peek() for _ in range(100)], 50),
    "peek: list": (
        lambda n: active(list(texts(n).values())),
        lambda _: [files.peek() for _ in range(100)],
        50,
    ),
    "grep: str": (lambda n: active(log(n)), lambda _: files.grep("INFO"), 3_000),
    "grep: regular expression": (lambda n: active(log(n)), lambda _: files.grep("(?i)info"), 3_000),
    "grep: dict": (lambda n: active(texts(n)), lambda _: files.grep("needle"), 3_000),
    "grep: list": (lambda n: active(list(texts(n).values())), lambda _: files.grep("needle"), 3_000),
    "grep: one long line": (lambda n: active("a needle " * n), lambda _: files.grep("needle$"), 30_000),
    "grep: lines around": (
        lambda n: active(log(n)),
        lambda _: repr(files.grep("INFO", before=2, after=2)),
        1_000,
    ),
    "grep: what is around hits": (
        lambda n: active(log(n)),
        lambda _: [(hit.start, hit.match, hit.around(20)) for hit in files.grep("INFO")],
        1_000,
    ),
    "grep: long lines": (
        lambda n: active(("x needle" * 100 + "\n") * n),
        lambda _: repr(files.grep("needle")),
        200,
    ),
    "chunks: str": (lambda n: active(log(n)), lambda _: consumed(files.chunks(100, 10)), 3_000),
    "chunks: dict": (lambda n: active(texts(n)), lambda _: consumed(files.chunks(10)), 3_000),
    "records: lines": (
        lambda n: active("some words, and more\nof them\n" * n),
        lambda _: files.records(),
        2_000,
    ),
    "records: log": (lambda n: active(log(n)), lambda _: files.records(), 1_000),
    "records: log with stack traces": (
        lambda n: active(log(n).replace(" 7 ms\n", " 7 ms\nTraceback (most recent call last):\n  x\n")),
        lambda _: files.records(),
        1_000,
    ),
    "records: log of two kinds": (
        lambda n: active(log(n).replace("took 7 ms", "is gone")),
        lambda _: files.records(),
        1_000,
    ),
    "records: numbers as people write them": (
        lambda n: active("a;b;c\n" + "".join(f"{i};{i:,}.50;{i / 7:.2f}%\n" for i in range(n))),
        lambda _: files.records(),
        1_000,
    ),
    "records: table": (lambda n: active("a,b,c\n" + "1,x,2.5\n" * n), lambda _: files.records(), 1_000),
    "records: table with stray quotes": (
        lambda n: active("a,b,c\n" + '1,"x,2\n1,x,2\n1,"x",2\n' * n),
        lambda _: files.records(),
        50,
    ),
    "records: table with line breaks": (
        lambda n: active("a,b,c\n" + '1,"x\ny",2\n' * n),
        lambda _: files.records(),
        500,
    ),
    "records: JSON lines": (lambda n: active('{"a": 1, "b": "x"}\n' * n), lambda _: files.records(), 1_000),
    "records: JSON": (
        lambda n: active(json.dumps([{"a": 1, "b": "x"}] * n)),
        lambda _: files.records(),
        1_000,
    ),
    "records: settings": (
        lambda n: active("".join(f"[s{i}]\na = 1\nb = x\n" for i in range(n))),
        lambda _: files.records(),
        200,
    ),
    "list_files": (of_files, lambda _: [files.list_files() for _ in range(20)], 300),
    "files": (of_files, lambda _: (files.files_status(), files.describe()), 1_000),
    "switch_to": (of_files, lambda names: [files.switch_to(name) for name in names for _ in range(30)], 300),
    "remove_file": (of_files, lambda names: [files.remove_file(name) for name in list(names)], 400),
    "SHOW_VARS": (variables, lambda _: [api.SHOW_VARS() for _ in range(10)], 500),
    "FINAL: text": (log, lambda text: [delivery.delivery(text, 1 << 30) for _ in range(len(text))], 1_000),
    "FINAL: values": (
        lambda n: [{"a": i, "b": [i, "x"]} for i in range(n)],
        lambda value: delivery.delivery(value, 1 << 30),
        500,
    ),
    "FINAL: a table": (lambda n: Frame(["a", "b"], n), lambda value: delivery.delivery(value, 1 << 30), 200),
    "FINAL: a wide table": (
        lambda n: Frame(["a"] * n, 2),
        lambda value: delivery.delivery(value, 1 << 30),
        30,
    ),
    "FINAL_VAR": (variables, final_var, 100),
    "cite": (of_files, cited, 100),
    "cite: one file": (of_one_file, lambda text: cited({"0.txt": text[-100:]}), 2_000),
    "cite: nowhere": (of_one_file, lambda _: cited({"0.txt": "the worker that is not there"}), 2_000),
    "expect_evidence": (lambda n: n, lambda n: [citing.expect_evidence(False) for _ in range(n)], 10_000),
    "expect_answer": (lambda n: [{"a": i} for i in range(n)], checked, 200),
    "tools": (
        lambda n: [{"name": f"t{i}", "signature": "(x: int)", "doc": "Does it."} for i in range(n)],
        hosttools.tools,
        300,
    ),
    "budget": (lambda n: n, lambda n: [api.budget() for _ in range(n)], 10_000),
    "history": (lambda n: n, lambda n: [len(api.NAMES["history"]) for _ in range(n)], 1_000),
    "llm_query": (lambda n: [log(10)] * n, lambda asked: [queries.llm_query(text) for text in asked], 1_000),
    "llm_query_batched": (
        lambda n: [f"{i}" for i in range(n)],
        lambda asked: queries.llm_query_batched(asked, schema=int),
        300,
    ),
    "allm_query": (lambda n: [f"{i}" for i in range(n)], lambda asked: asyncio.run(many(asked)), 500),
    "rlm_query": (log, lambda text: queries.rlm_query("what?", text), 50_000),
    "rlm_query_batched": (
        lambda n: [f"{i}" for i in range(n)],
        lambda asked: queries.rlm_query_batched(asked, "a text"),
        100,
    ),
    # What errors, displays and outputs become.
    "hints: many names": (
        of_files,
        lambda names: [hints.hint(KeyError("x"), names, names) for _ in names],
        300,
    ),
    "hints: a name that is not there": (lambda n: [f"name_{i}" for i in range(n)], hinted, 500),
    "display: a long text": (
        lambda n: ["x" * 300_000] * n,
        lambda shown: consumed(map(display.cap_text, shown)),  # kept, they would cost fresh memory
        100,
    ),
    "display: a stream": (lambda n: n, written, 60_000),
    # Files of each kind.
    "tables": (
        lambda n: ["a,b,c\n", *["1,x,2.5\n"] * n],
        lambda lines: consumed(tables.Rows(lines, tables.Dialect(","), 3)),
        3_000,
    ),
    "tables: many columns": (
        lambda n: [f"{','.join(row * n)}\n" for row in (["a"], *[["1"]] * 3)],
        wide,
        100,
    ),
    "charsets: a code page": (lambda n: ("Straße größer " * n).encode("cp1252"), decode, 3_000),
    "charsets: UTF-8 and others": (lambda n: ("größer " * n).encode() + b"\xe4\n" * n, decode, 3_000),
    "charsets: UTF-16": (lambda n: ("größer\n" * n).encode("utf-16"), decode, 10_000),
    "HTML": (
        lambda n: "<table>" + "<tr><td>a</td><td>b <b>c</b></td></tr>" * n + "</table><p>x</p>" * n,
        html_text,
        200,
    ),
    "HTML: styles": (lambda n: f"<ol style='{'list-style:' * n}'><li>x", html_text, 300),
    "HTML: open elements": (lambda n: "<p>some <i>words" * n, html_text, 30),
    "Word": (
        lambda n: io.BytesIO(word(f"<w:p>{run('some words')}</w:p>" * n)),
        lambda file: word_text(file, 1 << 28),
        100,
    ),
    "PDF": (lambda n: io.BytesIO(pdf(*["some words"] * n)), lambda file: pdf_text(file, 1 << 28), 10),
    "zip": (
        lambda n: zipped({f"{i}.txt": b"some words\n" for i in range(n)}),
        lambda data: of_bytes(data, "a.zip"),
        50,
    ),
    "tar": (
        lambda n: tarred({f"{i}.txt": b"some words\n" for i in range(n)}),
        lambda data: of_bytes(data, "a.tar"),
        50,
    ),
    "notebook": (
        lambda n: json.dumps({"cells": [{"cell_type": "code", "source": ["a = 1\n"]}] * n}).encode(),
        lambda data: of_bytes(data, "a.ipynb"),
        1_000,
    ),
}
# The same of texts on disk; of these the input is made by its number of lines.
LAZY: dict[str, tuple[Callable[[LazyText], Any], int]] = {
    "peek": (lambda text: [files.peek(at, at + 100) for at in range(0, len(active(text)), 5_000)], 3_000),
    "grep": (lambda text: search({"a": text}, re.compile("INFO"), None), 3_000),
    "grep: regular expression": (lambda text: search({"a": text}, re.compile("(?i)info"), None), 2_000),
    "grep: what is around hits": (
        lambda text: [
            (hit.start, hit.around(20), hit.before, hit.after)
            for hit in search({"a": text}, re.compile("INFO"), None, 1, 1)
        ],
        1_000,
    ),
    "grep: few hits": (lambda text: search({"a": text}, re.compile("wörker.* 13 ms"), None), 10_000),
    "chunks": (lambda text: (active(text), consumed(files.chunks(500, 10))), 10_000),
    "records": (lambda text: (active(text), consumed(files.records())), 1_000),
    "texts": (lambda text: [consumed(text.texts()) for _ in range(20)], 5_000),
    "whole": (lambda text: [text.whole for _ in range(len(text))], 1_000),
    "read": (lambda text: [text.read(at, at + 100) for at in range(0, len(text), 2_000)], 2_000),
    "slices": (lambda text: [text[at : at + 10] for at in range(0, len(text), 5_000)], 2_000),
    "slices: from the end": (lambda text: [text[-at - 1 :][:10] for at in range(0, len(text), 2_000)], 2_000),
    "find": (lambda text: [text.find("not there") for _ in range(200)], 2_000),
    "rfind": (lambda text: text.rfind("wörker"), 2_000),
    "index": (lambda text: [text.index("INFO", at) for at in range(0, len(text), 2_000)], 2_000),
    "rindex": (lambda text: text.rindex("took"), 2_000),
    "count": (lambda text: text.count("worker"), 2_000),
    "startswith": (lambda text: [text.startswith("20", at) for at in range(0, len(text), 2_000)], 2_000),
    "endswith": (lambda text: [text.endswith("ms", 0, at) for at in range(0, len(text), 2_000)], 2_000),
    "splitlines": (lambda text: consumed(text.splitlines()), 5_000),
    "iteration": (lambda text: consumed(iter(text)), 5_000),
    "split": (lambda text: consumed(text.split("\n")), 5_000),
    "split: a long part": (lambda text: consumed(text.split("not there")), 20_000),
    "split: a slice": (lambda text: consumed(text[len(text) // 3 :].split(" ")), 5_000),
    "pieces": (lambda text: consumed(text.pieces(100)), 5_000),
    "finditer": (lambda text: consumed(text.finditer(r"\d+ ms")), 2_000),
    "search": (lambda text: text.search("not there"), 10_000),
    "match": (lambda text: [text.match("(?s).*") for _ in range(20)], 3_000),
    "findall": (lambda text: text.findall(r"\d+ ms"), 2_000),
    "places": (lambda text: consumed(text.places("INFO", None, None)), 2_000),
}


@pytest.mark.parametrize("name", CASES)
def test_the_work_grows_with_the_input(name: str) -> None:
    make, work, size = CASES[name]
    assert growth(make, work, size) <= LIMIT


@pytest.mark.parametrize("name", LAZY)
def test_the_work_grows_with_a_text_on_disk(name: str, lazy: Callable[[int], LazyText]) -> None:
    work, size = LAZY[name]
    assert growth(lazy, work, size) <= LIMIT


@pytest.mark.parametrize("load", [loaded, loaded_one_by_one], ids=["load_files", "load_file"])
def test_the_work_grows_with_the_files_that_are_loaded(
    load: Callable[[Path], None], folder: Callable[[int], Path]
) -> None:
    assert growth(folder, load, 100) <= LIMIT


def test_the_work_of_load_object_grows_with_its_file(tmp_path: Path) -> None:
    def make(size: int) -> Path:
        path = tmp_path / "value.json"
        path.write_text(json.dumps([{"a": number} for number in range(size)]))
        return path

    assert growth(make, lambda path: files.load_object(str(path)), 3_000) <= LIMIT


def test_each_public_helper_has_a_test_of_its_growth() -> None:
    tested = {name.split(":")[0] for name in [*CASES, *LAZY]} | {"load_file", "load_files", "load_object"}
    helpers = {name for name, value in api.NAMES.items() if not isinstance(value, type)}
    methods = {name for name in vars(LazyText) if not name.startswith("_")} - {"source"}
    assert helpers | methods <= tested
