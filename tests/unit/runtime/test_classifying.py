"""classify(): a sub model says of which kind each text is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rlm_runtime import classifying, queries, wire

Asked = list[tuple[list[str], Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Asked]:
    """Has the sub model reply as told, by text; gives the batches that it is asked."""
    batches: Asked = []

    def replying(replies: dict[str, Any]) -> Asked:
        def batched(prompts: list[str], model: str | None = None, *, schema: Any = None) -> list[Any]:
            batches.append((prompts, schema))
            found = [replies[prompt.rsplit("\n", 1)[-1]] for prompt in prompts]
            return [one.pop(0) if isinstance(one, list) else one for one in found]

        monkeypatch.setattr(queries, "llm_query_batched", batched)
        return batches

    return replying


def test_kinds_come_in_the_order_of_the_texts(asked: Callable[[dict[str, Any]], Asked]) -> None:
    batches = asked({"good": "Happy.", "bad": ' "unhappy"', "so": "It is **unhappy**", "one": "HAPPY"})
    found = classifying.classify(["good", "bad", "so", "one"], ["happy", "unhappy"], "note")
    assert found == ["happy", "unhappy", "unhappy", "happy"]
    assert len([one for one in batches if one[0]]) == 1
    assert batches[0][0][0].startswith("Which of these is the note: happy, unhappy?")
    assert batches[0][1] is None


def test_an_unclear_reply_is_asked_again_by_a_schema(asked: Callable[[dict[str, Any]], Asked]) -> None:
    batches = asked({"a": ["Either red or blue", "blue"], "b": ["mauve", "red"], "c": "red"})
    assert classifying.classify(["a", "b", "c"], ["red", "blue"]) == ["blue", "red", "red"]
    assert [len(prompts) for prompts, _ in batches] == [3, 2]
    assert batches[1][1] == {"enum": ["red", "blue"]}


def test_of_kinds_that_hold_each_other_the_longer_is_meant(asked: Callable[[dict[str, Any]], Asked]) -> None:
    asked({"x": "This is not angry", "y": "angry!"})
    assert classifying.classify(["x", "y"], ["angry", "not angry"]) == ["not angry", "angry"]


def test_a_call_that_failed_stays_one(asked: Callable[[dict[str, Any]], Asked]) -> None:
    failed = wire.CallFailed(wire.LLMError("down"))
    asked({"a": failed, "b": ["?", failed], "c": "x"})
    assert classifying.classify(["a", "b", "c"], ["x", "y"]) == [failed, failed, "x"]


@pytest.mark.parametrize("wrong", [["one"], [], "ab", ["x", "X "], ["x", ""]])
def test_kinds_that_tell_nothing_apart_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="at least two different names"):
        classifying.classify(["a"], wrong)


def test_one_text_is_no_list_of_texts() -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        classifying.classify("a text", ["x", "y"])
