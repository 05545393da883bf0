"""A real kernel lies in everything that it says: the run reaches its answer, and each value is read or
unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import pytest

from rlm_kernel import RLM, InternalError, ScriptedModels
from rlm_kernel.engine.protocols import Message
from tests.integration.conftest import Rlm
from tests.support import lies
from tests.support.model_server import ModelServer

FIRST = [
    lies.TOOLS,
    lies.MESSAGES,
    "print('kept', 1 + 1)",
    lies.CALLS,
    lies.HEX,
    lies.DIES,
    lies.DEAD,
    lies.TOOLS,
    lies.CHILD,
]
SECOND = [lies.OWN_WORDS]


def blocks(*cells: str) -> list[str]:
    return [f"Work.\n```repl\n{cell}\n```" for cell in cells]


async def test_a_kernel_that_lies_in_everything_it_says_still_comes_to_an_answer(
    kernel_image: Any, tmp_path: Path
) -> None:
    file = tmp_path / "t.txt"
    file.write_text("some text\n" * 5_000)  # too long to be shown whole, so that code must look at it
    script = iter(
        blocks(*FIRST, "print(len(context))\nFINAL('first')", *SECOND, "FINAL('second')", "FINAL('third')")
    )
    child = iter(blocks(f"{lies.TOOLS}\nprint(len(context))\n{lies.DEEP}"))
    shown: list[str] = []

    async def root(messages: Sequence[Message]) -> str:
        if "Question: go deep" in str(messages):
            return next(child)
        if "Question: q" in str(messages):
            return blocks("print(context)\nFINAL('q')")[0]
        shown.append(messages[-1]["content"])
        return next(script)

    options = {"memory_compaction.enabled": False}  # the script has no summary
    rlm = RLM(models=ScriptedModels(root, lambda prompt: "reply"), options=options)
    async with rlm.session("lies", paths=[file]) as kept:
        first = await kept.ask("What?")
        second = await kept.ask("And then?")
        status = await kept.status()
        third = await kept.ask("And at last?")
    assert [result.answer for result in (first, second, third)] == ["first", "second", "third"]
    talk = "\n".join(shown)
    for told in (
        "told\nshown",
        "kept 2",
        "True True",
        "child: deep",
        "Lost are all variables that cells had made: contextlib",
    ):
        assert told in talk, told
    assert status.variables == {"kept": "int", "?": "str"}
    assert [file["name"] for file in status.as_json()["files"]] == ["t.txt"]
    assert status.lines()
    notebook = nbformat.read(first.trace, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.rlm.status == "finished"


def test_a_fault_of_our_own_closes_the_trace_and_is_told(
    rlm: Rlm, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise RecursionError("too deep")

    openai_env.root = blocks("print(len(context))", "FINAL(1)")
    Path("t.txt").write_text("text")
    monkeypatch.setattr("rlm_kernel.engine.messages.parts", fail)
    done = rlm("ask", "What?", "-f", "t.txt", "-m", "openai/root", "--trace", "run.ipynb")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    for told in (
        "a bug in rlm_kernel: RecursionError: too deep",
        "run.ipynb",
        "1 turn",
        "rlm resume run.ipynb",
        "rlm --debug",
    ):
        assert told in done.stderr, done.stderr
    about = nbformat.read("run.ipynb", 4).metadata.rlm
    assert (about.status, about.stop_reason, about.totals.turns) == ("finished", "error", 1)
    monkeypatch.setattr("rlm_kernel.engine.loop.Loop.run", fail)
    with pytest.raises(InternalError, match="too deep"):
        RLM(models=ScriptedModels([])).ask("What?", "text", trace="python.ipynb")
    assert nbformat.read("python.ipynb", 4).metadata.rlm.status == "finished"
