"""What an applied trace is judged by: names, forms of inputs, results; without a kernel."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.cli.apply import split
from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import CellResult, Totals
from rlm_kernel.errors import NoRecord, UsageError
from rlm_kernel.session.applying.applied import Applied
from rlm_kernel.session.applying.asked import questions_of
from rlm_kernel.session.applying.counterparts import New, counterparts
from rlm_kernel.session.applying.expectations import is_empty, surprise, surprising_answer
from rlm_kernel.session.applying.inputform import InputForm, broken, guessed
from rlm_kernel.session.applying.needed import needed_models
from rlm_kernel.session.applying.turns import Choices
from rlm_kernel.session.environment import silent
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.replaying import RunAgain
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, CellMeta, FileMeta
from tests.support.trace import WHEN, meta


def old(*paths: str) -> list[FileMeta]:
    return [FileMeta(path=path.rstrip("/"), size=1, directory=path.endswith("/")) for path in paths]


def new(*paths: str) -> list[New]:
    return [New(Path(path.rstrip("/")), path.endswith("/")) for path in paths]


def pairs(then: list[FileMeta], now: list[New], **given: New) -> dict[str, str]:
    return {one.old.path: str(one.new.path) for one in counterparts(then, now, given).pairs}


def test_files_stand_for_each_other_by_name_then_by_kind_and_order() -> None:
    assert pairs(old("/a/x.log"), new("/b/y.txt")) == {"/a/x.log": "/b/y.txt"}
    assert pairs(old("/a/b.csv", "/a/a.csv"), new("/n/c.csv", "/n/b.csv")) == {
        "/a/b.csv": "/n/b.csv",
        "/a/a.csv": "/n/c.csv",
    }
    assert pairs(old("/a/x.log", "/a/notes/"), new("/n/mine/", "/n/y.log")) == {
        "/a/x.log": "/n/y.log",
        "/a/notes": "/n/mine",
    }
    given = new("/n/z.csv")[0]
    assert pairs(old("/a/a.csv", "/a/b.csv"), new("/n/a.csv"), **{"a.csv": given}) == {
        "/a/a.csv": "/n/z.csv",
        "/a/b.csv": "/n/a.csv",
    }
    with pytest.raises(UsageError):
        counterparts(old("/a/a.csv"), [], {"q.csv": given})


def test_files_whose_names_share_a_word_stand_for_each_other_in_any_order() -> None:
    then = old("/a/sales.csv", "/a/refunds.csv")
    assert pairs(then, new("/n/april-refunds.csv", "/n/april-sales.csv")) == {
        "/a/sales.csv": "/n/april-sales.csv",
        "/a/refunds.csv": "/n/april-refunds.csv",
    }
    assert pairs(then, new("/n/x1.csv", "/n/x2.csv")) == {
        "/a/sales.csv": "/n/x1.csv",
        "/a/refunds.csv": "/n/x2.csv",
    }
    both = new("/n/other.csv", "/n/sales-refunds.csv")
    assert pairs(then, both) == {"/a/sales.csv": "/n/other.csv", "/a/refunds.csv": "/n/sales-refunds.csv"}


def test_quotes_in_a_new_name_end_no_string_of_the_code() -> None:
    files = counterparts(old("/o/jan.csv"), new('/n/Bob\'s "feb".csv'), {})
    code = files.in_code("read('jan.csv')")
    assert eval(code, {"read": str}) == 'Bob\'s "feb".csv'
    assert files.renamed("What is in jan.csv?") == 'What is in Bob\'s "feb".csv?'


@pytest.mark.parametrize(
    ("code", "renamed"),
    [
        ("files['app-01.log']", "files['web.log']"),
        ('grep("x", name="app-01.log")', 'grep("x", name="web.log")'),
        ("load_file('/old/app-01.log')", "load_file('/new/web.log')"),
        ("f'In app-01.log: {n}'", "f'In web.log: {n}'"),
        ("files['my-app-01.log']", "files['my-app-01.log']"),
        ("'app-01.log.gz'", "'app-01.log.gz'"),
        ("'/other/app-01.log'", "'/other/app-01.log'"),
        ("x = 'errors'; files['errors']", "x = 'errors'; files['faults']"),
        ("open('errors')", "open('faults')"),
        ("row['errors']", "row['errors']"),
        ("'a.csv' + 'b.csv'", "'b.csv' + 'c.csv'"),
    ],
)
def test_the_names_in_code_become_the_new_ones(code: str, renamed: str) -> None:
    then = old("/old/app-01.log", "/old/errors", "/old/a.csv", "/old/b.csv")
    now = new("/new/web.log", "/new/faults", "/new/b.csv", "/new/c.csv")
    given = {"app-01.log": now[0], "errors": now[1], "a.csv": now[2], "b.csv": now[3]}
    assert counterparts(then, now, given).renamed(code) == renamed


def test_code_that_chooses_files_by_a_part_of_their_old_names_is_seen() -> None:
    files = counterparts(old("/o/app-01.log"), new("/n/web-07.log"), {})
    assert files.left_over("[n for n in files if n.startswith('app')]") == "app"
    assert files.left_over("grep('x', name='app-*')") == "app-"
    assert not files.left_over("[n for n in files if n.endswith('.log')]")
    assert not files.left_over("row['app'].startswith('x')")


PATHS = st.text("ab./\\'[", min_size=1, max_size=6).filter(lambda name: ".." not in f"{name}x".split("/"))
"""What traces have: a path with .. is none."""


@given(st.text(max_size=60), st.lists(PATHS, max_size=4))
def test_any_code_and_any_names_are_borne(code: str, names: list[str]) -> None:
    files = counterparts(old(*(f"/o/{name}x" for name in names)), new(*(f"/n/{name}y" for name in names)), {})
    assert isinstance(files.renamed(code), str)


def told(form: str = "", *, kind: str = "str", more: str = "") -> InputForm:
    lines = [f"Context: {kind}, 90 characters in 1 piece.", more, f"Form: {form}" if form else ""]
    found = InputForm.told("\n".join(filter(None, lines)))
    assert found is not None
    return found


DATED = "a table with the columns \"date\", \"amount\"; rows = records(); rows[0] is {'date': '2026-03-01', 'amount': 2}"
LINES = (
    'lines with "date", "time", "word", "level", and "text", the whole line; rows = records(); '
    "rows[0] is {'line': 1, 'text': '2026-03-01 00:15:00 web-1 ERROR request 7'}"
)

TIMES = LINES.replace('"level", ', '"ms", ')
NAMELESS = (
    'a table with the columns "column_1", "column_2", whose names are not in the text; rows = records(); '
    "rows[0] is {'column_1': 1, 'column_2': 2}"
)


def noted(remark: str) -> str:
    return TABLE.replace("; rows = ", f"; {remark}; rows = ")


TABLE = "a table with the columns \"id\", \"amount\"; rows = records(); rows[0] is {'id': 1, 'amount': 2.5}"


@pytest.mark.parametrize(
    ("then", "now", "code", "why"),
    [
        (told(TABLE), told(TABLE), "", ""),
        (told(TABLE), told(TABLE.replace('"amount"', '"amount", "note"')), "", ""),
        (told(TABLE), told(TABLE.replace('"id", "amount"', '"amount", "id"')), "row['id']", ""),
        (
            told(TABLE),
            told(TABLE.replace('"id", "amount"', '"amount", "id"')),
            "line.split(',')[1]",
            "another order",
        ),
        (told(TABLE), told(TABLE.replace('"id"', '"new", "id"')), "csv.reader(f)", "another order"),
        (told(TABLE), told(TABLE.replace('"amount"', '"amount", "x"')), "line.split(',')[-1]", "at its end"),
        (told(TABLE), told(TABLE.replace("amount", "total")), "", "without 'amount', and with 'total'"),
        (told(TABLE), told(TABLE.replace("2.5", "'2 kg'")), "", "began with number and begins with text"),
        (told(TABLE), told(TABLE.replace("2.5", "''")), "", "begins with nothing"),
        (told(TABLE), told(), "", "is not any more"),
        (told(), told(TABLE), "", ""),
        (told(TABLE), told("JSON lines with " + TABLE[24:]), "", "it is JSON lines"),
        (told(kind="dict"), told(), "", "context is a text, and was a dict"),
        (told(), told(kind="LazyText"), "", ""),
        (told(more="Kinds: 3 .md"), told(more="Kinds: 9 .md"), "", ""),
        (told(more="Kinds: 3 .md"), told(more="Kinds: 9 .md, 1 .csv"), "", "kinds of files"),
        (told(), told(more="Note: a.txt: read as windows-1252"), "context", ""),
        (told(), told(more="Note: a.txt: read as windows-1252"), "open(path)", "encoded otherwise"),
        (told(), told(more="Note: a.txt: 3 undecodable places replaced"), "", "something new to be told"),
        (None, told(TABLE), "", ""),
        (told(DATED), told(DATED.replace("2026-03-01", "2026-04-30")), "row['date']", ""),
        (told(DATED), told(DATED.replace("2026-03-01", "01/03/2026")), "row['date']", "the dates in 'date'"),
        (told(DATED), told(DATED.replace("2026-03-01", "1 Mar 2026")), "df.date", "written otherwise"),
        (told(DATED), told(DATED.replace("2026-03-01", "01.03.2026")), "row['amount']", ""),
        (told(LINES), told(LINES.replace("web-1", "db-7")), "line.split()[2]", ""),
        (told(LINES), told(LINES.replace("00:15:00 ", "00:15:00,123 ")), "line.split()[2]", ""),
        (
            told(LINES),
            told(LINES.replace("2026-03-01 0", "2026-03-01T0")),
            "line.split()[2]",
            "word 1 of a line",
        ),
        (told(LINES), told(LINES.replace("web-1", "[17] web-1")), "line.split()[2]", "word 4 of a line"),
        (
            told(LINES),
            told(LINES.replace("web-1 ERROR", "ERROR web-1")),
            "re.match(x, line)",
            "word 3 of a line",
        ),
        (told(LINES), told(LINES.replace("web-1", "[17] web-1")), "grep('ERROR')", ""),
        (told(TABLE), told(noted("amount: '10,5' is 10.5")), "pd.read_csv(x)", "'10,5' is 10.5"),
        (told(LINES), told(LINES.replace("00 web", "00,123 web")), "line[20:25]", "begins at character"),
        (told(LINES), told(LINES.replace("00 web", "00,123 web")), "line[:10]", ""),
        (told(LINES), told(LINES.replace("web-1", "db-17")), "line[11:19]", ""),
        (
            told(LINES.replace("request 7", "has no error today")),
            told(LINES.replace("request 7", "is ready again now")),
            "line.split()[2]",
            "",
        ),
        (
            told(LINES),
            told(LINES.replace("request 7", "release 2.1 is up")),
            r"[int(x) for x in re.findall(r'\d+', x)]",
            "",
        ),
        (told(DATED), told(DATED.replace("'date': '2026-03-01', ", "")), "row['date']", ""),
        (
            told(LINES),
            told(LINES.replace('"level", ', '"level", "agent", ')),
            "line.split()[-1]",
            "have 'agent'",
        ),
        (told(LINES), told(LINES.replace('"level", ', '"level", "agent", ')), "line.split()[1]", ""),
        (
            told(LINES),
            told(LINES.replace("request 7", "request 1,700")),
            r"[int(x) for x in re.findall(r'\d+', x)]",
            "1,700 in a line",
        ),
        (told(LINES), told(LINES.replace("request 7", "request 1,700")), r"re.findall(r'[\d,]+', x)", ""),
        (
            told(LINES),
            told(LINES.replace("request 7", "error 7")),
            r"[int(x) for x in re.findall(r'\d+', x)]",
            "",
        ),
        (
            told(TIMES),
            told(TIMES.replace('"ms"', '"s"')),
            r"re.findall(r'took (\d+)', x)",
            "its numbers are s",
        ),
        (
            told(NAMELESS),
            told(NAMELESS.replace('"column_2"', '"column_2", "column_3"')),
            "r.split(',')[1]",
            "3 columns",
        ),
        (told(TABLE), told(noted("amount: '10,5' is 10.5")), "records()", ""),
        (told(TABLE), told(noted("amount: '10,5' is 10.5")), "records()[0]['name'].split()", ""),
        (told(TABLE), told(noted("amount: '10,5' is 10.5")), "context.split(',')", "'10,5' is 10.5"),
        (told(TABLE), told(noted("amount: 3 of 9 have no number but ''")), "pd.read_csv(x)", ""),
        (told(noted("amount: '1,5' is 1.5")), told(noted("amount: '10,7' is 10.7")), "csv.reader(x)", ""),
    ],
)
def test_the_form_of_an_input_is_compared_as_far_as_code_minds(
    then: InputForm | None, now: InputForm, code: str, why: str
) -> None:
    found = broken(then, now, code)
    assert why in found
    assert bool(why) == bool(found)


@given(st.text(max_size=300))
def test_any_first_message_is_read(message: str) -> None:
    form = InputForm.told(f"Context: str, 1 characters in 1 piece.\nForm: {message}")
    broken(form, form, message)


@pytest.mark.parametrize(
    "text", ["", " \n", "0", "0.0", "[]", "{}", "None", "nan", "0 []", "Empty DataFrame\nColumns: []", '{"a": 0}', '[""]']
)  # fmt: skip
def test_results_of_nothing_are_empty(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", ["no", "false", "False", "10", "0 of 5", "[0, 1]", '{"a": 0, "b": 2}', "-"])
def test_others_are_not(text: str) -> None:
    assert not is_empty(text)


def test_an_answer_of_nothing_is_no_answer_where_there_was_one() -> None:
    assert surprising_answer("17", "0")
    assert surprising_answer("mean 3", "mean nan")
    assert not surprising_answer("0", "0")
    assert not surprising_answer("a: 3, b: 4", "a: 0, b: 4")
    assert not surprising_answer("", "0")


def test_letters_of_a_code_page_that_was_guessed_are_a_surprise_in_an_answer() -> None:
    then, now = (
        InputForm.told(f"Context: str, 9 characters\n{note}") for note in ("", "Note: b.csv: read as cp1252")
    )
    assert guessed(then, now) == "cp1252"
    assert "guess" in surprising_answer("Gda\u0144sk", "Gda\u00f1sk", "cp1252")
    assert not surprising_answer("K\u00f6ln", "K\u00f6ln", "cp1252")
    assert not surprising_answer("3", "4", "cp1252")
    assert not surprising_answer("a.md", "\xe4.md", "cp1252", "\xe4.md")
    assert guessed(now, now) == ""
    assert guessed(then, InputForm.told("Context: str, 9 characters\nNote: b.csv: read as UTF-16-LE")) == ""


def ran(then: str, now: str, status: Any = "ok", **meta: Any) -> str:
    def outputs(text: str) -> list[dict[str, Any]]:
        return [{"output_type": "stream", "name": "stdout", "text": text}]

    cell = TraceCell("turn-01-a", True, "x", outputs(then), 1, CellMeta(kind="code", status="ok", **meta))
    result = CellResult("turn-01-a", "x", status, outputs(now), datetime.now(UTC), 0.1)
    return surprise(cell, result, 1.0)


@pytest.mark.parametrize(
    ("then", "now", "status"),
    [
        ("17", "0", "ok"),
        ("found: 3\nin all: 9", "found: 0\nin all: 9", "ok"),
        ("x = [1, 2]", "x = []", "ok"),
        ("something", "", "ok"),
        ("fine", "fine\nNote: column 'a' has text in 3 of 9 rows", "ok"),
        ("735", "101112-", "ok"),
        ("total: 735", "total: 10,511,51,5", "ok"),
        ("fine", "fine\n<ipython>:3: UserWarning: Parsing dates in %d/%m/%Y format", "ok"),
        ("fine", "", "timeout"),
        ("fine", "", "died"),
    ],
)
def test_results_that_are_not_of_the_kind_that_they_were_are_seen(then: str, now: str, status: str) -> None:
    assert ran(then, now, status)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("17", "18"),
        ("", ""),
        ("a: 3", "b: 0"),
        ("n: 0", "n: 0"),
        ("n: n/a\nn: 5", "n: n/a\nn: 5"),
        ("n: a1\nn: 5", "n: a1\nn: 5"),
        ("Note: 3 of 9", "Note: 4 of 12"),
        ("", "new"),
        ("1,735", "1735.5"),
        ("x: FutureWarning: a", "y.py:3: DeprecationWarning: b"),
        ("<x>:3: UserWarning: 3 rows", "<y>:9: UserWarning: 4 rows"),
    ],
)
def test_results_that_are_else_are_not_minded(then: str, now: str) -> None:
    assert not ran(then, now)


def test_a_path_with_an_equals_sign_that_is_there_is_a_path(isolated: Path) -> None:
    Path("a=b.csv").write_text("x")
    assert split(["a=b.csv", "jan.csv=feb.csv", "-"]) == (
        [Path("a=b.csv"), Path("-")],
        {"jan.csv": Path("feb.csv")},
    )


def test_the_line_tells_what_it_took_beside_the_first_run() -> None:
    first = Totals(turns=6, calls=120, known_cost=0.41)
    spent = Totals(calls=120, known_cost=0.02)
    assert (
        Applied(4, first).line(spent)
        == "applied without the root model: 4 cells, 120 sub-calls, $0.0200; the first run: 6 turns, "
        "120 sub-calls, $0.4100"
    )
    assert "the root model was woken at turn-02-a: it failed" in Applied(
        1, first, "turn-02-a", "it failed"
    ).line(spent)


def recorded(folder: Path, root: str, sub: str, *kinds: Literal["llm_query", "rlm_query"]) -> TraceFile:
    """A trace of these models whose one cell made calls of these kinds."""
    calls = [
        CallMeta(id=str(n), kind=kind, prompt_digest="x", preview="x", started=WHEN, seconds=0.1)
        for n, kind in enumerate(kinds)
    ]
    words = TraceCell("turn-01", False, "x", [], None, CellMeta(kind="model", turn=1))
    cell = TraceCell("turn-01-a", True, "x", [], 1, CellMeta(kind="code", turn=1, calls=calls))
    return TraceFile(folder / "t.ipynb", meta(models={"root": root, "sub": sub}), [words, cell], None)


def needed(
    trace: TraceFile, sub: str | None = None, *, reuse: bool = False
) -> tuple[Settings, AbstractAsyncContextManager[ModelSet]]:
    """The models for `rlm apply --no-root`."""
    again = RunAgain(None, {"sub_llm.model": sub}, {}, False, None)
    return needed_models(trace, questions_of(trace), again, Choices(root=False, reuse=reuse), silent)


async def test_without_the_root_model_code_that_calls_no_model_needs_none(isolated: Path) -> None:
    for root, sub in [("scripted/root", "scripted/sub"), ("openai/gpt-5", "openai/gpt-5-mini")]:
        async with needed(recorded(isolated, root, sub))[1] as models:
            assert models.names == {"root": root, "sub": sub}
            with pytest.raises(NoRecord) as raised:
                await models.models.complete([{"role": "user", "content": "x"}], role="sub")
            assert "--sub-model" in str(raised.value.hint)
    scripted = recorded(isolated, "scripted/root", "scripted/sub", "llm_query")
    async with needed(scripted, reuse=True)[1] as models:
        assert models.names["sub"] == "scripted/sub"


async def test_without_the_root_model_only_the_sub_model_needs_a_key(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    for trace, sub in [
        (recorded(isolated, "scripted/root", "scripted/sub", "llm_query"), "openai/gpt-5-mini"),
        (recorded(isolated, "anthropic/claude-sonnet-4-5", "openai/gpt-5-mini", "llm_query"), None),
    ]:
        async with needed(trace, sub)[1] as models:
            assert models.names == {"root": trace.meta.models["root"], "sub": "openai/gpt-5-mini"}
    scripted = recorded(isolated, "scripted/root", "scripted/sub", "llm_query")
    with pytest.raises(UsageError) as raised:
        needed(scripted)
    assert "--sub-model" in str(raised.value.hint)
    parent = recorded(isolated, "anthropic/claude-sonnet-4-5", "openai/gpt-5-mini", "rlm_query")
    assert needed(parent)[0].root_llm.model == "anthropic/claude-sonnet-4-5", "it leads the child RLMs"
