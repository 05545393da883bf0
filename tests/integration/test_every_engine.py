"""What rlm promises, on each engine that it is tried on: commands as their user types them, and models over
HTTP.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.messages import SUM_UP
from rlm_kernel.session.kernelspecs import install
from tests.integration.test_files import ATTACK as WRITE
from tests.integration.test_jupyterlab import Lab, page, server
from tests.integration.test_lease import LOOK as LOOK_INTO_THE_FIRST
from tests.integration.test_lease import OWNER
from tests.integration.test_rootless import ATTACK, LOOK
from tests.support.attacks import HOLD_THE_GIL
from tests.support.engines import ENGINES, parameters
from tests.support.jupyter import containers_of, differences, make_trace, read
from tests.support.model_server import ModelServer
from tests.support.own_engine import OwnEngine
from tests.support.rootless import Rootless
from tests.support.tree import repl, short_folder

__all__ = ["page"]
MOST = 2.0
"""Seconds that a container may outlive its owner."""
LARGE = 200_000_000
SENT = ("tls", "ssh")
"""To these a large file is sent."""
IN_LAB = ("tls", "desktop")
"""JupyterLab is tried on these, nbclient on the others."""


def on(*names: str) -> Any:
    return pytest.mark.parametrize("engine", parameters(names), indirect=True)


on_each = on(*ENGINES)


@dataclass
class Desk:
    """One who uses an engine, in a folder.

    `codes` are what the root model writes when it is asked for the nth cell.
    """

    engine: OwnEngine
    folder: Path
    reach: dict[str, str]
    codes: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return self.own(path)

    def own(self, path: Path) -> str:
        """Give a file, and the folder that it is in, to the user of the engine."""
        if isinstance(self.engine, Rootless):
            for one in (path.parent, path):
                shutil.chown(one, self.engine.user.name, self.engine.user.name)
        return str(path)

    def question(self, code: str) -> str:
        """To which the root model answers with this code."""
        self.codes.append(code)
        return f"Write cell {len(self.codes) - 1}."

    def root(self, messages: list[dict[str, Any]]) -> str:
        texts = [str(message["content"]) for message in messages if message["role"] == "user"]
        if SUM_UP in texts[-1]:
            return "The cell was written."
        return repl(self.codes[int(re.findall(r"Write cell (\d+)\.", "\n".join(texts))[-1])])

    def python(self, *arguments: str, typed: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        command = self.engine.command(*arguments, at=self.folder, **self.reach)
        ran = subprocess.run(command, input=typed, capture_output=True, text=True, check=False)
        assert ran.returncode == status, f"{ran.stderr}\n{ran.stdout}"
        return ran

    def rlm(self, *arguments: str, typed: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "rlm_kernel", *arguments, typed=typed, status=status)

    def ask(self, code: str, *given: str) -> Any:
        """The answer of `rlm ask` over files; its trace is t.ipynb."""
        (self.folder / "t.ipynb").unlink(missing_ok=True)
        files = [argument for path in given for argument in ("-f", path)]
        ran = self.rlm("ask", self.question(code), *files, "--trace", "t.ipynb", "--json")
        return json.loads(ran.stdout)["answer"]


@pytest.fixture
def desk(engine: OwnEngine, openai_env: ModelServer, tmp_path: Path) -> Iterator[Desk]:
    """Afterwards there is no container, no volume but of files that were sent, and no session's folder is
    left.
    """
    near = (
        engine.home if isinstance(engine, Rootless) else engine.shared if engine.shared.exists() else tmp_path
    )
    folder = near / "desk"
    folder.mkdir()
    folder.chmod(0o755)
    if isinstance(engine, Rootless):
        shutil.chown(folder, engine.user.name, engine.user.name)
    with short_folder() as runtime:
        names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE")
        reach = {name: os.environ[name] for name in names}
        reach |= {"RLM_MODEL": "openai/root", "RLM_SUB_MODEL": "openai/sub", "RLM_SANDBOX__MEMORY": "1g"}
        reach |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "RLM_SESSION__IDLE": "600"}
        if isinstance(engine, Rootless):
            runtime = str(engine.home)
        else:
            reach["XDG_RUNTIME_DIR"] = runtime
        desk = Desk(engine, folder, reach)
        openai_env.root = desk.root
        try:
            yield desk
            assert engine.containers() == []
            volumes = engine.docker("volume", "ls", "--quiet").stdout.split()
            assert {name.rsplit("-", 1)[0] for name in volumes} <= {"rlm-content", "rlm-sent"}
            assert [
                name
                for name in os.listdir(runtime)
                if name.startswith("rlm-") and name not in ("rlm-room", "rlm-traces")
            ] == []
        finally:
            shutil.rmtree(folder)


TELL = "FINAL({name: len(text) for name, text in files.items()})"


@on_each
@pytest.mark.hostile
def test_a_question_over_a_large_file_and_a_folder_is_answered(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    large = LARGE if request.node.callspec.params["engine"] in SENT else 1_000_000
    with (desk.folder / "large.txt").open("w") as file:
        for _ in range(large // 1_000_000):
            file.write(("x" * 99 + "\n") * 10_000)
    desk.own(desk.folder / "large.txt")
    desk.write("folder/a.txt", "This is a.")
    desk.write("folder/b.txt", "This is b, too.")
    told = desk.ask(TELL, "large.txt", "folder")
    assert sorted(told.values()) == [10, 15, large]


@on_each
@pytest.mark.hostile
def test_a_file_that_is_named_in_a_chat_is_loaded(desk: Desk) -> None:
    desk.write("a.txt", "one\ntwo\n")
    late = desk.write("late.txt", "This is late.")
    first = desk.question("FINAL(f'{len(context)} at first')")
    second = desk.question(
        f"FINAL(load_file({late!r}) + f' And {{len(context)}} at first, {{llm_query(\"hello\")}}')"
    )
    ran = desk.rlm("chat", "-f", "a.txt", typed=f"{first}\n{second} It is about {late}\n")
    assert "8 at first" in ran.stdout
    assert "This is late." in ran.stdout
    assert "echo: hello" in ran.stdout
    desk.rlm("stop")


@on_each
@pytest.mark.hostile
def test_a_kept_session_is_there_for_the_next_command(desk: Desk) -> None:
    desk.write("a.txt", "one\ntwo\n")
    desk.rlm("init", "a.txt")
    first = desk.rlm("run", desk.question("x = len(context) + 30; FINAL(llm_query('a'))"), "--json")
    assert json.loads(first.stdout)["answer"] == "echo: a"
    second = desk.rlm("run", desk.question("FINAL(f'{x + 4} in {list(files)}')"), "--json")
    assert json.loads(second.stdout)["answer"] == "42 in ['a.txt']"
    # Where the engine closes stdin when a client leaves, the container has ended, and the trace gives all
    # back.
    assert ("all cells were run again" in second.stderr) is not desk.engine.keeps_stdin, second.stderr
    desk.rlm("stop")


@on("local", "tls")
@pytest.mark.hostile
def test_a_kept_session_goes_on_after_its_engine_was_restarted_and_after_a_pause(desk: Desk) -> None:
    desk.rlm("run", desk.question("x = 41; FINAL(x)"))
    desk.engine.stop()
    desk.engine.revive()
    restarted = desk.rlm("run", desk.question("FINAL(str(x + 1))"), "--json")
    assert json.loads(restarted.stdout)["answer"] == "42"
    assert "all cells were run again" in restarted.stderr
    (name,) = desk.engine.containers()
    assert desk.engine.docker("pause", name).returncode == 0
    paused = desk.rlm("run", desk.question("FINAL(str(x + 2))"), "--json")
    assert json.loads(paused.stdout)["answer"] == "43"
    desk.rlm("stop")


ASK = """
import asyncio
from pathlib import Path
from rlm_kernel.config import load_settings
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask
async def sub(prompt):
    print("asked", flush=True)
    await asyncio.sleep(3)
    return "answered"
models = ScriptedModels(["```repl\\nFINAL(llm_query('a') + ', ' + llm_query('b'))\\n```"], sub)
print(asyncio.run(ask("Ask.", Path("a.txt"), settings=load_settings(), models=models)).answer)
"""


@on("local", "tls", "ssh")
@pytest.mark.hostile
def test_an_owner_that_is_stopped_in_a_sub_call_loses_nothing(desk: Desk) -> None:
    desk.write("a.txt", "This is a.")
    command = desk.engine.command("-c", ASK, at=desk.folder, **desk.reach)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "asked\n"
        owner.send_signal(signal.SIGSTOP)
        time.sleep(10)
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout.read() == "asked\nanswered, answered\n"
        assert owner.wait() == 0


@on_each
@pytest.mark.hostile
def test_a_trace_replays_the_same(desk: Desk) -> None:
    desk.write("a.txt", "one\ntwo\n")
    answers = desk.ask(
        "print(context)\nFINAL(llm_query_batched([f'part {n}' for n in range(8)]) + [llm_query('the same')] "
        "* 2)",
        "a.txt",
    )
    assert answers[7:] == ["echo: part 7", "echo: the same", "echo: the same"]
    desk.rlm("replay", "t.ipynb")


@on_each
@pytest.mark.hostile
def test_children_have_what_they_are_handed(desk: Desk) -> None:
    desk.write("a.txt", "This is a.")
    desk.write("b.txt", "This is b.")
    child = desk.question("FINAL([context, llm_query('in a child')])")
    given = "['a text', {'b': [1, None]}, files['b.txt']]"
    told = desk.ask(
        f"FINAL([json_of for json_of in rlm_query_batched([{child!r}] * 3, {given})])", "a.txt", "b.txt"
    )
    assert told == [[context, "echo: in a child"] for context in ("a text", {"b": [1, None]}, "This is b.")]


NBCLIENT = """
import nbformat
from nbclient import NotebookClient
from rlm_kernel.session.kernelspecs import install
install(user=True)
notebook = nbformat.read("t.ipynb", 4)
for cell in notebook.cells:
    cell.update({"outputs": []} if cell.cell_type == "code" else {})
NotebookClient(notebook, resources={"metadata": {"path": "."}}).execute()
print(*[output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs])
"""


@on(*(name for name in ENGINES if name not in IN_LAB))
@pytest.mark.hostile
def test_a_trace_runs_in_jupyters_programs(desk: Desk) -> None:
    desk.write("a.txt", "This is a.")
    desk.ask("print(context, llm_query('hello'))\nFINAL(1)", "a.txt")
    assert "This is a. echo: hello" in desk.python("-c", NBCLIENT).stdout


@pytest.fixture
def trace(engine: OwnEngine, desk: Desk) -> Path:
    (desk.folder / "lab").mkdir()
    return make_trace(desk.folder / "lab")


@on(*IN_LAB)
@pytest.mark.hostile
def test_a_trace_runs_in_jupyterlab(
    trace: Path, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = read(trace)
    install(user=True)
    monkeypatch.setenv("JUPYTER_PATH", os.environ["JUPYTER_DATA_DIR"])
    with server(trace.parent) as (url, pid):
        lab = Lab(page, tmp_path)
        lab.open(f"{url}lab/tree/t.ipynb?token=t")
        lab.restart_and_run_all()
        assert differences(recorded, lab.saved(trace)) == {}
        assert lab.run_new_cell("print(peek(0, 3), len(grep('needle')), len(context))") == "hay 50 900"
        assert len(containers_of(pid)) == 1
    assert containers_of(pid) == []


def _seconds_to_the_end(desk: Desk, cell: str) -> float:
    """From the owner's end by SIGKILL to that of its container."""
    command = desk.engine.command("-c", OWNER, cell, "0", at=desk.folder, **desk.reach)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            folder, _ = owner.stdout.readline().split()
            assert owner.stdout.readline() == "on\n"
            assert len(desk.engine.containers()) == 1
        finally:
            owner.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while desk.engine.containers() and time.monotonic() - killed < 30:
        time.sleep(0.02)
    seconds = time.monotonic() - killed
    shutil.rmtree(folder)  # `rlm gc` takes it a minute later
    return seconds


@on_each
@pytest.mark.hostile
def test_a_container_ends_with_its_owner(desk: Desk, record_property: Any) -> None:
    calling = (
        "llm_query('hello')\nimport socket\nsocket.socket(socket.AF_UNIX).connect('/rlm/run/host')\n"
        "while True: pass"
    )
    seconds = _seconds_to_the_end(desk, calling)
    record_property("seconds", f"{seconds:.2f}")
    print(f"ended after {seconds:.2f} s")
    assert seconds < MOST


@on_each
@pytest.mark.hostile
def test_a_container_that_attacks_ends_with_its_owner(desk: Desk) -> None:
    assert _seconds_to_the_end(desk, f"{ATTACK}\n{HOLD_THE_GIL}") < 30


@on_each
@pytest.mark.hostile
def test_the_locks_hold(desk: Desk) -> None:
    desk.write("folder/a.txt", "This is a.")
    attack = f"""
{WRITE}
{LOOK}
told = look()
{LOOK_INTO_THE_FIRST.replace("print(found)", "")}
print("x" * 30_000_000)
paths = [os.path.join(at, name) for at, _, names in os.walk("/rlm/files") for name in names]
FINAL({{
    "written": [attack(path) for path in paths],
    "into the first process": found,
    "locks": told[1:-2],
    "written outside": told[-2],
    "network": told[-1],
    "keys": [name for name in os.environ if "KEY" in name],
}})
"""
    told = desk.ask(attack, "folder")
    assert set(told.pop("into the first process")) <= desk.engine.seen_of_the_first
    assert told == {
        "written": [[]],
        "locks": ["", "", "0"]
        if desk.engine.own_kernel
        else ["", "1", "2"],  # no capabilities; a kernel of its own tells no more
        "written outside": [],
        "network": ["lo"],
        "keys": [],
    }


@on("tls")
def test_in_short_an_engine_elsewhere_answers_and_ends_with_its_owner(desk: Desk) -> None:
    desk.write("a.txt", "This is a.")
    assert desk.ask(TELL, "a.txt") == {"a.txt": 10}
    assert _seconds_to_the_end(desk, f"{ATTACK}\n{HOLD_THE_GIL}") < 30
