"""docs/python.md has an example of each public name. That they run is held by the integration tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import rlm_kernel
from rlm_kernel import RLM, Result, RLMError
from rlm_kernel.session.session import Session
from rlm_kernel.session.streaming import Stream
from tests.support.python_page import PAGE, Example, examples

NOT_FOR_USERS = {
    "Session": {"begin", "take_up", "leave", "search"},
    "Result": {"of"},
    "Stream": {"aclose"},
}
"""`open_session` calls these, and makes results; `search` is asked with a value that is not public; `aclose`
is called by contextlib's `aclosing`.
"""


def used() -> set[str]:
    return set().union(*(example.uses() for example in examples()))


def public(kind: type[Any]) -> set[str]:
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    own = {name for name in vars(kind) if not name.startswith("_")}
    return (own | fields) - NOT_FOR_USERS.get(kind.__name__, set())


def test_every_public_name_has_an_example_or_is_an_error_of_the_table() -> None:
    errors = {
        name
        for name in rlm_kernel.__all__
        if isinstance(value := getattr(rlm_kernel, name), type) and issubclass(value, RLMError)
    }
    table = PAGE.read_text("utf-8").partition("## Errors")[2]
    assert {name for name in errors if f"`{name}`" not in table} == set()
    assert set(rlm_kernel.__all__) - errors - used() == {"__version__"}
    assert "`rlm_kernel.__version__`" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("kind", [RLM, Result, Stream, Session], ids=lambda kind: kind.__name__)
def test_every_public_method_and_attribute_has_an_example(kind: type[Any]) -> None:
    name = kind.__name__.lower()
    shown = {one.removeprefix(f"{name}.") for one in used() if one.startswith(f"{name}.")}
    told = PAGE.read_text("utf-8").partition("| attribute | |")[2].partition("\n\n")[0]
    missing = public(kind) - shown
    if kind is Result:  # two of them are told in the table alone: they are of sessions, and of `apply`
        missing = {one for one in missing if f"`{one}`" not in told}
    assert missing == set()


def test_a_name_without_an_example_is_found() -> None:
    example = Example("x", 1, "from rlm_kernel import RLM\nRLM().ask('?').answer\n(await session.stop())")
    assert example.uses() == {"RLM", "rlm.ask", "result.answer", "session.stop"}
