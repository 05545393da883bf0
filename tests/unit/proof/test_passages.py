"""Which bytes of which files prompts held: cases with known sources, odd and hostile ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rlm_kernel.proof import plaintext
from rlm_kernel.proof.chains import runs
from rlm_kernel.proof.matching import Matcher
from tests.support.passages import CHANGES, Case, Span, case, score


def claims(made: Case, folder: Path) -> list[list[Span]]:
    places = made.write(folder)
    names = list(places)
    matcher = Matcher(made.prompts)
    for number, name in enumerate(names):
        matcher.scan(number, plaintext.parts(places[name], lambda: matcher.words))
    return [
        [
            (names[place.source], place.low, place.high)
            for run in runs(matcher.matches[number], len(prompt.encode()))
            for place in run.places
        ]
        for number, prompt in enumerate(made.prompts)
    ]


@pytest.mark.parametrize("change", CHANGES)
def test_passages_are_found_however_code_has_put_them_into_the_prompt(change: str, tmp_path: Path) -> None:
    for kind in ("prose", "log", "table"):
        made = case(kind, CHANGES[change], random.Random(f"{change} {kind}"))
        precision, recall = score(claims(made, tmp_path), made.truth)
        assert precision >= 0.95, (kind, precision, recall)
        assert recall >= 0.95, (kind, precision, recall)
