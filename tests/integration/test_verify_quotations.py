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
from tests.integration.conftest import Rlm
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


def test_all_of_an_honest_run_with_evidence_holds(rlm: Rlm, report: Path, tmp_path: Path) -> None:
    """A text file and a PDF are quoted, by a child, too; then a further question, in a fork."""
    log = tmp_path / "app.log"
    log.write_text("".join(f"{n:04d} INFO all is well\n" for n in range(50)) + "0050 ERROR it *broke* <b>\n")
    first = (
        "child = rlm_query('the inner question', files['app.log'])\n"
        "told = llm_query('When? ' + files['app.log'][-200:])\n"
        "FINAL(f\"{cite(grep('ERROR', name='app.log')[0])} {cite('pump broke', name='report.pdf')} {child}\")"
    )

    def speak(messages: Any) -> str:
        if "further" in messages[-1]["content"]:
            return repl("FINAL(f\"{cite('0002 INFO')} {cite('All is well', name='report.pdf')}\")")
        inner = "inner question" in messages[1]["content"]
        return repl("FINAL(f\"Inside: {cite('0042 INFO')}\")" if inner else first)

    models = RLM(models=ScriptedModels(speak, lambda _: "At 0050."), options={"sandbox.memory": "512m"})
    asked = models.ask("Why?", [log, report], trace=tmp_path / "t.ipynb", cite=True)
    assert [one.unit for one in asked.evidence] == ["bytes", "characters"], asked
    forked = models.fork(asked.trace, "And the further question?")
    for trace in (asked.trace, forked.trace):
        for ending, how in ((".html", ()), (".md", ()), (".md", ("--no-sources",))):
            out = tmp_path / f"report{ending}"
            assert rlm("export", str(trace), f"--{ending[1:]}", "-o", str(out), *how).returncode == 0
            told = rlm("verify", str(trace), "--no-replay", "--json", "--report", str(out)).stdout
            claims = {one["claim"]: one["verdict"] for one in json.loads(told)["claims"]}
            assert {name for name, verdict in claims.items() if verdict != "holds"} == {"cells"}, told
        assert RLM().verify(trace, progress=False).complete
    page = tmp_path / "report.md"
    page.write_text(page.read_text().replace("0002 INFO", "0003 INFO"))
    assert "report.md: line" in rlm("verify", str(forked.trace), "--no-replay", "--report", str(page)).stdout
