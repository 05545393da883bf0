"""`rlm resume` and `rlm fork`: the state is rebuilt in a real container, and the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM, UsageError
from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Completion, Message
from rlm_kernel.session.ask import ask
from rlm_kernel.session.resume import resume
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.schema import CallMeta
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.story import ANSWER, QUESTION, SHORT, Story, be_killed, record

pytestmark = pytest.mark.xdist_group("resume")  # they share what takes long to make
LAST_MOMENT = 60
"""Events of a whole run, about."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("hello world\n" * 100)
    return path


@pytest.fixture(scope="module", params=[12, pytest.param(3, marks=pytest.mark.hostile)])
def killed(
    request: pytest.FixtureRequest, kernel_image: Any, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Path]]:
    """Traces of runs that were killed by SIGKILL at their nth event, for n in steps over a whole run."""
    folder = tmp_path_factory.mktemp("killed")
    context = get_context("forkserver")
    # What takes a second to import is imported once.
    preload = ["session.ask", "sandbox.kernel", "sandbox.docker_host", "sandbox.image", "trace.writer"]
    context.set_forkserver_preload(
        [*(f"rlm_kernel.{name}" for name in preload), "docker", "nbformat", "jsonschema"]
    )

    def kill(nth: int) -> Path:
        trace = folder / f"{nth}.ipynb"
        process = context.Process(target=be_killed, args=(runtime, str(folder), str(trace), str(text), nth))
        process.start()
        process.join(60)
        assert process.exitcode == -9, f"event {nth}: exit {process.exitcode}"
        return trace

    # Not below tmp_path: a socket's name must be short.
    with TemporaryDirectory(prefix="k", ignore_cleanup_errors=True) as runtime, ThreadPoolExecutor(2) as pool:
        moments = range(2, LAST_MOMENT, request.param)
        yield dict(zip(moments, pool.map(kill, moments), strict=True))


def queries(trace: TraceFile) -> list[CallMeta]:
    return [call for cell in trace.cells if cell.meta for call in cell.meta.calls if call.kind == "llm_query"]


def whole(trace: TraceFile) -> None:
    """The trace is that of a run that was never cut off."""
    nbformat.validate(trace.node)
    assert (trace.meta.status, trace.meta.stop_reason) == ("finished", "answered")
    assert [cell.id for cell in trace.code_cells] == [
        "parameters", "setup", "turn-01-a", "turn-01-b", "turn-02-a", "turn-02-b", "turn-03-a",
    ]  # fmt: skip
    assert [cell.id for cell in trace.cells][-2:] == ["answer", "summary"]
    assert ANSWER in trace.cells[-2].source


def test_a_run_killed_at_any_moment_reaches_the_answer_each_time(killed: dict[int, Path]) -> None:
    def resume(nth: int) -> None:
        before = read_trace(killed[nth])
        assert before.meta.status == "running"
        recorded = {call.prompt_digest + str(call.nth) for call in queries(before)}
        story = Story(SHORT, slow=False)
        result = RLM(models=story).resume(killed[nth])
        assert result.answer == ANSWER, nth
        after = read_trace(killed[nth])
        whole(after)
        assert after.meta.origins[0].kind == "resume"
        calls = queries(after)
        assert len(calls) == 18
        assert recorded <= {call.prompt_digest + str(call.nth) for call in calls}, "what was paid for is kept"
        assert len(story.asked) == len(calls) - len(recorded), "and not asked again"
        turns = sum(cell.kind == "model" for cell in after.cells)
        assert after.spent().turns == turns, "none is counted twice or forgotten"
        assert after.spent().calls >= len(calls), "those that were under way when it was killed count, too"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(resume, killed))
    # And what came of it replays.
    assert RLM().replay(killed[26]).same


def test_a_limit_that_was_reached_is_raised_and_the_run_goes_on(
    rlm: Rlm, openai_env: ModelServer, text: Path
) -> None:
    look = "```repl\nseen = len(context)\nprint(llm_query('COUNT'))\n```"
    openai_env.root, openai_env.sub = (
        [look, look, "FINAL(perhaps)", "```repl\nFINAL(seen)\n```"],
        lambda _prompt: "7",
    )
    options = ("-m", "openai/root", "--sub-model", "openai/sub", "--max-turns", "2", "--trace", "t.ipynb")
    first = rlm("ask", "How long is it?", "-f", str(text), *options)
    assert first.stdout == "perhaps\n"
    before = read_trace(Path("t.ipynb"))
    assert (before.meta.stop_reason, before.meta.forced) == ("turns", True)
    refused = rlm("resume", "t.ipynb")
    assert refused.returncode == 2
    assert "The limit of turns (2) is used up" in refused.stderr
    assert "--max-turns" in refused.stderr
    done = rlm("resume", "t.ipynb", "--max-turns", "5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["answer"], result["turns"], result["calls"], result["stop_reason"]) == (
        1200,
        4,
        2,
        "answered",
    )
    trace = read_trace(Path("t.ipynb"))
    assert [cell.id for cell in trace.cells if cell.kind in ("model", "code")] == [
        "turn-01", "turn-01-a", "turn-02", "turn-02-a", "turn-03", "turn-03-final", "turn-04", "turn-04-a",
    ]  # fmt: skip
    assert trace.meta.limits["turns"] == 5
    sent = openai_env.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", *["assistant", "user"] * 3]
    assert "limit, which was raised. Go on with the question" in sent[-1]["content"]
    assert len([request for request in openai_env.requests if request.model == "sub"]) == 2
    again = rlm("resume", "t.ipynb")
    assert again.returncode == 2
    assert "has an answer" in again.stderr


def test_what_could_not_be_restored_is_said_to_the_model(
    kernel_image: Any, text: Path, tmp_path: Path
) -> None:
    turns = [["print(context[:5])", "import time\nprint(started := time.monotonic_ns())"], ["FINAL(started)"]]
    trace = tmp_path / "t.ipynb"
    record(text, trace, models=Story(turns))
    cut = nbformat.read(trace, 4)
    cut.cells = [cell for cell in cut.cells if not cell.id.startswith(("turn-02", "answer", "summary"))]
    cut.metadata.rlm.update(status="running")
    cut.metadata.rlm.pop("stop_reason")
    nbformat.write(cut, trace)
    told: list[str] = []

    class Listening(Story):
        async def complete(self, messages: Any, **options: Any) -> Any:
            told.append(messages[-1]["content"])
            return await super().complete(messages, **options)

    result = RLM(models=Listening(turns)).resume(trace)
    assert "Not as they were then: turn-01-b (differs)" in told[0]
    after = {cell.id: cell for cell in read_trace(trace).cells}
    assert result.answer == after["turn-01-b"].outputs[0]["text"].strip(), (
        "the trace has the outputs of the kernel that answered"
    )
    assert "Not as they were then" in after["note-01-1"].source


@pytest.fixture(scope="module")
def answered(text: Path, kernel_image: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = tmp_path_factory.mktemp("answered") / "t.ipynb"
    record(
        text,
        trace,
        models=Story(
            [
                ["total = 41", "print(context[:5], total)"],
                ["print(llm_query('one more'))"],
                ["FINAL(total + 1)"],
            ]
        ),
    )
    return trace


def test_a_fork_goes_on_from_a_cell_as_a_person_edited_it(answered: Path, tmp_path: Path) -> None:
    trace = Path(shutil.copy(answered, tmp_path / "t.ipynb"))
    edited = nbformat.read(trace, 4)
    next(cell for cell in edited.cells if cell.id == "turn-01-a").source = "total = 10"
    nbformat.write(edited, trace)
    before = trace.read_bytes()
    story = Story([[], ["FINAL(total + 5)"]])
    result = RLM(models=story).fork(trace, at="turn-01-b", out=tmp_path / "fork.ipynb")
    assert (result.answer, result.trace) == ("15", tmp_path / "fork.ipynb")
    assert trace.read_bytes() == before
    forked = read_trace(result.trace)
    assert [cell.id for cell in forked.code_cells] == [
        "parameters",
        "setup",
        "turn-01-a",
        "turn-01-b",
        "turn-02-a",
    ]
    assert next(cell for cell in forked.cells if cell.id == "turn-01-b").outputs[0]["text"] == "hello 10\n"
    (origin,) = forked.meta.origins
    assert (origin.kind, origin.trace, origin.cell) == ("fork", str(trace), "turn-01-b")
    assert result.totals.turns == 1
    assert RLM().replay(result.trace).same


def test_a_further_question_is_asked_in_a_fork_of_the_whole(
    rlm: Rlm, openai_env: ModelServer, answered: Path
) -> None:
    openai_env.root = lambda _messages: "```repl\nFINAL(total * 2)\n```"
    done = rlm("fork", str(answered), "And twice as much?", "-m", "openai/root", "--trace", "two.ipynb")
    assert (done.stdout, done.returncode) == ("82\n", 0), done.stderr
    sent = openai_env.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", *["assistant", "user"] * 3]
    assert sent[-1]["content"].count("And twice as much?") == 1
    trace = read_trace(Path("two.ipynb"))
    assert [cell.id for cell in trace.cells][-7:] == [
        "turn-03-a", "answer-01", "question-03-1", "note-03-1", "turn-04", "turn-04-a", "answer", "summary",
    ][-7:]  # fmt: skip
    assert "And twice as much?" in next(cell for cell in trace.cells if cell.id == "question-03-1").source
    # A fork can be forked: the conversation has both questions.
    openai_env.root = lambda _messages: "```repl\nFINAL(total * 3)\n```"
    done = rlm("fork", "two.ipynb", "And three times?", "--trace", "three.ipynb")
    assert done.stdout == "123\n", done.stderr
    asked = "\n".join(message["content"] for message in openai_env.requests[-1].body["messages"])
    assert "And twice as much?" in asked
    assert "And three times?" in asked


def test_what_cannot_be_taken_up_is_said(
    answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="has an answer, so there is nothing to resume"):
        RLM().resume(answered)
    with pytest.raises(UsageError, match="has an answer"):
        RLM().fork(answered)
    with pytest.raises(UsageError, match="no cell turn-07"):
        RLM().fork(answered, at="turn-07")
    with pytest.raises(UsageError, match="its own notebook"):
        RLM(models=Story()).fork(answered, "And?", out=answered)
    with pytest.raises(UsageError, match="scripted models"):
        RLM().fork(answered, "And?", out=tmp_path / "x.ipynb")
    assert not (tmp_path / "x.ipynb").exists()


def test_a_run_that_is_interrupted_while_the_model_speaks_keeps_the_words_and_asks_again(
    text: Path, tmp_path: Path
) -> None:
    class Speaking(Story):
        """Says the beginning of its second reply, and no more."""

        spoke = asyncio.Event()

        async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
            if options["role"] == "root" and messages[-1]["content"].startswith("Output"):
                options["watch"].sent()
                options["watch"].heard("I begin <b>again", False)
                self.spoke.set()
                await asyncio.Event().wait()
            return await super().complete(messages, **options)

    path = tmp_path / "t.ipynb"

    async def interrupted() -> None:
        chosen, models = load_settings(None, {"sandbox.memory": "1g"}), Speaking(SHORT)
        asked = asyncio.create_task(ask(QUESTION, text, settings=chosen, trace=path, models=models))
        await models.spoke.wait()
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked

    asyncio.run(interrupted())
    before = read_trace(path)
    assert before.meta.stop_reason == "interrupted"
    (words,) = [cell for cell in before.cells if cell.kind == "unfinished"]
    assert (words.id, words.meta and words.meta.text) == ("unfinished-02-1", "I begin <b>again")
    assert before.spent().lost_tokens > 100
    asyncio.run(resume(path, models=Story(SHORT)))
    after = read_trace(path)
    whole(after)
    assert [cell.id for cell in after.cells if cell.kind in ("model", "unfinished")] == [
        "turn-01",
        "unfinished-02-1",
        "turn-02",
        "turn-03",
    ]
    assert RLM().replay(path).same
