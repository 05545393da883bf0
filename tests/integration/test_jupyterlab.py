"""A trace in real JupyterLab, in a headless Chromium, as a person has it.

Without Chromium these tests fail: `make test` installs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, sync_playwright

from rlm_kernel.engine.events import CellFinished, CellStarted
from rlm_kernel.session.kernelspecs import install
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.jupyter import CODE_CELLS, containers_of, differences, make_trace, read
from tests.support.trace import call, meta, result, tell

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--allow-root",
    "--no-browser",
    "--ServerApp.port=0",
    "--IdentityProvider.token=t",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
)
_PROMPTS = (
    "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(node => "
    "node.textContent.trim())"
)
_KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel"


class Lab:
    """A page of JupyterLab with a notebook in it."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.page.wait_for_selector(".jp-CodeCell", timeout=60_000)
        self.page.wait_for_function(f"() => ({_KERNEL})()?.status === 'idle'", timeout=60_000)

    def command(self, name: str) -> None:
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def restart_and_run_all(self) -> None:
        self.command("notebook:clear-all-cell-outputs")
        self.page.click(".lm-MenuBar-itemLabel:text-is('Kernel')")
        self.page.click(".lm-Menu-itemLabel:text-is('Restart Kernel and Run All Cells…')")
        self.page.click(".jp-Dialog button:has-text('Restart')")
        # The last cell waits its turn, and then has had it.
        self.page.wait_for_function(f"() => ({_PROMPTS})().at(-1) === '[*]:'", timeout=30_000)
        self.page.wait_for_function(
            f"() => ({_PROMPTS})().every(prompt => /\\d/.test(prompt))", timeout=60_000
        )

    def run_new_cell(self, code: str) -> str:
        """Type a cell at the end and run it; its output."""
        self.type(code)
        self.page.wait_for_function(f"() => /\\d/.test(({_PROMPTS})().at(-1))", timeout=30_000)
        self.page.locator(".jp-CodeCell").last.scroll_into_view_if_needed()
        return self.page.locator(".jp-CodeCell").last.locator(".jp-OutputArea").inner_text().strip()

    def type(self, code: str) -> None:
        """Type a cell at the end and have it run."""
        self.page.evaluate(
            "() => { const n = window.jupyterapp.shell.currentWidget.content; n.activeCellIndex = "
            "n.widgets.length - 1; }"
        )
        self.command("notebook:insert-cell-below")
        self.command("notebook:enter-edit-mode")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Control+Enter")

    def saved(self, path: Path) -> Any:
        self.command("docmanager:save")
        return read(path)

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self._pictures / f"{name}.png")


def _no_news(folder: Path) -> Path:
    """Settings of JupyterLab in which the question for news is answered."""
    settings = folder.with_name("settings")
    notification = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notification.parent.mkdir(parents=True)
    notification.write_text('{"fetchNews": "false"}')
    return settings


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """JupyterLab on a folder: its address and process id. Stopped as by Ctrl-C in a terminal, twice."""
    log = folder.with_name("jupyter.log")
    with log.open("w") as out:
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            *_OPTIONS,
            f"--LabApp.user_settings_dir={_no_news(folder)}",
        ]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        about = Path(os.environ["JUPYTER_RUNTIME_DIR"], f"jpserver-{process.pid}.json")
        while not about.exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield json.loads(about.read_text())["url"], process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()  # now and then a worker thread of AnyIO's keeps it, with all else done
            process.wait()


@pytest.fixture
def page() -> Iterator[Page]:
    assert CHROMIUM, "no Chromium: install the package chromium, or Google Chrome"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser.new_page(viewport={"width": 1200, "height": 1500})
        browser.close()


@pytest.fixture
def trace(kernel_image: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    return make_trace(folder)


# The trace first: once there is a page, this thread has a running loop.
def test_a_trace_in_jupyterlab(
    trace: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = read(trace)
    install(user=True)
    with tempfile.TemporaryDirectory(prefix="j") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv(
            "JUPYTER_PATH", os.environ["JUPYTER_DATA_DIR"]
        )  # looked in first: another may be installed
        with server(trace.parent) as (url, pid):
            lab = Lab(page, tmp_path)
            lab.open(f"{url}lab/tree/t.ipynb?token=t")
            assert page.locator(".jp-Dialog").count() == 0
            assert page.locator(".jp-KernelName").inner_text() == "RLM (Docker)"
            lab.picture("opened")
            for name in ("run", "run-again"):
                lab.restart_and_run_all()
                lab.picture(name)
                assert differences(recorded, lab.saved(trace)) == {}
            assert _pictures(page) == [128]
            assert lab.run_new_cell("print(peek(0, 3), len(grep('needle')), len(context))") == "hay 50 900"
            refused = lab.run_new_cell("prompt = 'never asked'\n\nllm_query(prompt)")
            assert refused.startswith("NoRecord: This call has no record in the trace")
            assert "rlm replay --live" in refused
            assert refused.endswith("(Line 3 of the cell.)")
            assert "\n" not in refused
            lab.picture("new-cells")
            assert len(containers_of(pid)) == 1
        assert containers_of(pid) == []
        assert os.listdir(runtime) == []
    assert len([cell for cell in read(trace).cells if cell.cell_type == "code"]) == CODE_CELLS


def _pictures(page: Page) -> list[int]:
    """Widths of the pictures in outputs, as the browser has decoded them."""
    widths: list[int] = page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea img')].map(image => image.naturalWidth)"
    )
    return widths


@contextmanager
def opened(trace: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rlm open` on a trace, and the address that it tells."""
    command = [sys.executable, "-m", "rlm_kernel", "open", str(trace), "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            told = ""
            while "Ctrl-C stops it" not in told:
                line = process.stderr.readline()
                assert line, told
                told += line
            yield process, re.findall(r"http\S+", told)[0]
        finally:
            process.terminate()


def test_what_looks_like_mathematics_in_prompts_stays_as_it_was_written(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    prompt = r"$5 and $6, \(x\), \[y\], $$z$$, \begin{align}a\end{align}"
    made = result("turn-01-a", "x", calls=(call(1, preview=prompt, answer=prompt),))
    writer = NotebookWriter(folder / "t.ipynb", meta(), [])
    tell(writer, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, made)])
    notebook = read(folder / "t.ipynb")
    notebook.cells.append(nbformat.v4.new_markdown_cell("$formula$"))  # the last to be rendered
    nbformat.write(notebook, folder / "t.ipynb")
    with server(folder) as (url, _):
        page.goto(f"{url}lab/tree/t.ipynb?token=t")
        page.wait_for_selector("mjx-container", timeout=60_000)
        table = page.locator(".jp-OutputArea details")
        table.locator("summary").click()
        page.screenshot(path=tmp_path / "t.png")
        assert table.inner_text().count(prompt) == 2
        assert page.locator("mjx-container").count() == 1


@pytest.mark.parametrize("moment", ["the page loads", "the kernel is ready"])
def test_ctrl_c_ends_what_rlm_open_started(
    trace: Path, page: Page, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # The trace of a stranger, who would like its cells to run outside of the container.
    text = trace.read_text("utf-8")
    assert '"name": "rlm"' in text
    trace.write_text(text.replace('"name": "rlm"', '"name": "python3"'), "utf-8")
    with tempfile.TemporaryDirectory(prefix="j") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        with opened(trace) as (process, address):
            # A thread of the server's works on this request, and would keep Python from ending.
            with page.expect_request("**/api/nbconvert*", timeout=60_000):
                page.goto(address, wait_until="commit")
            if moment == "the kernel is ready":
                page.wait_for_selector(".jp-KernelName:has-text('RLM (Docker)')", timeout=60_000)
                idle = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
                page.wait_for_selector(idle, state="attached", timeout=60_000)
                assert "needle" in page.locator(".jp-Notebook").inner_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, "it took half a minute while a thread was waited for"
        assert os.listdir(runtime) == []
