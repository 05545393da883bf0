"""The tutorial runs from its first cell to its last, and is the same as a page and as a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

from tests.support.examples import ROOT, script

TUTORIAL = script("tutorial")
SCRIPTED = """
from rlm_kernel import RLM, ScriptedModels

REPLIES = {
    'and "db-1"': "FINAL(len(grep('db-1 ERROR')))",
    'and "web-1"': "FINAL(len(grep('web-1 ERROR')))",
    "How many lines of this log": "FINAL(len(grep('ERROR')))",
    "largest sum": "FINAL(str(pd.DataFrame(records()).groupby('city')['amount'].sum().idxmax()))",
    "Which files": "FINAL(sorted(name for name, text in files.items() if 'budget' in text))",
}

def reply(messages):
    said = str(messages)
    _, code = max(REPLIES.items(), key=lambda item: said.rfind(item[0]))
    return f"```repl\\nimport pandas as pd\\n{code}\\n```"

scripted = RLM(models=ScriptedModels(reply))
%rlm --rlm scripted
"""


def test_every_cell_of_the_tutorial_runs(kernel_image: Any, tmp_path: Path) -> None:
    made = TUTORIAL.notebook(model=SCRIPTED)
    for cell in made.cells:
        if cell.source.startswith("%rlm --limit"):
            cell.source = "%rlm"  # scripted has limits of its own
    TUTORIAL.run(made, tmp_path)
    by_source = {cell.source: cell for cell in made.cells if cell.cell_type == "code"}
    asked = [cell for source, cell in by_source.items() if source.startswith("%%rlm")]
    assert len(asked) > 6
    for cell in asked:
        assert "<b>Answered</b>" in cell.outputs[0].data["text/html"], cell.source
        assert "text/markdown" in cell.outputs[1].data
    printed = "".join(
        output.text
        for cell in by_source.values()
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert "'changed'" not in printed
    assert re.search(r"^True \[\('parameters', 'same'\)", printed, re.MULTILINE), printed
    assert "broken" not in printed
    page = TUTORIAL.page(made)
    assert page.count("\n> ") >= len(asked)


def test_page_and_notebook_are_of_the_same_run_and_of_the_source() -> None:
    kept = nbformat.read(TUTORIAL.NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(kept)
    parts = list(TUTORIAL.parts(TUTORIAL.SOURCE.read_text("utf-8")))
    assert [cell.source for cell in kept.cells] == [part.text for part in parts]
    assert TUTORIAL.PAGE.read_text("utf-8") == TUTORIAL.page(kept)
    assert not [
        cell for cell in kept.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]


def test_the_tutorial_tells_nothing_of_the_machine_that_made_it() -> None:
    text = TUTORIAL.NOTEBOOK.read_text("utf-8")
    assert not re.search(r"/(?:home|root|Users|work)/", text)
    assert len(text) < 300_000
    assert ROOT.name not in re.findall(r"/tmp/([\w-]+)", text)
