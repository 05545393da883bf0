"""The kernelspec under nbclient, nbconvert, papermill and jupyter_server: real containers, no key, no
model.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import papermill
import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager
from nbclient import NotebookClient
from papermill.exceptions import PapermillExecutionError

from rlm_kernel.session.kernelspecs import install
from tests.support.jupyter import add_cell, containers_of, differences, make_trace, read, text_of
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.xdist_group("jupyter")  # they share what takes long to make


@pytest.fixture(scope="module")
def recorded(kernel_image: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def trace(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the trace; its file is where it was."""
    return Path(shutil.copy(recorded, tmp_path / "t.ipynb"))


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernelspec, for this test's user; afterwards no container and no session's folder may be left."""
    with tempfile.TemporaryDirectory(prefix="j") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv(
            "JUPYTER_PATH", os.environ["JUPYTER_DATA_DIR"]
        )  # looked in first: another may be installed
        install(user=True)
        before = containers_of(os.getpid())
        yield Path(folder)
        assert containers_of(os.getpid()) == before
        assert os.listdir(folder) == []


def execute(notebook: Any, folder: Path, **options: Any) -> Any:
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    return notebook


def test_nbclient_gives_the_recorded_outputs_and_serves_new_cells(trace: Path) -> None:
    notebook = read(trace)
    add_cell(notebook, "print(peek(0, 3), len(grep('needle')), len(context), len(files), next(chunks(4)))")
    add_cell(notebook, "llm_query('the same')")
    add_cell(notebook, "llm_query('never asked')", "raises-exception")
    execute(notebook, trace.parent)
    assert differences(read(trace), notebook) == {}
    used, again, new = notebook.cells[-3:]
    assert text_of(used) == "hay 50 900 1 hay\n\n"
    assert "the same: " in text_of(again)
    assert "NoRecord: This call has no record in the trace, so it was not answered." in text_of(new)
    assert "rlm kernelspec install --live" in text_of(new)
    # One line that says what to do, and nothing of where in our own code it happened; the recorded failure
    # is shown as it was.
    assert [line.count("\n") for line in new.outputs[0].traceback] == [0]
    assert new.outputs[0].traceback[0].endswith("(Line 1 of the cell.)")
    failed = next(cell for cell in notebook.cells if "undefined_name" in cell.source)
    assert "----> 1 " in "\n".join(failed.outputs[0].traceback)


async def test_nbclient_under_a_running_loop(trace: Path) -> None:
    notebook = read(trace)
    await NotebookClient(notebook).async_execute()
    assert differences(read(trace), notebook) == {}


def test_nbconvert(trace: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--output",
        "out.ipynb",
        str(trace),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert differences(read(trace), read(trace.with_name("out.ipynb"))) == {}


def test_papermill_with_another_question_and_another_file(
    trace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "b.txt"
    other.write_text("a needle\n")
    parameters = {"question": "And in this one?", "paths": [str(other)]}
    out = trace.with_name("out.ipynb")
    with pytest.raises(
        PapermillExecutionError, match="undefined_name"
    ):  # for a recorded error too, but after the last cell
        papermill.execute_notebook(trace, out, parameters, progress_bar=False)
    notebook = read(out)
    cells = {cell.id: cell for cell in notebook.cells}
    assert text_of(cells["setup"]) == "b.txt: 9 characters\n"
    assert text_of(cells["turn-01-a"]) == "9 b.txt:1: a needle\n"
    assert "piece 19" in text_of(cells["turn-01-b"])
    assert cells["turn-04-a"].execution_count
    # The same path in the notebook itself is not what papermill was given.
    refused = execute(notebook, trace.parent, allow_errors=True)
    setup = next(cell for cell in refused.cells if cell.id == "setup")
    assert "FileRefused: This kernel may not read" in text_of(setup)


def test_a_changed_file_is_named_and_the_kernel_starts_all_the_same(trace: Path, tmp_path: Path) -> None:
    notebook = read(trace)
    file = tmp_path / "a.txt"
    file.write_text("something else")
    notebook.metadata.rlm["files"][0]["path"] = str(file)
    notebook.cells = notebook.cells[:3]
    notebook.cells[1].source = f"paths = [{str(file)!r}]"
    add_cell(notebook, "1 + 1")
    execute(notebook, tmp_path, allow_errors=True)
    assert f"FileRefused: {file} has changed: 14 bytes, then it had 900." in text_of(notebook.cells[2])
    assert text_of(notebook.cells[-1]) == "2"


def test_live_kernel_asks_what_has_no_record_and_nothing_else(
    trace: Path, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(user=True, live=True)
    monkeypatch.setenv("RLM_MODEL", "openai/root")
    monkeypatch.setenv("RLM_SUB_MODEL", "openai/sub")
    openai_env.sub = lambda prompt: f"live {prompt}"
    notebook = read(trace)
    add_cell(notebook, "llm_query('never asked')")
    execute(notebook, trace.parent, kernel_name="rlm-live")
    assert differences(read(trace), notebook) == {}
    assert text_of(notebook.cells[-1]) == "'live never asked'"
    assert len(openai_env.requests) == 1


def test_blocking_client_without_a_notebook_and_a_restart(tmp_path: Path) -> None:
    Path("data.txt").write_text("by the way\n")
    manager = KernelManager(kernel_name="rlm")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        for start in range(2):
            if start:
                manager.restart_kernel(now=True)
            client.wait_for_ready(timeout=30)
            said: list[Any] = []
            reply = client.execute_interactive(
                "print('made' in globals()); made = 1; budget()", output_hook=said.append, timeout=30
            )
            assert reply["content"]["status"] == "ok"
            assert [m["content"]["text"] for m in said if m["msg_type"] == "stream"] == ["False\n"]
            reply = client.execute_interactive("load_files(['data.txt'])", timeout=30)
            assert reply["content"]["ename"] == "FileRefused"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


async def test_start_without_the_image_says_what_to_type_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RLM_SANDBOX__BASE", "no-such-base:1")
    manager = AsyncKernelManager(kernel_name="rlm")
    with pytest.raises(Exception, match="rlm image build"):
        await manager.start_kernel()


def _address_of(server: subprocess.Popen[bytes], about: Path, log: Path) -> str:
    """Its address, once it takes connections there: it is written down before."""
    while True:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError, ValueError):
            url = str(json.loads(about.read_text())["url"])
            parts = urlsplit(url)
            socket.create_connection((parts.hostname, parts.port), 60).close()
            return url
        time.sleep(0.05)


def test_container_of_a_killed_server_ends(trace: Path, nothing_left: Path) -> None:
    log = trace.with_name("log")
    options = [
        "--allow-root",
        "--ServerApp.port=0",
        "--IdentityProvider.token=t",
        f"--ServerApp.root_dir={trace.parent}",
    ]
    options += [
        f"--ServerApp.jpserver_extensions={name}=False"
        for name in ("jupyterlab", "jupyter_lsp", "notebook_shim")
    ]
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, "-m", "jupyter_server", *options], stdout=out, stderr=out)
    try:
        runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
        about = runtime / f"jpserver-{server.pid}.json"
        url = _address_of(server, about, log)
        body = {"path": "t.ipynb", "name": "t.ipynb", "type": "notebook", "kernel": {"name": "rlm"}}
        request = urllib.request.Request(
            f"{url}api/sessions", json.dumps(body).encode(), {"Authorization": "token t"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["kernel"]["name"] == "rlm"
        assert len(containers_of(server.pid)) == 1
    finally:
        server.kill()
        server.wait()
    while containers_of(server.pid):
        time.sleep(0.05)
    for left in nothing_left.iterdir():
        shutil.rmtree(left)
