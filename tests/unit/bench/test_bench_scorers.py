"""How answers are judged, on cases worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.bench.scorers import SCORERS, score


@pytest.mark.parametrize(
    ("scorer", "expected", "answer", "points"),
    [
        ("contains", "1234567", "The number is 1234567.", 1),
        ("contains", "AB-cd", "it is ab-CD", 1),
        ("contains", "1234567", "123456", 0),
        ("exact", "Riga", " 'riga'. ", 1),
        ("exact", "Riga", "in Riga", 0),
        ("exact", "a b", "a  b", 1),
        ("number", 1200, "1,200", 1),
        ("number", 1200, "There are 1200 lines.", 1),
        ("number", 12, "12 of 13", 0),
        ("number", 9.5, "9.50", 1),
        ("number", 5, "-5", 0),
        ("number", 582, "u582", 0),
        ("number", 5, "five", 0),
        ("oolong", "entity", "Label: entity", 1),
        ("oolong", "entity", "I think so.\nLabel: **[Entity]**", 1),
        ("oolong", "entity", "Label: entity or location", 0),
        ("oolong", "7", "Answer: 7", 1),
        ("oolong", "7", "Answer: 9", 0.75**2),
        ("oolong", "7", "Answer: seven", 0),
        ("oolong", "7", "Answer: 7.", 1),
        ("oolong", "02/16/2022", "Date: 2022-02-16", 1),
        ("oolong", "02/16/2022", "Date: Feb 16, 2022", 1),
        ("oolong", "02/16/2022", "Date: 02/17/2022", 0),
        ("oolong", "location is more common than entity", "Answer: Location is more common than entity", 1),
        ("oolong", "May 2023", "Answer: May 2023", 1),
        ("pairs", [[1, 2], [1, 3]], "(1, 2)\n(3,1)", 1),
        ("pairs", [[1, 2], [1, 3]], "(1, 2)", 2 / 3),
        ("pairs", [[1, 2]], "(1, 2)\n(1, 2)\n(4, 5)", 2 / 3),
        ("pairs", [], "", 1),
        ("pairs", [], "(1, 2)", 0),
        ("pairs", [[1, 2]], "none", 0),
        ("copy", "aa\nbb\ncc", "aa\nbb\ncc", 1),
        ("copy", "aa\nbb", "aa\nxx", 0.5),
        ("copy", "aa\nbb", "aa\nbb\ncc\ndd", 2 * 6 / 18),
        ("copy", "aa", "", 0),
    ],
)
def test_an_answer_is_judged(scorer: str, expected: Any, answer: str, points: float) -> None:
    assert score(scorer, expected, answer) == pytest.approx(points)


GOLD = {"contains": "x", "exact": "x", "number": 5, "oolong": "7", "pairs": [[1, 2]], "copy": "one\ntwo"}


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("answer", [None, "", "   ", "\0", "::", "()", "(1,", "-", ",,,", "9" * 100_000])
def test_no_answer_and_nonsense_score_nothing(scorer: str, answer: str | None) -> None:
    assert score(scorer, GOLD[scorer], answer) == 0


@given(st.sampled_from(sorted(SCORERS)), st.text())
def test_any_answer_has_a_score(scorer: str, answer: str) -> None:
    assert 0 <= score(scorer, GOLD[scorer], answer) <= 1
