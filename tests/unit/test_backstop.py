"""Whatever goes wrong, a command ends with a message and an exit code, and a run closes its trace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import pytest
from pydantic import BaseModel, ValidationError

from rlm_kernel import RLM, InternalError, ScriptedModels, UsageError
from rlm_kernel.cli import main
from rlm_kernel.engine.events import CellFinished, CellOutput, CellStarted
from rlm_kernel.engine.protocols import CellResult, Totals, Usage
from rlm_kernel.errors import RLMError, backstop
from rlm_kernel.session.traces import closing_trace
from rlm_kernel.trace.schema import NotebookMeta
from rlm_kernel.trace.writer import NotebookWriter


class Panic(BaseException):
    """As what a native library raises when it breaks."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        return str(10**5000)


class Typed(BaseModel):
    number: int


def invalid() -> Exception:
    with pytest.raises(ValidationError) as caught:
        Typed(number="no")  # type: ignore[arg-type]
    return caught.value


FAILURES: dict[str, Callable[[], BaseException]] = {
    "recursion": lambda: RecursionError("maximum recursion depth exceeded"),
    "memory": MemoryError,
    "value": lambda: ValueError("Exceeds the limit (4300 digits)"),
    "group": lambda: ExceptionGroup(
        "unhandled errors in a TaskGroup", [AssertionError("inner"), KeyError("a")]
    ),
    "panic": lambda: Panic("native code broke"),
    "unspeakable": Unspeakable,
    "validation": invalid,
    "file": lambda: OSError(28, "No space left on device"),
    "long": lambda: TypeError("x" * 10_000_000),
}
COMMANDS = {
    "ask What? -f file.txt -m openai/x": "rlm_kernel.session.ask.gather",
    "chat -m openai/x": "rlm_kernel.session.manager.SessionFolder",
    "init file.txt": "rlm_kernel.session.manager.SessionFolder",
    "run What? -m openai/x": "rlm_kernel.session.manager.SessionFolder",
    "status": "rlm_kernel.session.status.SessionFolder",
    "stop": "rlm_kernel.session.manager.SessionFolder",
    "replay trace.ipynb": "rlm_kernel.session.replay.read_trace",
    "resume trace.ipynb": "rlm_kernel.session.resume.read_trace",
    "fork trace.ipynb --at turn-01": "rlm_kernel.session.resume.read_trace",
    "attach": "rlm_kernel.sandbox.rundir.live_sessions",
    "bench niah --model openai/x": "rlm_kernel.config.load_settings",
    "doctor": "rlm_kernel.config.load_settings",
    "gc": "rlm_kernel.sandbox.docker_host.connect",
    "image build": "rlm_kernel.sandbox.docker_host.connect",
    "image info": "rlm_kernel.sandbox.docker_host.connect",
    "models": "rlm_kernel.config.load_settings",
    "models pull": "rlm_kernel.models.weights.find_model",
    "models serve": "rlm_kernel.models.local.LocalServer.start",
    "cache info": "rlm_kernel.config.load_settings",
    "config show": "rlm_kernel.config.explain_settings",
    "kernelspec install": "rlm_kernel.session.kernelspecs.install",
}


def failing(failure: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise failure

    return fail


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["rlm", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def files(isolated: Path) -> None:
    Path("file.txt").write_text("text")
    Path("trace.ipynb").write_text("{}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_a_message(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setattr(COMMANDS[command], failing(RecursionError("too deep")))
    code = run(command, monkeypatch)
    out, err = capfd.readouterr()
    assert code == 1, (out, err)
    assert "This is a bug in rlm_kernel: RecursionError: too deep" in err
    assert "rlm --debug" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("kind", FAILURES)
def test_whatever_is_raised_is_told_in_a_few_words(
    kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(COMMANDS["gc"], failing(FAILURES[kind]()))
    assert run("gc", monkeypatch) == 1
    _, err = capfd.readouterr()
    assert err.startswith("rlm: ")
    assert ("No space left on device." if kind == "file" else "a bug in rlm_kernel") in err
    assert "Traceback" not in err
    assert len(err) < 1000


def test_a_fault_in_a_host_call_is_told_to_the_cell_and_shown_for_debugging_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys, logging, rlm_kernel.cli._main as main; main._no_tracebacks()\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('rlm_kernel.sandbox.broker').exception('host call "
        "failed')"
    )
    for debug in ("", "1"):
        monkeypatch.setenv("RLM_DEBUG", debug)
        subprocess.run([sys.executable, "-c", code], check=True)
        assert ("Traceback" in capfd.readouterr().err) == bool(debug)


def test_debug_shows_where_it_happened(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLM_DEBUG", "1")
    monkeypatch.setattr(COMMANDS["gc"], failing(ValueError("here")))
    assert run("gc", monkeypatch) == 1
    assert "in fail" in capfd.readouterr().err


@pytest.fixture
def writer(tmp_path: Path) -> NotebookWriter:
    meta = NotebookMeta(
        session="s",
        created=datetime.now(UTC),
        rlm_version="1",
        question="What?",
        models={"root": "r", "sub": "s"},
        prompt_profile="p",
        prompt_digest="d",
        image="i",
        image_digest="d",
        limits={},
        sandbox={},
    )
    return NotebookWriter(tmp_path / "run.ipynb", meta, [])


def spent() -> Totals:
    return Totals(turns=3, root_usage=Usage(100, 20))


async def a_run(writer: NotebookWriter, work: Callable[[], None]) -> None:
    async with closing_trace(writer, spent, writer.path, lambda _said: None):
        writer(CellStarted("turn-01-a", 1, "1"))
        work()


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_run_that_fails_of_anything_closes_its_trace(kind: str, writer: NotebookWriter) -> None:
    failure = FAILURES[kind]()
    with pytest.raises(InternalError) as caught:
        await a_run(writer, failing(failure))
    assert caught.value.__cause__ is failure
    assert str(writer.path) in caught.value.hint
    notebook = nbformat.read(writer.path, 4)
    nbformat.validate(notebook)
    about = notebook.metadata.rlm
    assert (about.status, about.stop_reason, about.totals.turns) == ("finished", "error", 3)
    assert about.detail.endswith("To continue: rlm resume run.ipynb")


async def test_a_cell_that_cannot_be_written_does_not_keep_a_trace_open(writer: NotebookWriter) -> None:
    def tell_what_cannot_be_written() -> None:
        output: Any = [{"output_type": "stream", "name": "stdout", "text": object()}]
        writer(CellOutput("turn-01-a", output))
        writer(CellFinished(1, CellResult("turn-01-a", "1", "ok", output, datetime.now(UTC), 1.0)))

    with pytest.raises(RLMError):
        await a_run(writer, tell_what_cannot_be_written)
    assert nbformat.read(writer.path, 4).metadata.rlm.status == "finished"


async def test_an_interrupt_is_no_failure(writer: NotebookWriter) -> None:
    with pytest.raises(asyncio.CancelledError):
        async with closing_trace(writer, spent, writer.path, lambda _said: None):
            raise asyncio.CancelledError
    assert nbformat.read(writer.path, 4).metadata.rlm.stop_reason == "interrupted"


async def test_errors_of_ours_stay_what_they_are(writer: NotebookWriter) -> None:
    with pytest.raises(UsageError, match="no") as caught:
        async with closing_trace(writer, spent, writer.path, lambda _said: None):
            raise UsageError("no")
    assert caught.value.__cause__ is None
    assert nbformat.read(writer.path, 4).metadata.rlm.detail == "no"
    assert isinstance(
        InternalError.of(ExceptionGroup("g", [UsageError("first"), UsageError("second")])), UsageError
    )


@pytest.mark.parametrize("kind", FAILURES)
async def test_coroutines_behind_it_raise_errors_of_ours_alone(kind: str) -> None:
    @backstop
    async def work() -> None:
        raise FAILURES[kind]()

    with pytest.raises(InternalError):
        await work()


@pytest.mark.parametrize(
    ("use", "inner"),
    [
        (lambda rlm: rlm.ask("What?", "text"), "rlm_kernel.session.ask.gather"),
        (lambda rlm: rlm.resume("trace.ipynb"), "rlm_kernel.session.resume.read_trace"),
        (lambda rlm: rlm.fork("trace.ipynb"), "rlm_kernel.session.resume.read_trace"),
        (lambda rlm: rlm.replay("trace.ipynb"), "rlm_kernel.session.replay.read_trace"),
    ],
    ids=["ask", "resume", "fork", "replay"],
)
def test_the_python_class_raises_errors_of_ours_alone(
    use: Callable[[RLM], Any], inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner, failing(Panic("broke")))
    with pytest.raises(RLMError, match="a bug in rlm_kernel: Panic: broke"):
        use(RLM(models=ScriptedModels([])))


def test_an_argument_that_is_not_taken_is_its_callers_error() -> None:
    with pytest.raises(TypeError):
        RLM(models=ScriptedModels([])).replay("trace.ipynb", no_such_option=1)
