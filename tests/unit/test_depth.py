"""Schemas and types that are nested too deep for the host."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.kernel_says import Query
from rlm_kernel.errors import UsageError


@pytest.mark.parametrize("depth", [101, 1000, 100_000])
def test_a_schema_from_the_kernel_that_is_too_deep_is_refused(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="100 levels"):
        Query.of({"prompt": "hello", "schema": schema})


@pytest.mark.parametrize("depth", [110, 1000])
def test_an_answer_type_that_is_too_deep_is_refused(depth: int) -> None:
    kind: Any = str
    for _ in range(depth):
        kind = list[kind]
    with pytest.raises(UsageError, match="nested"):
        RLM(root_model="openai/x").ask("What?", answer_type=kind)
