"""`%%rlm` in real JupyterLab, in a headless Chromium, as a person has it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page

from tests.integration.test_jupyterlab import Lab, page, server
from tests.support.jupyter import containers_of

__all__ = ["page"]

SET_UP = r'''
import os
import pandas as pd
from rlm_kernel import RLM, ScriptedModels

tickets = pd.DataFrame({
    "id": range(1, 61),
    "text": [f"Order {n}: {'it came broken' if n % 4 else 'thank you, all is well'}" for n in range(1, 61)],
})
ROOT = [
    """The table has a ticket in each row. I have each one read, and count.
```repl
texts = [row["text"] for row in records()]
kinds = llm_query_batched([f"Is this a complaint, yes or no? {text}" for text in texts])
print(Counter(kinds))
```""",
    """```repl
FINAL(f"**{kinds.count('yes')} of {len(kinds)}** tickets are complaints.")
```""",
]
scripted = RLM(models=ScriptedModels(ROOT, lambda prompt: "yes" if "broken" in prompt else "no"))
endless = RLM(models=ScriptedModels(["""```repl
print("I wait")
import time; time.sleep(600)
```"""]))
print(os.getpid())
'''
CELLS = (
    "%load_ext rlm_kernel\n%rlm --rlm scripted",
    "%%rlm tickets --as share\nHow many of these tickets are complaints?",
    "share",
)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    made = new_notebook(cells=[new_code_cell(SET_UP.strip(), metadata={"jupyter": {"source_hidden": True}})])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "n.ipynb")
    return folder / "n.ipynb"


def test_a_question_in_jupyterlab_is_shown_linked_and_stopped(
    kernel_image: Any, notebook: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="j") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        with server(notebook.parent) as (url, _):
            lab = Lab(page, tmp_path)
            lab.open(f"{url}lab/tree/n.ipynb?token=t")
            lab.command("notebook:run-all-cells")
            output = page.locator(".jp-OutputArea-output pre").first
            output.wait_for(timeout=30_000)
            pid = int(output.inner_text())
            lab.run_new_cell(CELLS[0])
            shown = lab.run_new_cell(CELLS[1])
            assert "Answered · 2 turns · 60 sub-calls" in shown
            assert "45 of 60 tickets are complaints." in shown
            assert lab.run_new_cell(CELLS[2]).endswith("'**45 of 60** tickets are complaints.'")
            lab.picture("asked")
            wrong = lab.run_new_cell("%rlm ticket -- How many?")
            assert wrong == "UsageError: There is no variable ticket in this notebook.\nDid you mean tickets?"

            lab.type("%%rlm --rlm endless tickets\nHow long?")
            page.wait_for_function(f"() => ({_LAST})().includes('I wait')", timeout=30_000)
            lab.picture("works")
            assert len(containers_of(pid)) == 1
            lab.command("notebook:interrupt-kernel")
            page.wait_for_function(f"() => ({_LAST})().includes('the question was stopped')", timeout=30_000)
            assert containers_of(pid) == []
            lab.picture("stopped")

            page.locator(".jp-OutputArea a").first.click()
            page.wait_for_selector(
                ".jp-NotebookPanel:not(.lm-mod-hidden) >> text=kinds.count", timeout=30_000
            )
            lab.picture("trace")
        assert os.listdir(runtime) == []


_LAST = "() => [...document.querySelectorAll('.jp-CodeCell')].at(-1).querySelector('.jp-OutputArea')?.innerText ?? ''"
