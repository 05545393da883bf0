"""Quotations of texts that only a kernel can read, such as a PDF's, are checked in a fresh one. Real containers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.proof.seal import seal_of
from rlm_kernel.trace.reader import read_trace
from tests.support.filekinds import pdf
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("quotations")]
CODE = "FINAL(f\"It broke {cite('pump broke')}.\")"
LIES = """
import rlm_runtime.citing as citing
citing.stands = lambda *_: True
files.clear()
FINAL(f"It broke.")
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(pdf("All is well.", "On Monday the pump broke."))
    return path


def trace_of(report: Path, code: str = CODE) -> Path:
    trace = report.with_name("t.ipynb")
    rlm = RLM(models=ScriptedModels([repl(code)]), options={"sandbox.memory": "512m"})
    rlm.ask("Why?", report, trace=trace)
    return trace


def forge(trace: Path, change: Mapping[str, Any]) -> None:
    """Change the quotation, or give the answer one, and seal the trace anew."""
    found = json.loads(trace.read_text("utf-8"))
    (meta,) = [cell["metadata"]["rlm"] for cell in found["cells"] if cell["id"] == "answer"]
    meta["evidence"] = [{**one, **change} for one in meta.get("evidence") or [{}]]
    trace.write_text(json.dumps(found), "utf-8")
    found["metadata"]["rlm"]["seal"] = seal_of(read_trace(trace).node, trace)
    trace.write_text(json.dumps(found), "utf-8")


def evidence_of(trace: Path, **options: Any) -> Any:
    return next(one for one in RLM().verify(trace, **options).claims if one.name == "evidence")


def test_a_quotation_of_a_pdf_is_looked_up_in_a_fresh_kernel(report: Path) -> None:
    trace = trace_of(report)
    assert evidence_of(trace).verdict == "holds"
    without = evidence_of(trace, cells=False)
    assert without.verdict == "not checked"
    assert "only a kernel can read" in without.said
    forge(trace, {"quote": "pump works"})
    broken = evidence_of(trace)
    assert broken.verdict == "broken"
    assert "[1] does not stand there in the text of" in broken.faults[0]


def test_code_of_the_trace_has_no_say_in_it(report: Path) -> None:
    trace = trace_of(report, LIES)
    text = {"mark": 1, "path": str(report), "start": 0, "end": 8, "quote": "Not true", "unit": "characters"}
    forge(trace, text)
    assert evidence_of(trace).verdict == "broken"
