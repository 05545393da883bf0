"""The magics in an IPython shell; who is asked stands in for containers and models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel
from traitlets.config import Config

import rlm_kernel
from rlm_kernel import RLM, NoAnswer, Result, ScriptedModels
from rlm_kernel.engine.totals import Totals
from rlm_kernel.magics import magic, variables


class Asked:
    """What `RLM.ask` was given, and what it gives."""

    def __init__(self) -> None:
        self.given: list[tuple[RLM, str, Any, dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.answer: str | None = "42"
        self.value: Any = None

    def __call__(self, rlm: RLM, question: str, context: Any = None, **options: Any) -> Result:
        self.given.append((rlm, question, context, options))
        if self.error is not None:
            raise self.error
        totals = Totals(turns=2, known_cost=0.5)
        return Result(self.answer, self.value, options["trace"], "answered", False, "", totals)

    @property
    def last(self) -> tuple[str, Any]:
        _, question, context, _ = self.given[-1]
        return question, context


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(RLM, "ask", lambda *given, **options: found(*given, **options))
    return found


@pytest.fixture
def shell(isolated: Path) -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell.instance(config=config)
    made.run_line_magic("load_ext", "rlm_kernel")
    made.user_ns["scripted"] = RLM(models=ScriptedModels(str.upper))
    made.run_cell("%rlm --rlm scripted")
    yield made
    made.run_line_magic("unload_ext", "rlm_kernel")
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> Any:
    done = shell.run_cell(cell, store_history=False)
    done.raise_error()
    return done.result


def test_a_cell_asks_over_variables_by_name_and_gives_the_result(
    shell: InteractiveShell, asked: Asked
) -> None:
    shell.user_ns.update(notes="hello", rows=[1, 2])
    result = run(shell, "%%rlm notes rows --as found\nWhat's {in} $it?\nSay %it.\n")
    assert asked.last == ("What's {in} $it?\nSay %it.", {"notes": "hello", "rows": [1, 2]})
    assert result.answer == shell.user_ns["found"] == "42"
    assert shell.user_ns["_rlm"] is result
    assert asked.given[0][0] is shell.user_ns["scripted"]
    assert asked.given[0][3]["progress"]
    shown = result._repr_html_() + result._repr_markdown_()
    assert "42" in shown
    assert "trace" not in shown, "the line that the run has left says it already"


@pytest.mark.parametrize(
    ("line", "question", "context"),
    [
        ("%rlm What's new?", "What's new?", None),
        ("%rlm notes -- What's in it?", "What's in it?", "hello"),
        ("x = %rlm notes -- what?", "what?", "hello"),
        ("if notes:\n    %rlm notes -- Is it #5?", "Is it #5?", "hello"),
        ("%rlm -- notes?", "notes?", None),
        ("%rlm --as found notes -- Is it {notes}?", "Is it {notes}?", "hello"),
        ("%%time\n%%rlm notes\nHow long?", "How long?", "hello"),
        ("%%rlm notes\n\n  Is it?  \n\n", "Is it?", "hello"),
        ("%%rlm\n%%time is what?", "%%time is what?", None),
        ("%%rlm notes  # the notes\nWhat?", "What?", "hello"),
    ],
)
def test_questions_are_asked_as_they_are_written(
    shell: InteractiveShell, asked: Asked, line: str, question: str, context: Any
) -> None:
    shell.user_ns["notes"] = "hello"
    run(shell, line)
    assert asked.last == (question, context)


def test_the_help_of_ipython_still_works(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("%rlm?", "%%rlm?", "%rlm -h", "%rlm help"):
        run(shell, line)
        assert "Ask a question about variables of this notebook." in capsys.readouterr().out, line
    assert asked.given == []


def test_an_answer_of_a_type_is_bound_as_that(shell: InteractiveShell, asked: Asked) -> None:
    class Person(BaseModel):
        name: str

    shell.user_ns.update(Person=Person, notes="x")
    asked.value = [Person(name="Ada")]
    run(shell, "%%rlm -t list[Person] --as people notes\nWho?")
    assert shell.user_ns["people"] == [Person(name="Ada")]
    assert asked.given[-1][3]["answer_type"] == list[Person]


def test_what_has_no_answer_leaves_no_old_one(shell: InteractiveShell, asked: Asked) -> None:
    shell.user_ns["found"] = "of last week"
    asked.answer = None
    run(shell, "%rlm --as found -- What?")
    assert shell.user_ns["found"] is None


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            "%%rlm notse\nWhat?",
            "UsageError: There is no variable notse in this notebook.\nDid you mean notes?",
        ),
        ("%%rlm notes\n   \n", "UsageError: The question is empty."),
        ("%%rlm --modle x notes\nWhat?", "UsageError: There is no option --modle.\nDid you mean --model?"),
        ("%rlm notes What is it?", "UsageError: The question begins with notes, which is a variable here."),
        ("%rlm notes --", "UsageError: There is no question after --."),
        ("%rlm sttaus", "UsageError: %rlm sttaus: there is no such command"),
        ("%%rlm --as 3x\nWhat?", "UsageError: --as 3x: this is not a valid variable name."),
        ("%%rlm --as class\nWhat?", "UsageError: --as class: this is not a valid variable name."),
        ("%%rlm -t list[Persn]\nWho?", "UsageError: -t list[Persn]: Persn is not defined in this notebook."),
        ("%%rlm -t list[\nWho?", "UsageError: A bracket is not closed"),
        ("%%rlm -t 1/0\nWho?", "UsageError: -t 1/0 is not a type: division by zero."),
        ("%%rlm --rlm notes\nWho?", "UsageError: notes is not an RLM."),
        (
            "%%rlm --rlm scripted -m local\nWho?",
            "UsageError: scripted has its own models, limits and settings.",
        ),
        ("%%rlm --limit cost=1\nWho?", "UsageError: scripted has its own models, limits and settings."),
        ("%%rlm -m {modle}\nWho?", "UsageError: There is no variable modle in this notebook."),
        ("%%rlm --keep -t slice\nWho?", "UsageError: Answers cannot be of the type"),
        ("%%rlm -m local --timeout soon\nWho?", "ConfigError: limits.seconds"),
        ("%rlm -m local --limit turns=many", "ConfigError: limits.turns"),
    ],
)
def test_what_is_wrong_is_one_clear_line_and_fails_the_cell(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str], cell: str, says: str
) -> None:
    shell.user_ns["notes"] = "hello"
    done = shell.run_cell(cell, store_history=False)
    assert not done.success
    out = capsys.readouterr().out
    assert out.startswith(says), out
    assert "Traceback" not in out
    assert len(out.splitlines()) <= 3
    assert asked.given == []


def test_an_error_of_the_run_keeps_its_kind_and_cause(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.error = NoAnswer("It is no\x1b[31m int.", hint="Look into the trace.")
    asked.error.__cause__ = ValueError("deep")
    done = shell.run_cell("%%rlm\nHow many?")
    assert done.error_in_exec is asked.error
    assert done.error_in_exec.__cause__ is asked.error.__cause__
    assert capsys.readouterr().out.startswith(
        "NoAnswer: It is no\N{REPLACEMENT CHARACTER}[31m int.\nLook into"
    )


def test_an_interrupt_goes_on_so_that_later_cells_do_not_run(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.error = KeyboardInterrupt()
    done = shell.run_cell("%%rlm\nHow many?")
    assert isinstance(done.error_in_exec, KeyboardInterrupt)
    assert capsys.readouterr().out == "KeyboardInterrupt: the question was stopped.\n"


def test_settings_hold_for_the_cells_that_follow(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["model"] = "openai/gpt-5"
    run(shell, "%rlm -m {model} --limit cost=2")
    assert capsys.readouterr().out == "Set: root openai/gpt-5, sub openai/gpt-5; limits.cost=2.\n"
    run(shell, "%rlm --sub-model local")
    run(shell, "%%rlm --limit turns=3\nWhat?")
    settings = asked.given[-1][0].settings
    assert settings.root_llm.model == "openai/gpt-5"
    assert settings.sub_llm.model == "local"
    assert (settings.limits.cost, settings.limits.turns) == (2, 3)
    run(shell, "%%rlm\nAnd without?")
    assert asked.given[-1][0].settings.limits.turns != 3
    run(shell, "%%rlm --rlm scripted\nAnd this?")
    assert asked.given[-1][0] is shell.user_ns["scripted"]
    assert not shell.run_cell("%rlm --limit turns=x").success
    run(shell, "%%rlm\nWrong settings change nothing, do they?")
    assert asked.given[-1][0].settings.limits.cost == 2


def test_the_cost_is_that_of_all_questions(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "%rlm cost")
    run(shell, "%%rlm\nOne?")
    run(shell, "%rlm Two is it?")
    capsys.readouterr()
    run(shell, "%rlm cost")
    assert capsys.readouterr().out.startswith("2 questions: 4 turns, 0 sub-calls, 0 tokens, $1.0000")
    run(shell, "%rlm stop")
    assert capsys.readouterr().out == "No kernel is kept.\n"
    run(shell, "%rlm")
    assert "none; --keep keeps the kernel" in capsys.readouterr().out


def test_a_large_variable_is_told_of(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variables, "LARGE", 10_000_000)
    shell.user_ns["text"] = "x" * 60_000_000
    run(shell, "%%rlm text\nHow long?")
    assert "text (str) has about 0.1 GB, so rlm writes it to a file first." in capsys.readouterr().out


def test_tab_offers_options_commands_and_variables_that_can_be_asked_about(shell: InteractiveShell) -> None:
    shell.user_ns.update(notes_of_may="x", notes_function=len)

    def offered(text: str) -> list[str]:
        with provisionalcompleter():
            return [one.text for one in shell.Completer.completions(text, len(text))]

    assert offered("%%rlm notes_") == ["notes_of_may"]
    assert offered("%rlm st") == ["status", "stop"]
    assert "--sub-model" in offered("%%rlm notes_of_may --sub")
    assert "notes_of_may" not in offered("%rlm notes_of_may -- What are notes_")


def test_the_extension_can_be_loaded_anew_and_taken_away(
    shell: InteractiveShell, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(shell.input_transformer_manager.token_transformers)
    shell.run_line_magic("reload_ext", "rlm_kernel")
    assert len(shell.input_transformer_manager.token_transformers) == before
    shell.user_ns["mine"] = RLM(models=ScriptedModels(str.upper))
    run(shell, "%rlm --rlm mine Is it there?")
    shell.run_line_magic("unload_ext", "rlm_kernel")
    assert len(shell.input_transformer_manager.token_transformers) == before - 2
    assert not shell.run_cell("%rlm status").success
    shell.run_line_magic("load_ext", "rlm_kernel")


def test_importing_the_package_does_not_load_ipython() -> None:
    code = "import sys, rlm_kernel; rlm_kernel.RLM; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert callable(rlm_kernel.load_ipython_extension)
    assert magic.RESULT not in vars(rlm_kernel)
