"""`rlm open --html`: a page in a folder of the user's own."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from rlm_kernel.cli import app
from tests.support.examples import FOLDER


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def _opened(trace: Path) -> Path:
    done = CliRunner().invoke(app, ["open", str(trace), "--html"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "", "it has nothing for a pipe"
    (address,) = re.findall(r"file://(\S+)", done.stderr)
    return Path(unquote(address))


def test_the_page_has_the_answer_and_is_the_users_alone() -> None:
    page = _opened(FOLDER / "fork.ipynb")
    assert "errors are left without the hours of the backup" in page.read_text("utf-8")
    assert page.stat().st_mode & 0o077 == 0
    assert page.parent.stat().st_mode & 0o077 == 0


def test_of_many_pages_the_last_are_kept() -> None:
    pages = [_opened(FOLDER / "fork.ipynb") for _ in range(23)]
    assert len(list(pages[-1].parent.glob("*.html"))) == 20
    assert pages[-1].exists()
