"""Tokens are estimated as real tokenizers count them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_contract.tokens import MOST_CHARS, SAMPLE, tokens, tokens_of_all, tokens_of_whole

from tests.support.token_texts import COUNTS, TEXTS

ASKED = ("English", "code", "log", "JSON", "Chinese", "Japanese", "Korean", "Russian", "Hindi", "emoji")


@pytest.mark.parametrize("name", TEXTS)
def test_an_estimate_is_near_the_mean_of_real_tokenizers(name: str) -> None:
    """The geometric mean, as they differ by factors: for the larger languages within a quarter, for others
    within a third.
    """
    mean = math.exp(sum(map(math.log, COUNTS[name])) / len(COUNTS[name]))
    assert (
        1 / (1.25 if name in ASKED else 1.4) < tokens(TEXTS[name]) / mean < (1.25 if name in ASKED else 1.35)
    )


@pytest.mark.parametrize("name", TEXTS)
def test_a_long_text_is_judged_by_a_sample_of_it(name: str) -> None:
    many = TEXTS[name] * (20 * SAMPLE // len(TEXTS[name]))
    assert tokens(many) == pytest.approx(tokens_of_whole(many), rel=0.2)
    assert tokens_of_all([TEXTS[name]] * 500) == pytest.approx(500 * tokens(TEXTS[name]))


def test_texts_of_all_kinds_and_lengths_count() -> None:
    assert tokens("") == 0
    assert tokens_of_all([]) == 0
    assert tokens_of_all([""] * 100) == 0
    texts = ["x " * 1000] * 10 + [""] * 90
    assert 0 < tokens_of_all(texts) <= 10_000
    assert tokens(" " * 100_000) == 100_000 / MOST_CHARS


@given(st.text())
def test_no_text_has_no_tokens_or_more_than_a_tokenizer_of_bytes_makes(text: str) -> None:
    assert (tokens(text) > 0) == bool(text)
    assert tokens(text) <= 2 * len(text.encode("utf-8", "surrogatepass")) + 2
    assert tokens(text) >= len(text) / MOST_CHARS
