"""A real Ray cluster of three nodes on this machine, whose worker and node are killed: in processes of its own, as
Ray takes signals and the environment of a process for itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
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
    import asyncio, json, sys, threading
    from pathlib import Path
    from rlm_kernel import RLM, ScriptedModels
    from rlm_kernel.session.batch.ray_engine import RayEngine
    from rlm_kernel.session.batch.ray_cluster import RESOURCE
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
        engine = RayEngine(rlm.settings, models=models)
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


def test_names_and_paths_are_those_of_the_user(kernel_image: Any, tmp_path: Path) -> None:
    done = _run(sys.executable, "-c", _ONE, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()  # nothing of Ray's on stdout
    told = json.loads(line)
    assert "cannot be sent to other machines" in told["refused"]
    assert told["text"] == "a text"
    assert told["lost"] == "FileRefused"
    assert told["folder files"] == [str(tmp_path / "given")]
    assert told["text files"][0].startswith(str(tmp_path / "out.traces"))
