"""The published schema is the code's."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path

from jsonschema import Draft202012Validator

from rlm_kernel.engine.protocols import CallRecord, PictureNote, Share, Shares, Totals, Usage
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.schema import VERSION, CallMeta, json_schema
from tests.support.trace import call

PUBLISHED = Path(__file__).parents[3] / "docs" / "trace-schema.json"


def test_the_published_schema_is_that_of_the_models() -> None:
    assert PUBLISHED.read_text("utf-8") == json_schema(), (
        "write it again: python -m rlm_kernel.trace.schema > docs/trace-schema.json"
    )


def test_it_is_a_json_schema_with_a_version() -> None:
    schema = json.loads(json_schema())
    assert schema["version"] == VERSION
    for part in ("NotebookMeta", "CellMeta"):
        Draft202012Validator.check_schema(schema[part])
        assert schema[part]["additionalProperties"] is False


def test_a_call_and_an_account_come_back_from_the_trace_as_they_were() -> None:
    more = {
        "error": "It failed.",
        "error_type": "LLMError",
        "answer": None,
        "occurrence": 3,
        "attempts": 2,
        "stored": True,
        "calls": 4,
        "again": True,
        "tool_calls": 5,
        "images": (
            PictureNote("a" * 64, "image/png", 500, 20, 10, "aGk="),
            PictureNote("b" * 64, "image/jpeg", 9, 1, 1),
        ),
    }
    usage = Usage(10, 2, 1, True, 3, 4)
    shares = Shares(fast=Share(2, Usage(5, 4, 3, False, 2, 1), 0.5, 1, 0.25))
    whole = call(trace="t.ipynb", thoughts="Hm.", cut=True, usage=usage, role="fast", models=shares, **more)
    changed = [
        part.name
        for part in fields(CallRecord)
        if part.default is not MISSING and getattr(whole, part.name) == part.default
    ]
    assert changed == ["answer"], "each field has another value than it has by itself"
    assert CallMeta.of(whole).record() == whole
    given = {part.name: n for n, part in enumerate(fields(Totals), 1)}
    usages = {name: Usage(n, 2, 1, False, 4, 5) for name, n in given.items() if name.endswith("usage")}
    spent = Totals(**given | usages | {"models": shares})  # type: ignore[arg-type]
    spent.unpriced = 0
    assert TotalsMeta.of(spent).totals() == spent
