"""What host and container have in common: each side has what the other takes for granted."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import rlm_contract
from rlm_runtime import api, files, hosttools, queries, wire
from rlm_runtime.handover import Handover

from rlm_kernel import errors
from rlm_kernel.engine import kernel_says as asked
from rlm_kernel.engine import protocols
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.sandbox import broker, kernel_says


def test_a_head_has_the_fields_that_the_host_reads() -> None:
    assert {field.name for field in dataclasses.fields(kernel_says.Head)} == set(
        rlm_contract.Head.__annotations__
    )


def test_each_kind_of_host_call_is_served_and_nothing_else() -> None:
    calls: Any = HostCalls.__new__(HostCalls)
    by_broker = {"hello", "cancel", "hand", "unhand"}
    assert set(calls.handlers()) | by_broker == set(get_args(rlm_contract.Kind))
    assert set(broker._LIMITS) <= set(get_args(rlm_contract.Kind))


def test_each_error_of_the_host_has_its_exception_in_a_cell() -> None:
    named = {
        one.in_cell
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.RLMError)
    }
    assert named <= {*wire._ERRORS, "HostCallError"}


def test_the_questions_of_the_host_name_functions_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_shell", [SimpleNamespace(user_ns={"x": [1, 2]}, user_ns_hidden={})])
    assert eval(rlm_contract.VARIABLES) == {"x": "list, 2 long"}
    assert eval(rlm_contract.DESCRIPTION) == api.describe()
    assert eval(rlm_contract.LOADED) == files.files_status()


def test_what_a_cell_asks_is_what_the_host_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "hand", lambda _name, _piece: None)
    body, _ = queries._query("What?", "sub", None, 1.5)
    assert asked.Query.of(body) == asked.Query("What?", "sub", None, 1.5)
    given = Handover("a text").given
    assert given is not None
    spooled = kernel_says.Spooled.of(given)
    assert spooled is not None
    assert spooled.form == "text"
    assert kernel_says.Named.of({"files": ["/a"] * rlm_contract.MAX_HANDED_FILES}) is not None
    assert kernel_says.Named.of({"files": ["/a"] * (rlm_contract.MAX_HANDED_FILES + 1)}) is None


def test_no_tool_can_have_a_name_of_the_kernels() -> None:
    assert {*api.NAMES, *api.IMPORTED} <= rlm_contract.HELPERS


def test_a_call_of_a_tool_is_what_the_host_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "session", lambda: {"max_request": 1000})
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tool = hosttools._Tool({"name": "f", "signature": "(x: int, *more: str)", "parameters": schema})
    body = tool._body((1, "a"), {})
    assert asked.tool_call(body) == ("f", {"x": 1, "more": ["a"]})
    hosttools._told["f"] = ("(x: int)", "Does it.\n\nIn full.")
    try:
        described = kernel_says.Described.of({"tools": hosttools.described()})
    finally:
        del hosttools._told["f"]
    assert described is not None
    assert described.info().tools == [protocols.DeclaredTool("f", "(x: int)", "Does it.")]
