"""Workbooks, databases and Parquet files: each table is a text of its own, whose records are what was written; what
is hostile or damaged costs itself, and is told.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import sqlite3
import string
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, list_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlm_runtime import apart, files, forms, memory, tablewriter
from rlm_runtime.formats import read_file
from rlm_runtime.readers import Read
from rlm_runtime.sheetformulas import _CELL
from rlm_runtime.tablewriter import cell
from rlm_runtime.unpacking import Unreadable

from tests.support.filekinds import database, parquet, sheet_rows, workbook, zipped
from tests.support.growth import LIMIT, growth
from tests.support.reading import Reader

OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def texts(read: Read, name: str = "f") -> dict[str, str]:
    return {label: str(part.text) for label, part in read.named(name)}


def notes(read: Read) -> str:
    return " | ".join(part.note() for _, part in read.named("f") if part.note())


def test_formulas_that_nobody_has_computed_are_told(read: Reader) -> None:
    cells = '<c r="A{n}"><v>1</v></c><c r="B{n}"><f>A{n}*2</f>{v}</c>'
    rows = "".join(
        f'<row r="{n}">{cells.format(n=n, v=v)}</row>'
        for n, v in enumerate(("<v/>", "<v></v>", "", "<v>2</v>"), 1)
    )
    empty = '<row r="1"><c r="A1" t="str"><f>""</f><v></v></c><c r="B1"><v>1</v></c></row>'
    lost = '<row r="1"><c r="C1"><f t="shared" si="0"/></c></row>'
    found = read("b.xlsx", workbook({"Made": rows, "Text": empty, "Sum": lost}))
    assert texts(found, "b.xlsx") == {"b.xlsx/Made": "1,\n1,\n1,\n1,2\n", "b.xlsx/Text": ",1\n"}
    assert "formulas that nobody has computed: 3 (such as B1). Their cells are empty here" in notes(found)
    assert "Sum: formulas that nobody has computed: 1 (such as C1)" in notes(found)
    alone = read("c.xlsx", workbook({"Sum": lost}))
    assert (str(alone.text), "computed: 1" in alone.note()) == ("", True)
    assert "computed" not in notes(read("d.xlsx", workbook({"Text": empty})))


@pytest.mark.parametrize("piece", [b"<c ", b"<c><f ", b"<c><f>1</f> ", b" "])
def test_looking_for_such_formulas_takes_no_more_than_their_text(piece: bytes) -> None:
    start = b"<c><f>1</f>"
    assert growth(lambda n: start + piece * n, _CELL.findall, 500) < LIMIT


def test_each_sheet_of_a_workbook_is_a_table_of_its_own(read: Reader) -> None:
    found = read(
        "b.xlsx",
        workbook(
            {
                "People": sheet_rows([["name", "n"], ["Ada", 1], ["Bo", 2.5]]),
                "Empty": "",
                "Rates & more": sheet_rows([["code"], ["007"]]),
            },
            hidden="Rates & more",
        ),
    )
    assert texts(found, "b.xlsx") == {
        "b.xlsx/People": "name,n\nAda,1\nBo,2.5\n",
        "b.xlsx/Rates & more": "code\n007\n",
    }
    assert notes(found) == "a hidden sheet"
    assert forms.records("name,n\nAda,1\n", "b.xlsx/People") == [{"name": "Ada", "n": 1}]
    assert texts(read("one.xlsx", workbook({"S": sheet_rows([["a"], [1]])})), "one.xlsx") == {
        "one.xlsx": "a\n1\n"
    }
    assert notes(read("none.xlsx", workbook({"S": ""}))) == "there is nothing in its tables"


def test_texts_of_a_file_are_named_after_it_and_are_not_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Read("", parts=(("S", Read("1")), ("T", Read("2"))))
    mail = Read("text", lacks=("odd",), parts=(("a.txt", Read("3")), ("b.xlsx", inner)))
    assert [(name, part.text, part.lacks) for name, part in mail.named("m.eml")] == [
        ("m.eml", "text", ("odd",)),
        ("m.eml/a.txt", "3", ()),
        ("m.eml/b.xlsx/S", "1", ()),
        ("m.eml/b.xlsx/T", "2", ()),
    ]
    loaded = {"b.xlsx/S": ("/b.xlsx", "", False, "", "b.xlsx"), "c.xlsx": ("/c.xlsx", "", False, "")}
    monkeypatch.setattr(files, "_loaded", {name: files.Loaded(*one) for name, one in loaded.items()})
    assert (files.path_of("b.xlsx/S"), files.path_of("c.xlsx")) == ("", "/c.xlsx")


def test_values_of_a_sheet_are_what_a_person_sees_in_it(read: Reader) -> None:
    row = (
        '<row r="1"><c r="A1" s="1"><v>45351</v></c><c r="B1" s="2"><v>45351.5444444444</v></c><c r="C1" t="b"><v>1</v></c>'
        '<c r="D1"><f>1+1</f><v>2</v></c><c r="E1" t="str"><f>"00"&amp;7</f><v>007</v></c><c r="F1"><v>9007199254740991</v></c>'
        '<c r="G1"><v>0.1</v></c><c r="H1" t="e"><v>#REF!</v></c><c r="I1" t="inlineStr"><is><t>a\n"b", c</t></is></c></row>'
    )
    assert str(read("v.xlsx", workbook({"S": row})).text) == (
        '2024-02-29,2024-02-29T13:04:00,True,2,007,9007199254740991,0.1,,"a\n""b"", c"\n'
    )
    old = '<row r="1"><c r="A1" s="1"><v>366</v></c><c r="B1" s="1"><v>1462</v></c></row>'
    assert str(read("mac.xlsx", workbook({"S": old}, date_1904=True)).text) == "1905-01-01,1908-01-02\n"


def test_empty_rows_and_columns_around_a_table_are_left_out_and_those_in_it_kept(read: Reader) -> None:
    rows = sheet_rows([[None, None], [None, "a", "b", ""], [None, None], [None, 1, None, ""], [None, "", ""]])
    assert str(read("e.xlsx", workbook({"S": rows})).text) == "a,b\n\n1,\n"


def test_a_cell_far_out_costs_its_sheet_and_no_other(read: Reader) -> None:
    far = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    found = read("far.xlsx", workbook({"A": sheet_rows([["x"]]), "Far": far, "Z": sheet_rows([["z"]])}))
    assert texts(found, "far.xlsx") == {"far.xlsx/A": "x\n", "far.xlsx/Z": "z\n"}
    assert "1 of 3 tables in it left out (Far: " in notes(found)
    assert "a single cell far from the others" in notes(found)
    with pytest.raises(Unreadable, match=r"f\.xlsx: nothing in it can be read; Far: .*Save what you need"):
        read("f.xlsx", workbook({"Far": far}))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.xlsx", OLD + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "it is encrypted, and needs a password"),
        ("a.xls", OLD + bytes(600), "it is damaged, or encrypted"),
        ("a.xlsx", workbook({"S": sheet_rows([[1]])})[:-30], "it is damaged or cut off"),
        ("a.ods", zipped({"word/document.xml": b"<a/>"}), "there is no workbook in it: it is a Word file"),
        ("a.xlsx", zipped({"x": b"y"}), "there is no workbook in it: it is a zip of other files"),
        ("a.db", b"\x8a\x01\x00\xf3" * 600, "it is no SQLite database, or an encrypted one"),
        ("a.db", b"name,n\n", "a.db is no SQLite file. It is plain text, which begins 'name,n"),
        ("a.db", b"SQLite format 3\0" + bytes(4080), "its list of tables cannot be read"),
        ("a.parquet", b"PAR1 cut off", "it is cut off"),
        ("a.parquet", b"PAR1..PARE", "it is encrypted"),
        ("a.parquet", b"a,b\n1,2\n", "a.parquet is no Parquet file. It is plain text"),
        ("a.parquet", b"PAR1\xff\xff\xff\x7fPAR1", "it is damaged or cut off"),
        ("a.parquet", b"PAR1....\4\0\0\0PAR1", "nothing in it can be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_it_is(name: str, data: bytes, said: str, read: Reader) -> None:
    with pytest.raises(Unreadable) as raised:
        read(name, data)
    assert str(raised.value).startswith(name)
    assert said in str(raised.value)


def test_a_bomb_in_a_workbook_is_bounded_and_told(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;</a>'
    with pytest.raises(Unreadable, match="damaged"):
        read("x.xlsx", zipped({"[Content_Types].xml": b"<a/>", "xl/workbook.xml": bomb.encode()}))
    rows = sheet_rows([["x" * 1000]] * 20_000)  # 20 MB, packed to almost nothing
    found = read("big.xlsx", workbook({"S": rows, "T": sheet_rows([["t"]])}), 1 << 20)
    assert len(texts(found, "b")["b/S"]) <= 1 << 20
    assert "lines: there is no more room" in notes(found)
    assert "T: there is no more room" in notes(found)


def test_tables_and_views_of_a_database_are_texts(tmp_path: Path) -> None:
    path = database(
        tmp_path / "app.db",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, big INT, ratio REAL, photo BLOB, note)",
        "INSERT INTO users VALUES (1, 'Ada', 9223372036854775807, 1.0, x'00ff', NULL), (2, 'a\nb,\"c\"', -1, 1e300, x'', 'x')",
        'CREATE TABLE "od/d ""name""" (a)',
        "CREATE VIEW grown AS SELECT name FROM users WHERE id = 1",
        "CREATE VIRTUAL TABLE docs USING fts5(body)",
        "INSERT INTO docs VALUES ('needle here')",
    )
    found = read_file(path, "app.db")
    assert texts(found, "app.db") == {
        "app.db/docs": "body\nneedle here\n",
        'app.db/od/d "name"': "a\n",
        "app.db/users": "id,name,big,ratio,photo,note\n1,Ada,9223372036854775807,1.0,[2 bytes],\n"
        '2,"a\nb,""c""",-1,1e+300,,x\n',
        "app.db/grown": "name\nAda\n",
    }
    assert notes(found) == "a view"
    (tmp_path / "no-ending").write_bytes(path.read_bytes())
    assert "no-ending/users" in texts(read_file(tmp_path / "no-ending", "no-ending"), "no-ending")


def test_changes_in_the_log_beside_a_database_are_read(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute("CREATE TABLE t (a)")
        writer.execute("INSERT INTO t VALUES (1)")
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert str(read_file(path, "live.db").text) == "a\n1\n"
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        alone = tmp_path / "alone.db"
        alone.write_bytes(path.read_bytes())
    found = read_file(alone, "alone.db")
    assert (str(found.text), "alone.db-wal" in notes(found)) == ("a\n1\n", True)


def test_a_hostile_view_is_stopped_and_a_broken_table_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS c FROM n"
    path = database(
        tmp_path / "bad.db",
        "CREATE TABLE good (a)",
        "INSERT INTO good VALUES (1)",
        f"CREATE VIEW endless AS {endless}",
        "CREATE TABLE gone (a)",
        "CREATE VIEW lost AS SELECT * FROM gone",
        "DROP TABLE gone",
    )
    monkeypatch.setenv("RLM_TEST_SECONDS", "1")
    started = datetime.datetime.now()
    found = read_file(path, "bad.db")
    assert texts(found, "bad.db")["bad.db/good"] == "a\n1\n"
    assert "it was stopped after" in notes(found)
    assert "no such table" in notes(found)
    assert datetime.datetime.now() - started < datetime.timedelta(seconds=100)


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none()
        | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),  # SQLite has no -0.0
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    ),
    min_size=1,
    max_size=8,
)


# Many tables at a time, as each file is read by a process of its own.
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=5, max_size=8))
def test_what_is_written_into_a_database_is_read_back(
    tmp_path: Path, tables: list[list[tuple[Any, Any, str]]]
) -> None:
    path = tmp_path / "round.db"
    path.unlink(missing_ok=True)
    database(path, *(f"CREATE TABLE t{at} (i INT, f REAL, s TEXT)" for at in range(len(tables))))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for at, rows in enumerate(tables):
            connection.executemany(f"INSERT INTO t{at} VALUES (?, ?, ?)", rows)
    read = texts(read_file(path, "round.db"), "round.db")
    for at, rows in enumerate(tables):
        found = list(csv.reader(io.StringIO(read[f"round.db/t{at}"], newline="")))
        assert found[0] == ["i", "f", "s"]
        assert found[1:] == [[cell(i), cell(f), s] for i, f, s in rows]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(string.printable[:95], min_size=1, max_size=8).filter(str.strip),
            st.integers(-(2**53) + 1, 2**53 - 1)
            | st.floats(-1e12, 1e12).filter(lambda value: not value.is_integer()),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_into_a_sheet_is_read_back(
    tmp_path: Path, rows: list[tuple[str, float, bool]]
) -> None:
    (tmp_path / "round.xlsx").write_bytes(workbook({"S": sheet_rows([["s", "n", "b"], *rows])}))
    text = str(read_file(tmp_path / "round.xlsx", "round.xlsx").text)
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert found == [["s", "n", "b"], *([s, str(n), str(b)] for s, n, b in rows)]


def test_columns_of_parquet_keep_their_values(read: Reader) -> None:
    columns = {
        "i": Array([1, None, 2**62], DataType.int64()),
        "f": Array([1.5, None, float("nan")], DataType.float64()),
        "s": Array(["007", None, 'a,"b"\nc'], DataType.utf8()),
        "b": Array([b"\x00\x01", None, b"text"], DataType.binary()),
        "t": Array([True, None, False], DataType.bool()),
        "l": list_array(Array([0, 2, 2, 2], DataType.int32()), Array([1, None], DataType.int64())),
    }  # fmt: skip
    assert str(read("a.parquet", parquet(columns)).text) == (
        'i,f,s,b,t,l\n1,1.5,007,[2 bytes],True,"[1, null]"\n,,,,,[]\n4611686018427387904,,"a,""b""\nc",text,False,[]\n'
    )


@pytest.mark.parametrize("name", ["t.parquet", "shop.sqlite/orders"])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0,1\n1,2\n3,4\n", [{"0": 1, "1": 2}, {"0": 3, "1": 4}]),
        ("0,1\n0,1\n", [{"0": 0, "1": 1}]),
        ("name,age\n", []),
        ("0\n", []),
        ("2024-01-01\n2024-01-02\n", [{"2024-01-01": "2024-01-02"}]),
    ],
    ids=["numbers", "a row like the names", "no rows", "one column and no rows", "dates"],
)
def test_a_file_that_knows_its_columns_has_their_names_and_no_row_more_or_less(
    name: str, text: str, rows: list[dict[str, Any]]
) -> None:
    assert forms.records(text, name) == rows


@given(
    st.lists(st.text("01 ab,\n\"'", max_size=3), min_size=1, max_size=3, unique=True),
    st.lists(st.lists(st.text("01 ab,\n\"'", max_size=3), min_size=3, max_size=3), max_size=4),
)
def test_a_parquet_table_of_any_names_and_texts_has_as_many_records_as_rows(
    names: list[str], values: list[list[str]]
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([names, *(row[: len(names)] for row in values)])
    found = forms.records(out.getvalue(), "t.parquet")
    assert len(found) == len(values)


def test_a_value_is_told_as_text_that_says_the_same() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert [
        cell(value)
        for value in (
            Decimal("12345678901234567890.10"), Decimal("1E+2"), datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=zone), datetime.timedelta(hours=36, microseconds=500_000),
            datetime.timedelta(minutes=-1), {"a": [Decimal("1.5"), None, float("inf")]}, b"\xff", float("nan"), True,
        )
    ] == [
        "12345678901234567890.10", "100", "2024-02-29", "2024-02-29T01:02:03+02:00", "36:00:00.5", "-00:01:00",
        '{"a": ["1.5", null, null]}', "[1 bytes]", "", "True",
    ]  # fmt: skip


def test_a_table_in_an_archive_and_a_reader_that_dies_are_handled(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = workbook({"A": sheet_rows([["x"], [1]]), "B": sheet_rows([["y"]])})
    base = database(
        tmp_path / "in.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (5)"
    )
    found = str(read("a.zip", zipped({"b.xlsx": book, "in.db": base.read_bytes(), "c.txt": b"plain"})).text)
    assert "=== b.xlsx/A ===\nx\n1" in found
    assert "=== b.xlsx/B ===\ny" in found
    assert "=== in.db ===\na\n5" in found
    assert "plain" in found
    monkeypatch.setattr(apart.writer, "__name__", "rlm_runtime.no_such_module")
    with pytest.raises(
        Unreadable, match=r"its reader ended with status 1\)\. Save what you need of it as \.csv"
    ):
        read("a.xlsx", book)


def test_the_process_that_reads_has_a_bound_on_its_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(tablewriter.resource, "setrlimit", set_.__setitem__)
    monkeypatch.setattr(memory, "total", lambda: 1000)
    tablewriter.bound()
    assert set_[tablewriter.resource.RLIMIT_DATA] == (500, 500)
    assert set_[tablewriter.resource.RLIMIT_CPU][0] == tablewriter.SECONDS
