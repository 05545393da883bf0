"""The form of the input, as the first message tells it, and the records that it is read as."""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import files, forms
from rlm_runtime.forms import form, records

ROWS: list[dict[str, Any]] = [
    {"day": f"2024-01-{n:02d}", "port": 'Riga,\nold "one"', "tons": n, "code": f"0{n}"} for n in range(1, 30)
]
TABLES = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}


def table(delimiter: str, rows: list[dict[str, Any]] = ROWS) -> str:
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FLAT = [row | {"port": "Riga, old"} for row in ROWS]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("\n".join(map(json.dumps, ROWS)), ROWS),
        *((table(delimiter, FLAT), FLAT) for delimiter in TABLES.values()),
    ],
    ids=["json lines", *TABLES],
)
def test_the_form_tells_names_and_the_first_record_and_records_gives_them_all(
    text: str, rows: list[dict[str, Any]]
) -> None:
    told = form(text)
    assert '"day", "port", "tons", "code"' in told
    assert told.endswith(f"rows = records(); rows[0] is {rows[0]}")
    assert records(text) == rows


def test_cells_with_line_ends_and_quotes_are_read_whole() -> None:
    text = table(",", FLAT[:25]) + table(",", ROWS).split("\n", 1)[1]
    assert records(text) == FLAT[:25] + ROWS


def test_a_column_in_which_some_are_no_numbers_is_text_and_so_is_one_with_leading_zeros(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (
        "name,size,code\n"
        + "".join(f"n{n},{n}.5,00{n}\n" for n in range(50))
        + "last,unknown,1\nshort,7\nlong,-8,2,3\n"
    )
    rows = records(text)
    assert rows[0] == {"name": "n0", "size": "0.5", "code": "000"}
    assert rows[-3:] == [
        {"name": "last", "size": "unknown", "code": "1"},
        {"name": "short", "size": "7", "code": ""},
        {"name": "long", "size": "-8", "code": "2", "more": ["3"]},
    ]
    assert "size: 1 of 53 are text, such as 'unknown', so all of it is text" in form(text)
    out = capsys.readouterr().out
    assert "size: 1 of 53 are text, such as 'unknown'" in out
    assert "1 rows have fewer fields than columns, such as ['short', '7']: what is missing is ''" in out
    assert (
        "1 rows have more fields than columns, such as ['long', '-8', '2', '3']: the rest is in 'more'" in out
    )


def test_a_log_that_begins_as_settings_do_is_read_as_lines() -> None:
    text = "[2020-12-10 06:56:41,061] INFO Full request text:\n<a>\n  <b/>\n</a>\n"
    assert form(text, "app.log") == ""
    assert [row["text"] for row in records(text)] == text.splitlines()


def test_settings_with_a_key_without_a_value_are_records() -> None:
    text = "".join(f"[Host-{n}]\nsize = {n}\nquiet\n" for n in range(9))
    assert records(text)[3] == {"section": "Host-3", "size": 3, "quiet": ""}
    assert "sections of settings" in form(text)


def test_fewer_names_than_fields_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = '"x","y"\n' + "".join(f'"r{n}",{n},{n + 1}\n' for n in range(9))
    assert records(text, "a.csv")[0] == {"x": "r0", "y": 0, "column_3": 1}
    told = "2 names for 3 fields: perhaps one is missing before the others"
    assert told in capsys.readouterr().out
    assert form(text, "a.csv").count(told) == 1
    trailing = "a,b\n" + "1,2,\n" * 9
    assert "names for" not in form(trailing, "a.csv")
    comma = "city,address\n" + "Rome,via 2, left\n" + "Rome,via 1\n" * 9
    assert "names for" not in form(comma, "a.csv")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["3.9", "3.10", "3.11"], True),
        (["3.8", "3.10", "3.12"], True),
        (["1.5", "2.25", "1.50", "3"], False),
        (["7.1", "7.15", "7.10"], False),
    ],
)
def test_versions_are_text_and_amounts_that_people_typed_are_numbers(
    values: list[str], *, text: bool
) -> None:
    table = "item,given\n" + "".join(f"a,{value}\n" for value in values * 3)
    assert [type(row["given"]) is str for row in records(table, "a.csv")] == [text] * len(values) * 3


def test_sections_of_settings_are_records() -> None:
    text = "\n".join(f"[Host-{n}]\nRegion = north\nsize = {n}\nratio = 50%\n" for n in range(40))
    assert "sections of settings" in form(text)
    assert records(text)[3] == {"section": "Host-3", "Region": "north", "size": 3, "ratio": "50%"}
    assert len(records(text)) == 40


WORDS = [" ".join("abcdefg"[(n + place) % 7] * 3 for place in range(n)) for n in range(60)]
LOGS = {
    "by keys": (
        "2025-03-01 10:00:{n:02d} {level} [web] user=u{n} request done in {n} ms",
        {"date": "2025-03-01", "time": "10:00:07", "level": "INFO", "user": "u7", "ms": 7},
    ),
    "colours of a terminal": (
        "\x1b[2K\x1b[32m2025-03-01 10:00:{n:02d}\x1b[0m \x1b[1m{level}\x1b[0m took {n} ms\x1b[0m",
        {"date": "2025-03-01", "time": "10:00:07", "level": "INFO", "ms": 7},
    ),
    "free text": (
        "2025-03-01T10:00:{n:02d}.123Z {level} app.db: {words}",
        {"date": "2025-03-01", "time": "10:00:07.123Z", "level": "INFO", "message": WORDS[7]},
    ),
    "access": (
        '10.0.0.{n} - - [01/Mar/2025:10:00:{n:02d} +0000] "GET /page/{n} HTTP/1.1" 200 {n}',
        {
            "ip": "10.0.0.7",
            "ident": "-",
            "user": "-",
            "date": "01/Mar/2025",
            "time": "10:00:07",
            "zone": "+0000",
            "request": "GET /page/7 HTTP/1.1",
            "status": 200,
            "bytes": 7,
        },
    ),
    "syslog": (
        "Mar  1 10:00:{n:02d} box{n} sshd[{n}]: {words}",
        {"date": "Mar  1", "time": "10:00:07", "word": "box7", "pid": 7, "message": WORDS[7]},
    ),
    "pairs": (
        'time=2025-03-01T10:00:{n:02d}Z level={level} msg="{words}" a.b={n}, 3rd={n} n={n} 4th ',
        {"time": "2025-03-01T10:00:07Z", "level": "INFO", "msg": WORDS[7], "a_b": 7, "number": 7, "n": 7},
    ),
    "chat": (
        "[2025-03-01 10:{n:02d}] Anna{n}: {words}",
        {"date": "2025-03-01", "time": "10:07", "name": "Anna7", "message": WORDS[7]},
    ),
}


@pytest.mark.parametrize("kind", LOGS)
def test_lines_that_are_alike_are_records(kind: str) -> None:
    line, expected = LOGS[kind]
    lines = [line.format(n=n, level="INFO" if n != 9 else "ERROR", words=WORDS[n]) for n in range(1, 60)]
    expected = expected | {"text": lines[6]}
    assert records("\n".join(lines) + "\n")[6] == expected | {"line": 7}
    assert records("\r\n".join(lines) + "\r\n")[6] == expected | {"line": 7}
    assert records("\n\n".join(lines))[6] == expected | {"line": 13}
    assert len(records("\n".join(lines))) == 59
    assert form("\n".join(lines)).startswith('lines with "')


def test_what_varies_is_told_by_lines_of_the_whole_text_and_not_of_its_beginning_alone() -> None:
    lines = [f"2025-03-01 10:00:00 {'INFO' if n < 20_000 else 'ERROR'} user=u{n} done" for n in range(40_000)]
    rows = records("\n".join(lines))
    assert len(rows) == 40_000
    assert rows[-1]["level"] == "ERROR"


def test_lines_of_another_form_belong_to_the_record_before_them_and_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"2025-03-01 10:00:00 user=u{n} done" for n in range(20_000)]
    lines[7_001:7_001] = trace = ["Traceback (most recent call last):", "  File x", "ValueError: y"]
    rows = records("\n".join(lines))
    assert len(rows) == 20_000
    assert rows[7_000]["text"] == "\n".join([lines[7_000], *trace])
    assert rows[7_001]["line"] == 7_005
    assert "3 lines do not begin as the others, such as 'Traceback (most" in capsys.readouterr().out
    # Between the places that are looked at:
    same = [f"2025-03-01 10:00:00 user=u{n:05} done" for n in range(20_000)]
    many = [
        "something else".ljust(len(line)) if 700 < n % 2_500 < 2_400 else line for n, line in enumerate(same)
    ]
    with pytest.raises(ValueError, match=r"lines have another form, such as 'something else"):
        records("\n".join(many))


def test_an_entry_that_goes_on_in_another_way_is_a_record_that_says_what_it_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"2025-03-01 10:00:00 INFO request {n} took {n % 7} ms" for n in range(20_000)]
    lines[7_123] = "2025-03-01 10:00:00 ERROR disk full"
    text = "\n".join(lines)
    rows = records(text)
    assert len(rows) == 20_000
    assert rows[7_123] == {
        "line": 7_124,
        "date": "2025-03-01",
        "time": "10:00:00",
        "level": "ERROR",
        "message": "disk full",
        "text": lines[7_123],
    }
    assert "1 lines go on in another way" in capsys.readouterr().out
    assert [row["text"] for row in rows] == lines
    assert sum("ms" in row for row in rows) == 19_999
    with pytest.raises(KeyError, match=r"Line 7,124 has no 'ms', as not all have it.*row\.get\('ms'\)"):
        sum(row["ms"] for row in rows)


def test_a_broken_line_among_json_lines_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(map(json.dumps, ROWS * 10))
    lines[40:40] = ['{"day": "2024-', "[1]"]
    assert records("\n".join(lines)) == ROWS * 10
    assert "left out 2 lines" in capsys.readouterr().out
    with pytest.raises(ValueError, match="100 of 390 lines have another form, such as 'oops'"):
        records("\n".join([*map(json.dumps, ROWS * 10), *["oops"] * 100]))


def test_one_json_document_is_told() -> None:
    assert form(json.dumps({"a": {"b": 1}}, indent=1)).startswith("JSON; data = json.loads(context)")
    assert form(json.dumps(ROWS, indent=1)).startswith("a JSON list of objects with")
    assert records(json.dumps(ROWS, indent=1)) == ROWS


def test_the_end_of_what_is_looked_at_may_be_in_the_middle_of_a_line() -> None:
    assert form(table(",", FLAT) + "2024-02-01,Oslo,7,1\n" * 100_000).startswith("a table")


PLAIN = [
    "",
    "one line",
    "Well, it rained.\nThen, it stopped.\nSo, we left.\n" * 10,
    "1,2,3\n4,5,6\n7,8,9\n",
    "a,b,c\n1,2\n3,4,5\n",
    "[core]\nworkers = 4\n",
    "".join(f"{n}. The room was nice, for {n} days.\n" for n in range(50)),
    "import os\n\n\ndef f(x):\n    return x\n" * 20,
]


@pytest.mark.parametrize("text", PLAIN)
def test_just_text_has_no_form_and_its_records_are_its_lines(text: str) -> None:
    assert not form(text)
    assert records(text) == [
        {"line": number, "text": line} for number, line in enumerate(text.splitlines(), 1)
    ]


def test_of_a_large_text_records_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms.memory, "one_text", lambda: 100)
    text = table(",", FLAT)
    assert "for row in records(): ...; the first is {" in form(text)
    rows = records(text)
    assert next(iter(rows)) == FLAT[0]
    assert len(list(rows)) == 28


def test_the_active_input_is_read_and_several_texts_are_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "files", {"a.csv": table(",", FLAT), "b.csv": table(";", FLAT[:5])})
    monkeypatch.setattr(files, "_active", [files.files])
    assert files.records("b.csv") == FLAT[:5]
    assert files.records(files.files["a.csv"]) == FLAT
    with pytest.raises(TypeError, match=r"these are 2: a.csv, b.csv. Name one: records\('a.csv'\)"):
        files.records()
    with pytest.raises(KeyError, match=r"no file named 'c.csv'"):
        files.records("c.csv")
    monkeypatch.setattr(files, "_active", [table("|", FLAT)])
    assert files.records() == FLAT


def test_many_and_long_names_are_cut() -> None:
    wide = ",".join(f"column {n}" for n in range(5_000))
    assert len(form(f"{wide}\n{wide}\n{wide}\n")) < 5_000
    assert len(form((json.dumps({"k" * 100_000: "v" * 100_000}) + "\n") * 3)) < 400


@given(st.text(max_size=500))
def test_any_text_is_looked_at_without_harm(text: str) -> None:
    form(text)


LINE = st.text(alphabet='ab 1-:=[]".,/%', min_size=1, max_size=30)


@given(st.lists(LINE, min_size=8, max_size=20))
def test_whatever_lines_are_taken_for_alike_each_is_read_or_told(lines: list[str]) -> None:
    dated = [f"2025-01-01 {line}" for line in lines]
    if form("\n".join([*dated, ""])).startswith("lines"):
        assert len(records("\n".join(dated))) == len(dated)


def test_a_few_other_lines_do_not_hide_the_form_of_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"2024-01-01 00:00:{second:02d} INFO app: request {second} took {second * 3} ms"
        for second in range(40)
    ]
    text = "\n".join(["Starting", *lines[:20], "java.lang.Error: x", "\tat a.b.C(C.java:1)", *lines[20:], ""])
    rows = list(records(text))
    assert len(rows) == 40
    assert rows[0]["line"] == 2
    assert str({"line": 2})[:-1] in form(text)
    out = capsys.readouterr().out
    assert "left out 1 lines before the first entry, such as 'Starting'" in out
    assert "2 lines do not begin as the others" in out
    found = list(records("npm start\n> app\n" + "".join(f'{{"n": {number}}}\n' for number in range(50))))
    assert found == [{"n": number} for number in range(50)]


def test_quotes_in_quotes_of_an_access_log_stay_in_them() -> None:
    text = "".join(
        f'10.0.0.{n} - - [01/Jan/2024:00:00:{n:02d} +0000] "GET /x\\"y?z={n} HTTP/1.1" 200 {n}\n'
        for n in range(1, 20)
    )
    assert next(iter(records(text)))["request"] == 'GET /x\\"y?z=1 HTTP/1.1'
