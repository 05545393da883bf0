"""Tools in the kernel: how they are declared, bound and checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import hosttools, wire


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wire, "session", lambda: {"max_request": 10_000, "replayed": False})
    yield
    hosttools.declared.clear()
    hosttools._told.clear()


def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    bodies: list[Any] = []

    def call(_kind: str, body: Any) -> Any:
        bodies.append(body)
        return {"value": len(bodies), "files": []}

    monkeypatch.setattr(wire, "call", call)
    return bodies


def declare(signature: str, **more: Any) -> Any:
    hosttools.tools([{"name": "f", "signature": signature, **more}])
    return hosttools.declared["f"]


def test_a_tool_shows_signature_and_docstring_as_they_were_written() -> None:
    f = declare("(city: str, days: int = 3, *, unit: Literal['c', 'f'] = 'c') -> dict", doc="The weather.")
    assert str(inspect.signature(f)) == (
        "(city: str, days: int = 3, *, unit: Literal['c', 'f'] = 'c') -> dict"
    )
    assert (f.__name__, f.__doc__) == ("f", "The weather.")


def test_arguments_go_by_name_and_defaults_stay_with_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = sent(monkeypatch)
    f = declare("(a, b=1, /, c=2, *more, d, e=5, **rest)")
    f(1, d=4)
    f(1, 2, 3, 7, 8, d=4, z=9)
    assert [body["arguments"] for body in bodies] == [
        {"a": 1, "d": 4},
        {"a": 1, "b": 2, "c": 3, "more": [7, 8], "d": 4, "rest": {"z": 9}},
    ]


def test_a_wrong_call_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = sent(monkeypatch)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    f = declare("(n: int)", parameters=schema)
    for wrong, told in (((), "missing"), (("x",), "'x' is not of type 'integer'"), ((1, 2), "too many")):
        with pytest.raises(TypeError, match=told) as error:
            f(*wrong)
        assert "It is called so: f(n: int)" in str(error.value)
    with pytest.raises(TypeError, match="an argument"):
        f("x" * 20_000)
    for unsendable in (lambda: 1, object(), (one for one in "ab")):
        with pytest.raises(TypeError, match=r"^f\(\): an argument is a") as error:
            f(unsendable)
        assert "FINAL" not in str(error.value)
        assert "deliver" not in str(error.value).lower()
    assert not bodies


def test_without_a_signature_that_can_be_read_the_schema_names_the_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bodies = sent(monkeypatch)
    schema = {"type": "object", "properties": {"late": {}, "q": {}, "not a name": {}}, "required": ["q"]}
    f = declare("(: broken", parameters=schema)
    f("a", late=2)
    assert bodies[0]["arguments"] == {"q": "a", "late": 2}


def test_a_schema_that_is_none_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = sent(monkeypatch)
    f = declare("(x)", parameters={"type": 5, "properties": {"x": {"$ref": "#/nowhere"}}})
    f(1)
    assert len(bodies) == 1


def test_a_name_of_the_session_is_refused() -> None:
    with pytest.raises(ValueError, match="llm_query"):
        hosttools.tools([{"name": "llm_query", "signature": "()"}])


def test_of_tools_that_are_declared_anew_only_these_are_told() -> None:
    declare("()", doc="One.\n\nMore.\n\nOrder = dict(item: str)")
    assert hosttools.described() == [("f", "()", "One. Order = dict(item: str)")]
    hosttools.tools([])
    assert hosttools.described() == []


@given(st.text(max_size=200))
def test_no_signature_runs_anything(text: str) -> None:
    found = hosttools._signature(f"({text}")
    assert found is None or isinstance(found, inspect.Signature)


def test_a_file_that_cannot_be_read_costs_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: str) -> Any:
        raise wire.FileRefused(f"{path} is damaged")

    monkeypatch.setattr(hosttools.files, "load_beside", refused)
    assert hosttools._result({"value": 7, "files": ["a.png"]}) == 7
    assert "a.png is damaged" in capsys.readouterr().err
    with pytest.raises(wire.FileRefused):
        hosttools._result({"value": None, "files": ["a.png"]})
