"""What an error is told with where the cells themselves say what to do."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from rlm_runtime import lastcell
from rlm_runtime.lastcell import LastCell


def told(before: str, code: str, **variables: Any) -> str:
    """The hint about the error that `code` raises after the cell `before`."""
    names: dict[str, Any] = {"re": re, "FINAL": lambda _: None, **variables}

    def final_var(name: Any) -> None:
        raise NameError(f"FINAL_VAR: no variable named {name!r}.")

    names["FINAL_VAR"] = final_var
    exec(before, names)
    names["In"] = ["", before, code]
    with pytest.raises(Exception) as raised:  # noqa: PT011
        exec(compile(code, "<cell>", "exec"), names)
    return LastCell(SimpleNamespace(user_ns=names)).hint(raised.value, code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "code", "hint"),
    [
        (
            "count = 433\nprint(count)",
            "FINAL(result)",
            "The last cell set `count`: FINAL(count) delivers that.",
        ),
        ("a = 1\nb = 2", "FINAL_VAR('result')", "The last cell set `b`: FINAL(b) delivers that."),
        ("n = 1\nn += 1", "FINAL( result ) ", "FINAL(n)"),
        ("hits = ['x']\nhits[0]", "FINAL(result)", "FINAL(hits[0]) delivers what the last cell showed."),
        (f"{'9' * 90}", "FINAL(result)", "kept it in no variable"),
        ("print(5)", "FINAL(result)", ""),
        ("load_files = len\nload_files([])", "FINAL(result)", "delivers what the last cell showed"),
        ("x = 1", "print(result)", ""),
        ("x = 1", "FINAL(result.text)", ""),
    ],
)
def test_a_name_that_was_never_set_is_told_what_the_last_cell_made(before: str, code: str, hint: str) -> None:
    said = told(before, code)
    assert hint in said
    assert bool(said) == bool(hint)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("re.search('ip=(.+)', text).group(1)", "re.search found nothing in 'the harbour'."),
        ("x = 1\ny = re.match(r'\\d', hits[0]['line'])\nprint(y.group())", ""),
        ("print(re.match(r'\\d', hits[0]['line'])[0])", ""),
        ("re.fullmatch('a', hits[-1]['line']).span()", "re.fullmatch found nothing in 'one 1'."),
        ("re.search('a', long).start()", "…. Correct the pattern."),
        ("re.search('a', text.upper()).start()", ""),
        ("re.search('a', missing()).start()", ""),
        ("[re.search('a', one).start() for one in hits[0]['line']]", ""),
        ("None.group()", ""),
    ],
)
def test_a_search_that_found_nothing_is_told_the_text(code: str, hint: str) -> None:
    variables = {"text": "the harbour", "hits": [{"line": "one 1"}], "long": "b" * 9_999, "missing": str}
    said = told("", code, **variables)
    assert hint in said
    assert bool(said) == bool(hint)
    assert len(said) < 500


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["headlines.txt"], "The text of headlines.txt is in `context`."),
        (["a.txt", "in/headlines.txt"], "The text of in/headlines.txt is in `files['in/headlines.txt']`."),
        (["a.txt"], ""),
    ],
)
def test_a_name_that_is_that_of_a_file_is_told_where_its_text_is(
    names: list[str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lastcell, "files", dict.fromkeys(names, ""))
    assert told("", "lines = headlines.splitlines()") == hint


def test_code_that_does_not_parse_any_more_is_told_nothing() -> None:
    shell = SimpleNamespace(user_ns={"In": ["", "x = (", "FINAL(result)"]})
    assert LastCell(shell).hint(NameError("x"), "FINAL(result)") == ""  # type: ignore[arg-type]
    assert LastCell(shell).hint(AttributeError("'NoneType' object has no attribute 'group'"), "x = (") == ""  # type: ignore[arg-type]
