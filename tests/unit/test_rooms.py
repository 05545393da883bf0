"""The picture of the rooms: drawn from the imports, up to date, and without a circle of modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from rlm_kernel.cli import app
from rlm_kernel.cli._chat_words import COMMANDS
from tests.unit.test_docs import ROOT


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "scripts" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A project of two rooms, with each kind of import."""
    made = {
        "rlm_kernel/__init__.py": "",
        "rlm_kernel/errors.py": "",
        "rlm_kernel/a/__init__.py": "from .one import x",
        "rlm_kernel/a/one.py": "import os\nfrom rlm_kernel import errors\nfrom rlm_kernel.a import two as "
        "other",
        "rlm_kernel/a/two.py": "def late():\n    import rlm_kernel.b.three\nif TYPE_CHECKING:\n    from "
        "rlm_kernel.b.three import X",
        "rlm_kernel/b/__init__.py": "",
        "rlm_kernel/b/three.py": "import rlm_kernel.errors",
        "kernel_image/rlm_runtime/__init__.py": "",
    }
    for name, text in made.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_picture_is_up_to_date_and_there_is_no_circle(
    rooms: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rooms.main(["--check"]) == 0, capsys.readouterr()


def test_imports_are_told_apart_by_when_they_are_made(rooms: ModuleType, house: Path) -> None:
    found = {
        (edge.source.removeprefix("rlm_kernel."), edge.target.removeprefix("rlm_kernel."), edge.how)
        for edge in _edges(rooms, house)
    }
    assert found == {
        ("a", "a.one", "import"),
        ("a.one", "errors", "import"),
        ("a.one", "a.two", "import"),
        ("a.two", "b.three", "late"),
        ("a.two", "b.three", "typing"),
        ("b.three", "errors", "import"),
    }


@pytest.mark.parametrize(
    "closing",
    [
        "from rlm_kernel.a import one",
        "def f():\n    from rlm_kernel.a.one import x",
        "if TYPE_CHECKING:\n    import rlm_kernel.a.one",
    ],
    ids=["import", "late", "typing"],
)
def test_a_circle_is_found_whichever_import_closes_it(rooms: ModuleType, house: Path, closing: str) -> None:
    assert rooms.circles(_edges(rooms, house)) == []
    (house / "rlm_kernel/b/three.py").write_text(closing)
    assert rooms.circles(_edges(rooms, house)) == [
        ["rlm_kernel.a.one", "rlm_kernel.a.two", "rlm_kernel.b.three"]
    ]


def test_a_picture_that_is_not_up_to_date_fails_the_check(
    rooms: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "architecture.md"
    page.write_text(f"Before.\n\n{rooms.BEGIN}\nold\n{rooms.END}\n\nAfter.\n")
    monkeypatch.setattr(rooms, "PAGE", page)
    assert rooms.main(["--check"]) == 1
    assert rooms.main(["--write"]) == 0
    assert rooms.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "session --> engine" in text


def test_the_chat_knows_the_commands_of_the_shell() -> None:
    assert set(getattr(get_command(app), "commands", {})) == COMMANDS


def _edges(rooms: ModuleType, house: Path) -> list[object]:
    edges: list[object] = rooms.imports(rooms.modules(house))
    return edges
