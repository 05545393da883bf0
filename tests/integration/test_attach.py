"""People in a run's kernel, beside the model: a real console in a terminal, and other Jupyter clients."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient

from rlm_kernel import RLM, ScriptedModels, loops
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import CellResult, Message
from rlm_kernel.trace.schema import CellMeta
from tests.support.sandbox import Sandbox, until
from tests.support.terminal import Terminal


async def test_a_person_attaches_to_a_run_which_goes_on_to_its_answer(
    kernel_image: Any, tmp_path: Path
) -> None:
    thinks, go_on = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def root(messages: Sequence[Message]) -> str:
        told.append(str(messages[-1]["content"]))
        if len(told) == 1:
            return "```repl\nmine = len(context)\nprint(mine)\n```"
        if len(told) == 2:
            thinks.set()
            await go_on.wait()
            return "```repl\nprint(found)\n```"
        return "```repl\nFINAL(found + 1)\n```"

    trace = tmp_path / "t.ipynb"
    run = asyncio.create_task(RLM(models=ScriptedModels(root)).aask("How much?", "x" * 1234, trace=trace))
    await asyncio.wait({run, asyncio.create_task(thinks.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert thinks.is_set(), run
    async with Terminal(sys.executable, "-m", "rlm_kernel", "attach", str(trace)) as terminal:
        await terminal.type("", "In [")
        assert b"How much?" in terminal.seen
        assert b"t.ipynb" in terminal.seen
        await terminal.type("len(context) + mine\r", "2468")
        await terminal.type("print(chr(27) + ']0;owned'); found = 41\r", "]0;owned\r\n")
        await terminal.type("FINAL(0)\r", "only while the model's cell runs")
        await terminal.type("if True:\r", "...:")
        await terminal.type("print('two ' + 'lines')\r\r", "two lines\r\n")
        await terminal.type("print('lo' + 'op'); import time; time.sleep(60)\r", "loop\r\n")
        await terminal.type("\x03", "KeyboardInterrupt")
        await terminal.type("exit\r", "keeping kernel alive")
        assert await terminal.process.wait() == 0
        assert b"\x1b]0;owned" not in terminal.seen
    go_on.set()
    result = await run
    assert (result.answer, result.stop_reason) == ("42", "answered")
    assert "A person ran this in your kernel" in told[2]
    assert "len(context) + mine" in told[2]
    notebook = nbformat.read(trace, 4)
    nbformat.validate(notebook)
    persons = [cell for cell in notebook.cells if CellMeta.model_validate(cell.metadata.rlm).kind == "person"]
    assert [cell.id for cell in persons] == [f"person-{number:02d}" for number in range(1, 6)]
    assert persons[0].source == "len(context) + mine"
    assert persons[0].outputs[0].data["text/plain"] == "2468"
    assert [cell.metadata.rlm.status for cell in persons] == ["ok", "ok", "error", "ok", "error"]
    order = [cell.id for cell in notebook.cells]
    assert (
        order.index("turn-01-a")
        < order.index("person-01")
        < order.index("person-05")
        < order.index("turn-02-a")
    )


@pytest.mark.parametrize("at", ["half a line", "a cell", "the end of input", "nothing"])
async def test_the_end_of_the_run_ends_the_console_and_what_was_typed_is_not_for_the_shell(
    kernel_image: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    thinks, go_on = asyncio.Event(), asyncio.Event()

    async def root(messages: Sequence[Message]) -> str:
        thinks.set()
        await go_on.wait()
        return "FINAL(done)"

    trace = tmp_path / "t.ipynb"
    run = asyncio.create_task(RLM(models=ScriptedModels(root)).aask("How much?", "x", trace=trace))
    await asyncio.wait({run, asyncio.create_task(thinks.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert thinks.is_set(), run
    async with Terminal("sh", "-i") as terminal:
        await terminal.type(
            f"PS1='shell> '; {sys.executable} -m rlm_kernel attach {trace}; echo code=$?\r", "In ["
        )
        typed, seen = {
            "half a line": ("exi", "exi"),
            "a cell": ("print('lo' + 'op'); import time; time.sleep(60)\r", "loop"),
            "the end of input": ("1 + 1\r", "2\r\n"),
            "nothing": ("", "In ["),
        }[at]
        if typed:
            await terminal.type(typed, seen)
        if at == "a cell":  # the model's next cell would wait for it
            run.cancel()
        go_on.set()
        if at == "the end of input":  # the person leaves as the run ends
            await terminal.type("\x04", "code=0")
        else:
            await terminal.type("", "The run has ended. Its trace: ")
            # The person has not seen it yet.
            await terminal.type("t\rexit\r", "code=0")
        await asyncio.wait({run})
        await terminal.type("stty -a | grep -o ' icanon'; echo on''ly the she''ll\r", "only the shell")
        # The shell may write its prompt before the line.
        assert re.search(r"^(shell> )* icanon$", terminal.text, re.MULTILINE)
        assert terminal.text.count("The run has ended") + terminal.text.count("keeping kernel alive") >= 1
        for unwanted in ("not found", "Traceback"):
            assert unwanted not in terminal.text
    assert not caplog.records


@asynccontextmanager
async def client_of(box: Sandbox, timeout: float = 20) -> AsyncIterator[AsyncKernelClient]:
    """A stock Jupyter client on a sandbox's kernel."""
    client = AsyncKernelClient()
    client.load_connection_file(str(box.run_dir.path / "connection.json"))
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=timeout)
        yield client
    finally:
        client.stop_channels()


async def test_a_socket_that_was_replaced_leads_nowhere_and_the_run_goes_on(
    sandbox: Callable[..., Any], tmp_path: Path
) -> None:
    box = await sandbox()
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(tmp_path / "trap"))
        trap.listen()
        trap.setblocking(False)
        await box.run(
            "import os\nfor n in range(1, 6):\n"
            f"    os.unlink(f'/rlm/run/k-{{n}}'); os.symlink({str(tmp_path / 'trap')!r}, f'/rlm/run/k-{{n}}')"
        )
        assert await box.text("os.path.islink('/rlm/run/k-1')") == "True"
        with pytest.raises(RuntimeError):
            async with client_of(box, timeout=1):
                pass
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert await box.text("print(llm_query('on'))") == "echo on"


async def test_a_cell_waits_for_a_persons_and_its_time_counts_from_its_beginning(
    sandbox: Callable[..., Any],
) -> None:
    box = await sandbox(cell_timeout=4)
    async with client_of(box) as client:
        client.execute("import time; print('busy'); time.sleep(2.5); fail")
        await until(lambda: box.persons_open)
        # A person's error drops what is queued behind it; the model's cell is sent again.
        result = await box.run("time.sleep(2.5); print('ran')")
        assert (result.status, output_text(result.outputs)) == ("ok", "ran")
        assert 2.4 < result.seconds < 4
        (person,) = box.persons
        assert (person.cell_id, person.status) == ("person-01", "error")
        assert output_text(person.outputs).startswith("busy\n")
        assert list(box.kernel.person_cells()) == [person]
        assert list(box.kernel.person_cells()) == []

        client.execute("kept = 1\nwhile True: pass")
        await until(lambda: box.persons_open)
        assert await box.text("print(kept)") == "1"
        assert [cell.status for cell in box.persons] == ["error", "error"]


@pytest.mark.parametrize("unix", [True, False])
async def test_a_person_who_ends_the_kernel_does_not_end_the_run(
    sandbox: Callable[..., Any], unix: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "HAS_UNIX_SOCKETS", unix)
    box = await sandbox()
    connection = json.loads((box.run_dir.path / "connection.json").read_text())
    assert connection["transport"] == ("ipc" if unix else "tcp")
    async with client_of(box) as client:
        # A host call in between gives the kernel time to tell of the cell.
        client.execute("import os\ntry:\n    budget()\nexcept Exception:\n    os._exit(3)")
        await until(lambda: box.kernel._provisioner.exited.done())
    result: CellResult = await box.run("print('on')")
    assert result.status == "died"
    # A kernel that ends itself may not have told of its last cell.
    assert [cell.status for cell in box.persons] in ([], ["died"])
    assert "ended with status 3" in result.notices[0]
    assert await box.text("print('on')") == "on"
    async with client_of(box):
        pass
