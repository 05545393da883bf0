"""What clients are told of the tools: many read no more than plain schemas and short names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rlm_kernel.errors import UsageError
from rlm_kernel.mcpserver import asked
from rlm_kernel.mcpserver.http import address_of, check_token
from rlm_kernel.mcpserver.tools import TOOLS
from rlm_kernel.sandbox.searching import Search, found_of


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_short_and_its_schema_plain(name: str) -> None:
    tool = TOOLS[name].as_tool(name)
    assert len(name) <= 30
    assert tool.description is not None
    assert len(tool.description) < 400
    schema = json.dumps(tool.input_schema)
    assert not any(word in schema for word in ("anyOf", "$ref", "null", "title"))


def test_what_changes_nothing_says_so() -> None:
    reading = {name for name, tool in TOOLS.items() if tool.reads_only}
    assert reading == {"search", "session_status", "show_trace"}
    assert [name for name, tool in TOOLS.items() if tool.ends] == ["session_stop"]


def test_null_is_as_if_left_out_and_one_path_is_a_list() -> None:
    given = asked.Ask.model_validate({"question": "a", "paths": "b", "text": None, "max_cost": None})
    assert given.paths == ["b"]
    assert given.text is None


def test_what_models_write_for_nothing_and_for_a_list_is_taken_as_that() -> None:
    given = asked.SearchAsked.model_validate(
        {"pattern": "a", "paths": '["b.log", "c d.txt"]', "session": "", "file": "", "limit": "5"}
    )
    assert (given.paths, given.session, given.file, given.limit) == (["b.log", "c d.txt"], None, None, 5)
    assert asked.SearchAsked.model_validate({"pattern": "a", "paths": "[b].log"}).paths == ["[b].log"]
    with pytest.raises(ValidationError):
        asked.SearchAsked.model_validate({"pattern": "a", "paths": "[1, 2]"})


@pytest.mark.parametrize(
    "wrong", [{}, {"question": ""}, {"question": "a", "max_cost": -1}, {"question": "a", "x": 1}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked.Ask.model_validate(wrong)


def test_addresses_are_of_this_machine_unless_said_otherwise() -> None:
    assert address_of("80").is_loopback
    assert address_of("[::1]:80").host == "::1"
    assert not address_of("0.0.0.0:80").is_loopback
    assert not address_of("example.org:80").is_loopback
    for wrong in ("", "a", ":80", "a:b", "1:99999", "²"):
        with pytest.raises(UsageError):
            address_of(wrong)


def test_a_token_that_can_be_guessed_is_refused() -> None:
    assert check_token(" 0123456789abcdef\n") == "0123456789abcdef"
    for wrong in ("", "short", "a b" * 10, "é" * 20):
        with pytest.raises(UsageError):
            check_token(wrong)


def test_what_a_kernel_tells_of_a_search_is_read_with_care() -> None:
    wanted = Search("a", limit=2)
    good = ("a.log", 1, "text")
    lies: list[Any] = [good, ("a",), (1, 2, 3), ("a", -1, "b"), ("a", True, "b"), None, ("a", 1, "\ud800")]
    found = found_of([*lies[:2]], wanted)
    assert found is not None
    assert [hit.line for hit in found.hits] == [1]
    assert found_of([good] * 1_000, wanted) == found_of([good] * 3, wanted)
    for lie in (None, 1, {}, (good,)):
        assert found_of(lie, wanted) is None
    with pytest.raises(UsageError, match="bad"):
        found_of("bad pattern", wanted)
    assert all(found_of([lie], wanted) is not None for lie in lies)


def test_a_bad_pattern_is_not_told_with_an_argument_that_the_tool_has_not() -> None:
    with pytest.raises(UsageError, match="unterminated") as refused:
        found_of("'(': unterminated. Use regex=False to search for it as it stands.", Search("("))
    assert "regex=False" not in str(refused.value)
    assert "backslash" in refused.value.hint
