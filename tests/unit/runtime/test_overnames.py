"""Code that goes through the names of the texts and means the texts is told so; else nothing is."""

from __future__ import annotations

import ast

import pytest
from rlm_runtime.overnames import looked_for

TEXTS = {"app.log": "10:00 ERROR disk full\n", "notes.txt": "all is well\n"}


def told(code: str, context: object = TEXTS) -> list[str]:
    return [said for _, said in looked_for(ast.parse(code), {"context": context, "files": TEXTS})]


@pytest.mark.parametrize(
    "code",
    [
        "n = sum('ERROR' in doc for doc in context)",
        "n = 'disk full' in context",
        "for text in files:\n    if 'error' in text.lower(): print(text)",
        "hits = [re.search(r'ERR\\w', doc) for doc in context]",
        "n = sum(doc.count('ERROR') for doc in context)",
    ],
)
def test_a_search_in_names_for_what_the_texts_have_is_told(code: str) -> None:
    (said,) = told(code)
    assert "is in no name of" in said
    assert ".values()" in said


@pytest.mark.parametrize(
    "code",
    [
        "[name for name in context if 'app' in name]",
        "[name for name in context if 'missing' in name]",
        "[name for name in context if 'ERROR' in context[name]]",
        "[text for text in context.values() if 'ERROR' in text]",
        "[name for name, text in context.items() if 'ERROR' in text]",
        "'app.log' in context",
        "hits = [re.search('(', doc) for doc in context]",
        "for doc in context:\n    doc = context[doc]\n    if 'ERROR' in doc: print(doc)",
        "sizes = [len(context[k]) for k in context]\nfor k in lines:\n    if 'ERROR' in k: print(k)",
    ],
)
def test_what_means_names_or_goes_through_the_texts_is_not(code: str) -> None:
    assert told(code) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("n = sum('ERROR' in line for line in context)", True),
        ("for i, line in enumerate(context):\n    if 'error' in line.lower(): print(line)", True),
        ("n = 'ERROR' in context", False),
        ("n = sum('ERROR' in line for line in context.splitlines())", False),
        ("n = sum('E' in char for char in context)", False),
        ("n = sum('nowhere' in line for line in context)", False),
        ("n = [re.search('(R+)+x', line) for line in context]", False),
    ],
)
def test_a_search_in_characters_for_what_the_text_has_is_told(code: str, said: bool) -> None:
    found = told(code, "10:00 ERROR disk full\nall is well\n")
    assert [("is no single character" in one, "splitlines()" in one) for one in found] == [
        (True, True)
    ] * said
