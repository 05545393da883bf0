"""What a run that is taken up goes on from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Event, RunFinished, RunOpened
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.prompts import load_profile
from rlm_kernel.errors import TraceError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.answering import Family
from rlm_kernel.session.environment import Environment, Host
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.questions import Question
from rlm_kernel.session.resume import _Going
from rlm_kernel.session.resume_plan import Plan, origin_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell


def plan(path: Path, events: int, question: str = "", keep: int | None = None) -> Plan:
    """A run that was cut off after so many events, and perhaps after a further question."""
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:events])
    if question:
        writer.question(question)
    trace = read_trace(path)
    return Plan(trace, trace.cells[:keep], path, origin_of(trace, trace.cells, "resume"), forked=False)


@pytest.mark.parametrize("events", [1, 7, 9, 15, 22])
def test_a_turn_that_was_cut_off_is_to_be_finished(tmp_path: Path, events: int) -> None:
    assert not plan(tmp_path / "t.ipynb", events).ended


def test_a_run_that_ended_at_a_limit_has_no_turn_to_finish(tmp_path: Path) -> None:
    assert plan(tmp_path / "t.ipynb", len(STORY)).ended


def test_a_question_that_had_no_reply_yet_is_not_answered_by_the_turn_before_it(tmp_path: Path) -> None:
    assert plan(tmp_path / "t.ipynb", 15, "And why?").ended


def test_part_of_a_trace_is_taken_as_it_is(tmp_path: Path) -> None:
    assert plan(tmp_path / "t.ipynb", 22, keep=5).ended


async def test_whoever_hears_that_a_run_goes_on_hears_of_its_end(tmp_path: Path) -> None:
    heard: list[Event] = []

    def view(event: Event) -> None:
        heard.append(event)
        if isinstance(event, RunOpened):
            raise TraceError("The screen is full.")

    image, run = SimpleNamespace(tag="t", id="i"), SimpleNamespace(session_id="1a2b3c4d")
    grants = SimpleNamespace(paths=[], places=dict)
    running: Any = SimpleNamespace(environment=Environment(Host(Settings()), run, grants, image))  # type: ignore[arg-type]
    models = ModelSet(ScriptedModels([]), {"root": "a", "sub": "b"}, load_profile("default"))
    path = tmp_path / "t.ipynb"
    going = _Going(plan(path, 9), running, Family(models, None), Ledger(Limits()), view)  # type: ignore[arg-type]
    before = path.read_bytes()
    with pytest.raises(TraceError):
        await going.run(Question("What?"), [], lambda _result: None)
    assert [type(event) for event in heard] == [RunOpened, RunFinished]
    assert path.read_bytes() == before
