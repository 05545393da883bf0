"""Code that has in it what the root model had read in the outputs of the first run: found, and not taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.session.applying.learned import Learned
from rlm_kernel.session.applying.literals import literals
from rlm_kernel.session.applying.typedin import TypedIn

LOG_THEN = "2026-03-01 web-1 ERROR timeout 812\n2026-03-01 web-2 INFO served 77\n"
LOG_NOW = "2026-04-09 web-7 INFO served 3\n2026-04-09 web-1 WARN slow request 145\n"


@dataclass(frozen=True)
class Case:
    """The cells before, each with what it gave then and gives now, and the code that is to run."""

    code: str
    before: Sequence[tuple[str, str, str]] = ()
    question: str = "What is in it?"
    input: str = LOG_NOW
    told: tuple[str, str] = ("", "")
    columns: Sequence[str] = field(default_factory=tuple)


def stale(case: Case) -> str:
    async def standing(texts: Sequence[str]) -> list[bool]:
        return [text in case.input for text in texts]

    async def ask() -> str:
        learned = Learned(case.question, standing)
        learned.told(*case.told, case.columns)
        for number, (code, then, now) in enumerate(case.before):
            learned.ran(f"turn-0{number + 1}-a", code, then, now)
        return await learned.stale(case.code)

    return asyncio.run(ask())


COUNTS = ("print(Counter(teams))", "Counter({'red': 5, 'blue': 3})", "Counter({'blue': 9, 'red': 2})")
MORE = (
    "print(Counter(teams))",
    "Counter({'red': 5, 'blue': 3})",
    "Counter({'red': 9, 'blue': 2, 'green': 1})",
)
PEEK = ("print(peek(0, 60))", LOG_THEN, LOG_NOW)
STALE = {
    "the answer's number": Case("FINAL(f'{42} errors')", [("print(len(hits))", "42", "17")]),
    "a number in the answer's words": Case(
        "FINAL(f'Of 1200 lines {n} are errors')", [("print(len(lines))", "1,200", "1,350")]
    ),
    "a small number in them": Case("FINAL(f'{name} has 7')", [("print(n)", "7", "9")]),
    "the name that led": Case("hits = grep('red')", [COUNTS]),
    "a list of all there were": Case("for team in ['red', 'blue']:\n    show(team)", [MORE]),
    "a set of all there were": Case("good = {'red', 'blue'}", [MORE]),
    "keys of a dict": Case("points = {'red': 1, 'blue': 2}", [MORE]),
    "a bound that was counted": Case(
        "for n in range(1237):\n    use(n)", [("print(len(lines))", "1237", "911")]
    ),
    "lines by their numbers": Case(
        "print(lines[137:251])", [("print(starts)", "[137, 251]", "[140, 260]")]
    ),
    "a chapter by its place": Case(
        "FINAL(chapters[4])", [("show()", "3: Staff\n4: Budget", "3: Staff\n4: Travel\n5: Budget")]
    ),
    "a number that is added": Case("total = 7 + len(grep('x'))", [("print(n)", "in a: 7", "in a: 9")]),
    "a text that was pasted into a prompt": Case(
        "llm_query('What does this mean?\\nconnection to the database lost')",
        [("print(kinds)", "48 connection to the database lost", "3 disk is full")],
        input="disk is full",
    ),
    "a name in a prompt": Case(
        "llm_query(f'Did Alice agree? {text}')", [("print(names)", "Alice, Bob", "Carol, Dan")], input="Carol"
    ),
    "a word of an excerpt that is not there now": Case("hits = grep('timeout')", [PEEK]),
    "a date of an excerpt": Case("day = [l for l in lines if l.startswith('2026-03-01')]", [PEEK]),
    "a value of the first message": Case(
        "rows = [r for r in rows if r['city'] == 'Oslo']", told=("Oslo, 5\n", "Bergen, 7\n"), input="Bergen, 7\n"
    ),
    "a part by its place": Case(
        "said = llm_query(str(lines[4410:4440]))", [("print(hits)", "line 4415", "line 17")]
    ),
    "a sheet of a workbook": Case(
        "rows = records('book.xlsx/Q3 2025')",
        [("print(list(files))", "['Q2 2025', 'Q3 2025']", "['Q3 2025', 'Q4 2025']")],
        input="Q3 2025",
    ),
    "in a cell that is no Python": Case(
        "%%bash\ngrep payroll-7 /x", [("print(top)", "payroll-7 x", "sales-3 y")], input="sales-3"
    ),
    "a list in one string": Case(
        "hosts = 'db1 db2'.split()", [("print(hosts)", "db1 db2", "db1 db2 db6")], input="db1 db2 db6"
    ),
    "an id": Case("one = find('INV-20931')", [("print(ids)", "INV-20931 INV-1", "INV-7 INV-8")]),
    "in a pattern": Case("grep(r'\\bpayroll-\\d+')", [("print(top)", "payroll-12 x", "sales-3 y")], input="sales-3"),
}  # fmt: skip
FINE = {
    "a bound": Case("print(context[:3000])", [PEEK]),
    "a size of pieces": Case("for part in chunks(20_000):\n    use(part)", [("print(n)", "20,000", "7")]),
    "a threshold of the question": Case(
        "slow = [r for r in rows if r['ms'] > 812]", [PEEK], question="How many take more than 812 ms?"
    ),
    "a word of the question": Case("hits = grep('ERROR')", [PEEK], question="How many errors are there?"),
    "a word of code before": Case(
        "n = counts['ERROR']", [("counts = count('ERROR')\nprint(counts)", "{'ERROR': 9}", "{'WARN': 2}")]
    ),
    "a name of a column": Case(
        "sum(r['amount'] for r in rows)", [("print(rows[0])", "{'amount': 9}", "{'amount': 3}")], columns=["amount"]
    ),
    "a key that is there now": Case(
        "total = data['items']", [("print(list(data))", "['items', 'day']", "['items', 'day']")]
    ),
    "a word of an excerpt that is in the input": Case(
        "n = len(grep('WARN'))", [("print(peek())", "09:10 web-1 WARN slow request 8\n", LOG_NOW)],
    ),
    "the one that leads still": Case(
        "hits = grep('red')", [("print(top)", "red 5 blue 2", "red 9 blue 8")], input="red blue"
    ),
    "words of a prompt": Case(
        "llm_query(f'Classify the following message in one word: {one}')",
        [("print(peek())", "the message in one box was following me home, twice", LOG_NOW)],
    ),
    "what is printed": Case("print('Total of March:', n)", [("print(x)", "Total March 9", "Sum April 8")]),
    "small places": Case("host = line.split()[2]", [PEEK]),
    "a year in a format": Case("d = datetime.strptime(t, '%Y-%m-%d')", [PEEK]),
    "a step": Case("for n in range(0, len(lines), 500):\n    use(n)", [("print(len(lines))", "500", "900")]),
    "the next part": Case("print(context[2000:4000])", [("print(context[:2000])", "x 2000", "y")]),
    "an ordinal of the question": Case(
        "p = np.percentile(ms, 95)", [("print(ms)", "95 3", "12 3")], question="What is the 95th percentile?"
    ),
    "a size of a picture": Case("plt.figure(figsize=(12, 7))", [("print(x)", "12", "13")]),
    "a charset": Case("b = context.encode('utf-8')", [("list_files()", "read as utf-8", "9 characters")]),
    "indices": Case("a, b = parts[0], parts[1]", [("print(parts)", "0\n1", "4\n5")]),
    "rounding": Case("FINAL(round(total / n, 2))", [("print(n)", "13", "14")]),
    "the same list": Case(
        "for team in ['red', 'blue']:\n    show(team)", [("print(teams)", "red 1 blue 2", "red 3 blue 4")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STALE)
def test_what_was_read_in_the_first_runs_outputs_is_found(name: str) -> None:
    assert stale(STALE[name])


@pytest.mark.parametrize("name", FINE)
def test_what_code_may_say_on_any_input_is_not_taken_for_it(name: str) -> None:
    assert not stale(FINE[name])


TYPED = [
    "FINAL('42 errors')",
    "FINAL(42)",
    "result = 'yes'\nFINAL(result)",
    "answer = 'Alice'\nFINAL_VAR('answer')",
    "counts = {'a': 3, 'b': 5}\nFINAL(max(counts, key=counts.get))",
    "parts = [3, 4]\nFINAL(sum(parts) / len(parts))",
    "n = 7\nn += 3\nFINAL(f'{n} in all')",
    "answer['content'] = 'done'\nanswer['ready'] = True",
    "if True:\n    FINAL('x')",
    "lines = []\nlines.append('a')\nFINAL('\\n'.join(lines))",
    "for x in [1, 2]:\n    y = x\nFINAL(y)",
    "FINAL({'name': 'Bob', 'n': [1, 2]})",
]
COMPUTED = [
    "FINAL(len(context))",
    "n = len(grep('x'))\nFINAL(f'{n} errors')",
    "if len(context) > 5:\n    FINAL('yes')\nelse:\n    FINAL('no')",
    "verdict = 'no'\nif grep('x'):\n    verdict = 'yes'\nFINAL(verdict)",
    "found = []\nfor line in context.splitlines():\n    found.append(line)\nFINAL(found)",
    "counts = {'a': 0}\nfor x in records():\n    counts['a'] += 1\nFINAL(counts)",
    "FINAL(llm_query('Tell me'))",
    "FINAL([len(grep(t)) for t in ['a', 'b']])",
    "def f():\n    return context\nFINAL(f())",
    "import json\nFINAL(json.dumps({'n': total}))",
    "try:\n    n = int(context)\nexcept ValueError:\n    n = 0\nFINAL(n)",
    "with open('x') as file:\n    text = file.read()\nFINAL(text)",
    "print('no answer here')",
    "answer['content'] = total\nanswer['ready'] = True",
]


@pytest.mark.parametrize("code", TYPED)
def test_an_answer_that_was_typed_in_is_known(code: str) -> None:
    assert TypedIn().answer_of(code)


@pytest.mark.parametrize("code", COMPUTED)
def test_an_answer_that_is_computed_is_not_taken_for_one(code: str) -> None:
    assert not TypedIn().answer_of(code)


def test_names_are_followed_from_cell_to_cell() -> None:
    cells = TypedIn()
    assert not cells.answer_of("best = 'web-2'\nn = len(context)")
    assert cells.answer_of("FINAL(best)")
    assert not cells.answer_of("best = str(n)\nFINAL(best)")


@given(st.text(max_size=200))
def test_any_text_is_read_as_code_or_as_none(code: str) -> None:
    literals(code)
    TypedIn().answer_of(code)
    assert isinstance(stale(Case(code, [PEEK])), str)


def test_outputs_and_code_of_any_size_take_little_time() -> None:
    """Bounds hold what these cost: without them the test would not end."""
    wide = ":" * 200_000 + " " * 200_000
    code = "x = [" + ", ".join(f"'w{n}', {n}" for n in range(20_000)) + "]"
    assert "data of the first run" in stale(Case(code, [("print(x)", wide, wide)]))
    few = "total = 7 + n\nuse(" + ", ".join(f"'w{n} x', {n}" for n in range(100)) + ")"
    stale(Case(few, [("print(x)", f"{wide} 7", wide), ("print(y)", "w1 x\n" * 100_000, "w2 x\n" * 100_000)]))
    deep = "x = " + "+".join(["1"] * 5_000)
    assert not TypedIn().answer_of(deep)
    literals(deep)
