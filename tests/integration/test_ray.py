"""A real Ray cluster of three nodes on this machine, whose worker and node are killed: in processes of its own, as
Ray takes signals and the environment of a process for itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.sandbox.containers import LABEL
from rlm_kernel.system import is_gone
from tests.support.sandbox import until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]


def _run(*command: str, seconds: float = 280) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_a_worker_and_a_node_that_die_cost_only_what_they_were_doing(kernel_image: Any) -> None:
    asked = ("--sessions", "9", "--plan", "worker,node", "--pause", "2", "--json")
    done = _run(sys.executable, str(ROOT / "benchmarks/cluster.py"), *asked)
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["kills"] == "2: 1, 1"
    assert [row[name] for name in ("failed", "lost", "doubled", "wrong", "left")] == [0] * 5
    assert row["again"] > 0


_ONE = textwrap.dedent("""
    import asyncio, json, os, sys, threading
    from pathlib import Path
    from rlm_kernel import RLM, ScriptedModels
    from rlm_kernel.session.batch.ray_engine import RayEngine
    from rlm_kernel.session.batch.ray_joining import RESOURCE
    from rlm_kernel.errors import RLMError, UsageError
    from rlm_kernel.trace.reader import read_trace

    folder = Path(sys.argv[1])
    (folder / "given").mkdir()
    (folder / "given" / "a.txt").write_text("one")
    (folder / "given" / "b.txt").write_text("two")
    CODE = "```repl\\nFINAL(' '.join(sorted(files)) if not isinstance(context, str) else context)\\n```"

    async def main():
        told = {}
        locked = ScriptedModels([])
        locked.lock = threading.Lock()
        try:
            async with RayEngine(RLM(models=locked).settings, models=locked):
                pass
        except UsageError as error:
            told["refused"] = error.message
        models = ScriptedModels(lambda messages: CODE)
        rlm = RLM(models=models)
        llm = rlm.settings.root_llm.model_copy(update={"model": "openai/gpt-5"})
        engine = RayEngine(rlm.settings.model_copy(update={"root_llm": llm}), models=models)
        questions = [
            {"id": "folder", "question": "?", "files": [str(folder / "given")]},
            {"id": "text", "question": "?", "context": "a text"},
            {"id": "lost", "question": "?", "files": [str(folder / "nothing.txt")]},
        ]
        told["places"] = engine.places
        async for done in rlm.map(questions, out=folder / "out.jsonl", engine=engine):
            one = done.result.answer if done.result else done.failure.kind
            told[done.item.id] = one
            if done.result:
                trace = read_trace(done.result.trace)
                told[done.item.id + " files"] = [file.path for file in trace.meta.files]
        print(json.dumps(told))

    asyncio.run(main())
""")


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps its sockets, whose paths must be short, and its logs."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_ADDRESS", "local")
        yield Path(folder)


def test_names_and_paths_are_the_users_and_keys_are_in_no_log(
    kernel_image: Any, tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-this-is-the-key")
    done = _run(sys.executable, "-c", _ONE, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()  # nothing of Ray's on stdout
    told = json.loads(line)
    assert "cannot be sent to other machines" in told["refused"]
    assert told["text"] == "a text"
    assert told["lost"] == "FileRefused"
    assert told["folder files"] == [str(tmp_path / "given")]
    assert told["text files"][0].startswith(str(tmp_path / "out.traces"))
    logs = [path for path in ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert logs
    assert [path for path in logs if b"sk-this-is-the-key" in path.read_bytes()] == []


_KILLED = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from rlm_kernel import RLM, ScriptedModels
    from rlm_kernel.session.batch.item import Item
    from rlm_kernel.session.batch.ray_engine import RayEngine

    async def main():
        models = ScriptedModels(lambda messages: "```repl\\nopen('/tmp/x', 'w'); import time; time.sleep(900)\\n```")
        async with RayEngine(RLM(models=models).settings, models=models) as engine:
            print(engine.handles[0].pid, flush=True)
            await engine.answer(Item("a", "?"), Path(sys.argv[1]) / "a.ipynb")

    asyncio.run(main())
""")


@pytest.mark.hostile
async def test_when_the_driver_is_killed_all_ends(
    kernel_image: Any, tmp_path: Path, ray_folder: Path, docker_client: Any
) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        worker = int(await asyncio.to_thread(process.stdout.readline))

        def containers() -> list[Any]:
            filters = {"label": f"{LABEL}.owner={worker}"}
            return list(docker_client.api.containers(all=True, filters=filters))

        await until(lambda: bool(containers()), 60)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    await until(lambda: is_gone(worker), 60)
    await until(lambda: not containers(), 60)
