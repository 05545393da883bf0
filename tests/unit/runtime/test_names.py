"""The session's names: theirs again after each cell, and nothing that a cell made is lost."""

from __future__ import annotations

import builtins
import collections
import json
import re
from typing import Any

import pytest
from rlm_runtime.names import Names


def chunks(size: int) -> list[int]:
    return [size]


def grep(pattern: str) -> list[str]:
    return [pattern]


@pytest.fixture
def variables() -> dict[str, Any]:
    return {
        "chunks": chunks,
        "grep": grep,
        "re": re,
        "json": json,
        "Counter": collections.Counter,
        "context": "input",
    }


@pytest.fixture
def names(variables: dict[str, Any]) -> Names:
    imported = {"re": re, "json": json, "Counter": collections.Counter}
    return Names(variables, {"chunks": chunks, "grep": grep}, imported)


def ended(names: Names, variables: dict[str, Any], context: Any = "input") -> dict[str, Any]:
    """A cell has ended; the session's `answer`."""
    answer = variables.setdefault("answer", {"content": None, "ready": False})
    names.restore(context, answer if isinstance(answer, dict) else {})
    return variables["answer"]


def test_a_helper_is_itself_again_and_the_value_is_kept_and_told(
    names: Names, variables: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    variables["chunks"] = ["a", "b"]
    ended(names, variables)
    assert variables["chunks"] is chunks
    assert variables["chunks_"] == ["a", "b"]
    said = capsys.readouterr().err
    assert "assigned to `chunks`" in said
    assert "`chunks_`" in said
    assert names.value("chunks") == ["a", "b"], "FINAL_VAR('chunks') means what the cell made"
    ended(names, variables)
    assert capsys.readouterr().err == "", "said once"


def test_a_variable_of_the_cells_own_is_not_overwritten(names: Names, variables: dict[str, Any]) -> None:
    variables |= {"grep_": "mine", "grep": 1}
    ended(names, variables)
    assert (variables["grep_"], variables["grep__"]) == ("mine", 1)
    variables["grep"] = 2
    ended(names, variables)
    assert variables["grep__"] == 2


def test_imports_may_be_replaced_by_their_like_but_not_by_values(
    names: Names, variables: dict[str, Any]
) -> None:
    class Own:
        pass

    variables |= {"re": 5, "json": collections, "Counter": Own}
    ended(names, variables)
    assert (variables["re"], variables["re_"], variables["json"], variables["Counter"]) == (
        re,
        5,
        collections,
        Own,
    )


def test_what_is_deleted_is_there_again_without_a_word(
    names: Names, variables: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ended(names, variables)
    variables.clear()
    names.restore("input", answer)
    assert (variables["chunks"], variables["context"], variables["answer"], variables["re"]) == (
        chunks,
        "input",
        answer,
        re,
    )
    assert capsys.readouterr().err == ""


def test_the_input_is_the_input_again_if_there_is_one(names: Names, variables: dict[str, Any]) -> None:
    variables["context"] = "INPUT"
    ended(names, variables)
    assert (variables["context"], variables["context_"]) == ("input", "INPUT")
    variables["context"] = "mine"
    ended(names, variables, context=None)
    assert variables["context"] == "mine"


@pytest.mark.parametrize(
    ("assigned", "content", "ready"),
    [
        (42, 42, False),
        ("text", "text", False),
        ({"a": 1}, {"a": 1}, False),
        ({"content": "x", "ready": True}, "x", True),
    ],
)
def test_an_assignment_to_answer_means_its_content(
    names: Names, variables: dict[str, Any], assigned: Any, content: Any, ready: bool
) -> None:
    answer = ended(names, variables)
    variables["answer"] = assigned
    names.restore("input", answer)
    assert variables["answer"] is answer
    assert answer == {"content": content, "ready": ready}


def test_builtins_that_were_replaced_are_there_again(
    names: Names, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = builtins.sorted
    monkeypatch.setattr(builtins, "sorted", 5)
    ended(names, variables)
    assert builtins.sorted is own


def test_an_error_of_a_name_that_was_taken_says_where_the_value_is(
    names: Names, variables: dict[str, Any]
) -> None:
    code = "for part in chunks: print(part)"
    error = TypeError("'function' object is not iterable")
    assert names.hint(error, code) == ""
    variables["chunks"] = [1]
    assert names.hint(error, code) == "", "in the cell that assigned it, it is what it assigned"
    ended(names, variables)
    assert "`chunks_`" in names.hint(error, code)
    assert names.hint(error, "for part in parts: pass") == ""
    assert names.hint(OSError(), code) == ""


def test_an_error_of_a_builtin_that_is_hidden_says_how_to_get_it_back(
    names: Names, variables: dict[str, Any]
) -> None:
    error = TypeError("'list' object is not callable")
    assert names.hint(error, "list((1, 2))") == ""
    variables["list"] = [1]
    assert "`del list`" in names.hint(error, "x = list((1, 2))")
