from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.sandbox import user_cells
from rlm_kernel.sandbox.kernel_says import Message
from rlm_kernel.sandbox.user_cells import UserCells


class Persons:
    def __init__(self) -> None:
        self.found: list[CellResult] = []
        self.cells = UserCells(self.found.append)

    def hear(self, request: Any, kind: Any, **content: Any) -> None:
        self.cells.hear(
            Message.made_of({"msg_type": kind}, {"msg_id": request, "session": "theirs"}, content)
        )

    def runs(self, request: str, code: Any = "1", text: str = "") -> None:
        self.hear(request, "execute_input", code=code, execution_count=7)
        if text:
            self.hear(request, "stream", name="stdout", text=text)
        self.hear(request, "status", execution_state="idle")


@pytest.fixture
def persons() -> Persons:
    return Persons()


def test_a_cell_has_its_code_outputs_and_status(persons: Persons) -> None:
    persons.hear("a", "status", execution_state="busy")
    persons.hear("a", "execute_input", code="print(1); fail", execution_count=3)
    persons.hear("a", "stream", name="stdout", text="1\n")
    persons.hear("b", "stream", name="stdout", text="another's")
    persons.hear("a", "error", ename="NameError", evalue="fail", traceback=["NameError: fail"])
    assert persons.found == []
    persons.hear("a", "status", execution_state="idle")
    (cell,) = persons.found
    assert (cell.cell_id, cell.code, cell.status, cell.execution_count) == (
        "person-01",
        "print(1); fail",
        "error",
        3,
    )
    assert [output["output_type"] for output in cell.outputs] == ["stream", "error"]


@pytest.mark.parametrize("code", ["", " \n", None, 5, ["x"], "x" * (user_cells.MAX_CODE + 1)])
def test_what_is_no_cell_is_left_out(persons: Persons, code: Any) -> None:
    persons.runs("a", code)
    assert persons.found == []


@pytest.mark.parametrize(
    "message",
    [(None, "execute_input"), ([], "stream"), ("a", None), ("a", "status"), ("a", "update_display_data")],
)
def test_odd_messages_are_ignored(persons: Persons, message: tuple[Any, Any]) -> None:
    persons.hear(*message)
    persons.hear("a", "execute_input", code="1", execution_count=-1)
    persons.hear(*message)
    persons.cells.kernel_ended()
    assert [cell.execution_count for cell in persons.found] == [None]


def test_the_next_cell_ends_one_whose_end_was_not_told(persons: Persons) -> None:
    persons.hear("a", "execute_input", code="first")
    persons.runs("b", "second")
    assert [cell.code for cell in persons.found] == ["first", "second"]


def test_the_cell_that_runs_dies_with_the_kernel(persons: Persons) -> None:
    persons.hear("a", "execute_input", code="while True: pass")
    persons.cells.kernel_ended()
    persons.cells.kernel_ended()
    assert [cell.status for cell in persons.found] == ["died"]


def test_no_more_than_a_number_of_cells_are_kept(persons: Persons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_cells, "MAX_CELLS", 3)
    for number in range(10):
        persons.runs(str(number))
    assert [cell.cell_id for cell in persons.found] == ["person-01", "person-02", "person-03"]


def test_no_more_than_so_much_of_them_is_kept(persons: Persons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_cells, "MAX_TOTAL", 1000)
    for number in range(10):
        persons.runs(str(number), text="x" * 400)
    assert len(persons.found) == 3
