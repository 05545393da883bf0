"""What was written as records is read back: names, types, values, and how many there are. What is not, is text,
and is told.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_runtime import forms
from rlm_runtime.forms import form, records
from rlm_runtime.lazytext import LazyText
from rlm_runtime.numbers import MISSING
from rlm_runtime.rows import NoColumn, Record
from rlm_runtime.source import Source


def read(text: str, name: str = "") -> tuple[list[dict[str, Any]], str]:
    """The records, and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        found = list(records(text, name))
    return found, said.getvalue()


def on_disk(text: str) -> LazyText:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        return LazyText(Source(Path(file.name), block=4096), 1 << 22)


# Columns of a table: as they are written, and as they are read.

SIGNS = st.sampled_from(["", "-"])
WHOLE = st.integers(-(10**9), 10**9)
CENTS = st.integers(-(10**9), 10**9).map(lambda n: n / 100)


def indian(number: int) -> str:
    digits = str(abs(number))
    head, tail = digits[:-3], digits[-3:]
    groups = []
    while head:
        head, last = head[:-2], head[-2:]
        groups.insert(0, last)
    return ("-" if number < 0 else "") + ",".join([*groups, tail])


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


WAYS: dict[str, tuple[Any, Any]] = {
    "whole": (WHOLE, str),
    "decimal": (CENTS, str),
    "exponents": (st.floats(allow_nan=False, allow_infinity=False), repr),
    "two decimals and commas": (CENTS, "{:,.2f}".format),
    "commas": (WHOLE, "{:,}".format),
    "Indian": (WHOLE, indian),
    "German": (CENTS, german),
    "spaces": (CENTS, lambda n: f"{n:,.2f}".replace(",", "\u202f")),
    "apostrophes": (CENTS, lambda n: f"{n:,.2f}".replace(",", "'")),
    "percent": (CENTS, "{:.2f}%".format),
    "dollars": (CENTS, lambda n: f"{'-' if n < 0 else ''}${abs(n):,.2f}"),
    "euros": (CENTS, lambda n: f"{german(n)} €"),
    "in parentheses": (CENTS, lambda n: f"({-n:,.2f})" if n < 0 else f"{n:,.2f}"),
    "minus behind": (CENTS, lambda n: f"{-n:.2f}-" if n < 0 else f"{n:.2f}"),
}
TEXTS: dict[str, Any] = {
    "words": st.text("abc ,;\t|\"'é日", min_size=1, max_size=12).filter(
        lambda t: t == t.strip() and t not in MISSING
    ),
    "dates": st.dates().map(str),
    "dates with points": st.dates().map(lambda day: f"{day:%d.%m.%Y}"),
    "codes": st.from_regex(r"\A0[0-9]{4}\Z"),
    "telephones": st.from_regex(r"\A[1-9][0-9]{2} [0-9]{3} [0-9]{3}\Z"),
    "versions": st.from_regex(r"\A[1-9]\.[1-9]\.[1-9]\Z"),
    "addresses": st.from_regex(r"\A10\.[1-9]{2}\.[1-9]{2}\.[1-9]{2}\Z"),
    "times": st.times().map(lambda time: f"{time:%H:%M:%S}"),
    "digits beyond a float's": st.from_regex(r"\A[1-9]\.[0-9]{25}\Z"),
    "currencies": st.sampled_from(["$1", "€2", "£3"]),
    "hexadecimal": st.from_regex(r"\A[1-9]e[0-9]{3}\Z"),
}


@settings(deadline=None, max_examples=50)
@given(st.data(), st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]), st.integers(3, 25))
def test_columns_of_a_table_are_read_back_or_are_text(
    data: Any, delimiter: str, end: str, count: int
) -> None:
    ways = data.draw(st.lists(st.sampled_from([*WAYS, *TEXTS]), min_size=3, max_size=6, unique=True))
    values = {
        way: data.draw(st.lists(WAYS[way][0] if way in WAYS else TEXTS[way], min_size=count, max_size=count))
        for way in ways
    }
    written = {way: list(map(WAYS[way][1] if way in WAYS else str, values[way])) for way in ways}
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerow(ways)
    writer.writerows(zip(*written.values(), strict=True))
    for text in (out.getvalue(), on_disk(out.getvalue())):
        found, _ = read(text, "a.csv")  # type: ignore[arg-type]
        told = form(text, "a.csv")
        assert [list(row) for row in found] == [ways] * count
        for way in ways:
            got = [row[way] for row in found]
            if got == written[way]:
                continue  # text, as it was written
            if way == "currencies" and len(set(written[way])) == 1:  # one currency: they are amounts of it
                assert got == [int(value[1:]) for value in written[way]]
                continue
            assert way in WAYS, (way, got)
            if got != values[way]:  # 1.234 can be 1234: what was taken is told
                assert all(isinstance(value, (int, float)) for value in got)
                assert f"; {way}: " in told, (way, written[way], got)
        if len(found) > 1 and any(f"{way}: all" in told for way in ways):
            assert "two ways" in told or "begin with a zero" in told or "more digits" in told


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_writing_numbers_is_read(way: str) -> None:
    numbers = [1_266.75, -3.5, 12_345_678.25, 0.0, 512.0]
    if way in ("whole", "commas", "Indian"):
        numbers = list(map(int, numbers))  # type: ignore[arg-type]
    rows = [[f"n{place}", WAYS[way][1](number)] for place, number in enumerate(numbers)]
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows([["id", "amount"], *rows])
    found, said = read(out.getvalue(), "a.csv")
    assert [row["amount"] for row in found] == numbers
    assert said == ""
    assert ("; amount: " in form(out.getvalue(), "a.csv")) == (way not in ("whole", "decimal", "exponents"))


@pytest.mark.parametrize(
    ("written", "wanted", "said"),
    [
        (["5 000 €", "12 €"], [5000, 12], ""),
        (["5 000", "12"], [5000, 12], ""),
        (["5\u00a0000", "999"], [5000, 999], ""),
        (["1'234", "5"], [1234, 5], ""),
        (["170 123 456", "30 123"], None, ""),  # these may be telephone numbers
        (["1,234", "2,345"], None, "two ways"),
        (["1.234", "2.500"], [1.234, 2.5], "amount: '1.234' is 1.234"),
        (["9007199254740993.0", "1.0"], None, "more digits"),
        (["0.12345678901234567890", "0.5"], None, "more digits"),
        (["0.30000000000000004", "0.10000000000000001"], [0.30000000000000004, 0.1], ""),
        (["１２", "３"], None, ""),
        (["\u22125", "3"], [-5, 3], ""),
    ],
)
def test_numbers_are_read_alike_in_all_ways_or_stay_text(
    written: list[str], wanted: list[float] | None, said: str
) -> None:
    rows = "".join(f"a{place};{value};x\n" for place, value in enumerate(written * 4))
    found, told = read(f"id;amount;note\n{rows}", "a.csv")
    assert [row["amount"] for row in found] == (wanted or written) * 4
    assert said in told
    assert bool(said) == bool(told)


def test_what_is_no_number_in_a_column_is_told_before_and_after() -> None:
    rows = "".join(f"{n},{n}.25\n" for n in range(30_000))
    text = f"id,amount\n{rows.replace(',77.25', ',unknown').replace(',78.25', ',?')}"
    wanted = "amount: 2 of 30,000 are text, such as '?', so all of it is text"
    found, said = read(text, "a.csv")
    assert wanted in form(text, "a.csv")
    assert wanted in said
    assert {type(row["amount"]) for row in found} == {str}
    assert {type(row["id"]) for row in found} == {int}


def test_of_a_text_on_disk_what_is_no_number_is_told_at_the_end() -> None:
    text = on_disk("id,amount,c\n" + "".join(f"{n},{'?' if n == 3_000 else n},x\n" for n in range(30_000)))
    found, said = read(text, "a.csv")  # type: ignore[arg-type]
    assert found[3_000]["amount"] == "?"
    assert found[3_001]["amount"] == 3_001
    assert "amount: 1 of 30,000 are text, such as '?', and others are numbers" in said
    text = on_disk("id,amount,c\n" + "".join(f"{n},{'?' if n > 20_000 else n},x\n" for n in range(30_000)))
    assert "are text, such as '?', so all of it is text (in a sample)" in form(text, "a.csv")
    assert {type(row["amount"]) for row in read(text, "a.csv")[0]} == {str}  # type: ignore[arg-type]


def test_sums_and_rows_of_other_lengths_and_comments_are_told() -> None:
    text = "a,b,c\n1,2,3\n4,5\n6,7,8,9\na,b,c\n# half\nTotal,14,11\n"
    found, said = read("# made\n" + text, "a.csv")
    assert len(found) == 4
    for wanted in ("1 rows have fewer", "1 rows have more", "1 rows that are comments", "the names of the columns again", "1 rows seem to be sums of others, such as ['Total', '14', '11']"):  # fmt: skip
        assert wanted in said
        assert wanted in form("# made\n" + text, "a.csv")


# Logs


WORDS = st.sampled_from(["alpha", "beta-2", "gamma", "d_3", "node.eu"])
AMOUNTS = st.one_of(st.integers(0, 10**6), st.integers(1, 10**6).map(lambda n: n / 8))
# How a part is written, where {} is what varies, and the name under which it is read.
PARTS: list[tuple[str, str, Any]] = [
    ("request {}", "request", st.integers(0, 10**6)),
    ("took {} ms", "ms", AMOUNTS),
    ("waited {}ms", "ms", AMOUNTS),
    ("latency: {}", "latency", AMOUNTS),
    ("size {} MB", "MB", AMOUNTS),
    ("load {}%", "percent", AMOUNTS),
    ("depth={}", "depth", AMOUNTS),
    ("user={}", "user", WORDS),
    ('said="{}"', "said", st.sampled_from(["so it is", "a b", "no"])),
    ("sent {} bytes", "bytes", st.integers(0, 10**9)),
]
TRACE = ["Traceback (most recent call last):", '  File "x.py", line 7', "ValueError: 12 ms"]


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(12, 40), st.sampled_from(["\n", "\r\n"]))
def test_a_log_of_fixed_words_is_read_back_and_no_line_is_lost(data: Any, count: int, end: str) -> None:
    chosen = data.draw(
        st.lists(st.sampled_from(PARTS), min_size=1, max_size=4, unique_by=lambda part: part[1])
    )
    lines, wanted = [], []
    for number in range(count):
        values = [data.draw(kind) for _, _, kind in chosen]
        said = ", ".join(part.format(value) for (part, _, _), value in zip(chosen, values, strict=True))
        line = f"2025-03-01 10:00:{number:02} {'INFO' if number % 3 else 'ERROR'} {said}"
        more = TRACE if data.draw(st.integers(0, 9)) == 0 else []
        wanted.append((number, values, "\n".join([line, *more])))
        lines += [line, *more]
    found, _ = read(end.join([*lines, ""]))
    assert [row["text"] for row in found] == [text for _, _, text in wanted]
    assert [row["level"] for row in found] == ["INFO" if n % 3 else "ERROR" for n in range(count)]
    for place, (_, name, _) in enumerate(chosen):
        written = [values[place] for _, values, _ in wanted]
        if len(set(written)) > 1 and all(name in row for row in found):
            assert [row[name] for row in found] == written


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["2025-01-01 10:00:00 INFO a=1 x", "2025-01-01 10:00:01 WARN b", "  at x", "other", "", "2025 y", "a=3"]), min_size=8, max_size=60))  # fmt: skip
def test_whatever_lines_a_text_has_each_is_in_a_record_or_is_told(lines: list[str]) -> None:
    try:
        found, said = read("\n".join(lines))
    except ValueError:
        return
    have = [line for row in found for line in row["text"].split("\n") if line]
    wanted = [line for line in lines if line]
    if left_out := re.search(r"left out (\d+) lines before", said):
        wanted = wanted[int(left_out[1]) :]
    assert have == wanted


def test_an_access_log_has_names() -> None:
    lines = [
        f'10.0.0.{n} - frank [01/Mar/2025:10:00:{n:02d} +0000] "GET /p?q={n} HTTP/1.1" {200 + n % 2} '
        f'{n if n % 7 else "-"} "http://x/" "curl \\"8\\""'
        for n in range(1, 50)
    ]
    found, _ = read("\n".join(lines))
    assert found[1] == {
        "line": 2, "ip": "10.0.0.2", "ident": "-", "user": "frank", "date": "01/Mar/2025", "time": "10:00:02",
        "zone": "+0000", "request": "GET /p?q=2 HTTP/1.1", "status": 200, "bytes": 2, "referer": "http://x/",
        "agent": 'curl \\"8\\"', "text": lines[1],
    }  # fmt: skip
    assert "bytes: 7 of 49 have no number but '-'" in form("\n".join(lines))


NAMES = {
    "read {0} ms write {1} ms": ["read_ms", "write_ms"],
    "cpu {0}% mem {1}%": ["cpu_percent", "mem_percent"],
    "took {0} {unit}": ["took", "unit"],
    "took {0}{unit}": ["took"],
    "worker 3: {0} of {1}": ["number", "number2"],
    "temperature = {0} °C": ["temperature"],
    "retry #{0}": ["retry"],
    "cost ${0}": ["cost"],
    "total: €{0}": ["total"],
    "lag ~{0}": ["lag"],
    "change +{0}": ["change"],
    "{0} tries": ["tries"],
    "sent {0:,} bytes": ["bytes"],
    "queue[{0}]": ["queue"],
    "app[{0}]: up": ["pid"],
    "pressure {0} kPa": ["kPa"],
}


@pytest.mark.parametrize("message", NAMES)
def test_a_number_is_named_after_its_unit_or_the_word_before_it(message: str) -> None:
    lines = [
        f"2025-03-01 10:00:00 INFO {message.format(n * 77, n * 3, unit='ms' if n % 2 else 's')}"
        for n in range(60)
    ]
    found, _ = read("\n".join(lines))
    assert list(found[0])[4:-1] == NAMES[message]
    assert found[1][NAMES[message][0]] == ("77ms" if message == "took {0}{unit}" else 77)


# JSON lines and settings

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=5), VALUES, min_size=1, max_size=5), min_size=2, max_size=20))  # fmt: skip
def test_json_lines_are_read_back(rows: list[dict[str, Any]]) -> None:
    found, _ = read("".join(f"{json.dumps(row)}\n" for row in rows))
    assert found == rows
    for row, written in zip(found, rows, strict=True):
        for name in {name for each in rows for name in each}:
            assert (name in row) == (name in written)
            assert row.get(name) == written.get(name)


@pytest.mark.parametrize(
    ("end", "name"), [("took {}ms", "ms"), ("n={}", "n"), ("n={} done", "n"), ("(n={}, m=2)", "n")]
)
def test_separators_of_thousands_in_measures_and_keys_of_a_log_split_no_number(end: str, name: str) -> None:
    amounts = ["900", "1,100", "12,345", "7"] * 5
    lines = [f"2026-01-02 10:00:{n:02} INFO worker {end.format(one)}" for n, one in enumerate(amounts)]
    found, said = read("\n".join(lines))
    assert [row[name] for row in found] == [900, 1_100, 12_345, 7] * 5
    assert "'12,345' is 12345" in said


def test_text_among_the_numbers_of_json_is_told() -> None:
    rows: list[dict[str, Any]] = [{"a": n, "b": "x", "c": None if n % 3 else 1.5} for n in range(50)]
    rows[7]["a"] = "1,266.70"
    found, said = read("".join(f"{json.dumps(row)}\n" for row in rows))
    assert found == rows
    assert said == "Note: a: 1 of 50 are text, such as '1,266.70', and others are numbers\n"


@given(st.lists(st.tuples(st.from_regex(r"\A[a-z]{1,8}\Z"), WHOLE, CENTS), min_size=5, max_size=20, unique_by=lambda row: row[0]))  # fmt: skip
def test_settings_are_read_back(rows: list[tuple[str, int, float]]) -> None:
    text = "".join(
        f"[{name}]\nsize = {size}\nratio = {ratio}\nshare = {size}%\n\n" for name, size, ratio in rows
    )
    assert read(text)[0] == [
        {"section": name, "size": size, "ratio": ratio, "share": f"{size}%"} for name, size, ratio in rows
    ]


# A record


LOG = "".join(f"2025-03-01 10:00:{n:02} {'ERROR' if n % 9 == 0 else 'INFO'} request {n} took {n} ms\n" for n in range(60))  # fmt: skip


def test_a_record_does_not_keep_silent_where_it_is_taken_for_a_line() -> None:
    rows, _ = read(LOG)
    with pytest.raises(NoColumn, match=r"'ERROR' in row\['text'\]"):
        sum("ERROR" in line for line in rows)
    assert sum("ERROR" in row["text"] for row in rows) == 7
    with pytest.raises(AttributeError, match=r"row\['text'\]\.lower"):
        rows[0].lower()  # type: ignore[attr-defined]
    with pytest.raises((NoColumn, TypeError), match=r"row\['text'\] is the line|unhashable type: 'slice'"):
        rows[0][:10]  # type: ignore[index]
    with pytest.raises(NoColumn, match=r"there are 'line', 'date'.*Did you mean 'level'\?"):
        rows[0]["leve"]
    assert rows[0].level == "ERROR"  # type: ignore[attr-defined]
    assert "level" in rows[0]
    plain, _ = read("some ERROR\nprose\n")
    with pytest.raises(NoColumn, match=r"'ERROR' in row\['text'\]"):
        assert "ERROR" in plain[0]
    table, _ = read("a,b,c\n1,x,2\n3,y,4\n")
    with pytest.raises(NoColumn, match=r"'x' in row\['b'\]; in all: 'x' in str\(row\)"):
        assert "x" in table[0]
    assert "x" not in table[0].keys()  # noqa: SIM118
    with pytest.raises(NoColumn):
        assert "ERROR" in next(iter(records(on_disk(LOG))))


def test_what_a_record_of_numbers_offers_in_place_of_in_works() -> None:
    rows, _ = read("a,b\n" + "1,2.5\n" * 9, "a.csv")
    with pytest.raises(KeyError, match=r"To look for it in all values: '2\.5' in str\(row\)\."):
        assert "2.5" in rows[0]
    assert "2.5" in str(rows[0])


def test_a_record_is_a_dict_in_all_else() -> None:
    rows, _ = read('{"a": 1, "b": 2}\n{"a": 3}\n{"a": 4}\n')
    assert "b" not in rows[1]
    with pytest.raises(NoColumn, match=r"has no 'b', as not all have it.*row\.get\('b'\)"):
        rows[1]["b"]
    rows[0]["new"] = 5
    rows[1].update(newer=6)
    rows[1].setdefault("newest", 7)
    rows[1] |= {"last": 8}
    assert [name in rows[2] for name in ("new", "newer", "newest", "last")] == [False] * 4
    assert rows[1] == {"a": 3, "newer": 6, "newest": 7, "last": 8}
    assert json.loads(json.dumps(rows)) == rows
    again = pickle.loads(pickle.dumps(rows))
    assert again == rows
    assert type(again[0]) is dict
    assert copy.deepcopy(rows) == rows == copy.copy(rows)
    assert type(rows[0] | {}) is dict
    assert repr(rows[2]) == "{'a': 4}"
    assert not hasattr(rows[0], "_repr_html_")
    assert isinstance(rows[0], Record)
    match rows[0]:
        case {"a": value}:
            assert value == 1
    out = io.StringIO()
    writer = csv.DictWriter(out, ["a", "b"], extrasaction="ignore")
    writer.writerows(rows)
    assert out.getvalue().split() == ["1,2", "3,", "4,"]


def test_forms_of_parts_are_told_with_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms.memory, "one_text", lambda: 100)
    assert "for row in records(): ...; the first is {'line': 1, " in form(LOG)
    assert "'text': '2025-03-01 10:00:00 ERROR request 0 took 0 ms'}" in form(LOG)
