"""`%%rlm` in a notebook that a program executes, in papermill, and in IPython: with real containers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from rlm_kernel import RLM
from rlm_kernel.trace.reader import read_trace
from tests.support.examples import ROOT
from tests.support.jupyter import containers_of

SET_UP = r"""
import os
import re
from pathlib import Path
import pandas as pd
from rlm_kernel import RLM, ScriptedModels

def by_code(*cells):
    replies = [f"```repl\n{cell}\n```" for cell in cells]
    return RLM(models=ScriptedModels(lambda messages: replies[
        sum(message["role"] == "assistant" for message in messages) % len(replies)
    ]))

shown = by_code("print(sorted(files)); FINAL(str(context))")
listed = by_code("FINAL(['a', 'b'])")
counts = by_code("n = globals().get('n', 0) + 1; FINAL(f'{n}: {sorted(files)}')")
endless = by_code("print('be' + 'gun', flush=True); import time; time.sleep(600)")
cites = by_code("print(context)", "FINAL(f'A line {cite(grep(chr(108))[0])}')")
COUNTS = "n = globals().get('n', 0) + 1; FINAL([n, int(budget()['seconds'] is not None)])"
bounded = RLM(models=ScriptedModels(lambda _: f'```repl\n{COUNTS}\n```'), options={"limits.seconds": 500})
numbers = by_code(COUNTS)
table, text, conf = pd.DataFrame({"a": [1, 2]}), "some words", {"k": 1}
Path("a.log").write_text("a line\n")
log = Path("a.log")
print(os.getpid())
%load_ext rlm_kernel
"""


class _Stopping(NotebookClient):
    """Presses the stop button once code in the container has printed `begun`."""

    _pressed: asyncio.Task[Any] | None = None

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if self._pressed is None and "begun" in str(msg["content"].get("data", "")):
            self._pressed = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))
        return super().process_message(msg, cell, cell_index)


def executed(
    folder: Path, *cells: str, client: type[NotebookClient] = NotebookClient, **options: Any
) -> list[Any]:
    """The cells as they are after their run, behind those that set up."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in (SET_UP, *cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    given: dict[str, Any] = {
        "resources": {"metadata": {"path": str(folder)}},
        "allow_errors": True,
        **options,
    }
    client(notebook, **given).execute()
    nbformat.validate(notebook)
    assert notebook.cells[0].outputs[0].output_type == "stream", notebook.cells[0].outputs
    return list(notebook.cells)


def answer(cell: Any) -> str:
    return str(cell.outputs[-1].data["text/plain"])


def test_variables_of_a_notebook_reach_the_kernel_as_what_they_are(kernel_image: Any, tmp_path: Path) -> None:
    _, one, plain, mixed, typed, bound = executed(
        tmp_path,
        "%%rlm --rlm shown text\nWhat's {in} it?",
        "%%rlm --rlm shown text conf\nWhat is in them?",
        "%%rlm --rlm shown table text conf log\nWhat is in the files?",
        "%%rlm --rlm listed -t list[str] --as found --trace my.ipynb\nWhich?",
        "print(found, _rlm.trace.name)",
    )
    assert "'some words'" in answer(one)
    assert "{'text': 'some words', 'conf': {'k': 1}}" in answer(plain)
    (called,) = (tmp_path / "rlm-traces").glob("*what-is-in-the-files.ipynb")
    output = next(cell for cell in read_trace(called).node.cells if cell.get("id") == "turn-01-a")["outputs"][
        0
    ]
    assert output["text"] == "['a.log', 'conf.json', 'table.parquet', 'text.txt']\n"
    assert bound.outputs[0].text == "['a', 'b'] my.ipynb\n"
    assert "<b>Answered</b>" in typed.outputs[0].data["text/html"]
    for trace in [*(tmp_path / "rlm-traces").glob("*.ipynb"), tmp_path / "my.ipynb"]:
        assert RLM().replay(trace).same, trace
    assert mixed.outputs[-1].output_type == "execute_result"


def test_a_kept_kernel_has_its_variables_in_the_next_cell_and_ends_with_the_notebook(
    kernel_image: Any, tmp_path: Path
) -> None:
    start, first, second, status, new, stopped, last = executed(
        tmp_path,
        "%%rlm --rlm counts --keep text\nFirst?",
        "%%rlm --rlm counts --keep text table\nSecond?",
        "%rlm status",
        "%%rlm --rlm counts --new conf\nThird?",
        "%rlm stop",
        "%%rlm --rlm counts --keep text\nFourth?",
    )
    assert "\"1: ['text.txt']\"" in answer(first)
    assert "\"2: ['table.parquet', 'text.txt']\"" in answer(second)
    assert "questions   2" in status.outputs[0].text
    assert "\"1: ['conf.json']\"" in answer(new)
    assert stopped.outputs[0].text.startswith("The kernel has ended. Its trace: ")
    assert "\"1: ['text.txt']\"" in answer(last)
    assert containers_of(int(start.outputs[0].text)) == []
    assert len(list((tmp_path / "rlm-traces").glob("*-session-notebook*.ipynb"))) == 3
    replayed = RLM().replay(min((tmp_path / "rlm-traces").glob("*-session-notebook*.ipynb")))
    assert replayed.same, [(verdict.cell, verdict.verdict, verdict.diff) for verdict in replayed.verdicts]


def test_a_kept_kernel_takes_the_options_of_each_question(kernel_image: Any, tmp_path: Path) -> None:
    _, first, printed, second, elsewhere, cited, fresh = executed(
        tmp_path,
        "%%rlm --rlm numbers --keep text --trace mine.ipynb -t list[int] --as found\nFirst?",
        "print(found, _rlm.trace.name, type(found[0]).__name__)",
        "%%rlm --rlm numbers --keep\nSecond?",
        "%%rlm --rlm numbers --keep --trace other.ipynb\nElsewhere?",
        "%%rlm --rlm cites --keep log --cite\nWhich line?",
        "%%rlm --rlm numbers --new --trace other.ipynb\nAnother kernel?",
    )
    assert answer(first).startswith("<Result '[1, 0]'")
    assert printed.outputs[0].text == "[1, 0] mine.ipynb int\n"
    assert answer(second).startswith("<Result '[2, 0]'"), "the type was that of one question"
    assert "The kept kernel has a trace already" in elsewhere.outputs[-1].traceback[0]
    assert "Evidence: 1 passage" in cited.outputs[-1].data["text/html"]
    assert answer(fresh).startswith("<Result '[1, ")
    assert (tmp_path / "mine.ipynb").exists()
    assert (tmp_path / "other.ipynb").exists()


def test_the_time_of_a_question_in_a_kept_kernel_is_its_own(kernel_image: Any, tmp_path: Path) -> None:
    _, bounded, free = executed(
        tmp_path,
        "%%rlm --rlm numbers --keep text\nFirst?",
        "%%rlm --rlm bounded --keep\nSecond?",
        "%%rlm --rlm numbers --keep\nThird?",
    )[1:]
    assert "'[2, 1]'" in answer(bounded)
    assert "'[3, 0]'" in answer(free)


def test_the_stop_button_ends_the_run_and_its_container(kernel_image: Any, tmp_path: Path) -> None:
    start, stopped, after = executed(
        tmp_path,
        "%%rlm --rlm endless text\nHow long?",
        "print(len(_rlm.answer)) if '_rlm' in globals() else print('none')",
        client=_Stopping,
    )
    assert "<b>Interrupted</b>" in stopped.outputs[0].data["text/html"]
    assert stopped.outputs[1].traceback == ["KeyboardInterrupt: the question was stopped."]
    assert after.outputs[0].text == "none\n"
    assert containers_of(int(start.outputs[0].text)) == []


def test_papermill_gives_parameters_to_options_and_ends_at_an_error(
    kernel_image: Any, tmp_path: Path
) -> None:
    notebook = new_notebook(
        cells=[
            new_code_cell("asks = 'listed'", metadata={"tags": ["parameters"]}),
            new_code_cell(SET_UP),
            new_code_cell("%%rlm --rlm {asks} text --as found\nWhat?"),
            new_code_cell("print(found)"),
            new_code_cell("%%rlm txt\nWhat?"),
            new_code_cell("print('never')"),
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    options: dict[str, Any] = {"parameters": {"asks": "shown"}, "cwd": str(tmp_path), "progress_bar": False}
    with pytest.raises(papermill.PapermillExecutionError, match="Did you mean text"):
        papermill.execute_notebook(str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), **options)
    cells = [cell for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells if cell.cell_type == "code"]
    assert cells[4].outputs[0].text == "some words\n"
    assert cells[-1].outputs == []


def test_ipython_without_a_notebook_shows_the_run_on_stderr(kernel_image: Any, tmp_path: Path) -> None:
    code = (
        SET_UP.replace("%load_ext rlm_kernel\n", "")
        + "%rlm --rlm shown text -- What's in it?\nprint(_rlm)\nprint('wrong next')\n"
        "%rlm txt -- What?\n"
    )
    (tmp_path / "s.ipy").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", "--ext=rlm_kernel", "s.ipy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TERM": "dumb"},
    )
    assert "some words\nwrong next\n" in done.stdout
    assert "Answered: 1 turn" in done.stderr
    assert (
        "UsageError: There is no variable txt in this notebook.\nDid you mean text?"
        in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_the_example_of_the_page_gives_what_it_says(kernel_image: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "magics.md").read_text("utf-8").partition("## An example that ran")[2]
    blocks = re.findall(
        r"^```(ipython|text)\n(.*?)\n```$", page.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    *_, last = executed(tmp_path, *(text for kind, text in blocks if kind == "ipython"))
    assert [text for kind, text in blocks if kind == "text"] == [last.outputs[0].data["text/plain"]]
