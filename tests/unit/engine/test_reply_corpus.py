from __future__ import annotations

import pytest

from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.replies import parse_reply
from tests.unit.engine.reply_corpus import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reply_comes_to_what_its_model_meant(case: Case) -> None:
    text, thoughts = without_drafts(case.reply)
    reply = parse_reply(text)
    assert reply.cells == case.cells
    assert (reply.final and (reply.final.kind, reply.final.text)) == case.final
    assert case.thoughts in thoughts
    assert "draft" not in text
    assert (reply.labels, reply.invented, reply.unclosed) == (case.labels, case.invented, case.unclosed)
    assert case.prose in reply.prose


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reasoning_is_taken_off_once_and_for_all(case: Case) -> None:
    text, _ = without_drafts(case.reply)
    assert without_drafts(text)[0] == text
