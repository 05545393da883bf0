"""The measure of growth tells what is linear from what grows with the square."""

import pytest

from tests.support import growth as measure
from tests.support.growth import LIMIT, growth


def _square(numbers: list[int]) -> list[int]:
    seen: list[int] = []
    for number in numbers:
        if number not in seen:
            seen.append(number)
    return seen


def test_work_that_is_linear_is_under_the_limit() -> None:
    assert growth(lambda size: list(range(size)), sum, 1_000) <= LIMIT


def test_work_that_grows_with_the_square_is_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_TRIES", 2)
    assert growth(lambda size: list(range(size)), _square, 200) > LIMIT
