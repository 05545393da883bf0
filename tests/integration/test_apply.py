"""`rlm apply`: traces of scripted root models, their code run on other inputs in real containers."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM, UsageError
from rlm_kernel.engine.protocols import Message
from rlm_kernel.errors import FileRefused
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.conversation import conversation
from rlm_kernel.session.result import Result
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.applications import KINDS, WOKEN, Kind, Made, cell, table, write
from tests.support.model_server import ModelServer

pytestmark = [pytest.mark.xdist_group("apply"), pytest.mark.usefixtures("kernel_image")]


def record(kind: Kind, folder: Path) -> Path:
    """The first run's trace."""
    given = write(kind.then, folder / "then", whole=kind.folder)
    models = ScriptedModels(kind.replies, kind.sub)
    trace = folder / "first.ipynb"
    result = RLM(models=models).ask(kind.question, given, trace=trace)
    assert result.answer, result
    return trace


def waking(kind: Kind, asked: list[Sequence[Message]]) -> ScriptedModels:
    def root(messages: Sequence[Message]) -> str:
        asked.append(list(messages))
        return cell(f"print(len(context))\nFINAL({WOKEN!r})")

    return ScriptedModels(root, kind.sub)


def apply(kind: Kind, trace: Path, new: Any, folder: Path, **options: Any) -> Result:
    given = write(new, folder, whole=kind.folder)
    asked: list[Sequence[Message]] = []
    result = RLM(models=waking(kind, asked)).apply(trace, given, out=folder.with_suffix(".ipynb"), **options)
    assert result.applied is not None
    assert result.applied.alone == (not asked)
    return result


LONG = ("json lines", "notes", "mended")
"""Kinds that are tried among the long tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.hostile] * (name in LONG)) for name in KINDS]
)
def test_code_gives_the_right_answer_on_other_inputs_or_the_root_model_is_woken(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    trace = record(kind, tmp_path)
    right = wrong = 0
    for number, (what, (new, answer)) in enumerate(kind.new.items()):
        result = apply(kind, trace, new, tmp_path / f"new-{number}")
        print(name, "|", what, "|", result.answer, "|", result.applied.woken, result.applied.why)
        wrong += result.answer != (answer or WOKEN)
        right += bool(answer)
    assert right >= 4
    assert not wrong


def first_run(tmp_path: Path, replies: Sequence[str], then: Made, question: str = "How many?") -> Path:
    return record(Kind(question, replies, then, {}), tmp_path)


def again(
    tmp_path: Path, trace: Path, new: Any, *, sub: Any = None, **options: Any
) -> tuple[Result, list[Sequence[Message]]]:
    """Apply to files of the folder `new`; the result, and what the root model was sent."""
    asked: list[Sequence[Message]] = []
    kind = Kind("", [], {}, {}, sub or (lambda _prompt: "ok"))
    given = write(new, tmp_path / "new", whole=False) if isinstance(new, dict) else new
    out = tmp_path / "applied.ipynb"
    return RLM(models=waking(kind, asked)).apply(trace, given, out=out, **options), asked


LINES = {"a.log": "ok 1\nerror 2\nerror 3\n" * 50}
NEW = {"b.log": "ok 1\nok 7\nerror 3\n" * 70}


@pytest.mark.parametrize(
    "last",
    [
        cell("FINAL('There are 100.')"),
        "FINAL(There are 100 errors.)",
        cell("found = 100\nFINAL(f'{found} errors')"),
        cell("counts = {'error': 100, 'ok': 50}\nFINAL(max(counts, key=counts.get))"),
        cell("FINAL(f'of {n} lines 100 are errors')"),
    ],
)
def test_yesterdays_answer_is_never_given_again(last: str, tmp_path: Path) -> None:
    look = cell("n = len(context.splitlines())\nprint(n, 'lines,', len(grep('error')), 'errors')")
    trace = first_run(tmp_path, [look, last], LINES)
    result, asked = again(tmp_path, trace, NEW)
    assert result.answer == WOKEN
    assert result.applied is not None
    assert result.applied.cells == 1
    assert result.applied.woken.startswith("turn-02")
    assert "1 lines" not in str(asked[0])
    sent = "\n\n".join(message["content"] for message in asked[0])
    assert "210 lines, 70 errors" in sent, "the root model has the output of now"
    assert "150 lines" not in sent, "and not that of then"
    assert "The code of an earlier run (first.ipynb)" in sent
    assert "The code that was not run:" in sent, "it sees what was not run"
    code = read_trace(result.trace).code_cells
    assert [one.id for one in code] == ["parameters", "setup", "turn-01-a", "turn-02-a"]
    assert WOKEN in code[-1].source, "the turn is the root model's own"


def test_without_the_root_model_it_ends_there_and_says_why(
    tmp_path: Path, rlm: Rlm, openai_env: ModelServer
) -> None:
    write(LINES, Path(), whole=False)
    write(NEW, Path(), whole=False)
    openai_env.root = [cell("print(len(grep('error')))"), cell("FINAL('100')")]
    models = ("-m", "openai/root", "--sub-model", "openai/sub")
    assert rlm("ask", "How many?", "-f", "a.log", *models, "--trace", "t.ipynb").returncode == 0
    done = rlm("apply", "t.ipynb", "-f", "b.log", "--no-root", "--trace", "n.ipynb")
    assert (done.returncode, done.stdout) == (1, "")
    assert "At turn-02-a: the answer does not depend on the input" in done.stderr
    assert "the root model is needed at turn-02-a" in done.stderr
    assert len(openai_env.requests) == 2, "no model was asked"
    assert read_trace(Path("n.ipynb")).meta.stop_reason == "no_answer"


def test_what_it_cost_stands_beside_the_first_run(
    tmp_path: Path, rlm: Rlm, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(LINES, Path(), whole=False)
    openai_env.root = [
        cell("print(len(context))"),
        cell(
            "said = llm_query_batched(context.splitlines()[:3])\nFINAL(f'{len(grep(\"error\"))}: {said[0]}')"
        ),
    ]
    models = ("-m", "openai/root", "--sub-model", "openai/sub")
    assert rlm("ask", "How many?", "-f", "a.log", *models, "--trace", "t.ipynb").stdout == "100: echo: ok 1\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(NEW["b.log"].encode())))
    done = rlm("apply", "t.ipynb", "-f", "-", "--trace", "n.ipynb")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "70: echo: ok 1\n"
    assert "applied without the root model: 2 cells, 3 sub-calls" in done.stderr
    assert "the first run: 2 turns, 3 sub-calls" in done.stderr
    assert Path("n.stdin.txt").read_text() == NEW["b.log"], "the notebook can be replayed"
    asked = len(openai_env.requests)
    told = rlm("apply", "t.ipynb", "-f", "n.stdin.txt", "--reuse", "--json", "--trace", "m.ipynb")
    found = json.loads(told.stdout)
    assert found["answer"] == "70: echo: ok 1"
    assert found["applied"]["woken"] is None
    assert found["applied"]["first_run"]["calls"] == 3
    assert (found["calls"], len(openai_env.requests)) == (1, asked + 1), "what was asked before is not asked"


def test_the_new_notebook_is_one_like_any_other(tmp_path: Path) -> None:
    replies = [
        cell("n = len(grep('error'))\nprint(n)"),
        cell("said = llm_query('Say ok')\nFINAL(f'{n} {said}')"),
    ]
    trace = record(Kind("How many?", replies, LINES, {}, lambda _prompt: "ok"), tmp_path)
    result, _ = again(tmp_path, trace, NEW)
    assert result.answer == "70 ok"
    found = read_trace(result.trace)
    nbformat.validate(found.node)
    assert [cell.id for cell in found.cells if cell.kind != "note"] == [
        "title", "parameters", "setup", "turn-01", "turn-01-a", "turn-02", "turn-02-a", "answer", "summary",
    ]  # fmt: skip
    origin = found.meta.origins[-1]
    assert (origin.kind, origin.trace, origin.cell) == ("apply", str(trace), "turn-02-a")
    assert "b.log" in found.code_cells[0].source
    assert found.spent().turns == 0
    assert found.spent().calls == 1
    assert RLM().replay(result.trace).same
    further = ScriptedModels([cell("FINAL(n + 1)")], lambda _prompt: "ok")
    assert RLM(models=further).fork(result.trace, "And one more?", out=tmp_path / "f.ipynb").answer == "71"
    onward, _ = again(tmp_path / "x", result.trace, {"c.log": "error 1\n" * 9})
    assert onward.answer == "9 ok", "what was applied is applied again"


def test_names_and_paths_in_code_are_those_of_the_new_files(tmp_path: Path) -> None:
    then = tmp_path / "then"
    replies = [
        cell("print(len(files['sales.csv']), len(files['codes.csv']))"),
        cell(
            f"load_file({str(then / 'sales.csv')!r})\nrows = records('sales.csv')\n"
            "names = {row['code']: row['name'] for row in records('codes.csv')}\n"
            "print('sales.csv', len(rows))"
        ),
        cell("FINAL('sales.csv: ' + ', '.join(f\"{names[row['code']]} {row['n']}\" for row in rows))"),
    ]
    codes = table([("x", "pear"), ("y", "plum")], "code,name")
    first = {"sales.csv": table([("x", 3), ("y", 4)], "code,n"), "codes.csv": codes}
    trace = first_run(tmp_path, replies, first, "What was sold, by sales.csv?")
    now = {"codes.csv": codes, "sales-may.csv": table([("y", 7), ("y", 1)], "code,n")}
    result, _ = again(tmp_path, trace, now)
    assert result.answer == "sales-may.csv: plum 7, plum 1", result.applied
    assert read_trace(result.trace).meta.question == "What was sold, by sales-may.csv?"
    named = {"one.csv": table([("x", 5)], "code,n"), "two.csv": codes}
    given = write(named, tmp_path / "named", whole=False)
    result, _ = again(tmp_path / "y", trace, None, files={"codes.csv": given[1], "sales.csv": given[0]})
    assert result.answer == "one.csv: pear 5"
    more = {**now, "third.csv": codes}
    result, asked = again(tmp_path / "z", trace, more)
    assert result.answer == WOKEN, "a file that no code reads"
    assert "there are 1 more now" in str(asked[0][-1])


def test_an_object_is_a_new_input_too(tmp_path: Path) -> None:
    replies = [cell("print(len(context))"), cell("FINAL(sum(one['n'] for one in context))")]
    models = ScriptedModels(replies)
    trace = tmp_path / "first.ipynb"
    RLM(models=models).ask("What is the sum?", [{"n": 3}, {"n": 4}], trace=trace)
    result, _ = again(tmp_path, trace, [{"n": 30}, {"n": 1}, {"n": 9}])
    assert (result.answer, result.value) == ("40", 40)
    result, _ = again(tmp_path / "x", trace, "just text")
    assert result.answer == WOKEN


def test_all_questions_are_applied_or_those_up_to_one(tmp_path: Path) -> None:
    trace = first_run(tmp_path, [cell("n = len(grep('error'))\nFINAL(n)")], LINES)
    both = tmp_path / "both.ipynb"
    RLM(models=ScriptedModels([cell("FINAL(n * 2)")])).fork(trace, "And twice?", out=both)
    result, asked = again(tmp_path, both, NEW)
    assert (result.answer, asked) == ("140", [])
    found = read_trace(result.trace)
    assert conversation(found) == [("How many?", "70"), ("And twice?", "140")]
    assert RLM().replay(result.trace).same
    one, _ = again(tmp_path / "x", both, NEW, question=1)
    assert one.answer == "70"
    with pytest.raises(UsageError, match="no question 3"):
        again(tmp_path, both, NEW, question=3)


def test_a_root_model_that_was_woken_answers_the_further_questions(tmp_path: Path) -> None:
    trace = first_run(tmp_path, [cell("print(100)"), cell("FINAL('100')")], LINES)
    both = tmp_path / "both.ipynb"
    RLM(models=ScriptedModels([cell("FINAL(len(context))")])).fork(trace, "How long?", out=both)
    result, asked = again(tmp_path, both, NEW)
    assert result.answer == WOKEN
    assert len(asked) == 2
    assert "How long?" in asked[1][-1]["content"]
    assert [text for text, _ in conversation(read_trace(result.trace))] == ["How many?", "How long?"]


@pytest.mark.parametrize(
    ("code", "sub", "why"),
    [
        ("said = [llm_query(one) for one in context.split()[:4]]\nprint(said)", None, "ended with an error"),
        (
            "said = llm_query_batched(context.split() if '7' in context else ['a'])\nprint(len(said))",
            "ok",
            "far more",
        ),
        ("said = [llm_query('a')] if '7' not in context else []\nprint('done')", "ok", "no sub-call"),
        ("print(grep('error') if '7' not in context else [])", "ok", "it gave []"),
        ("print('hits:', len(grep('error')) if '7' not in context else 0)", "ok", "hits: 0"),
        ("import math\nx = math.nan if '7' in context else 3.5\nprint('mean', len(context))", "ok", "nan"),
    ],
)
def test_the_root_model_is_woken_where_a_result_is_not_as_it_was(
    code: str, sub: str | None, why: str, tmp_path: Path
) -> None:
    replies = [cell(code), cell("FINAL(x if 'x' in dir() else len(context))")]
    trace = record(Kind("What?", replies, LINES, {}, lambda _prompt: "ok"), tmp_path)

    def failing(prompt: str) -> str:
        if sub is None:
            raise ValueError("no")
        return sub

    result, asked = again(tmp_path, trace, NEW, sub=failing)
    assert result.answer == WOKEN, result
    assert why in str(asked[0][-1]["content"])


def test_a_form_of_the_answer_and_cells_of_persons_are_kept(tmp_path: Path) -> None:
    given = write(LINES, tmp_path / "then", whole=False)
    trace = tmp_path / "first.ipynb"
    models = ScriptedModels([cell("n = len(grep('error'))\nprint(n)"), cell("FINAL([n, 1])")])
    RLM(models=models).ask("Which?", given, answer_type=list[int], trace=trace)
    node = nbformat.read(trace, as_version=4)
    place = next(at for at, one in enumerate(node.cells) if one.id == "turn-02")
    node.cells.insert(place, nbformat.v4.new_code_cell("factor = 3"))
    last = next(one for one in node.cells if one.id == "turn-02-a")
    last.source = "FINAL([n, factor * n])"
    nbformat.write(node, trace)
    result, _ = again(tmp_path, trace, NEW)
    assert result.applied is not None
    assert result.applied.cells == 3
    assert result.value == [70, 210]
    code = read_trace(result.trace).code_cells
    assert any(one.kind == "person" and one.source == "factor = 3" for one in code)
    assert "expect_answer" in code[1].source


def test_what_cannot_be_applied_is_refused_before_anything_runs(tmp_path: Path) -> None:
    trace = first_run(tmp_path, [cell("FINAL(len(context))")], LINES)
    with pytest.raises(UsageError, match="no new input"):
        RLM(models=ScriptedModels([])).apply(trace)
    with pytest.raises(UsageError, match="cannot write into the trace"):
        RLM(models=ScriptedModels([])).apply(trace, tmp_path / "then", out=trace)
    with pytest.raises(FileRefused):
        RLM(models=ScriptedModels([])).apply(trace, tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match=r"no file x\.csv"):
        RLM(models=ScriptedModels([])).apply(trace, files={"x.csv": tmp_path / "then" / "a.log"})
