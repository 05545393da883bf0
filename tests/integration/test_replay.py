"""`rlm replay`: real containers, no key, no model, and no way to any."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM, FileRefused, UsageError
from rlm_kernel.session.replay import Replayed
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.story import ANSWER, Story, record

pytestmark = pytest.mark.xdist_group("replay")  # they share what takes long to make
TEXT = "hello world\n" * 100


@pytest.fixture(scope="module")
def recorded(kernel_image: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's trace, its file, and nothing else."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "a.txt").write_text(TEXT)
    assert record(folder / "a.txt", folder / "t.ipynb").answer == ANSWER
    return folder


@pytest.fixture
def trace(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the trace, to be edited."""
    return Path(shutil.copy(recorded / "t.ipynb", tmp_path / "t.ipynb"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to anything but unix sockets fail."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, f"something connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *arguments, **_: pytest.fail(f"something looks up {arguments}")
    )


def edit(path: Path, change: Callable[[dict[str, Any], list[Any]], None]) -> None:
    """Change a notebook's cells, by id and in order."""
    notebook = nbformat.read(path, 4)
    change({cell.id: cell for cell in notebook.cells}, notebook.cells)
    nbformat.write(notebook, path)


def verdicts(replayed: Replayed) -> dict[str, str]:
    return {verdict.cell: verdict.verdict for verdict in replayed.verdicts}


def test_a_trace_that_is_its_own_child_is_replayed_once(rlm: Rlm, trace: Path, recorded: Path) -> None:
    def name_itself(cells: dict[str, Any], _: list[Any]) -> None:
        next(cell for cell in cells.values() if cell.metadata.get("rlm", {}).get("calls")).metadata.rlm.calls[
            0
        ]["trace"] = trace.name

    edit(trace, name_itself)
    done = rlm("replay", "--tree", str(trace), "--file", f"a.txt={recorded / 'a.txt'}")
    assert done.returncode == 1
    assert done.stdout.count("this trace of a child RLM is its own ancestor") == 1


def containers(client: Any) -> set[str]:
    """Those of this process: other tests may have left one to its idle time."""
    mine = {"label": f"rlm-kernel.owner={os.getpid()}"}
    return {found.id for found in client.containers.list(ignore_removed=True, all=True, filters=mine)}


@pytest.mark.usefixtures("no_network")
def test_a_trace_replays_to_the_same_without_key_or_network(
    rlm: Rlm, recorded: Path, docker_client: Any
) -> None:
    before = containers(docker_client)
    done = rlm("replay", str(recorded / "t.ipynb"))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "All 12 cells gave the same outputs."
    cells = [cell.id for cell in read_trace(recorded / "t.ipynb").code_cells]
    assert [line.split()[:2] for line in lines[:-1]] == [[cell, "same"] for cell in cells]
    assert containers(docker_client) <= before


@pytest.mark.hostile
def test_threads_that_print_as_they_come_and_300_calls_replay_again_and_again(
    recorded: Path, tmp_path: Path
) -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor, as_completed\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(list(pool.map(lambda n: llm_query(f'call {n % 50}'), range(300))))"
    )
    story = Story([["print(peek())", code], ["FINAL('done')"]])
    record(recorded / "a.txt", tmp_path / "t.ipynb", models=story)
    assert len(story.asked) == 300
    for _ in range(3):
        assert RLM().replay(tmp_path / "t.ipynb").same


def test_each_cell_has_its_verdict_and_the_rest_is_run_all_the_same(rlm: Rlm, trace: Path) -> None:
    def change(cells: dict[str, Any], order: list[Any]) -> None:
        cells["turn-01-a"].source += "\nprint('and more')"
        cells["turn-04-a"].source = "1 / 0"
        order.remove(cells["turn-02-b"])
        order.insert(
            order.index(cells["turn-03-a"]),
            nbformat.v4.new_code_cell("print(total_of_a_person := 1)", id="mine"),
        )
        order.append(nbformat.v4.new_code_cell("total_of_a_person + undefined", id="broken"))
        cells["turn-04-b"].metadata["collapsed"] = True

    edit(trace, change)
    done = rlm("replay", str(trace), "--json", "--out", "out/r.ipynb")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["same"] is False
    cells = {cell["cell"]: cell for cell in found["cells"]}
    expected = {
        "parameters": "same", "setup": "same", "turn-01-a": "differs", "turn-01-b": "same", "turn-02-a": "same", "mine": "added",
        "turn-03-a": "same", "turn-03-b": "same", "turn-03-c": "same", "turn-04-a": "failed", "turn-04-b": "same", "turn-05-a": "same",
        "broken": "failed",
    }  # fmt: skip
    assert {name: cell["verdict"] for name, cell in cells.items()} == expected
    assert "+and more" in cells["turn-01-a"]["diff"].splitlines()
    assert cells["turn-01-a"]["edited"]
    assert "ZeroDivisionError: division by zero" in cells["turn-04-a"]["detail"]
    assert "NameError" in cells["broken"]["detail"]
    out = read_trace(Path("out/r.ipynb"))
    nbformat.validate(out.node)
    replayed = {cell.id: cell for cell in out.cells}
    assert "and more" in replayed["turn-01-a"].outputs[0]["text"]
    assert replayed["mine"].outputs[0]["text"] == "1\n"
    assert [cell.id for cell in out.cells] == [cell.id for cell in read_trace(trace).cells]


@pytest.mark.usefixtures("no_network")
def test_a_call_without_a_record_ends_the_replay_and_says_how_to_allow_it(rlm: Rlm, trace: Path) -> None:
    edit(
        trace,
        lambda cells, _: cells["turn-01-b"].update(
            source="found = llm_query_batched(['never asked', 'the same'])"
        ),
    )
    done = rlm("replay", str(trace))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[3].split()[:3] == ["turn-01-b", "new", "call"]
    assert "1 call without a record" in lines[3]
    assert "turn-01-b made a call that has no record" in lines[4]
    assert "rlm replay --live" in done.stderr


def test_live_asks_the_models_for_what_has_no_record_and_for_nothing_else(
    trace: Path, tmp_path: Path
) -> None:
    edit(
        trace,
        lambda cells, _: cells["turn-01-b"].update(source="print(llm_query('never asked'))", outputs=[]),
    )
    story = Story()
    found = RLM(models=story).replay(trace, live=True, until="turn-02", out=tmp_path / "r.ipynb")
    assert found.spent.calls == len(story.asked), "what was asked anew is told"
    assert found.as_json()["spent"]["calls"] == found.spent.calls > 0
    assert story.asked == ["never asked"]
    assert verdicts(found)["turn-01-b"] == "differs"
    assert list(verdicts(found))[-1] == "turn-02-b"
    again = RLM().replay(tmp_path / "r.ipynb", until="turn-02-a")
    assert again.same, "the new answer is in the replayed notebook"


def test_a_person_steps_through_it(rlm: Rlm, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("\nr\nx\ns\nq\n"))
    done = rlm("replay", str(recorded / "t.ipynb"), "--step")
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines()[:4]] == ["same", "same", "skipped", "not"]
    assert "── turn-01-a ──\nprint(context[:20], len(context))" in done.stderr


def test_a_missing_or_changed_file_is_named_before_any_cell_runs(
    rlm: Rlm, recorded: Path, trace: Path, tmp_path: Path
) -> None:
    def move(notebook: Any) -> None:
        notebook["metadata"]["rlm"]["files"][0]["path"] = "/nowhere/a.txt"

    text = trace.read_text().replace(str(recorded / "a.txt"), "/nowhere/a.txt")
    trace.write_text(text)
    done = rlm("replay", str(trace))
    assert (done.returncode, done.stdout) == (2, "")
    assert "/nowhere/a.txt" in done.stderr
    assert "--file" in done.stderr
    changed = tmp_path / "other.log"
    changed.write_text(TEXT.replace("world", "whirl"))
    done = rlm("replay", str(trace), "--file", f"a.txt={changed}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "changed" in done.stderr
    done = rlm(
        "replay", str(trace), "--file", f"/nowhere/a.txt={changed}", "--allow-changed", "--until", "turn-01-a"
    )
    assert done.returncode == 1
    assert "-hello world" in done.stdout
    assert "+hello whirl" in done.stdout
    assert "changed" in done.stderr
    moved = tmp_path / "moved.log"
    moved.write_text(TEXT)
    done = rlm("replay", str(trace), "--file", f"a.txt={moved}", "--until", "setup")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All 2 cells gave the same outputs.")


def test_what_cannot_be_replayed_is_said(rlm: Rlm, recorded: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["none.ipynb"], "There is no trace"),
        ([str(recorded / "a.txt")], "not a notebook"),
        ([str(recorded / "t.ipynb"), "--until", "turn-09-a"], "no cell turn-09-a"),
        ([str(recorded / "t.ipynb"), "--file", "nothing"], "NAME=PATH"),
        ([str(recorded / "t.ipynb"), "--file", "b.txt=/x"], "b.txt"),
        ([str(recorded / "t.ipynb"), "--step", "--json"], "cannot be used together"),
    ):
        done = rlm("replay", *arguments)
        assert done.returncode in (1, 2), arguments
        assert said in done.stderr
        assert done.stdout == ""


def test_an_object_from_python_is_found_beside_its_trace(kernel_image: Any, tmp_path: Path) -> None:
    import asyncio

    from rlm_kernel.config import load_settings
    from rlm_kernel.session.ask import ask

    first = tmp_path / "first"
    story = Story([["print(context['a'])"], ["FINAL(context['b'])"]])
    asyncio.run(
        ask(
            "What is it?",
            {"a": 1, "b": [2]},
            settings=load_settings(None, {}),
            trace=first / "t.ipynb",
            models=story,
        )
    )
    shutil.move(first, tmp_path / "second")
    assert RLM().replay(tmp_path / "second" / "t.ipynb").same


def test_the_recorded_digest_is_that_of_the_file(recorded: Path) -> None:
    (meta,) = read_trace(recorded / "t.ipynb").meta.files
    assert meta.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()


def test_errors_of_the_python_interface_are_ours(recorded: Path) -> None:
    with pytest.raises(UsageError, match="no trace"):
        RLM().replay(Path("none.ipynb"))
    with pytest.raises(FileRefused):
        RLM().replay(recorded / "t.ipynb", files={"a.txt": Path("/none")})
