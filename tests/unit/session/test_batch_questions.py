"""Questions of a batch: what people send, line by line, and what each line becomes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import sys
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from rlm_kernel.errors import UsageError
from rlm_kernel.session.batch import rows as rows_module
from rlm_kernel.session.batch.fields import filled, has_fields
from rlm_kernel.session.batch.item import Item
from rlm_kernel.session.batch.questions import (
    Common,
    Entry,
    entries,
    for_each,
    for_rows,
    name_of,
    of_file,
    of_program,
)
from rlm_kernel.session.batch.rows import STDIN, BadLine, Row, count_rows, read_rows
from rlm_kernel.session.inputs import Beside

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)


def asked(path: Path) -> list[Entry | BadLine]:
    return list(entries(of_file(path)))


def good(found: Iterable[Entry | BadLine]) -> list[Entry]:
    return [one for one in found if isinstance(one, Entry)]


def why(found: Iterable[Entry | BadLine]) -> dict[int, str]:
    return {one.number: one.why for one in found if isinstance(one, BadLine)}


@given(
    some.lists(some.dictionaries(some.text(), JSON, max_size=4), max_size=6),
    some.sampled_from(["\n", "\r\n"]),
)
def test_json_lines_are_read_as_they_were_written(
    tmp_path_factory: Any, objects: list[Any], end: str
) -> None:
    path = tmp_path_factory.mktemp("rows") / "q.jsonl"
    path.write_bytes(
        "".join(json.dumps(one, ensure_ascii=False) + end for one in objects).encode("utf-8", "replace")
    )
    written = [json.loads(json.dumps(one, ensure_ascii=False).encode("utf-8", "replace")) for one in objects]
    assert [row.values for row in read_rows(path) if isinstance(row, Row)] == written
    assert count_rows(path) == len(objects)


@given(some.binary(max_size=300))
@example(b"\r\x00")
def test_bytes_of_any_kind_are_rows_or_bad_lines_and_nothing_else(tmp_path_factory: Any, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("odd")
    for name in ("q.jsonl", "q.csv", "q.tsv"):
        (folder / name).write_bytes(raw)
        with contextlib.suppress(UsageError):
            assert good(list(entries(of_file(folder / name))))


def test_what_is_wrong_with_a_line_is_told_by_its_number_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    lines = [
        '\ufeff{"id": "a", "question": "A?", "files": ["a.txt"]}',
        "",
        "   ",
        "not json",
        "[1, 2]",
        "null",
        '"a text"',
        '{"id": "a", "question": "again?"}',
        '{"prompt": "of another program"}',
        '{"question": "", "id": "b"}',
        '{"question": 7}',
        '{"id": ["x"], "question": "?"}',
        '{"id": true, "question": "?"}',
        '{"question": "?", "file": "a.txt"}',
        '{"question": "?", "files": "a.txt", "text": "both"}',
        '{"question": "?", "files": [1]}',
        '{"question": "?", "files": "*.pdf"}',
        '{"question": "?", "limits": {"cots": 1}}',
        '{"question": "?", "settings": {"root_llm.api_base": "http://evil"}}',
        '{"question": "?", "settings": {"sandbox.network": "host"}}',
        '{"question": "?", "schema": "text"}',
        '{"custom_id": 7, "question": "B?", "context": {"x": 1}, "limits": {"cost": 0.5, "calls": null}}',
        '{"question": "with a \u2028 in it"}',
    ]
    path = tmp_path / "q.jsonl"
    path.write_bytes("\r\n".join(lines).encode() + b"\n" + b'{"question": "caf\xe9"}\n' + b"[" * 20_000)
    found = asked(path)
    assert [(one.number, one.id) for one in good(found)][:2] == [(1, "a"), (22, 7)]
    assert good(found)[0].item == Item("a", "A?", [tmp_path / "a.txt"])
    assert good(found)[1].item == Item(
        "7", "B?", {"x": 1}, changes={"limits.cost": 0.5, "limits.calls": "none"}
    )
    assert good(found)[2].item.question == "with a \u2028 in it"
    told = why(found)
    assert set(told) == {4, *range(5, 22), 24, 25}
    assert "twice" in told[8]
    assert "It has: prompt." in told[9]
    assert "Did you mean files?" in told[14]
    assert "Did you mean limits.cost?" in told[18]
    assert "UTF-8" in told[24]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Wie heißt \u2028 er?"}\n' * 2, encoding)
    assert [one.item.question for one in good(asked(path))] == ["Wie heißt \u2028 er?"] * 2


def test_a_table_of_a_spreadsheet_in_the_encoding_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('name;body\r\nBjörn;"one;\r\ntwo"\r\n;\r\nanna;a;b\r\n'.encode("cp1252"))
    found = list(entries(for_rows("Greet {name}", path, "name")))
    assert good(found)[0].item.context == {"name": "Björn", "body": "one;\r\ntwo"}
    assert "3 fields" in next(iter(why(found).values()))


@pytest.mark.parametrize(
    ("question", "column", "why"),
    [("Greet {colour}", None, "{colour}"), ("Greet {name}", "number", "no column 'number'")],
)
def test_a_table_without_the_columns_that_the_question_names_is_refused_with_its_columns(
    tmp_path: Path, question: str, column: str | None, why: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name,body\nanna,one\n")
    with pytest.raises(UsageError) as caught:
        list(entries(for_rows(question, path, column)))
    assert why in caught.value.message
    assert "name" in caught.value.message
    assert "body" in caught.value.message, "it says which columns there are"
    assert "Name only columns that it has" in caught.value.hint


def test_a_question_file_may_be_csv_a_json_array_or_compressed(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text('id,question,context\n1,Q?,"{""a"": 1}"\n2,R?,\n')
    assert [(one.id, one.item.context) for one in good(asked(tmp_path / "q.csv"))] == [
        ("1", {"a": 1}),
        ("2", None),
    ]
    (tmp_path / "q.json").write_text(json.dumps([{"question": "Q?"}, 7], indent=2))
    found = asked(tmp_path / "q.json")
    assert good(found)[0].item.question == "Q?"
    assert list(why(found)) == [2]
    import gzip

    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.write('{"question": "Q?"}\n')
    assert len(good(asked(tmp_path / "q.jsonl.gz"))) == 1


def test_rows_of_parquet_are_contexts_and_their_count_is_known(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"n": list(range(1000)), "raw": [b"\xff"] * 1000}), path)
    found = good(entries(for_rows("Is {n} even?", path, "n")))
    assert count_rows(path) == len(found) == 1000
    assert found[7].item.question == "Is 7 even?"
    assert found[7].item.context == {"n": 7, "raw": "/w=="}


def test_a_file_that_is_none_of_questions_is_refused_and_told_by_its_first_line(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": "",
        "b.jsonl": "x\n" * 30,
        "c.csv": "a,b\n1,2\n",
        "d.pdf": "%PDF-1.7\n",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match=name):
            asked(tmp_path / name)
    for name in ("none.jsonl", "."):
        with pytest.raises(UsageError):
            asked(tmp_path / name)


def test_a_line_that_is_too_long_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_LINE", 100)
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a"}\n' + json.dumps({"question": "b" * 500}) + '\n{"question": "c"}\n')
    found = asked(path)
    assert [one.item.question for one in good(found)] == ["a", "c"]
    assert "longer" in why(found)[2]


def test_lines_of_a_pipe_are_given_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        found = entries(of_file(STDIN))
        for number in range(3):
            os.write(writing, b'{"question": "%d"}\n{"ques' % number)
            one = next(found)  # the half of the next line keeps nothing back
            assert isinstance(one, Entry)
            assert one.item.question == str(number)
            os.write(writing, b'tion": 0}\n')
            assert isinstance(next(found), BadLine)
        os.close(writing)
        assert list(found) == []


def test_standard_input_that_is_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(UsageError, match="terminal"):
        list(of_file(STDIN))


@given(some.text(max_size=200), some.text(max_size=200))
def test_names_can_be_files_anywhere_and_differ_where_ids_do(one: str, other: str) -> None:
    name = name_of(one)
    assert name.isascii()
    assert 1 <= len(name) <= 80
    assert not set(name) & set('/\\:*?"<>| \0')
    assert name[0] not in ".-"
    assert name[-1] != "."
    assert (one == other) or name != name_of(other)


def test_ids_that_are_names_stay_and_others_are_kept_beside() -> None:
    found = good(
        entries(of_program([{"id": "../../etc/passwd", "question": "?"}, {"id": "a.b-1", "question": "?"}]))
    )
    assert [one.id for one in found] == ["../../etc/passwd", "a.b-1"]
    assert found[1].item.id == "a.b-1"
    assert "/" not in found[0].item.id


def test_questions_without_an_id_have_one_of_what_is_asked_wherever_they_stand() -> None:
    first = [one.id for one in good(entries(of_program(["a", "b", "a"])))]
    later = [one.id for one in good(entries(of_program(["new", "b", "a", "a"])))]
    assert len(set(first)) == 3
    assert first[1] == later[1]
    assert {first[0], first[2]} == set(later[2:])


@pytest.mark.parametrize(
    "change",
    [
        {"question": "other"},
        {"text": "other"},
        {"schema": {"type": "string"}},
        {"limits": {"turns": 3}},
    ],
)
def test_a_question_that_has_changed_has_another_digest(change: dict[str, Any]) -> None:
    def digest(values: dict[str, Any], by: str = "") -> str:
        return good(entries(of_program([values]), by))[0].digest

    values = {"id": "a", "question": "Q", "text": "T"}
    assert digest(values) == digest(dict(reversed(values.items())))
    assert digest(values) != digest(values | change)
    assert digest(values) != digest(values, "another model")


def test_a_file_counts_by_what_is_in_it_not_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def digest() -> str:
        return good(entries(of_program([{"id": "a", "question": "?", "files": [str(path)]}])))[0].digest

    path.write_text("one")
    before = digest()
    os.utime(path, (1, 1))
    assert digest() == before
    path.write_text("two")
    assert digest() != before


def test_each_file_is_asked_of_in_order_and_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a b", "c/[1]", "c/d/e"):
        Path(f"docs/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        Path(f"docs/{name}.txt").write_text(name)
    found = good(entries(for_each("Who is in {file}?", ["docs/**/*.txt"])))
    assert [one.id for one in found] == ["docs/a b.txt", "docs/b.txt", "docs/c/[1].txt", "docs/c/d/e.txt"]
    assert found[2].item.context == [Path("docs/c/[1].txt")]
    assert found[1].item.question == "Who is in docs/b.txt?"
    assert len(good(entries(for_each("?", ["docs"])))) == 4
    assert len(good(entries(for_each("?", ["docs/c/[1].txt"])))) == 1
    with pytest.raises(UsageError, match="No file matches"):
        list(for_each("?", ["nothing/*"]))


def test_files_are_relative_to_the_file_of_questions(tmp_path: Path) -> None:
    folder = tmp_path / "odd [1]"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "x[1].txt"):
        (folder / name).write_text(name)
    (folder / "q.jsonl").write_text(
        '{"question": "all", "files": "*.txt"}\n{"question": "one", "files": ["x[1].txt", "a.txt", "a.txt"]}\n'
    )
    every, one = good(asked(folder / "q.jsonl"))
    assert every.item.context == [folder / name for name in ("a.txt", "b.txt", "x[1].txt")]
    assert one.item.context == [folder / "x[1].txt", folder / "a.txt"]


def test_files_of_every_question_stand_beside_whatever_context_it_has(tmp_path: Path) -> None:
    glossary, own = tmp_path / "glossary.txt", tmp_path / "a.txt"
    glossary.write_text("RLM: a model with a kernel")
    own.write_text("a")
    given = [own, [own, glossary], None, "a text", {"row": 1}, [1, 2]]
    common = Common([glossary])

    def found() -> list[Entry]:
        return good(entries(of_program(["?"] * len(given), given), common=common))

    assert [one.item.context for one in found()] == [
        [own, glossary],
        [own, glossary],
        [glossary],
        Beside("a text", (glossary,)),
        Beside({"row": 1}, (glossary,)),
        Beside([1, 2], (glossary,)),
    ]
    before = {one.digest for one in found()}
    glossary.write_text("another")
    assert not before & {one.digest for one in found()}, "answers with the old glossary do not stand"


def test_a_schema_for_all_is_for_those_without_one(tmp_path: Path) -> None:
    questions = ["a", {"question": "b", "schema": {"type": "string"}}]
    found = good(entries(of_program(questions), common=Common(schema={"type": "integer"})))
    assert [one.item.schema for one in found] == [{"type": "integer"}, {"type": "string"}]


def test_columns_in_braces_are_values_and_other_braces_stay() -> None:
    values = {"name": "Anna {body}", "body": "secret", "n": 3, "a b": None}
    assert filled("{name} {n} {{n}} {a b} {x: 1} { }", values) == "Anna {body} 3 {n}  {x: 1} { }"
    with pytest.raises(UsageError, match=r"no value for \{nam\}") as caught:
        filled("{nam}", values)
    assert "Did you mean name?" in caught.value.hint
    with pytest.raises(UsageError, match="too much"):
        filled("{body}", {"body": "x" * 30_000})


def test_a_question_that_values_stand_in_is_known() -> None:
    assert has_fields("Is this spam? {body}")
    assert not has_fields("Is this spam?")
    assert not has_fields("What does {{body}} mean?")


def test_contexts_go_with_their_questions_whatever_is_wrong_with_one() -> None:
    found = list(entries(of_program(["a", {"qestion": "b"}, "c"], iter(["A", "B", "C"]))))
    assert [one.item.context for one in good(found)] == ["A", "C"]
    with pytest.raises(UsageError, match="Question 3 has no context"):
        list(entries(of_program(["a", "b", "c"], ["A", "B"])))


def test_endless_questions_are_read_as_they_are_wanted() -> None:
    found = entries(of_program(f"question {number}" for number in itertools.count()))
    assert [one.item.question for one in itertools.islice(found, 3) if isinstance(one, Entry)] == [
        "question 0",
        "question 1",
        "question 2",
    ]
    assert threading.active_count() < 50


@pytest.mark.parametrize(
    "odd", [{"id": 10**5_000}, {"id": -(10**5_000)}, {5: "five", None: 1, ("a", "b"): 2}]
)
def test_odd_ids_and_names_of_fields_concern_their_question_alone(odd: dict[Any, Any]) -> None:
    first, second = entries(of_program([{"question": "a"} | odd, "b"]))
    assert isinstance(second, Entry)
    if "id" in odd:
        assert isinstance(first, BadLine)
        assert "too long" in first.why
    else:
        assert isinstance(first, Entry)


def test_ids_are_whole_numbers_of_any_type_and_what_is_missing_is_not_given(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    rows = [
        {"id": numpy.int64(3), "question": "a"},
        {"id": 4.0, "question": "b", "files": math.nan},  # as pandas has a column with gaps
        {"id": math.nan, "question": "c"},
        {"id": uuid.UUID(int=5), "question": "d"},
    ]
    found = [one.id for one in good(entries(of_program(rows)))]
    assert found[:2] == [3, 4]
    assert str(found[2]).startswith("q-")
    assert found[3] == str(uuid.UUID(int=5))
    assert set(map(type, found[:2])) == {int}
    assert "whole number" in why(entries(of_program([{"id": 2.5, "question": "a"}])))[1]


@pytest.mark.parametrize(
    "one", ["What?", b"What?", {"question": "What?"}, Path("q.jsonl"), None, Item("a", "?")]
)
def test_a_single_question_or_context_is_not_taken_for_many(one: Any) -> None:
    with pytest.raises(UsageError, match="questions must be a list"):
        of_program(one)
    if one is not None:
        with pytest.raises(UsageError, match="contexts must be a list"):
            of_program(["a"], one)


def test_a_table_is_not_taken_for_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"question": ["a", "b"], "text": ["A", "B"]})
    with pytest.raises(UsageError, match="gives its columns") as told:
        of_program(table)
    assert "to_dict('records')" in told.value.hint
    found = good(entries(of_program(table["question"], table["text"])))
    assert [(one.item.question, one.item.context) for one in found] == [("a", "A"), ("b", "B")]


def test_tables_as_programs_write_them(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('\ufeff"id","question"\r\n1,a,\r\n2,b,,\r\n3,c,more\r\n', "utf-8")
    found = asked(path)
    assert [(one.id, one.item.question) for one in good(found)] == [("1", "a"), ("2", "b")]
    assert "3 fields" in why(found)[3]
    path.write_text("id,question,question\n1,a,b\n")
    with pytest.raises(UsageError, match="two columns named 'question'"):
        asked(path)
    path.write_bytes(b"id,question\r1,a\r")
    with pytest.raises(UsageError) as told:
        asked(path)
    assert "tr '\\r' '\\n'" in told.value.hint
