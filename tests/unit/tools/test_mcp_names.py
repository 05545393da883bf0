"""Whatever a server calls its tools and parameters, code gets names and signatures of Python."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rlm_contract import HELPERS

from rlm_kernel.tools.mcp_names import (
    MAX_NAME,
    definition_digest,
    function_name,
    signature_of,
    type_name,
    wraps_result,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
WORDS = (
    "type",
    "properties",
    "required",
    "anyOf",
    "enum",
    "$ref",
    "items",
    "default",
    "const",
    "description",
    "#/a",
)
SCHEMA = st.recursive(
    st.none() | st.sampled_from(["string", "object", "array", "null", "#/properties", 5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("github", "get-issue", "github_get_issue"),
        ("github", "github_get_issue", "github_get_issue"),
        ("GitHub", "github_get_issue", "github_get_issue"),
        ("git", "a.b/c", "git_a_b_c"),
        ("git", "class", "git_class"),
        ("@org/server-files", "read", "org_server_files_read"),
        ("3d", "view", "mcp_3d_view"),
        ("a", "Größe", "a_Gro_e"),
        ("llm", "query", "llm_query_2"),
        ("load", "file", "load_file_2"),
    ],
)
def test_a_function_has_its_servers_name_before_its_own_and_hides_no_helper(
    server: str, tool: str, name: str
) -> None:
    assert function_name(server, tool, HELPERS) == name


def test_two_tools_whose_names_look_the_same_get_two_functions() -> None:
    one = function_name("s", "a-b", ())
    assert function_name("s", "a.b", {one}) == f"{one}_2"
    long = [function_name("s", "x" * 70 + end, ()) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name) <= MAX_NAME for name in long)


@given(st.text(), st.text())
def test_every_name_is_one_that_code_can_call(server: str, tool: str) -> None:
    name = function_name(server, tool, HELPERS)
    assert name.isidentifier()
    assert name.isascii()
    assert not name.startswith("_")
    assert name not in HELPERS


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        (None, "() -> str"),
        ({}, "() -> str"),
        ({"type": "object", "properties": None, "required": None}, "() -> str"),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, "(a: str) -> str"),
        (
            {"properties": {"b": {}, "a": {"type": "integer"}}, "required": ["a"]},
            "(a: int, b: Any = None) -> str",
        ),
        ({"properties": {"a": {"type": ["string", "null"]}}}, "(a: str | None = None) -> str"),
        (
            {"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}}},
            "(a: int | None = None) -> str",
        ),
        (
            {"properties": {"a": {"type": "array", "items": {"type": "number"}}}},
            "(a: list[float] | None = None) -> str",
        ),
        ({"properties": {"a": {"enum": ["x", "y"], "default": "x"}}}, "(a: Literal['x', 'y'] = 'x') -> str"),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"type": "object"}},
                "required": ["a"],
            },
            "(a: dict) -> str",
        ),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/x"}}, "required": ["a"]}, "(a: Any) -> str"),
        (
            {
                "$ref": "#/$defs/A",
                "$defs": {"A": {"properties": {"q": {"type": "boolean"}}, "required": ["q"]}},
            },
            "(q: bool) -> str",
        ),
        (
            {"properties": {"class": {"type": "string"}, "a-b": {}, "$x": {}}},
            "(class_: str | None = None, a_b: Any = None, x: Any = None) -> str",
        ),
        ({"type": "object", "additionalProperties": True}, "(**more) -> str"),
    ],
)
def test_a_schema_reads_as_a_signature(schema: Any, shown: str) -> None:
    assert signature_of(schema).text == shown


def test_arguments_go_under_the_servers_names_and_none_means_not_given() -> None:
    schema = {
        "properties": {
            "class": {"type": "string"},
            "a-b": {"type": ["integer", "null"]},
            "c": {"type": "string"},
        }
    }
    signature = signature_of(schema)
    assert signature.arguments({"class_": "x", "a_b": None, "c": None, "new": 1}) == {
        "class": "x",
        "a-b": None,
        "new": 1,
    }


def test_the_parameters_that_are_checked_have_no_patterns_of_the_server() -> None:
    schema = {
        "properties": {"q": {"type": "string", "pattern": "(a+)+$"}, "n": {"type": "integer", "maximum": 3}},
        "required": ["q"],
    }
    assert signature_of(schema).parameters == {
        "type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer"}}, "required": ["q"],
    }  # fmt: skip


def test_the_value_under_result_is_what_the_function_returns() -> None:
    output = {"type": "object", "properties": {"result": {"type": "array", "items": {"type": "string"}}}}
    assert wraps_result(output)
    assert signature_of({}, output).text == "() -> list[str]"
    assert not wraps_result({"properties": {"result": {}, "more": {}}})


@given(SCHEMA | JSON, SCHEMA | JSON)
@example(None, {"type": []})
def test_any_schema_gives_a_signature_that_is_python(schema: Any, output: Any) -> None:
    signature = signature_of(schema, output)
    ast.parse(f"def f{signature.text}: ...")
    json.dumps(signature.parameters)
    assert set(signature.parameters["properties"]) == set(signature.wire)


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    loop = {
        "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "array", "items": {"$ref": "#/$defs/A"}}]}}
    }
    assert type_name({"$ref": "#/$defs/A"}, loop)
    assert signature_of({"$ref": "#"}).text == "() -> str"


def test_a_definition_has_another_digest_when_anything_of_it_changes() -> None:
    before = {"name": "a", "description": "Adds.", "inputSchema": {"type": "object"}}
    assert definition_digest(before) == definition_digest(dict(reversed(before.items())))
    assert definition_digest(before) != definition_digest(
        {**before, "description": "Adds, and tells nobody."}
    )
    assert definition_digest(before) != definition_digest({**before, "annotations": {"readOnlyHint": True}})
