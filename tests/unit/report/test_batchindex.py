"""The page that leads to the traces of a batch, from results of any kind."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rlm_kernel.report import batchindex
from rlm_kernel.session.batch.traces import write_index

HOSTILE = "</td></table><script>bad()</script><img src=x onerror=bad()>\"'& {{ 7 * 7 }} \u202e\x00\ud83d"


def line(id_: str | int, **changes: Any) -> dict[str, Any]:
    row = {"id": id_, "status": "answered", "digest": "", "attempt": 1, "question": f"Asked {id_}?"}
    return row | {"answer": f"answer of {id_}", "known_cost": 0.25, "seconds": 3, "trace": None} | changes


def written(folder: Path, *rows: dict[str, Any]) -> str:
    results = folder / "q.results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_index(folder / "q.results.traces", results)
    return (folder / "q.results.traces" / "index.html").read_text("utf-8")


class Seen(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name == "href"]


def test_each_question_has_one_row_that_says_how_it_ended_last(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        line("a", status="failed", error={"kind": "ModelError", "message": "no\nway"}, answer=None),
        line("b", status="no_answer", stop_reason="cost", detail="Used up.", answer=None),
        line("a", answer="yes\nand more"),
        line("c", status="failed", error={"kind": "FileRefused", "message": "gone"}, answer=None),
    )
    assert "3 questions: 1 answered, 1 without an answer, 1 failed · $1.00" in page, "all attempts are paid"
    assert page.count("<tr class=") == 3
    assert "yes …" in page
    assert "cost: Used up." in page
    assert "FileRefused: gone" in page
    assert "ModelError" not in page


def test_links_lead_to_the_notebook_and_to_the_page_that_was_exported_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "q.results.traces" / "000"
    folder.mkdir(parents=True)
    (folder / "b #1.html").touch()
    page = written(
        tmp_path,
        line("a", trace="q.results.traces/000/a.ipynb"),
        line("b", trace="q.results.traces/000/b #1.ipynb"),
        line("c", trace="javascript:alert(1)"),
        line("d", trace="//evil.example/x"),
        line("e", trace=["x"]),
    )
    assert Seen(page).links == [
        "000/a.ipynb",
        "000/b%20%231.html",
        "000/b%20%231.ipynb",
        "../javascript%3Aalert%281%29",
        Seen(page).links[4],
    ]
    assert re.match(r"(\.\./)+", Seen(page).links[4]), "a path of this machine, and no host"


@pytest.mark.parametrize(
    ("trace", "links"), [("/drive/a.ipynb", ["file:///drive/a.ipynb"]), ("//evil.example/x/a.ipynb", [])]
)
def test_traces_on_another_drive_are_named_as_a_whole_and_no_other_host_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: str, links: list[str]
) -> None:
    def relpath(*_: Any) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    if trace.startswith("//"):  # as Windows has it
        monkeypatch.setattr(os.path, "abspath", lambda path: trace)
        monkeypatch.setattr(Path, "as_uri", lambda self: f"file:{trace}")
    page = written(tmp_path, line("a", trace=trace))
    assert Seen(page).links == links
    assert json.loads((tmp_path / "q.results.traces" / "index.jsonl").read_text())["trace"] == trace


def test_what_others_have_said_is_text_on_the_page(tmp_path: Path) -> None:
    plain = Seen(written(tmp_path, line("a")))
    page = written(
        tmp_path,
        line(HOSTILE, question=HOSTILE, answer=HOSTILE),
        line("f", status="failed", error={"kind": HOSTILE, "message": HOSTILE}),
        line("n", status="no_answer", stop_reason=HOSTILE, detail=HOSTILE),
    )
    seen = Seen(page)
    assert set(seen.tags) == set(plain.tags) | {"em"}
    assert seen.tags.count("script") == 1
    assert seen.names == plain.names
    assert "{{ 7 * 7 }}" in page
    assert not re.search("[\u202e\x00\ud83d]", page)


@given(
    some.dictionaries(
        some.sampled_from(["question", "answer", "known_cost", "seconds", "unpriced", "trace", "detail"]),
        some.none()
        | some.booleans()
        | some.integers()
        | some.floats()
        | some.text()
        | some.lists(some.text()),
    )
)
def test_fields_of_any_kind_make_a_page(tmp_path_factory: Any, odd: dict[str, Any]) -> None:
    assert "1 question" in written(tmp_path_factory.mktemp("odd"), line("a", **odd))


def test_more_rows_than_a_page_has_go_on_further_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchindex, "PAGE_ROWS", 2)
    written(tmp_path, *(line(f"q{number}") for number in range(5)))
    names = ["index.html", "index-2.html", "index-3.html"]
    found = [(tmp_path / "q.results.traces" / name).read_text("utf-8") for name in names]
    assert [re.findall(r"<td>(q\d)</td>", page) for page in found] == [["q0", "q1"], ["q2", "q3"], ["q4"]]
    assert [Seen(page).links for page in found] == [names[1:], [names[0], names[2]], names[:2]]
