"""The file of results: a kill between any two bytes loses no more than the line that was being written."""

from __future__ import annotations

import asyncio
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import TraceNotWritten, UsageError
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.questions import Entry
from rlm_kernel.session.batch.results import Results, encoded, row_of, rows
from rlm_kernel.session.batch.traces import Traces, write_index
from rlm_kernel.session.result import Result


def entry(id_: str | int, digest: str = "d") -> Entry:
    return Entry(Item("name", "question"), id_, 1, digest)


def done(answer: str | None = "yes", failure: Failure | None = None) -> Done:
    if failure is not None:
        return Done(Item("name", "question"), failure=failure)
    reason: Any = "answered" if answer is not None else "turns"
    totals = Totals(turns=1, known_cost=0.25)
    return Done(Item("name", "question"), Result(answer, None, Path("t.ipynb"), reason, False, "", totals))


def row(id_: str | int, digest: str = "d", attempt: int = 1, **of: Any) -> dict[str, Any]:
    made = done(**of)
    return row_of(
        entry(id_, digest), made, made.result.totals if made.result else Totals(), attempt, Path("/")
    )


def add(results: Results, *made: dict[str, Any]) -> None:
    async def all_() -> None:
        for one in made:
            await results.add(one)

    asyncio.run(all_())


PASSING = Failure("ModelError", "too many", passing=True)
LASTING = Failure("FileRefused", "no such file")


@given(some.lists(some.tuples(some.text(max_size=5), some.text(max_size=30)), max_size=5), some.data())
def test_after_a_kill_between_any_two_bytes_only_the_last_line_is_asked_again(
    tmp_path_factory: Any, answers: list[tuple[str, str]], data: Any
) -> None:
    path = tmp_path_factory.mktemp("results") / "r.jsonl"
    lines = [encoded(row(id_, answer=answer)) for id_, answer in answers]
    raw = b"".join(lines)
    for _ in range(data.draw(some.integers(1, 3))):  # killed, and killed again
        kept = data.draw(some.integers(0, len(raw)))
        path.write_bytes(raw[:kept])
        results = Results.open(path)
        whole = sum(kept >= len(b"".join(lines[: number + 1])) - 1 for number in range(len(lines)))
        for number, (id_, _) in enumerate(answers):
            known = any(id_ == other for other, _ in answers[:whole])
            assert (results.why(entry(id_)) is None) is known, number
        add(results, *(row(id_, answer=answer) for id_, answer in answers[whole:]))
        results.close()
        assert [one["answer"] for one in rows(path)] == [json.loads(line)["answer"] for line in lines]
        assert path.read_bytes() == raw


@pytest.mark.parametrize(
    ("of", "asked"),
    [
        ({}, ("no", "no", "no")),
        ({"answer": None}, ("no", "no", "again")),
        ({"failure": PASSING}, ("no", "again", "again")),
        ({"failure": LASTING}, ("no", "no", "again")),
    ],
)
def test_what_is_asked_again_is_what_was_asked_for(
    tmp_path: Path, of: dict[str, Any], asked: tuple[str, ...]
) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    add(results, row("a", **of))
    for known in (results, reopened(results)):
        found = [known.why(entry("a"), retry) or "no" for retry in ("no", "passing", "all")]
        assert tuple(found) == asked
        assert known.why(entry("a", "other")) == "changed"
        assert known.why(entry("b")) == "new"
        assert known.attempt(entry("a")) == 2
        assert known.attempt(entry("b")) == 1
    known.close()


def reopened(results: Results) -> Results:
    results.close()
    return Results.open(results.path)


def test_the_last_line_of_an_id_counts_and_all_are_paid_for(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    add(results, row(1, failure=PASSING), row(1, attempt=2), row("1"), row("2", answer=None))
    results = reopened(results)
    assert results.last(entry(1)).status == "answered"
    assert results.paid.cost == pytest.approx(0.75)
    assert results.lines == 4
    results.close()


@pytest.mark.parametrize("id_", ["\ud800", "a\u2028b", "\x00", 7, "7", "😀"])
def test_ids_of_any_text_are_known_again(tmp_path: Path, id_: str | int) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    add(results, row(id_, answer="\udfff\n\u2028"))
    results = reopened(results)
    assert results.why(entry(id_)) is None
    results.close()


def test_a_second_process_is_told(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="Another process"):
        Results.open(tmp_path / "r.jsonl")
    results.close()
    Results.open(tmp_path / "r.jsonl").close()


@pytest.mark.parametrize(
    "content", ['{"id": "a", "question": "Q"}\n', "# A readme\n", "{}\n", "\n", "no end", "\x00\x01"]
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="not a results file"):
        Results.open(path)
    assert path.read_text() == content


def test_damaged_lines_among_good_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    hostile = [
        b"[" * 10_000,
        b'{"id": {}, "status": "answered", "digest": "", "attempt": 1}',
        b"\xff",
        b"null",
    ]
    path.write_bytes(
        b"\n".join([encoded(row("a")).strip(), *hostile, encoded(row("b")).strip()]) + b"\n" + b"\0" * 512
    )
    results = Results.open(path)
    assert [results.why(entry(name)) for name in "ab"] == [None, None]
    assert results.dropped == 512
    results.close()
    assert path.read_bytes().endswith(b"\n")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for place in (
        tmp_path,
        tmp_path / "file" / "r.jsonl",
        tmp_path / "pipe",
        Path("/dev/null"),
        Path("/proc/r.jsonl"),
    ):
        with pytest.raises(UsageError) as caught:
            Results.open(place)
        assert "--out" in caught.value.hint


def test_a_file_that_was_made_for_nothing_does_not_stay(tmp_path: Path) -> None:
    Results.open(tmp_path / "r.jsonl").close()
    assert not list(tmp_path.iterdir())
    (tmp_path / "r.jsonl").touch()
    Results.open(tmp_path / "r.jsonl").close()
    assert list(tmp_path.iterdir())


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    add(results, row("a"))

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(TraceNotWritten, match="No space left"):
            add(results, row("b"))
    assert [one["id"] for one in rows(results.path)] == ["a"]
    add(results, row("c"))
    assert [one["id"] for one in rows(results.path)] == ["a", "c"]
    results.close()


def test_a_file_that_was_replaced_meanwhile_takes_nothing(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    results.path.unlink()
    with pytest.raises(TraceNotWritten):
        add(results, row("a"))
    results.path.write_text("somebody else's")
    with pytest.raises(TraceNotWritten, match="replaced"):
        add(results, row("a"))
    results.close()
    assert results.path.read_text() == "somebody else's"


def test_traces_are_some_hundreds_in_a_folder_and_none_takes_the_place_of_another(tmp_path: Path) -> None:
    traces = Traces(tmp_path, begun=249)
    with traces.place("a") as first, traces.place("A") as second, traces.place("b") as third:
        assert first == tmp_path / "000" / "a.ipynb"
        assert third == tmp_path / "001" / "b.ipynb"
        third.parent.mkdir()
        third.touch()
        assert second.name == "A.ipynb"
        with traces.place("B") as fourth, traces.place("b") as fifth:
            assert (fourth.name, fifth.name) == ("B-2.ipynb", "b-3.ipynb")


def test_the_index_has_each_trace_with_its_id_and_how_it_ended(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.jsonl")
    made = row_of(entry("../a"), done(), Totals(), 1, tmp_path) | {"trace": "r.traces/000/a.ipynb"}
    add(results, made, row("b", failure=LASTING))
    results.close()
    write_index(tmp_path / "r.traces", results.path)
    (line,) = (tmp_path / "r.traces" / "index.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["trace"], found["id"], found["status"]) == ("000/a.ipynb", "../a", "answered")


def test_numbers_that_json_does_not_have_are_null_in_the_results() -> None:
    line = encoded(row("a") | {"value": {"x": [math.nan, 1.5, -math.inf]}, "answer": "\ud83d"})
    found = json.loads(line, parse_constant=pytest.fail)
    assert (found["value"], found["answer"]) == ({"x": [None, 1.5, None]}, "\ud83d")
