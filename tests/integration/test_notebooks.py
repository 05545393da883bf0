"""The notebooks that the project ships are real: run again, their code gives their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM
from rlm_kernel.trace.reader import read_trace

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_replays_to_the_same(kernel_image: Any, path: Path) -> None:
    assert read_trace(path).meta.stop_reason == "answered"
    replayed = RLM().replay(path)
    assert replayed.same, [(verdict.cell, verdict.verdict, verdict.diff) for verdict in replayed.verdicts]
