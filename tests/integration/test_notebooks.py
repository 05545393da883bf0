"""The notebooks that the project ships are real, and useful on any machine: with their inputs beside them
their code gives their outputs again, and they can be shown and handed on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlm_kernel import RLM, Replayed
from rlm_kernel.cli import app
from rlm_kernel.session.tree import with_children
from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.examples import EXAMPLES, FOLDER, INPUTS, TRACES, with_inputs


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as somebody has it who was given it, and has made the inputs that are not in it."""
    return with_inputs(tmp_path_factory.mktemp("given") / "notebooks")


def _all(replayed: Replayed) -> list[Replayed]:
    return [replayed, *(below for child in replayed.children for below in _all(child))]


def _tree(path: Path) -> list[TraceFile]:
    lost: list[str] = []
    found = list(with_children(read_trace(path), lost.append))
    assert not lost
    return found


def test_every_example_is_there() -> None:
    assert {path.stem for path in TRACES} >= set(EXAMPLES)


@pytest.mark.parametrize("name", [path.stem for path in TRACES])
def test_notebook_replays_to_the_same(kernel_image: Any, copy: Path, name: str) -> None:
    path = copy / f"{name}.ipynb"
    assert read_trace(path).meta.stop_reason == "answered"
    replayed = RLM().replay(path, tree=True)
    assert replayed.same, [
        (verdict.cell, verdict.verdict, verdict.diff) for part in _all(replayed) for verdict in part.verdicts
    ]
    assert len(_all(replayed)) == len(_tree(path))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_can_be_shown_and_exported(copy: Path, tmp_path: Path, name: str) -> None:
    path, page = copy / f"{name}.ipynb", tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["show", str(path), "--no-pager"])
    assert shown.exit_code == 0, shown.output
    assert "answered" in shown.stdout
    exported = CliRunner().invoke(app, ["export", str(path), "--html", "-o", str(page)])
    assert exported.exit_code == 0, exported.output
    text = page.read_text("utf-8")
    assert text.count("data:image/png;base64,") >= 1
    assert "data:image/svg+xml;base64," in text, "the timeline"


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_has_a_picture_that_its_code_made(name: str) -> None:
    cells = read_trace(FOLDER / f"{name}.ipynb").node.cells
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_tells_nothing_of_the_machine_that_made_it(name: str) -> None:
    for trace in _tree(FOLDER / f"{name}.ipynb"):
        named = [file.path for file in trace.meta.files] + [origin.trace for origin in trace.meta.origins]
        assert named
        assert all(path.startswith("/tmp/rlm-examples/") for path in named), named
        assert not re.search(r"/(?:home|root|Users|work)/", trace.path.read_text("utf-8"))


def test_the_notebooks_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.ipynb")) < 3_000_000


def test_inputs_are_made_as_they_are_in_the_repository(tmp_path: Path) -> None:
    made = INPUTS.make(tmp_path)
    kept = [path for path in made if (FOLDER / path.name).exists() and path.stat().st_size < 1_000_000]
    assert kept
    for path in kept:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
