"""An engine that sees none of this host's files: they are sent once, and all is as where they are mounted.

Real containers there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient

from rlm_kernel.config import load_settings
from rlm_kernel.errors import DockerError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox import shares, volumes
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.volumes import Sender, kept
from rlm_kernel.session.ask import ask
from rlm_kernel.session.digests import sha256_of
from rlm_kernel.session.kernelspecs import install
from rlm_kernel.session.replay import replay
from rlm_kernel.session.result import Result
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.integration.test_chat import root
from tests.integration.test_files import ATTACK
from tests.support.engines import parameters
from tests.support.far_engine import Desktop
from tests.support.faults import MODELS
from tests.support.model_server import ModelServer
from tests.support.own_engine import OwnEngine
from tests.support.sandbox import Sandbox, until
from tests.support.story import repl
from tests.support.tree import SMALL, Levels, short_folder

ON_EACH = pytest.mark.parametrize("engine", parameters(["tls", "desktop", "ssh"]), indirect=True)
ON_ONE = pytest.mark.parametrize("engine", parameters(["desktop"]), indirect=True)
TRACE = Path("t.ipynb")
FILES = (
    "[os.path.join(at, name) for at, _, names in os.walk('/rlm/files') for name in names if name != 'pipe']"
)
TELL = "import os\nprint(*list_files(), sep='\\n')\nFINAL({name: len(text) for name, text in files.items()})"


@pytest.fixture(autouse=True)
def nothing_left(engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Afterwards there is no container, and no volume but those that are kept for the next question."""
    monkeypatch.setattr(shares, "_unseen", set())
    monkeypatch.setattr(volumes, "_TELL_SECONDS", 0)
    with short_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield
        assert engine.containers() == []
        assert {name.rsplit("-", 1)[0] for name in sent_to(engine)} <= {"rlm-content", "rlm-sent"}
        assert os.listdir(folder) == []


def sent_to(engine: OwnEngine) -> list[str]:
    """The engine's volumes."""
    return sorted(engine.docker("volume", "ls", "--quiet").stdout.split())


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.txt, b.txt, late.txt, and a folder with all sorts of things in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / ".git" / "info").mkdir(parents=True)
    files = (
        "a.txt",
        "b.txt",
        "late.txt",
        "folder/c.txt",
        "folder/deep/d.txt",
        "folder/x.log",
        "folder/.git/config",
        "folder/y.tmp",
    )
    for name in files:
        (tmp_path / name).write_text(f"This is {name}.")
    (tmp_path / "folder" / ".gitignore").write_text("*.log\n")
    (tmp_path / "folder" / ".git" / "info" / "exclude").write_text("*.tmp\n")
    (tmp_path / "folder" / "to c").symlink_to("deep/../c.txt")
    (tmp_path / "folder" / "out").symlink_to("/etc/passwd")
    (tmp_path / "folder" / "secret.txt").write_text("for its owner alone")
    (tmp_path / "folder" / "secret.txt").chmod(0o600)
    os.mkfifo(tmp_path / "folder" / "pipe")
    return tmp_path


async def run(*codes: str, context: Any, question: str = "What is there?", **options: Any) -> Result:
    models = ScriptedModels([repl(code) for code in codes])
    return await ask(
        question, context, settings=load_settings(overrides=SMALL), trace=TRACE, models=models, **options
    )


@ON_EACH
async def test_files_and_a_folder_are_sent_once_and_look_as_where_they_are_mounted(
    engine: OwnEngine, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tree / "large.txt").open("w") as file:
        file.writelines("a line of a large file\n" for _ in range(20_000_000 // 23))
    os.utime(tree / "large.txt", (1e9, 1e9))
    # Over there is something else at the same place, which nobody asked for.
    there = engine.files(str(tree / "a.txt"))
    there.parent.mkdir(parents=True)
    there.write_text("This is X.txt.")
    context = [Path(name) for name in ("a.txt", "b.txt", "large.txt", "folder")]
    said: list[str] = []
    first = await run(
        f"{ATTACK}\nprint(attacked := list(map(attack, {FILES})))\n{TELL}", context=context, say=said.append
    )
    progress = [text for text in said if text.startswith("sending large.txt to the engine … ")]
    assert progress
    assert progress[-1].endswith(" of 20.0 MB")
    assert (await replay(TRACE, changes=SMALL)).same
    sent = sent_to(engine)
    said.clear()
    os.unlink(TRACE)
    again = await run(TELL, context=context, say=said.append)
    assert sent_to(engine) == sent
    assert not [text for text in said if "sending" in text]
    assert again.answer == first.answer
    for name in engine.environment.keys() - {"PATH"}:
        monkeypatch.delenv(name)
    monkeypatch.setattr(shares, "_unseen", set())
    os.unlink(TRACE)
    here = await run(TELL, context=context)
    assert here.answer == first.answer
    assert json.loads(first.answer or "")["a.txt"] == len("This is a.txt.")
    outputs = next(cell for cell in read_trace(TRACE).code_cells if cell.id == "turn-01-a").outputs
    assert "secret.txt" in str(outputs)


@ON_ONE
async def test_what_is_named_later_and_what_comes_from_python_and_what_children_get(
    tree: Path, engine: OwnEngine
) -> None:
    async def yes(_path: Path) -> bool:
        return True

    late, folder = str(tree / "late.txt"), str(tree / "folder")
    load = f"print([load_file(path)[:9] for path in ({late!r}, {late!r}, {folder!r})])"
    code = f"{ATTACK}\nFINAL([len(inside), [attack(path) for path in inside]])"
    asked = await run(load, code, context={"an": ["object"]}, consent=yes)
    assert json.loads(asked.answer or "") == [1, [[]]]
    assert (await replay(TRACE, changes=SMALL)).same
    os.unlink(TRACE)
    # A kernel that takes the place of one that died has them again.
    died = await run(
        load,
        "import os\nos.kill(os.getpid(), 9)",
        f"FINAL(load_file({late!r}))",
        context="a text",
        consent=yes,
    )
    assert died.answer == "This is late.txt."
    child = "FINAL([context if isinstance(context, (str, dict)) else sorted(context)])"
    top = (
        f"load_file({late!r})\nFINAL(rlm_query_batched(['LEVEL1'] * 3, ['a text', {{'b': 1}}, "
        "files['b.txt']]))"
    )
    handed = await ask(
        "Ask.",
        [Path("a.txt"), Path("b.txt")],
        settings=load_settings(overrides=SMALL),
        models=Levels([top], [child]),
        consent=yes,
    )
    assert json.loads(handed.answer or "") == [["a text"], [{"b": 1}], ["This is b.txt."]]


@ON_ONE
def test_a_kept_session_and_files_that_are_named_in_it(
    tree: Path, engine: OwnEngine, openai_env: ModelServer, rlm: Rlm
) -> None:
    openai_env.root = root
    assert rlm("init", "a.txt", *MODELS).returncode == 0
    try:
        done = rlm("run", "How many lines?", "--json")
        assert json.loads(done.stdout)["answer"] == "# Lines\n\n1 in `['a.txt']`", done.stderr
        done = rlm("run", f"Load the file at {tree}/late.txt", "--json")
        assert json.loads(done.stdout)["answer"] == "**loaded** 17 characters", done.stderr
        engine.docker("rm", "--force", *engine.containers())
        done = rlm("run", f"Load the file at {tree}/late.txt", "--json")
        assert json.loads(done.stdout)["answer"] == "**loaded** 17 characters", done.stderr
    finally:
        rlm("stop")
    listed = rlm("gc", "--json")
    assert {one["kind"] for one in json.loads(listed.stdout)["removed"]} >= {"files"}
    assert sent_to(engine) == []


@ON_ONE
async def test_a_notebook_in_jupyter(tree: Path, engine: OwnEngine) -> None:
    import nbformat

    install(user=True)
    await run("print(context)\nFINAL(len(context))", context=Path("a.txt"))
    notebook = nbformat.read("t.ipynb", 4)
    await NotebookClient(notebook, resources={"metadata": {"path": str(tree)}}).async_execute()
    assert "This is a.txt." in str(notebook.cells)


@ON_ONE
async def test_a_run_that_is_interrupted_while_it_sends_leaves_nothing(tree: Path, engine: OwnEngine) -> None:
    with (tree / "sparse.txt").open("w") as file:
        file.truncate(1 << 30)
    said: list[str] = []
    sending = asyncio.create_task(run(TELL, context=Path("sparse.txt"), say=said.append))
    before = sent_to(engine)
    await until(lambda: any("sending sparse.txt" in text for text in said), 120)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert sent_to(engine) == before


@ON_ONE
def test_a_command_that_is_killed_while_it_sends_leaves_nothing_that_passes_for_whole(
    tree: Path, engine: OwnEngine, openai_env: ModelServer, rlm: Rlm
) -> None:
    with (tree / "sparse.txt").open("w") as file:
        file.truncate(2 << 30)
    asking = engine.command(
        "-m",
        "rlm_kernel",
        "ask",
        "How long?",
        "-f",
        "sparse.txt",
        "--model",
        "openai/root",
        "--sub-model",
        "openai/sub",
    )
    with subprocess.Popen(asking, stderr=subprocess.PIPE, text=True) as asked:
        assert asked.stderr is not None
        assert any("sending sparse.txt to the engine" in line for line in asked.stderr)
        asked.kill()
    assert len(sent_to(engine)) == len(engine.containers()) == 1
    removed = json.loads(rlm("gc", "--json").stdout)["removed"]
    assert {(one["kind"], one["name"]) for one in removed if one["kind"] == "files"} == {
        ("files", "sparse.txt")
    }
    assert sent_to(engine) == []
    for folder in os.listdir(os.environ["XDG_RUNTIME_DIR"]):  # `rlm gc` takes it a minute later
        shutil.rmtree(Path(os.environ["XDG_RUNTIME_DIR"], folder))


@ON_ONE
def test_an_engine_whose_disk_is_full_is_told_with_what_to_do(tree: Path, engine: OwnEngine) -> None:
    place = f"{engine.folder}/data/volumes"
    subprocess.run(
        engine._machine.command("mount", "-t", "tmpfs", "-o", "size=40m", "small", place), check=True
    )
    try:
        (tree / "large.txt").write_bytes(os.urandom(60 << 20))
        with pytest.raises(
            DockerError, match=r"has no room for large\.txt, 62\.9 MB: .*no space left"
        ) as caught:
            asyncio.run(run(TELL, context=Path("large.txt")))
        assert "rlm gc" in caught.value.hint
        assert os.listdir(engine.files(place)) == []
    finally:
        subprocess.run(engine._machine.command("umount", "--lazy", place), check=True)


@ON_ONE
def test_of_many_who_send_the_same_each_has_it(
    tree: Path, engine: OwnEngine, kernel_image: ImageInfo
) -> None:
    results: list[str] = []
    all_ = [threading.Thread(target=_asks, args=(kernel_image, tree, results)) for _ in range(4)]
    for one in all_:
        one.start()
    for one in all_:
        one.join()
    assert results == ["This is folder/c.txt."] * 4
    client = connect()
    try:
        assert len([one for one in kept(client) if one.what == "folder"]) == 1
        volumes.make_room(client, -(1 << 60))
    finally:
        client.close()
    assert sent_to(engine) == []


def _asks(image: ImageInfo, tree: Path, results: list[str]) -> None:
    async def look() -> None:
        box = Sandbox(image, files=[tree / "folder"], sender=Sender(sha256_of))
        try:
            await box.start()
            results.append(await box.text("print(open('/rlm/files/0/c.txt').read())"))
        finally:
            await box.stop()

    asyncio.run(look())


@ON_ONE
async def test_what_is_shared_with_the_engine_is_mounted_and_the_rest_is_sent(
    tree: Path, engine: OwnEngine
) -> None:
    shared = Path(shutil.copytree(tree / "folder" / "deep", engine.shared / "deep"))
    (engine.shared / "e.txt").write_text("This is e.txt.")
    result = await run(TELL, context=[shared, engine.shared / "e.txt", Path("a.txt")])
    assert json.loads(result.answer or "") == {"d.txt": 26, "e.txt": 14, "a.txt": 14}
    with engine.client() as client:
        assert [one.what for one in kept(client)] == ["a.txt"]


@pytest.mark.parametrize("engine", parameters(["userns-remap"]), indirect=True)
async def test_what_a_mapped_user_cannot_read_is_sent(tree: Path, engine: OwnEngine) -> None:
    for path in (tree, *tree.parents):
        mode = stat.S_IMODE(path.stat().st_mode)
        if (
            path.owner() == "root" and mode & 0o055 != 0o055
        ):  # no folder of the machine, such as /tmp, loses a right
            path.chmod(mode | 0o055)
    (tree / "a.txt").chmod(0o600)
    result = await run(TELL, context=[Path("a.txt"), Path("folder")])
    assert json.loads(result.answer or "")["secret.txt"] == 19
    assert json.loads(result.answer or "")["a.txt"] == 14


@pytest.mark.parametrize("engine", parameters(["tls", "desktop"]), indirect=True)
def test_doctor_says_what_is_seen_and_what_is_sent(
    tree: Path, engine: OwnEngine, rlm: Rlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.chmod(0o755)
    seen = engine.shared if isinstance(engine, Desktop) else None
    monkeypatch.chdir(seen or tree)
    told = rlm("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(told.stdout)["checks"]}
    assert checks["sandbox"]["ok"], checks
    ways = dict(part.split(": ")[::-1] for part in checks["files"]["detail"].split("; "))
    assert ways.get("visible to the engine, so mounted") == (str(seen) if seen else None)
    assert ("over tcp with TLS" in checks["reached"]["detail"]) == (seen is None)
    assert tempfile.gettempdir() in ways["not visible to the engine, so sent to it once"].split(", ")
