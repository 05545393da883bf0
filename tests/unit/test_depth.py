"""How deep a value is nested, and schemas that are nested too deep for the host."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.depth import SCHEMA_DEPTH, is_deeper
from rlm_kernel.engine.subcalls import Query
from rlm_kernel.errors import UsageError


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": [1, value]} if depth % 2 else {"a": value}
    return value


def test_the_depth_is_that_of_lists_and_dicts() -> None:
    assert not is_deeper(1, 0)
    assert is_deeper([], 0)
    assert not is_deeper([1, {"a": 2}], 2)
    assert is_deeper([1, {"a": []}], 2)
    assert is_deeper(nested(100_000), 10**4)


def test_what_is_shared_is_looked_at_once() -> None:
    value: Any = []
    for _ in range(200):
        value = [value, value]
    assert is_deeper(value, 100)
    assert not is_deeper(value, 201)


@pytest.mark.parametrize("depth", [SCHEMA_DEPTH + 1, 1000, 100_000])
def test_a_schema_from_the_kernel_that_is_too_deep_is_refused(depth: int) -> None:
    with pytest.raises(UsageError, match="100 levels"):
        Query.of({"prompt": "hello", "schema": nested(depth)})


def test_an_answer_type_that_is_too_deep_is_refused() -> None:
    for depth in (110, 1000):
        kind: Any = str
        for _ in range(depth):
            kind = list[kind]
        with pytest.raises(UsageError, match="cannot be of th"):
            RLM(root_model="openai/x").ask("What?", answer_type=kind)
