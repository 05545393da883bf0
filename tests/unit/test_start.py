"""What a command imports, and `rlm status` from end to end: each package that it does not need is time before anything is done.

By `sys.modules` and not by time, which depends on the machine. What `rlm run` imports is held by
tests/integration/test_sessions.py, which has a container.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.session.status import look_at
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.start import (
    FOR_KERNELS,
    FOR_MODELS,
    FOR_NOTEBOOKS,
    FOR_TERMINALS,
    command,
    loaded_by,
)
from tests.support.trace import STORY, meta, tell

ANSWERS = {"/version": {"ApiVersion": "1.41"}, "/v1.41/containers/json": []}


class _Engine(BaseHTTPRequestHandler):
    """An engine that has no container."""

    def do_GET(self) -> None:
        body = json.dumps(ANSWERS.get(self.path.partition("?")[0])).encode()
        self.send_response(200 if body != b"null" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "engine"), _Engine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"unix://{tmp_path / 'engine'}"
        server.shutdown()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY)
    writer.close()
    return path


def test_help_loads_the_command_line_alone(tmp_path: Path) -> None:
    found = loaded_by(command("--help"), tmp_path)
    assert "typer" in found
    assert not found & (FOR_NOTEBOOKS | FOR_KERNELS | FOR_MODELS | FOR_TERMINALS)
    assert not found & {"docker", "pydantic", "asyncio", "markdown_it"}


def test_status_loads_the_engines_client_and_nothing_for_kernels_and_models(
    tmp_path: Path, trace: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    folder = SessionFolder(tmp_path / ".rlm_state")
    folder.path.mkdir(parents=True)
    folder.write(folder.begin(trace, {}))
    found = loaded_by(command("status"), tmp_path, {"DOCKER_HOST": engine})
    assert "docker" in found
    assert not found & (FOR_NOTEBOOKS | FOR_KERNELS | FOR_MODELS | FOR_TERMINALS | {"markdown_it"})


async def test_a_session_on_another_engine_is_told_and_not_taken_for_ended(
    tmp_path: Path, trace: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    monkeypatch.setenv("DOCKER_HOST", engine)
    monkeypatch.chdir(tmp_path)
    folder, run = SessionFolder(tmp_path / ".rlm_state"), tmp_path / "rlm-12345678"
    folder.path.mkdir(parents=True)
    run.mkdir()
    folder.write(folder.begin(trace, {}).model_copy(update={"run": run}))
    for place in ("", engine):
        (run / "session.json").write_text(json.dumps({"engine": place}))
        assert (await look_at()).condition == "gone"
    (run / "session.json").write_text(json.dumps({"engine": "ssh://me@far"}))
    with pytest.raises(DockerError, match="is on the Docker engine at ssh://me@far"):
        await look_at()


def test_a_trace_is_read_and_written_without_nbformat(tmp_path: Path, trace: Path) -> None:
    again = f"""
from pathlib import Path
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from rlm_kernel.engine.events import CellFinished
from rlm_kernel.engine.protocols import CellResult

trace = read_trace(Path({str(trace)!r}))
writer = NotebookWriter(Path("again.ipynb"), trace.meta, [], trace.node.cells)
cell = trace.code_cells[-1]
writer(CellFinished(3, CellResult("turn-03-a", "x", "ok", cell.outputs, cell.started, 0.1, 4)))
writer.close()
assert len(read_trace(Path("again.ipynb")).cells) > len(trace.cells)
"""
    assert not loaded_by(again, tmp_path) & (FOR_NOTEBOOKS | FOR_KERNELS | FOR_MODELS)
