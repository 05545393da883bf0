"""Which notebook a kernel in Jupyter is started for, and which files it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from rlm_kernel import TraceError, UsageError
from rlm_kernel.session.jupyter.notebook import Opened, files_of, find_opened
from rlm_kernel.trace.reader import trace_of
from tests.support.trace import meta
from tests.unit.session.test_tracefiles import recorded


def notebook(source: str = "", *tags: str, rlm: Any = None) -> Any:
    """A notebook with one cell, which has the tags (`parameters`, if none are given)."""
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags) or ["parameters"]})
    return nbformat.v4.new_notebook(cells=[cell], metadata={"rlm": rlm} if rlm else {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebook's folder; the current one is another."""
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


class Starting(NotebookClient):
    """Looks at itself as a provisioner does that it starts."""

    def found(self, environ: dict[str, str] | None = None) -> Opened | None:
        return find_opened(environ)

    async def found_later(self) -> Opened | None:
        return await self._later()

    async def _later(self) -> Opened | None:
        return find_opened(None)


def test_without_any_sign_there_is_no_notebook() -> None:
    assert find_opened(None) is None
    assert find_opened({"PATH": "/bin"}) is None


def test_the_path_that_a_jupyter_server_tells(folder: Path) -> None:
    assert find_opened({"JPY_SESSION_NAME": str(folder / "t.ipynb")}) == Opened(folder / "t.ipynb")
    assert find_opened({"JPY_SESSION_NAME": "t.ipynb"}) == Opened(Path.cwd() / "t.ipynb")


async def test_the_client_that_is_starting_the_kernel(folder: Path) -> None:
    node = notebook()
    client = Starting(node, resources={"metadata": {"path": str(folder), "name": "mine"}})
    for found in (client.found({"JPY_SESSION_NAME": "another.ipynb"}), await client.found_later()):
        assert found is not None
        assert found.node is node
        assert found.path == folder / "mine.ipynb"
        assert found.given == {}
    bare = Starting(node).found()
    assert bare is not None
    assert bare.path.parent == Path.cwd()


def test_metadata_of_an_earlier_papermill_run_give_nothing() -> None:
    node = notebook()
    node.metadata["papermill"] = {"parameters": {"paths": ["/etc/passwd"]}, "input_path": "/etc/x.ipynb"}
    found = Starting(node).found()
    assert found is not None
    assert found.given == {}
    assert found.path.parent == Path.cwd()


def test_a_named_trace_wins_and_must_be_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_TRACE", str(folder / "t.ipynb"))
    found = Starting(notebook()).found({"JPY_SESSION_NAME": "another.ipynb"})
    assert found == Opened(folder / "t.ipynb", named=True)
    assert found is not None
    with pytest.raises(UsageError, match="There is no trace"):
        found.read()
    nbformat.write(notebook(), folder / "t.ipynb")
    with pytest.raises(TraceError, match="not a trace of rlm_kernel"):
        found.read()


def test_what_is_read(folder: Path) -> None:
    path = folder / "t.ipynb"
    assert Opened(path).read() == (None, None, "")
    path.write_text("{")
    assert Opened(path).read() == (None, None, "")
    plain = notebook()
    assert Opened(path, plain).read() == (plain, None, "")
    node = notebook(rlm=meta().model_dump(mode="json"))
    nbformat.write(node, path)
    read, trace, problem = Opened(path).read()
    assert read.metadata == node.metadata
    assert trace is not None
    assert (trace.path, problem) == (path, "")
    node.metadata.rlm["version"] = 99
    _, trace, problem = Opened(path, node).read()
    assert trace is None
    assert "its format is 99" in problem


def granted(
    folder: Path, node: Any, *, allow: list[Path] | None = None, given: dict[str, Any] | None = None
) -> Any:
    opened = Opened(folder / "t.ipynb", node, given=given or {})
    trace = trace_of(node, opened.path) if "rlm" in node.metadata else None
    return files_of(opened, node, trace, allow or [])


def traced(*files: Any, source: str = "") -> Any:
    return notebook(source, rlm=meta(files=list(files)).model_dump(mode="json"))


def test_recorded_files_are_given_wherever_they_lie_if_they_are_the_same(
    tmp_path: Path, folder: Path
) -> None:
    file = recorded(tmp_path / "a.txt")
    files = granted(folder, traced(file, source=f"paths = [{file.path!r}]"))
    assert (files.paths, files.known_as) == ([tmp_path / "a.txt"], [tmp_path / "a.txt"])


def test_a_changed_or_missing_file_is_not_given_and_the_reason_is_known(tmp_path: Path, folder: Path) -> None:
    changed, gone = recorded(folder / "a.txt"), recorded(tmp_path / "b.txt")
    (folder / "a.txt").write_text("else")
    (tmp_path / "b.txt").unlink()
    files = granted(folder, traced(changed, gone, source=f"paths = [{changed.path!r}, {gone.path!r}]"))
    assert files.paths == []
    assert "a.txt has changed: 4 bytes" in files.why_not(changed.path).message
    assert "b.txt is not there" in files.why_not(gone.path).message
    assert "restart the kernel" in files.why_not(gone.path).hint


def test_a_recorded_file_without_a_digest_is_given_only_where_paths_may_point(
    tmp_path: Path, folder: Path
) -> None:
    near, far = recorded(folder / "a.txt", digest=False), recorded(tmp_path / "b.txt", digest=False)
    files = granted(folder, traced(near, far))
    assert files.paths == [folder / "a.txt"]
    assert "by its size alone" in files.why_not(far.path).message


def test_paths_of_the_parameters_lie_where_they_may(tmp_path: Path, folder: Path) -> None:
    (folder / "sub").mkdir()
    places = [folder / "sub" / "a.txt", Path.cwd() / "b.txt", tmp_path / "ok" / "c.txt", tmp_path / "d.txt"]
    for place in places:
        recorded(place)
    (folder / "link.txt").symlink_to(tmp_path / "d.txt")
    named = ["sub/a.txt", "link.txt", "none.txt", 7, *map(str, places[1:])]
    files = granted(
        folder, notebook(f"question = 'x'\npaths = ['other.txt']\npaths = {named}"), allow=[tmp_path / "ok"]
    )
    assert files.paths == places[:3]
    assert files.place("sub/a.txt") == str(places[0])
    for refused in ("link.txt", str(places[3])):
        assert "This kernel may not read" in files.why_not(refused).message
    assert "cannot be read" in files.why_not("none.txt").message


def test_what_papermill_was_given_now_is_given_wherever_it_lies(tmp_path: Path, folder: Path) -> None:
    file = recorded(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("changed, and named all the same")
    node = traced(file, source=f"paths = [{file.path!r}]")
    assert granted(folder, node).paths == []
    assert granted(folder, node, given={"paths": [file.path]}).paths == [tmp_path / "a.txt"]


def test_the_last_parameters_cell_holds(folder: Path) -> None:
    for name in ("a.txt", "b.txt"):
        recorded(folder / name)
    node = notebook("paths = ['a.txt']")
    node.cells += (
        notebook("paths = ['b.txt']", "injected-parameters").cells
        + notebook("paths = ['a.txt']", "other").cells
    )
    assert granted(folder, node).paths == [folder / "b.txt"]


@pytest.mark.parametrize(
    "source",
    [
        "paths = [open('x')]",
        "paths = 'a.txt'",
        "%magic\npaths = ['a.txt']",
        "paths = ['\\0']",
        "path = ['a.txt']",
        "(" * 500,
    ],
)
def test_anything_but_a_literal_list_names_nothing(folder: Path, source: str) -> None:
    recorded(folder / "a.txt")
    assert granted(folder, notebook(source)).paths == []


def test_without_a_notebook_there_are_no_files() -> None:
    files = files_of(None, None, None, [])
    assert list(files.paths) == []
    assert "may not read" in files.why_not("/etc/hostname").message
