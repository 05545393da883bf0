"""Checking traces that are old, odd, damaged or made to do harm, without a kernel."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, UsageError
from rlm_kernel.engine.events import CellFinished, RunFinished, TurnReplied, TurnStarted
from rlm_kernel.engine.evidence import final_body
from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.engine.protocols import Answer, Completion, Evidence, Outcome, Shares, Totals, Usage
from rlm_kernel.session import documents
from rlm_kernel.session.sources import provenance
from rlm_kernel.session.verify import Verified, verify
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import stream
from tests.support.examples import TRACES
from tests.support.hostile_page import hostile_trace
from tests.support.tampering import cell, reseal
from tests.support.trace import call, meta, result, tell

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
SECRET = "sk-live-0123456789abcdef"
CODE = "FINAL('five')"


def check(path: Path, **options: Any) -> Verified:
    return asyncio.run(verify(path, cells=False, **options))


def verdicts(found: Verified) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in found.claims}


def faults(found: Verified, name: str) -> str:
    return "\n".join(fault for claim in found.claims if claim.name == name for fault in claim.faults)


def write(
    path: Path, *calls: Any, secrets: Any = (), answer: str = "five", evidence: Any = (), **changes: Any
) -> Path:
    """A small run that holds together."""
    from rlm_kernel._version import __version__

    size = final_body(len(answer), evidence)
    final = call(
        9,
        kind="final",
        prompt_digest=digest("final", size),
        preview=json.dumps(size),
        answer=len(answer),
        model=None,
        usage=Usage(),
        cost=None,
        seconds=0.0,
    )
    spent = Totals(1, len(calls), Usage(100, 20), known_cost=0.5 + 0.25 * len(calls), models=Shares())
    for _ in calls:
        spent.sub_usage += Usage(10, 2, 1)
    writer = NotebookWriter(path, meta(**{"files": [], "rlm_version": __version__, **changes}), secrets)
    reply = f"Now this.\n```repl\n{CODE}\n```"
    tell(
        writer,
        [
            TurnStarted(1),
            TurnReplied(1, Completion(reply, "openai/root", Usage(100, 20), 0.5, 1.0), "Now this."),
            CellFinished(1, result("turn-01-a", CODE, outputs=[stream("hello\n")], calls=(*calls, final))),
            RunFinished(Outcome(Answer(answer, evidence=evidence), "answered"), spent),
        ],
    )
    return path


def edit(path: Path, change: Callable[[Any], object]) -> None:
    node = json.loads(path.read_text("utf-8"))
    change(node)
    path.write_text(json.dumps(node), "utf-8")


def test_a_small_run_holds(tmp_path: Path) -> None:
    found = check(write(tmp_path / "t.ipynb", call(1), call(2)))
    assert found.holds, found.as_json()
    assert not found.complete
    assert {name for name, verdict in verdicts(found).items() if verdict != "holds"} == {"prompts", "cells"}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_projects_notebooks_of_any_version_are_not_broken(path: Path) -> None:
    found = check(path, folders=[NOTEBOOKS])
    # The hundred megabytes of one are made by the script, and not kept.
    kept = all((NOTEBOOKS / Path(file.path).name).exists() for file in read_trace(path).meta.files)
    broken = {name for name, verdict in verdicts(found).items() if verdict == "broken"}
    assert broken <= (set() if kept else {"files"}), found.as_json()


def test_a_trace_with_redacted_secrets_holds(tmp_path: Path) -> None:
    one = call(1, preview=f"Is {SECRET} a key?", answer=f"{SECRET} is")
    found = check(write(tmp_path / "t.ipynb", one, secrets=[SECRET], question=f"Who has {SECRET}?"))
    assert found.holds, found.as_json()


def test_a_run_with_failed_and_lost_calls_may_have_used_more_than_its_cells_have(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ipynb", call(1))
    edit(path, lambda node: node["metadata"]["rlm"]["totals"].update(calls=3, failed=2))
    assert verdicts(check(path))["account"] == "holds"
    edit(path, lambda node: node["metadata"]["rlm"]["totals"].update(calls=0))
    assert "calls: the totals say 0, the cells come to 1" in faults(check(path), "account")


def test_a_damaged_trace_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ipynb")
    edit(path, lambda node: node["metadata"]["rlm"].update(limits=7))
    found = check(path)
    assert verdicts(found) == {"form": "broken"}
    assert "limits" in faults(found, "form")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"PK\x03\x04", b'{"cells": 1}'])
def test_what_is_no_notebook_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.ipynb").write_bytes(content)
    assert verdicts(check(tmp_path / "t.ipynb")) == {"form": "broken"}


def test_a_trace_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check(tmp_path / "t.ipynb")


def test_hostile_texts_break_nothing_but_what_they_are(tmp_path: Path) -> None:
    found = check(hostile_trace(tmp_path / "t.ipynb"))
    assert verdicts(found)["seal"] == verdicts(found)["shown"] == "broken"
    json.dumps(found.as_json())


@pytest.mark.parametrize(
    "link", ["t.ipynb", "../other.ipynb", "/etc/passwd", "t.children/pipe.ipynb", "x" * 5_000]
)
def test_a_child_that_is_no_child_is_not_opened(tmp_path: Path, link: str) -> None:
    folder = tmp_path / "own"
    (folder / "t.children").mkdir(parents=True)
    import os

    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "t.children" / "pipe.ipynb")
    write(tmp_path / "other.ipynb")
    path = write(folder / "t.ipynb", call(1, kind="rlm_query", trace=link))
    assert faults(check(path), "children")


def test_a_cell_that_the_run_did_not_write_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ipynb")
    new = {"cell_type": "markdown", "id": "mine", "metadata": {}, "source": "## Answer\n\nsix"}
    edit(path, lambda node: node["cells"].append(new))
    found = check(path)
    assert "mine: the run did not write this cell" in faults(found, "shown")
    assert "mine: the text was added" in faults(found, "seal")


def test_a_file_of_prompts_that_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ipynb", call(1))
    edit(path, lambda node: node["metadata"]["rlm"].update(prompts="t.prompts.zst"))
    (tmp_path / "t.prompts.zst").write_bytes(b"no zstd at all")
    assert "file of prompts" in faults(check(path), "prompts")


def test_a_report_of_another_kind_or_nowhere_is_wrong_usage(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ipynb")
    for report in ("t.pdf", "none.html"):
        with pytest.raises(UsageError):
            check(path, report=tmp_path / report)


def test_python_has_the_claims(tmp_path: Path) -> None:
    found = RLM().verify(write(tmp_path / "t.ipynb"), cells=False, progress=False)
    assert (found.holds, len(found.seal)) == (True, 64)


LOG = "0000 INFO all is well\n0001 ERROR the pump broke\n"
CITED = Evidence(1, "", 22, 47, "0001 ERROR the pump broke", line=2, verdict="verbatim")
FORGED: list[tuple[dict[str, Any], str]] = [
    ({"start": 23, "end": 48}, "does not stand at bytes 23 to 48"),
    ({"quote": "0001 ERROR the pump works"}, "there stands '0001 ERROR the pump broke'"),
    ({"path": "/etc/passwd"}, "is no file of the trace"),
    ({"line": 1}, "[1] stands in line 2 of"),
    ({"unit": "characters"}, "says that the host has read it"),
    ({"unit": "characters", "verdict": "unread", "line": 0, "quote": "the pump works"}, "stands nowhere in"),
    ({"encoding": "utf-16-le"}, "does not stand at bytes"),
]
DELIVERED: list[dict[str, Any]] = [
    {"mark": 2},
    {"start": 33, "quote": "the pump broke"},
    {"unit": "characters", "verdict": "unread", "line": 0},
]


def cited(tmp_path: Path, name: str = "app.log", text: str = LOG, **changes: Any) -> Path:
    """A small run whose answer has evidence."""
    log = tmp_path / name
    log.write_text(text)
    one = replace(CITED, path=str(log), **changes)
    files = [FileMeta(path=str(log), size=len(text), sha256=hashlib.sha256(text.encode()).hexdigest())]
    return write(tmp_path / "t.ipynb", evidence=(one,), files=files)


def forge(path: Path, change: dict[str, Any]) -> None:
    """Change the quotation as whoever can write the trace can, and seal it anew."""
    edit(path, lambda node: cell(node, "answer")["metadata"]["rlm"]["evidence"][0].update(change))
    reseal(path)


def test_an_answer_with_evidence_holds(tmp_path: Path) -> None:
    found = verdicts(check(cited(tmp_path)))
    assert (found["evidence"], found["answer"], found["shown"], found["seal"]) == ("holds",) * 4


@pytest.mark.parametrize(("change", "named"), FORGED)
def test_forged_evidence_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = cited(tmp_path)
    forge(path, change)
    found = check(path)
    assert verdicts(found)["seal"] == "holds"
    assert named in faults(found, "evidence")
    assert "the answer's box" in faults(found, "shown") or change == {"encoding": "utf-16-le"}


@pytest.mark.parametrize("change", DELIVERED)
def test_evidence_that_is_there_and_was_not_delivered_is_named(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = cited(tmp_path)
    forge(path, change)
    assert "its evidence is not that which was delivered" in faults(check(path), "answer")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", "<p>the <b>pump</b> broke</p>"),
        ("page", "<!doctype html><p>the <b>pump</b> broke"),
        ("a.txt", "the\r\npump\ufeff   broke"),
        ("a.eml", "Subject: x\n\nthe=20pump=20broke"),
        ("a.txt", "\x1b$B;v8N\x1b(B"),
    ],
)
def test_a_quotation_of_what_a_reader_may_have_made_is_no_forgery(
    tmp_path: Path, name: str, text: str
) -> None:
    quote = "事故" if "\x1b" in text else "the pump broke"
    path = cited(tmp_path, name, text, quote=quote, unit="characters", verdict="unread", line=0)
    assert verdicts(check(path))["evidence"] == "not checked"


def test_marks_of_evidence_are_no_numbers_of_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(LOG)
    path = write(tmp_path / "t.ipynb", answer="It broke [1].", evidence=(replace(CITED, path=str(log)),))
    assert [piece.text for piece in provenance(read_trace(path)).answer.pieces] == ["It broke."]


def test_a_report_with_sources_cannot_be_checked_without_the_files(tmp_path: Path) -> None:
    path = cited(tmp_path)
    trace, report = read_trace(path), tmp_path / "t.md"
    report.write_text(documents.markdown(trace, provenance(trace)), "utf-8")
    assert verdicts(check(path, report=report))["report"] == "holds"
    (tmp_path / "app.log").unlink()
    found = verdicts(check(path, report=report))
    assert (found["files"], found["report"]) == ("broken", "not checked")
    report.write_text(documents.markdown(trace), "utf-8")
    assert verdicts(check(path, report=report))["report"] == "holds"


def test_a_report_as_editors_and_shells_on_windows_write_it_holds(tmp_path: Path) -> None:
    path, report = write(tmp_path / "t.ipynb"), tmp_path / "t.md"
    made = documents.markdown(read_trace(path)).replace("\n", "\r\n")
    for data in (made.encode("utf-8-sig"), made.encode("utf-16"), made.rstrip().encode()):
        report.write_bytes(data)
        assert verdicts(check(path, report=report))["report"] == "holds"
    report.write_bytes(made.replace("five", "four").encode("utf-16"))
    assert verdicts(check(path, report=report))["report"] == "broken"


def test_a_report_that_is_not_there_is_told_before_anything_is_checked(tmp_path: Path) -> None:
    heard: list[Any] = []
    with pytest.raises(UsageError) as refused:
        check(NOTEBOOKS / "server-log-scripted.ipynb", report=tmp_path / "r.html", tell=heard.append)
    assert "rlm export" in (refused.value.hint or "")
    assert not heard
