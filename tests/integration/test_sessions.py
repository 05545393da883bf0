"""Kept sessions: what one command leaves, the next one has; what is lost is rebuilt from the trace."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.events import CellOutput, Event
from rlm_kernel.errors import UsageError
from rlm_kernel.sandbox import kernel as kernel_module
from rlm_kernel.session import environment
from rlm_kernel.session.manager import open_session, stop_session
from rlm_kernel.session.replay import replay
from rlm_kernel.session.running import discard
from rlm_kernel.session.session import Session
from rlm_kernel.session.state import SessionFolder, sessions
from rlm_kernel.session.status import look_at
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.views.live import LiveView
from tests.integration.conftest import IDLE, Rlm
from tests.support.start import FOR_MODELS, FOR_NOTEBOOKS, FOR_TERMINALS, command, loaded_by
from tests.support.talk import Talk

pytestmark = pytest.mark.usefixtures("kernel_image", "_nothing_left")
SMALL = {"sandbox.memory": "1g"}


@pytest.fixture
def _nothing_left(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sessions of a test end with it."""
    monkeypatch.chdir(tmp_path)
    yield
    for name in sessions(tmp_path / ".rlm_state"):
        state = SessionFolder(tmp_path / ".rlm_state", name).read()
        if state is not None:
            discard(state.run)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_text("first line\nsecond line\n")
    return path


def session(models: Talk | None = None, **options: Any) -> AbstractAsyncContextManager[Session]:
    changes = {**SMALL, **options.pop("changes", {})}
    return open_session(models=models or Talk(), changes=changes, **options)


async def ask(question: str, **options: Any) -> str | None:
    """As a command of its own."""
    async with session(**options) as kept:
        return (await kept.ask(question)).answer


def kill_container(docker_client: Any) -> None:
    state = SessionFolder(Path(".rlm_state").absolute()).read()
    assert state is not None
    name = f"rlm-{state.run.name.removeprefix('rlm-')}-1"
    docker_client.containers.get(name).remove(force=True)


async def test_files_variables_and_conversation_survive_the_command(log: Path) -> None:
    first, talk = Talk(), Talk()
    async with session(first, paths=[log]) as kept:
        code = "lines = context.splitlines(); add_buffer('a' * 2_000); FINAL(str(len(lines)))"
        assert (await kept.ask(f"run: {code}")).answer == "2"
    assert (await look_at()).buffers == {"count": 1, "characters": 2_000}
    async with session(talk, changes={"memory_compaction.enabled": False}) as kept:
        assert "as you left it" in kept.opened[0]
        assert (
            await kept.ask("run: FINAL(lines[1] + ' of ' + context[:5])")
        ).answer == "second line of first"
        assert kept.conversation() == [
            (f"run: {code}", "2"),
            ("run: FINAL(lines[1] + ' of ' + context[:5])", "second line of first"),
        ]
    roles = [message["role"] for message in talk.heard[-1]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "lines = context" in talk.heard[-1][2]["content"]
    assert talk.heard[0][:2] == first.heard[-1], "to the letter, so that a provider's cache hits"
    trace = read_trace(kept.trace)
    nbformat.validate(trace.node)
    assert [cell.kind for cell in trace.cells if cell.kind != "memory"] == [
        "title", "parameters", "setup", "model", "code", "answer", "question", "model", "code", "answer", "summary",
    ]  # fmt: skip
    assert trace.spent().turns == 2
    assert (await replay(kept.trace, changes=SMALL)).same


async def test_a_removed_container_is_rebuilt_from_the_trace(log: Path, docker_client: Any) -> None:
    await ask("run: told = llm_query('only once'); FINAL(told)", paths=[log])
    kill_container(docker_client)
    talk = Talk()
    async with session(talk) as kept:
        assert "all cells were run again" in kept.opened[0]
        assert (await kept.ask("run: FINAL(told + ', ' + context[:5])")).answer == "echo only once, first"
    assert "all cells were run again" in talk.heard[-1][-1]["content"]
    assert read_trace(kept.trace).meta.origins[-1].kind == "rebuild"
    assert (await replay(kept.trace, changes=SMALL)).same


async def test_a_session_whose_file_has_changed_is_rebuilt_with_the_new_one_and_says_so(
    log: Path, docker_client: Any
) -> None:
    await ask("run: size = len(context); FINAL(str(size))", paths=[log])
    await asyncio.to_thread(log.write_text, "only one line\n")
    kill_container(docker_client)
    async with session() as kept:
        assert "has changed" in kept.opened[0]
        assert (await kept.ask("run: FINAL(str(size))")).answer == "14"
    assert (await replay(kept.trace, changes=SMALL)).same


OTHERS = {
    "older": b'{"told": {"token": ""}, "idle": 7200}',
    "newer": b'{"version": 1000000, "told": {"token": ""}}',
    "damaged": b'{"version": 1, \xff',
}


@pytest.mark.parametrize("other", OTHERS)
async def test_a_session_that_another_version_began_is_rebuilt_and_its_container_ended(
    log: Path, docker_client: Any, other: str
) -> None:
    async with session(paths=[log]) as kept:
        await kept.ask("run: told = llm_query('only once'); FINAL(told)")
        folder = kept.state.run
    (folder / "session.json").write_bytes(OTHERS[other])
    assert (await look_at()).condition == "idle", "to look at it ends nothing"
    async with session() as kept:
        assert kept.opened[0].startswith("It was started by another version of rlm_kernel. "), kept.opened
        assert "\n" not in kept.opened[0]
        assert (await kept.ask("run: FINAL(told + ', ' + context[:5])")).answer == "echo only once, first"
    assert not folder.exists()
    label = f"rlm-kernel.session={folder.name.removeprefix('rlm-')}"
    assert docker_client.api.containers(all=True, filters={"label": label}) == []


async def test_a_session_whose_connection_file_is_damaged_is_rebuilt(log: Path) -> None:
    async with session(paths=[log]) as kept:
        folder = kept.state.run
    (folder / "connection.json").write_text('{"ip": [1]}')
    async with session() as kept:
        assert "did not answer" in kept.opened[0]
    assert not folder.exists()


async def test_a_session_of_another_image_with_the_same_protocol_is_joined(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask("run: x = 41; FINAL('kept' + context[:0])", paths=[log])
    found = environment.find_or_build_image

    def another(*given: Any, **options: Any) -> Any:
        return replace(found(*given, **options), id="sha256:another", tag="another")

    monkeypatch.setattr(environment, "find_or_build_image", another)
    async with session() as kept:
        assert "as you left it" in kept.opened[0]
        assert (await kept.ask("run: FINAL(str(x + 1))")).answer == "42"


async def test_a_container_that_hangs_is_waited_for_so_long_and_rebuilt(
    log: Path, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "JOIN_SECONDS", 2.0)
    monkeypatch.setattr(kernel_module, "GRACE", 1.0)
    async with session(paths=[log]) as kept:
        await kept.ask("run: x = 41; FINAL('kept' + context[:0])")
        name = kept._running.environment.run.container_name  # type: ignore[union-attr]
    docker_client.containers.get(name).pause()
    begun = time.monotonic()
    async with session() as kept:
        assert "did not answer" in kept.opened[0]
        assert (await kept.ask("run: FINAL(str(x + 1))")).answer == "42"
    assert time.monotonic() - begun < 60
    assert docker_client.api.containers(all=True, filters={"name": name}) == []


async def test_what_is_kept_of_the_files_of_another_version_is_no_traceback(log: Path) -> None:
    async with session(paths=[log]) as kept:
        await kept.ask("run: x = 41; FINAL('kept' + context[:0])")
        kept.folder.write(kept.state.model_copy(update={"grants": [{"path": 1}, {}]}))
        kept._keep = lambda _live: None  # type: ignore[method-assign]
    async with session() as kept:
        assert (await kept.ask("run: FINAL(str(x + 1))")).answer == "42"


async def test_a_container_that_ends_between_two_questions_is_rebuilt(log: Path, docker_client: Any) -> None:
    async with session(paths=[log]) as kept:
        await kept.ask("run: x = 41; FINAL('kept')")
        kill_container(docker_client)
        assert kept._running is not None
        await asyncio.wait_for(asyncio.shield(kept._running.kernel._provisioner.exited), 30)
        assert (await kept.ask("run: FINAL(str(x + 1))")).answer == "42"


async def test_a_question_that_is_stopped_leaves_the_session_whole(log: Path) -> None:
    talk = Talk()
    running = asyncio.Event()

    def view(event: Event) -> None:
        if isinstance(event, CellOutput) and event.cell_id == "turn-02-a":
            running.set()

    async with session(talk, paths=[log], view=view) as kept:
        await kept.ask("run: x = 41; FINAL('kept' + context[:0])")
        turn = asyncio.create_task(kept.ask("run: y = 1; print('in it'); import time; time.sleep(1000)"))
        await running.wait()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (await kept.ask("run: FINAL(str(x + y))")).answer == "42"
    roles = [message["role"] for message in talk.heard[-1]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"][: len(roles)]
    assert "stopped" in talk.heard[-1][-1]["content"]
    trace = read_trace(kept.trace)
    assert all(cell.meta is None or cell.meta.status != "running" for cell in trace.cells)


async def test_files_named_later_are_loaded_without_a_new_container(
    log: Path, tmp_path: Path, docker_client: Any
) -> None:
    (tmp_path / "b.txt").write_text("named in a question")
    (tmp_path / "c.txt").write_text("given to load")
    async with session(paths=[log]) as kept:
        before = [
            container.id
            for container in docker_client.containers.list(
                ignore_removed=True, filters={"name": kept.state.run.name}
            )
        ]
        answer = await kept.ask(f"run: FINAL(load_file({str(tmp_path / 'b.txt')!r}))")
        assert answer.answer == "named in a question"
        assert any("c.txt" in line for line in await kept.load([tmp_path / "c.txt"]))
        assert (await kept.ask("run: FINAL(', '.join(sorted(files)))")).answer == "a.log, b.txt, c.txt"
        assert [
            container.id
            for container in docker_client.containers.list(
                ignore_removed=True, filters={"name": kept.state.run.name}
            )
        ] == before
        await kept.stop()
    files = {Path(file.path).name: file.sha256 for file in read_trace(kept.trace).meta.files}
    assert files.keys() == {"a.log", "b.txt", "c.txt"}
    assert all(files.values())
    assert (await replay(kept.trace, changes=SMALL)).same


async def test_a_question_taken_back_is_gone_from_kernel_and_notebook(log: Path) -> None:
    talk = Talk()
    async with session(talk, paths=[log]) as kept:
        await kept.ask("run: x = 1; FINAL('one')")
        await kept.ask("run: x = 2; FINAL('two')")
        assert "undone" in await kept.undo()
        assert (await kept.ask("run: FINAL(str(x))")).answer == "1"
        assert [question for question, _ in kept.conversation()] == [
            "run: x = 1; FINAL('one')",
            "run: FINAL(str(x))",
        ]
        await kept.undo()
        await kept.undo()
        with pytest.raises(UsageError, match="no question"):
            await kept.undo()
        assert (await kept.ask("run: FINAL(str('x' in globals()))")).answer == "False"
    copies = list(kept.trace.parent.glob("*undone*.ipynb"))
    assert len(copies) == 3
    for trace in [kept.trace, *copies]:
        assert (await RLM().averify(trace, cells=False)).holds


async def test_status_tells_what_the_session_has(log: Path) -> None:
    async with session(paths=[log]) as kept:
        await kept.ask("run: found = [1, 2]; FINAL('x' + context[:0])")
        busy = await look_at()
        assert busy.condition == "busy"
        assert busy.holder is not None
        assert busy.variables is None
    status = await look_at()
    assert status.condition == "idle"
    assert status.variables is not None
    assert status.variables["found"] == "list, 2 long"
    assert [(file["name"], file["active"]) for file in status.files] == [("a.log", True)]
    assert (status.questions, status.totals.turns) == (1, 1)
    assert status.use is not None
    assert 10 << 20 < status.use.memory <= status.use.memory_limit == 1 << 30
    assert status.idle == IDLE
    assert status.idle_left is not None
    assert IDLE - 10 < status.idle_left <= IDLE
    assert json.loads(json.dumps(status.as_json()))["session"] == "default"
    assert any("ends after 10 min without use" in line for line in status.lines())
    await stop_session(keep=True)
    assert (await look_at()).condition == "gone"
    assert await ask("run: FINAL(str(found))") == "[1, 2]"


async def test_stop_forgets_the_session_and_keeps_its_trace(
    log: Path, tmp_path: Path, docker_client: Any
) -> None:
    await ask("run: FINAL('x')", paths=[log])
    state = await stop_session()
    assert not docker_client.containers.list(ignore_removed=True, all=True, filters={"name": state.run.name})
    assert not state.run.exists()
    assert not sessions(tmp_path / ".rlm_state")
    assert read_trace(state.trace).meta.stop_reason == "answered"
    with pytest.raises(UsageError, match="no session default here"):
        await stop_session()


async def test_sessions_of_other_names_stand_beside_each_other(log: Path) -> None:
    await ask("run: x = 1; FINAL('x')", name="one", paths=[log])
    await ask("run: x = 2; FINAL('x')", name="two")
    assert await ask("run: FINAL(str(x))", name="one") == "1"
    with pytest.raises(UsageError, match="is already a session one here"):
        await ask("run: FINAL('x')", name="one", new=True)
    with pytest.raises(UsageError, match="here are: one, two"):
        await look_at("three")


_COMMAND = """
import asyncio, sys
from tests.support.start import FOR_MODELS, FOR_NOTEBOOKS, FOR_TERMINALS, command, loaded_by
from tests.support.talk import Talk
from rlm_kernel.session.manager import open_session

def view(event):
    print(type(event).__name__, flush=True)

async def main():
    async with open_session(models=Talk(), command="rlm run", changes={"sandbox.memory": "1g"}, view=view) as kept:
        await kept.ask("run: y = 1; print('in it'); import time; time.sleep(1000)")

asyncio.run(main())
"""


async def test_a_command_that_is_killed_loses_nothing_of_the_session(log: Path) -> None:
    await ask("run: x = 41; FINAL('kept')", paths=[log])

    def be_killed() -> None:
        root = Path(__file__).parents[2]
        with subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        ) as command:
            assert command.stdout is not None
            while command.stdout.readline() != "CellOutput\n":
                assert command.poll() is None
            command.send_signal(signal.SIGKILL)

    await asyncio.to_thread(be_killed)
    talk = Talk()
    async with session(talk) as kept:
        assert "as you left it" in kept.opened[0]
        assert (await kept.ask("run: FINAL(str(x + y))")).answer == "42"
        assert [answer for _, answer in kept.conversation()] == ["kept", None, "42"]
    nbformat.validate(read_trace(kept.trace).node)


def test_the_commands_find_the_session_of_the_folder(
    rlm: Rlm, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = rlm("init", str(log))
    assert done.returncode == 0
    assert "a.log" in done.stderr
    assert "ends after 10 min without use" in done.stderr
    assert rlm("init", str(log)).returncode == 2
    status = rlm("status", "--json")
    assert json.loads(status.stdout)["files"][0]["name"] == "a.log"
    assert "idle; ends after 10 min" in rlm("status").stdout
    assert "its trace" in rlm("stop").stderr.lower()
    assert "rlm init FILE" in rlm("status").stderr


def test_a_question_in_a_kept_session_loads_only_what_it_needs(rlm: Rlm, log: Path) -> None:
    assert rlm("init", str(log)).returncode == 0
    scripted = f"""
from contextlib import asynccontextmanager
from rlm_kernel.models import factory
from rlm_kernel.models.scripted import ScriptedModels

@asynccontextmanager
async def opened(*_):
    yield ScriptedModels(["```repl\\nprint(context)\\n```", "```repl\\nFINAL(len(context))\\n```"])

factory.open_models = opened
{command("run", "How long?")}"""
    found = loaded_by(scripted, log.parent)
    assert {"docker", "jupyter_client"} <= found
    assert not found & (FOR_NOTEBOOKS | FOR_MODELS | FOR_TERMINALS - {"pygments"}), "it names languages, too"
    status = json.loads(rlm("status", "--json").stdout)
    assert (status["questions"], status["turns"], status["files"][0]["active"]) == (1, 2, True)
    assert "context" not in status["variables"]
    assert status["container"]["cpu_seconds"] > 0


async def test_what_was_guessed_or_left_out_is_told_once_when_it_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / ".gitignore").write_text("*.tmp\n")
    for name, data in (
        ("a.txt", b"plain"),
        ("b.txt", "Der H\u00fcgel ist sch\u00f6n gr\u00fcn.".encode("cp1252")),
        ("c.tmp", b"x"),
    ):
        (folder / name).write_bytes(data)
    (tmp_path / "more.txt").write_bytes("François est allé à l'école.".encode("cp1252"))
    said: list[str] = []

    def notes() -> list[str]:
        return [line for line in said if line.startswith("Note: ")]

    view = LiveView(lines=False, stream=io.StringIO())
    view.tell = said.append  # type: ignore[method-assign]
    async with session(view=view, paths=[folder]):
        assert len(notes()) == 2
        assert notes()[0].startswith("Note: b.txt: read as cp125")
        assert notes()[1].endswith(": left out: 1 ignored files")
    async with session(view=view) as kept:
        await kept.load([tmp_path / "more.txt"])
        assert len(notes()) == 3, "not again what was told before"
        assert notes()[2].startswith("Note: more.txt: read as cp125")


async def test_each_answer_of_a_session_has_its_evidence_and_a_rebuilt_kernel_the_same_marks(
    log: Path, docker_client: Any
) -> None:
    changes = {"prompt.cite": "true"}
    async with session(paths=[log], changes=changes) as kept:
        first = await kept.ask("run: FINAL('one ' + cite('first line'))")
        assert [(one.mark, one.quote) for one in first.evidence] == [(1, "first line")]
    kill_container(docker_client)
    async with session(changes=changes) as kept:
        second = await kept.ask("run: FINAL('both ' + cite('first line') + cite('second line'))")
        assert second.answer == "both [1][2]"
        assert [(one.mark, one.line) for one in second.evidence] == [(1, 1), (2, 2)]
    async with session() as kept:
        third = await kept.ask("run: FINAL('none')")
        assert (third.answer, third.evidence) == ("none", ())
    trace = read_trace(third.trace)
    answers = [cell.meta for cell in trace.cells if cell.kind == "answer" and cell.meta]
    assert [[one.mark for one in meta.evidence] for meta in answers] == [[1], [1, 2], []]
    found = await replay(third.trace)
    assert {verdict.verdict for verdict in found.verdicts} == {"same"}
