"""What reading a kernel's messages costs grows with what they hold, and no faster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlm_kernel import bounded, checked
from rlm_kernel.sandbox import kernel_says
from rlm_kernel.sandbox.outputs import OutputCollector
from tests.support.growth import LIMIT, growth


def streams(count: int) -> list[dict[str, Any]]:
    return [{"name": "stdout", "text": f"line {number}\n"} for number in range(count)]


def collect(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    collector = OutputCollector()
    for content in contents:
        collector.add("stream", content)
    return collector.outputs


def nested(size: int) -> Any:
    return [{"a": [number, "x", None]} for number in range(size)]


WORK: dict[str, tuple[Any, Any, int]] = {
    "many small prints": (streams, collect, 500),
    "one text": (lambda size: {"name": "stdout", "text": "é" * size}, kernel_says.Stream.part, 100_000),
    "a traceback": (
        lambda size: {"traceback": ["é" * (size // 100)] * 100},
        kernel_says.Raised.part,
        100_000,
    ),
    "JSON of a display": (
        lambda size: {"data": {"application/json": nested(size)}},
        kernel_says.Display.part,
        500,
    ),
    "plain data": (nested, checked.plain, 500),
    "a parsed message": (lambda size: json.dumps(nested(min(size, 50_000))).encode(), bounded.parse, 500),
    "integers": (lambda size: json.dumps(list(range(min(size, 400_000)))).encode(), bounded.parse, 2_000),
    "quotes that do not end": (lambda size: b'"' * (size | 1), kernel_says._parsed, 20_000),
    "variables": (
        lambda size: {f"v{number}": "int" for number in range(min(size, 100_000))},
        kernel_says.variables,
        500,
    ),
    "a literal": (lambda size: f"{{'a': {['x'] * size}}}"[:190_000], kernel_says.literal, 500),
    "cancelled calls": (
        lambda size: {"calls": [f"1-{number}" for number in range(size)]},
        kernel_says.Cancelled.part,
        1_000,
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_ten_times_the_input_takes_about_ten_times_as_long(name: str) -> None:
    make, work, size = WORK[name]
    assert growth(make, work, size) <= LIMIT
