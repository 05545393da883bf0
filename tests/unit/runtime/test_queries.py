"""Batches of child RLMs, as code in the kernel asks for them, at the depth limit: the sub model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from rlm_runtime import batches, files, queries, wire

LIMIT = 100
"""Characters that the sub model reads."""


@pytest.fixture
def sent_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The questions of each batch that the host was sent.

    Two files are loaded; the host knows them, and wants their texts.
    """
    texts = {"a.txt": "a" * 60, "b.txt": "b" * 60}
    for name in ("hand", "unhand"):
        monkeypatch.setattr(wire, name, lambda *_: None)
    monkeypatch.setattr(files, "files", texts)
    monkeypatch.setattr(
        files, "_loaded", {name: files.Loaded(f"/in/{name}", "utf-8", False, "") for name in texts}
    )
    sent: list[list[str]] = []

    def call_many(
        _kind: str,
        items: Iterable[batches.Item],
        results: list[Any],
        places: Sequence[int],
        *,
        read: Callable[[int, Any], Any],
        done: Callable[[int], None],
        **_: Any,
    ) -> None:
        sent.append([])
        for place, item in zip(places, items, strict=True):
            sent[-1].append(item.body["question"])
            given = answer(item.body)
            results[place] = given if isinstance(given, wire.CallFailed) else read(place, given)
            done(place)
        refused = [
            one.error
            for place in places
            if isinstance(one := results[place], wire.CallFailed)
            and isinstance(one.error, wire.BudgetExceeded)
        ]
        if places and len(refused) == len(places):
            raise refused[0]

    monkeypatch.setattr(batches, "call_many", call_many)
    return sent


def answer(body: dict[str, Any]) -> Any:
    if "files" in (body["context"] or {}):
        return wire.CallFailed(wire.TextWanted(str(LIMIT)))
    if body["question"].startswith("dear"):
        return wire.CallFailed(wire.BudgetExceeded("It is used up."))
    return f"answer to {body['question']}"


def test_files_are_given_as_texts_where_they_fit_together(sent_batches: list[list[str]]) -> None:
    both = dict(files.files)
    found = queries.rlm_query_batched(["one", "both", "none"], [files.files["a.txt"], both, None])
    assert sent_batches == [["one", "both", "none"], ["one"]]
    assert (found[0], found[2]) == ("answer to one", "answer to none")
    assert "reads at most 100 characters; the context has 120" in str(found[1].error)


def test_what_was_answered_is_kept_when_the_texts_are_refused(sent_batches: list[list[str]]) -> None:
    found = queries.rlm_query_batched(["one", "dear"], [None, files.files["a.txt"]])
    assert found[0] == "answer to one"
    assert isinstance(found[1].error, wire.BudgetExceeded)
    with pytest.raises(wire.BudgetExceeded):
        queries.rlm_query("dear", files.files["a.txt"])
    assert [len(batch) for batch in sent_batches] == [2, 1, 1, 1]


def test_pictures_in_the_place_of_the_models_name_are_told_where_they_go() -> None:
    with pytest.raises(TypeError, match=r"model is a model's name, not a list; pictures go to images="):
        queries.llm_query("What is it?", ["a.png"])  # type: ignore[arg-type]


def test_a_batchs_time_out_stands_still_while_the_user_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.time, "monotonic", lambda: now)
    now = 100.0
    wire.value_of({"call": "1", "ok": True, "value": 1, "asking": 5.0})
    deadline, none = batches.Deadline(10.0), batches.Deadline(None)
    now = 130.0
    assert deadline.left() == -20.0
    with pytest.raises(wire.LLMError):
        wire.value_of(
            {"call": "2", "ok": False, "error": {"type": "LLMError", "message": ""}, "asking": 28.0}
        )
    wire.value_of({"call": "3", "ok": True, "value": 1})
    assert deadline.left() == 3.0
    deadline.pass_now()
    none.pass_now()
    assert (deadline.left(), none.left()) == (float("-inf"), None)
