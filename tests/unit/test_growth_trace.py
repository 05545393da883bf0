"""What a trace costs grows with what is in it: ten times the cells, about ten times the time and the bytes
written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellOutput,
    CellStarted,
    Noted,
    RunOpened,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Completion, Totals, Usage
from rlm_kernel.sandbox.outputs import OutputCollector
from rlm_kernel.trace import notebook_file
from rlm_kernel.trace.reader import read_notebook
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import stream
from tests.support.growth import LIMIT, growth
from tests.support.trace import call, meta, result

Work = Callable[[NotebookWriter, int], None]


@pytest.fixture(autouse=True)
def from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a small trace has ahead would hide how the rest grows."""
    monkeypatch.setattr(notebook_file, "AHEAD", 10_000)


def turns(writer: NotebookWriter, number: int) -> None:
    for turn in range(number):
        writer(TurnStarted(turn))
        writer(TurnReplied(turn, Completion("print(1)", "openai/root", Usage(100, 20)), "I look."))
        writer(CellStarted(f"turn-{turn}-a", turn, "print(1)"))
        writer(CellOutput(f"turn-{turn}-a", [stream("1\n" * 100)]))
        writer(
            CellFinished(turn, result(f"turn-{turn}-a", outputs=[stream("1\n" * 200)], calls=(call(turn),)))
        )
        writer(Noted("Write code."))


def calls(writer: NotebookWriter, number: int) -> None:
    writer(CellStarted("turn-01-a", 1, "x"))
    for name in range(number):
        writer(CallFinished("turn-01-a", call(name)))


def lines(writer: NotebookWriter, number: int) -> None:
    writer(CellStarted("turn-01-a", 1, "x"))
    collector = OutputCollector()
    for name in range(number):
        collector.add("stream", {"name": "stdout", "text": f"line {name}\n"})
        writer(CellOutput("turn-01-a", collector.outputs))


def displays(writer: NotebookWriter, number: int) -> None:
    writer(CellStarted("turn-01-a", 1, "x"))
    for name in range(number):
        writer(CellOutput("turn-01-a", [stream(f"{name} of {number}\n" * 50)]))


def persons(writer: NotebookWriter, number: int) -> None:
    for name in range(number):
        writer(UserCellFinished(result(f"person-{name}", outputs=[stream("1\n")])))


def files(writer: NotebookWriter, number: int) -> None:
    for name in range(number):
        writer.set_files([FileMeta(path=f"/data/{name}.txt", size=name)])
        writer.set_files([FileMeta(path=f"/data/{name}.txt", size=name, sha256="a" * 64)])


EVENTS = [turns, calls, lines, displays, persons, files]


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Callable[[int], tuple[NotebookWriter, int]]]:
    made: list[NotebookWriter] = []

    def make(size: int) -> tuple[NotebookWriter, int]:
        made.append(NotebookWriter(tmp_path / f"{len(made)}.ipynb", meta(), []))
        made[-1](RunOpened("Q", Ledger(Limits()), Totals()))
        return made[-1], size

    yield make
    for writer in made:
        writer.release()


@pytest.mark.parametrize("events", EVENTS, ids=lambda events: events.__name__)
def test_the_time_of_writing_grows_with_the_events(writers: Any, events: Work) -> None:
    assert growth(writers, lambda made: events(*made), 30) <= LIMIT


@pytest.mark.parametrize("events", EVENTS, ids=lambda events: events.__name__)
def test_the_bytes_written_grow_with_the_events(
    writers: Any, monkeypatch: pytest.MonkeyPatch, events: Work
) -> None:
    written = [0]
    real_write, real_replace = os.write, Path.replace

    def write(file: int, data: Any) -> int:
        written[0] += len(data)
        return real_write(file, data)

    def replace(self: Path, target: Any) -> Any:
        written[0] += self.stat().st_size
        return real_replace(self, target)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(notebook_file, "RATE", 1e-6)  # so that how fast the machine is does not count

    def total(number: int) -> int:
        written[0] = 0
        writer, _ = writers(number)
        events(writer, number)
        writer.close()  # what was kept back for a moment is written, too
        return written[0]

    assert total(2_000) <= LIMIT * total(200)


def test_a_journal_is_read_in_a_time_that_grows_with_it(
    writers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_file, "SHARE", 0)
    monkeypatch.setattr(notebook_file, "RATE", 1e-6)

    def make(number: int) -> Path:
        writer, _ = writers(number)
        turns(writer, number)
        return writer.path

    assert growth(make, read_notebook, 20) <= LIMIT
