"""Which failures end a batch, and which are those of one question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import (
    BudgetExceeded,
    ConfigError,
    DockerError,
    FileRefused,
    InternalError,
    KernelError,
    ModelError,
    RLMError,
    TraceNotWritten,
)
from rlm_kernel.session.batch.failures import failure_of
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.results import rows
from rlm_kernel.session.batch.run import AHEAD, ALIKE, Heard, How
from tests.support.batches import Stub, answered, run


async def failing(item: Item) -> Done:
    return Done(item, failure=Failure("KernelError", "It does not start.", "Look.", passing=True))


def test_failures_of_one_kind_from_the_start_end_it_unless_it_is_to_go_on() -> None:
    engine = Stub(failing)
    with pytest.raises(RLMError, match=f"first {ALIKE} questions .* KernelError") as caught:
        asyncio.run(run(engine, (f"q{n}" for n in range(1000))))
    assert "--keep-going" in caught.value.hint
    assert len(engine.begun) < 2 * (ALIKE + AHEAD + 4)
    assert len(asyncio.run(run(Stub(failing), (f"q{n}" for n in range(30)), how=How(keep_going=True)))) == 30
    assert len(asyncio.run(run(Stub(failing), (f"q{n}" for n in range(ALIKE - 1))))) == ALIKE - 1


def test_failures_after_an_answer_end_nothing() -> None:
    async def answer(item: Item) -> Done:
        return answered(item) if item.question == "q0" else await failing(item)

    assert len(asyncio.run(run(Stub(answer, places=1), (f"q{n}" for n in range(40))))) == 40


def test_bad_lines_are_failures_among_the_others(tmp_path: Path) -> None:
    heard: list[int] = []
    done = asyncio.run(
        run(
            Stub(),
            ["a", {"no": "question"}, 7, "b"],
            tmp_path / "r.jsonl",
            heard=Heard(bad=lambda line: heard.append(line.number)),
        )
    )
    assert heard == [2, 3]
    assert [one.failure is not None for one in sorted(done, key=lambda one: one.item.id)].count(True) == 2
    assert len(list(rows(tmp_path / "r.jsonl"))) == 2


def test_what_the_questions_raise_comes_out_and_what_runs_is_stopped() -> None:
    def questions() -> Iterator[str]:
        yield "a"
        raise ValueError("the program's own")

    async def forever(_item: Item) -> Done:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ValueError, match="the program's own"):
        asyncio.run(run(Stub(forever), questions()))


def test_results_that_cannot_be_written_end_it(tmp_path: Path) -> None:
    async def answer(item: Item) -> Done:
        (tmp_path / "r.jsonl").unlink(missing_ok=True)
        return answered(item)

    with pytest.raises(TraceNotWritten):
        asyncio.run(run(Stub(answer), ["a", "b"], tmp_path / "r.jsonl"))


@pytest.mark.parametrize(
    ("error", "changes", "passing"),
    [
        (ModelError("busy", fault="rate_limit", model="m"), {}, True),
        (ModelError("refused", fault="refused", model="m"), {}, False),
        (KernelError("lost"), {}, True),
        (FileRefused("not there"), {}, False),
        (InternalError("odd"), {}, False),
        (BudgetExceeded("own", limit="cost"), {}, False),
        (ModelError("no such", fault="unknown_model", model="m"), {"root_llm.model": "m"}, False),
        (ConfigError("bad"), {"limits.turns": 0}, False),
    ],
)
def test_what_concerns_one_question_is_its_failure(
    error: RLMError, changes: dict[str, Any], passing: bool
) -> None:
    failure = failure_of(error, Item("a", "?", changes=changes))
    assert (failure.kind, failure.message, failure.passing) == (type(error).__name__, error.message, passing)


@pytest.mark.parametrize(
    "error",
    [
        DockerError("no engine"),
        ModelError("wrong key", fault="auth", model="m"),
        ModelError("no credit", fault="rate_limit", model="m", no_credit=True),
        BudgetExceeded("all", limit="batch"),
        TraceNotWritten("full"),
        ConfigError("bad"),
    ],
)
def test_what_would_meet_every_question_ends_all(error: RLMError) -> None:
    with pytest.raises(type(error)):
        failure_of(error, Item("a", "?", changes={"sandbox.question_files": False}))


def test_a_wrong_key_ends_all_where_a_question_has_only_limits_or_a_prompt_of_its_own() -> None:
    with pytest.raises(ModelError):
        failure_of(
            ModelError("wrong key", fault="auth", model="m"),
            Item("a", "?", changes={"prompt.whole": 0.0, "limits.calls": 0}),
        )
