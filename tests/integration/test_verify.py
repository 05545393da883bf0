"""`rlm verify` over a run in real containers: all of it holds, and whatever is changed is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM
from rlm_kernel.session.verify import Verified
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.tampering import (
    TAMPERINGS,
    Tampering,
    cell,
    change,
    copied,
    record,
    reseal,
    said,
)

pytestmark = pytest.mark.xdist_group("verify")
FOR_CELLS = [one for one in TAMPERINGS if one.by == "cells"]
OFFLINE = [one for one in TAMPERINGS if one.by not in ("", "cells")]


@pytest.fixture(scope="module")
def recorded(kernel_image: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("verified"))


@pytest.fixture
def trace(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the trace with all that belongs to it, to be changed."""
    return copied(recorded, tmp_path / "copy")


def verify(trace: Path, *, cells: bool = False, **options: Any) -> Verified:
    return RLM().verify(trace, cells=cells, folders=[trace.parent], progress=False, **options)


def faults(found: Verified, name: str) -> str:
    return "\n".join(fault for claim in found.claims if claim.name == name for fault in claim.faults)


def test_all_of_a_run_holds(rlm: Rlm, recorded: Path) -> None:
    done = rlm("verify", str(recorded), "--strict", "--report", str(recorded.with_suffix(".html")), "--json")
    found = json.loads(done.stdout)
    verdicts = {claim["claim"]: claim["verdict"] for claim in found["claims"]}
    assert set(verdicts.values()) == {"holds"}, found
    assert set(verdicts) >= {"form", "seal", "files", "prompts", "evidence", "account", "answer", "code"}
    assert set(verdicts) >= {"shown", "children", "report", "cells"}
    assert done.returncode == 0
    assert found["seal"] == read_trace(recorded).meta.seal
    assert [child["seal"] != "" for child in found["children"]] == [True]


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda one: one.name)
def test_a_change_is_named_by_the_seal(trace: Path, tampering: Tampering) -> None:
    change(trace, tampering.how, sealed=False)
    assert tampering.named in faults(verify(trace), "seal")


@pytest.mark.parametrize("tampering", OFFLINE, ids=lambda one: one.name)
def test_a_change_that_was_sealed_anew_is_named_by_another_claim(trace: Path, tampering: Tampering) -> None:
    noted = read_trace(trace).meta.seal
    change(trace, tampering.how, sealed=True)
    found = verify(trace, seal=noted[:16])
    assert tampering.resealed in faults(found, tampering.by), found.as_json()
    assert "the seal that was given" in faults(found, "seal")


@pytest.mark.parametrize("tampering", FOR_CELLS, ids=lambda one: one.name)
def test_a_change_of_what_cells_gave_is_found_by_running_them(trace: Path, tampering: Tampering) -> None:
    change(trace, tampering.how, sealed=True)
    assert tampering.resealed in faults(verify(trace, cells=True), "cells")


def _byte(trace: Path) -> None:
    path = trace.with_name("a.txt")
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello", 1))


def _crlf(trace: Path) -> None:
    path = trace.with_name("a.txt")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def _prompts(trace: Path) -> None:
    path = next(trace.parent.glob("*.prompts.zst"))
    raw = path.read_bytes()
    path.write_bytes(raw[:-20] + bytes(20))


def _of_child(how: Callable[[Any], object], *, sealed: bool = False) -> Callable[[Path], None]:
    return lambda trace: change(next((trace.parent / "t.children").glob("*.ipynb")), how, sealed=sealed)


def _in_report(ending: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(trace: Path) -> None:
        path = trace.with_suffix(ending)
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return edit


BESIDE: list[tuple[str, Callable[[Path], None], str, str, str]] = [
    ("file-byte", _byte, "files", "a.txt has changed: its size is the same, its sha256 is not", ""),
    ("file-line-endings", _crlf, "files", "Only its line endings differ", ""),
    ("prompts", _prompts, "prompts", "file of prompts", ""),
    ("prompts-seal", _prompts, "seal", "the file of prompts was changed", ""),
    ("prompts-gone", lambda trace: next(trace.parent.glob("*.zst")).unlink(), "seal", "the file of prompts is not there", ""),
    ("child-answer", _of_child(said("answer", "206", "9")), "children", "answer: the text was changed", ""),
    ("child-resealed", _of_child(said("answer", "206", "9"), sealed=True), "seal", "the trace of the child RLM", ""),
    ("child-record", _of_child(lambda node: cell(node, "answer")["metadata"]["rlm"].update(text="9")), "children", "is not the one that the call", ""),
    ("child-gone", lambda trace: next((trace.parent / "t.children").glob("*.ipynb")).unlink(), "children", "does not exist", ""),
    ("html", _in_report(".html", "3 March", "4 March"), "report", "t.html: line", ".html"),
    ("md", _in_report(".md", "3 March", "4 March"), "report", "t.md: line", ".md"),
    ("jsonl", _in_report(".jsonl", "About when?", "Never"), "report", "(turn-02-a ", ".jsonl"),
    ("jsonl-line-gone", lambda trace: trace.with_suffix(".jsonl").write_text("".join(trace.with_suffix(".jsonl").read_text().splitlines(True)[1:])), "report", "t.jsonl", ".jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "claim", "named", "report"), BESIDE, ids=[one[0] for one in BESIDE])
def test_a_change_beside_the_notebook_is_named(
    trace: Path, name: str, how: Callable[[Path], None], claim: str, named: str, report: str
) -> None:
    how(trace)
    options = {"report": trace.with_suffix(report)} if report else {}
    assert named in faults(verify(trace, **options), claim)


def test_a_missing_file_is_named_and_no_cell_is_run(trace: Path, recorded: Path) -> None:
    def moved(node: Any) -> None:
        node["metadata"]["rlm"]["files"][0]["path"] = "/nowhere/b.txt"

    change(trace, moved, sealed=True)
    found = verify(trace, cells=True)
    assert "/nowhere/b.txt is not there" in faults(found, "files")
    assert [claim.verdict for claim in found.claims if claim.name == "cells"] == ["not checked"]


def test_a_save_without_a_change_breaks_nothing(trace: Path) -> None:
    """As JupyterLab and VS Code do it."""
    node = nbformat.read(trace, 4)
    node.metadata.kernelspec.display_name = "Python 3.13 ('venv')"
    node.metadata.language_info.version = "3.13.1"
    node.metadata["vscode"] = {"interpreter": {"hash": "0" * 64}}
    for one in node.cells:
        one.metadata["trusted"] = True
        one.metadata["editable"] = True
        if one.cell_type == "code":
            one.metadata["scrolled"] = False
            one.metadata["vscode"] = {"languageId": "python"}
    nbformat.write(node, trace)
    trace.write_bytes(trace.read_bytes().replace(b"\n", b"\r\n"))  # git's core.autocrlf
    found = verify(trace)
    assert found.holds, found.as_json()
    assert [claim.verdict for claim in found.claims if claim.name == "seal"] == ["holds"]


def test_exit_codes_and_words(rlm: Rlm, trace: Path) -> None:
    good = rlm("verify", str(trace), "--no-replay")
    assert good.returncode == 0
    assert good.stdout.endswith("\nNothing is broken. Not checked: cells.\n")
    assert rlm("verify", str(trace), "--no-replay", "--strict").returncode == 1
    assert rlm("verify", str(trace), "--no-replay", "--seal", "0" * 64).returncode == 1
    assert rlm("verify", str(trace), "--no-replay", "--file", "b.txt=/x").returncode == 2
    assert rlm("verify", str(trace.with_name("none.ipynb"))).returncode == 2
    change(trace, lambda node: node["metadata"]["rlm"].update(limits="none"), sealed=False)
    broken = rlm("verify", str(trace))
    assert broken.returncode == 1
    assert "limits" in broken.stdout
    assert broken.stdout.endswith("\nDo not rely on this trace: form broken.\n")


def test_a_trace_that_goes_on_has_no_seal_until_it_is_closed_again(trace: Path) -> None:
    from rlm_kernel.trace.writer import NotebookWriter

    found = read_trace(trace)
    writer = NotebookWriter(trace, found.meta, (), found.node.cells)
    writer.question("And then?")
    writer.release()  # it was killed
    assert read_trace(trace).meta.seal == ""
    change(trace, lambda node: node["metadata"]["rlm"].update(status="finished"), sealed=False)
    assert [one.verdict for one in verify(trace).claims if one.name == "seal"] == ["not checked"]
    reseal(trace)
    assert [one.verdict for one in verify(trace).claims if one.name == "seal"] == ["holds"]
