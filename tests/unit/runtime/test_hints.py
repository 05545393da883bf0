"""What an error in a cell is told with: what to do about it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from rlm_runtime.forms import records
from rlm_runtime.hints import hint
from rlm_runtime.hits import Hit

TEXTS = {"a.txt": "hello 1\n", "b.txt": "world 2\n"}
TEXT = "hello 1\nworld 2\n"
TABLE = "a,b,c\n1,2,3\n4,5,6\n"


@pytest.mark.parametrize(
    ("code", "context", "told"),
    [
        ("context.splitlines()", TEXTS, "dict of texts by name ('a.txt', 'b.txt')"),
        ("re.findall('a', context)", TEXTS, "dict of texts by name"),
        ("context[:100]", TEXTS, "dict of texts by name"),
        ("context['c.txt']", TEXTS, "named 'a.txt', 'b.txt'"),
        ("context['c.txt']", {f"{n}.txt": "" for n in range(9)}, "'4.txt' and 4 more"),
        ("context.items()", TEXT, "one str"),
        ("context['c.txt']", TEXT, "parse it first"),
        ("[line['price'] for line in context.splitlines()]", TEXT, "parse it first"),
        ("[row['a'] for row in context]", '{"a": 1}\n{"a": 2}\n', "rows = records()"),
        ("[][0]", TEXT, "a search that finds nothing"),
        ("Hit('a', 1, 'x=1').split('=')", TEXT, ".text (the line)"),
        ("re.search('a', records(context)[0])", TEXT, "A record is a dict"),
        ("'\\n'.join(records(context))", TEXT, "A record is a dict"),
        ("{'a': 1}[:3]", TEXT, "A dict has no slices"),
        ("set(records(context))", TEXT, "A record is a dict"),
        ("sorted(records(context))", TEXT, "A record is a dict"),
        ("contxt", TEXT, "Did you mean `context`?"),
        ("int('user=u1')", TEXT, "by the words around them"),
        ("float('n/a')", TEXT, "by the words around them"),
        ("max([])", TEXT, "Nothing was found"),
        ("re.search('x', context).group()", TEXT, "re.search found nothing"),
        ("pd.DataFrame()", TEXT, "`import pandas as pd`"),
        ("statistics.mean([])", TEXT, "`import statistics`"),
        ("SUBMIT(answer=1)", TEXT, "FINAL(value) delivers the answer"),
        ("final_answer(1)", TEXT, "FINAL(value) delivers the answer"),
        ("__import__('itertools').no_such", TEXT, "This is Python 3."),
        ("Hit('a', 1, 'x=1')['text']", TEXT, ".text (the line)"),
        ("tuple('ab')['text']", TEXT, "A tuple has no names"),
        ("never_heard_of", TEXT, "No cell has set `never_heard_of`"),
        ("rows", TABLE, "rows = records()"),
        ("Counter(row['a'])", TABLE, "`... for row in rows`"),
        ("[].title().date", TEXT, ""),
        ("Hit('a', 1, 'x=1').date", TEXT, ".text (the line)"),
        ("open('a.txt')", TEXT, "not in a file"),
        ("__import__('no_such_module')", TEXT, "no network"),
        ("max(5, '7')", TEXT, "int(...) or float(...)"),
        ("5 + '7'", TEXT, "int(...) or float(...)"),
        ("1 / 0", TEXT, ""),
        ("true", TEXT, "`True`"),
        ("__import__('subprocess').run(['no-such-program'])", TEXT, "no such program"),
        ("__import__('pickle').dumps(lambda: 1)", TEXT, "Another process gets functions"),
        ("__import__('numpy').int", TEXT, ""),
        ("x = “a”", TEXT, "U+201C"),
        ("'abc", TEXT, "not closed"),
        ("json.loads('x')", TEXT, ""),
        ("{'a': 1}['b']", TEXT, ""),
    ],
)
def test_an_error_says_what_to_do(code: str, context: Any, told: str) -> None:
    names = {"context": context, "re": re, "json": json, "Hit": Hit, "Counter": Counter, "records": records}
    with pytest.raises(Exception) as raised:  # noqa: PT011
        eval(code, names)
    said = hint(raised.value, context, [*names, "rows"] if "row[" in code else names)
    assert told in said
    assert bool(said) == bool(told)


def test_what_a_cell_raises_itself_is_not_looked_into() -> None:
    class Odd(NameError):
        @property
        def name(self) -> str:  # type: ignore[override]
            raise SystemExit

    assert hint(Odd(), TEXT, []) == ""


def test_long_names_are_cut() -> None:
    assert len(hint(KeyError("x"), {"n" * 1000: ""}, [])) < 200
