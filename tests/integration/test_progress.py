"""`progress=True` in a notebook that a program executes, with a real kernel on either side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

SET_UP = """
import asyncio, threading, time
from rlm_kernel import RLM, ScriptedModels

def rlm(last="FINAL(len(loud))"):
    root = [
        "I look at <b>all</b> of $5 and $6.\\n```repl\\nloud = llm_query_batched(context)\\nprint(loud[0]); import time; time.sleep(1)\\n```",
        f"```repl\\n{last}\\n```",
    ]
    return RLM(models=ScriptedModels(root, str.upper), progress=True)
"""
ASKED = "result = rlm().ask('Which?', [f'{n} ' + 'word ' * 100 for n in range(30)]); result"
AT_ONCE = "await asyncio.gather(*(rlm().aask(question, ['a', 'b']) for question in ('One?', 'Two?')));"
THREADS = (
    "threads = [threading.Thread(target=rlm().ask, args=(question, ['a'])) for question in ('Here?', 'There?')]\n"
    "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
)
ROWS = (
    "rows = result.records(); print(len(rows), len(rows[0]['prompt']), len(result.calls), len(result.turns))"
)
STOPPED = "rlm('import time; time.sleep(600)').ask('How long?', ['a'])"


def test_each_run_in_a_notebook_has_a_display_that_ends_as_one_line(
    kernel_image: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    heard: list[str] = []

    class Client(NotebookClient):  # type: ignore[misc]
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] == "update_display_data":
                heard.append(msg["content"]["data"]["text/html"])
            return super().process_message(msg, cell, cell_index)

    notebook = new_notebook(cells=[new_code_cell(code) for code in (SET_UP, ASKED, AT_ONCE, THREADS, ROWS)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    options: dict[str, Any] = {"resources": {"metadata": {"path": str(tmp_path)}}, "allow_errors": True}
    Client(notebook, **options).execute()
    nbformat.validate(notebook)
    asked, at_once, threads, rows = ([dict(output) for output in cell.outputs] for cell in notebook.cells[1:])
    ends = [output["data"]["text/html"] for output in (asked[0], *at_once, *threads)]
    assert len(ends) == 5
    for end in ends:
        assert re.fullmatch(r"<div [^>]*><b>Answered</b> · 2 turns · \d+ sub-calls?, .*</a></div>", end)
        assert (tmp_path / re.findall('href="([^"]*)"', end)[0]).exists()
    assert asked[1]["data"]["text/html"].startswith("<div")
    assert asked[1]["data"]["text/plain"].startswith("<Result '30' · 2 turns · 30 sub-calls · $0.0000")
    assert rows[0]["text"] == "30 502 30 2\n"
    assert any("&lt;b&gt;all" in state and "llm_query_batched" in state for state in heard)
    assert not any("<b>all" in state for state in heard)

    stopped = new_notebook(cells=[new_code_cell(code) for code in (SET_UP, STOPPED)])
    stopped.metadata = notebook.metadata
    Client(stopped, **options, timeout=12, interrupt_on_timeout=True).execute()
    last, error = stopped.cells[1].outputs
    assert last.data["text/html"].count("<b>Interrupted</b> · 2 turns") == 1
    assert error.ename == "KeyboardInterrupt"
