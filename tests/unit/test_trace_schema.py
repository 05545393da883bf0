"""The published schema is the code's."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from rlm_kernel.trace.schema import VERSION, json_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "trace-schema.json"


def test_the_published_schema_is_that_of_the_models() -> None:
    assert PUBLISHED.read_text("utf-8") == json_schema(), "write it again: python -m rlm_kernel.trace.schema > docs/trace-schema.json"


def test_it_is_a_json_schema_with_a_version() -> None:
    schema = json.loads(json_schema())
    assert schema["version"] == VERSION
    for part in ("NotebookMeta", "CellMeta"):
        Draft202012Validator.check_schema(schema[part])
        assert schema[part]["additionalProperties"] is False
