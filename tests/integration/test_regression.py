"""`rlm test`: a folder of ten traces of all kinds, in real containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.messages import SUM_UP
from rlm_kernel.engine.protocols import Card
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.regression.results import CaseResult, Suite
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.story import repl
from tests.support.suite import NAMES, SCRIPTS, Speakers, record_all

pytestmark = pytest.mark.xdist_group("regression")  # they share what takes long to make


@pytest.fixture(scope="module")
def recorded(kernel_image: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten traces in `traces`, and their inputs in `data`."""
    folder = tmp_path_factory.mktemp("suite")
    with ModelServer() as server, pytest.MonkeyPatch.context() as patch:
        Speakers().play(server)
        patch.setenv("OPENAI_API_KEY", "sk-test")
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_BASE", server.url)
        (folder / "traces").mkdir()
        record_all(folder / "traces", folder / "data")
    return folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where new traces stay if something differs."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def traces(recorded: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies some of the traces into a folder, to be changed."""

    def copy(*names: str) -> Path:
        folder = tmp_path / "traces"
        for file in (recorded / "traces").iterdir():
            wanted = file.name.split(".")[0] in names or "session" in file.name
            if wanted and file.is_file():
                folder.mkdir(exist_ok=True)
                shutil.copy(file, folder)
        return folder

    return copy


@pytest.fixture
def speakers(openai_env: ModelServer) -> Speakers:
    """The models of the recording, at another address."""
    speakers = Speakers()
    speakers.play(openai_env)
    return speakers


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to anything but unix sockets fail."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, f"something connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a notebook's cells, by id."""
    notebook = nbformat.read(path, 4)
    change({cell.id: cell for cell in notebook.cells})
    nbformat.write(notebook, path)


def only(suite: Suite) -> CaseResult:
    (tested,) = suite.traces
    return tested


# Without models


@pytest.mark.usefixtures("no_network")
def test_ten_traces_are_the_same_without_key_model_or_network(rlm: Rlm, recorded: Path) -> None:
    done = rlm("test", str(recorded / "traces"), "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert [Path(one["trace"]).stem for one in found["traces"]] == list(NAMES)
    assert [one["verdict"] for one in found["traces"]] == ["same"] * 10
    for one in found["traces"]:
        assert one["then"] == one["now"]
        assert one["turns"][0] == one["turns"][1]
        assert one["calls"][0] == one["calls"][1]
        assert one["cost"][1] == pytest.approx(one["cost"][0])
        assert one["remarks"] == []
    assert found["spent"] == pytest.approx(0)
    assert found["out"] is None


def test_traces_that_are_tested_at_one_time_give_the_same(recorded: Path) -> None:
    suite = RLM().test(recorded / "traces", jobs=3)
    assert suite.same
    assert [one.trace.stem for one in suite.traces] == list(NAMES)


def test_a_limit_that_stopped_the_run_stops_it_again(recorded: Path, tmp_path: Path) -> None:
    tested = only(RLM().test(recorded / "traces" / "limit.ipynb", out=tmp_path / "out"))
    assert (tested.verdict, list(tested.remarks)) == ("same", [])
    assert tested.out is not None
    meta = read_trace(tested.out).meta
    assert (meta.stop_reason, meta.forced) == ("turns", True)


def test_a_child_is_answered_from_the_recording_and_counts_as_it_did(recorded: Path, tmp_path: Path) -> None:
    tested = only(RLM().test(recorded / "traces" / "child.ipynb", out=tmp_path / "out"))
    assert tested.used.cost == pytest.approx(tested.before.cost)
    assert (tested.used.children, tested.used.calls) == (tested.before.children, tested.before.calls)
    assert [path.name for path in (tmp_path / "out").glob("*.children")] == []


def test_summaries_of_long_conversations_are_recorded_replies_too(tmp_path: Path) -> None:
    turns = [repl(f"print(context[:10], {n}, 'x' * 9_000)") for n in range(6)] + [repl("FINAL('done')")]
    said = iter(turns)

    def root(messages: Any) -> str:
        return "So far: nothing." if messages[-1]["content"].endswith(SUM_UP) else next(said)

    models = ScriptedModels(root, cards=[Card("root", "scripted/root", window=16_000)])
    options = {"prompt.profile": "short", "limits.output_chars": 10_000}
    (tmp_path / "a.txt").write_text("a text\n" * 5_000)
    trace = tmp_path / "traces" / "long.ipynb"
    assert RLM(models=models, options=options).ask("What?", tmp_path / "a.txt", trace=trace).answer == "done"
    kinds = [cell.kind for cell in read_trace(trace).cells]
    assert "memory" in kinds
    tested = only(RLM(options={"root_llm.window": 16_000}).test(trace.parent, out=tmp_path / "out"))
    assert (tested.verdict, list(tested.remarks)) == ("same", []), tested.detail
    assert tested.out is not None
    assert [cell.kind for cell in read_trace(tested.out).cells] == kinds


def test_a_trace_whose_run_was_cut_off_is_skipped_and_a_fork_is_tested(
    recorded: Path, tmp_path: Path, speakers: Speakers
) -> None:
    speakers.scripts["And twice that?"] = [repl("print(len(context) * 2)"), repl("FINAL(len(context) * 2)")]
    folder = tmp_path / "traces"
    forked = RLM(options={"trace.dir": str(folder)}).fork(
        recorded / "traces" / "error.ipynb", "And twice that?", out=folder / "fork.ipynb"
    )
    assert forked.answer is not None
    shutil.copy(recorded / "traces" / "list.ipynb", folder / "cut.ipynb")
    notebook = nbformat.read(folder / "cut.ipynb", 4)
    notebook.metadata.rlm.update(status="finished", stop_reason="interrupted")
    nbformat.write(notebook, folder / "cut.ipynb")
    cut, fork = RLM().test(folder).traces
    assert (cut.verdict, fork.verdict) == ("skipped", "same"), (cut.detail, fork.detail)
    assert len(fork.now) == 2


def test_questions_of_a_session_are_asked_in_turn(recorded: Path, tmp_path: Path) -> None:
    tested = only(RLM().test(recorded / "traces" / "questions.ipynb", out=tmp_path / "out"))
    assert tested.then == tested.now
    assert len(tested.now) == 2
    assert int(str(tested.now[1])) == 2 * int(str(tested.now[0]))
    assert tested.out is not None
    kinds = [cell.kind for cell in read_trace(tested.out).cells]
    assert kinds.count("question") == 1
    assert kinds.count("answer") == 2


def test_an_answer_that_is_another_one_now_differs_by_name(
    rlm: Rlm, traces: Callable[..., Path], tmp_path: Path
) -> None:
    folder = traces("count", "list")
    edit(folder / "count.ipynb", lambda cells: cells["answer"].metadata.rlm.update(text="8"))
    report = tmp_path / "out" / "report.xml"
    done = rlm("test", str(folder), "--junit", str(report))
    assert done.returncode == 1
    assert re.search(r"^count.ipynb +differs +8 → 9 ", done.stdout, re.MULTILINE)
    assert re.search(r"^list.ipynb +same", done.stdout, re.MULTILINE)
    assert "1 same, 1 differs" in done.stdout
    kept = re.search(r"the new traces are in (\S+)", done.stderr)
    assert kept is not None
    assert read_trace(Path(kept[1]) / "count.ipynb").meta.question == "How many errors are there?"
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")


def test_a_helper_that_gives_something_else_fails_the_trace_at_the_first_request_after_it(
    traces: Callable[..., Path],
) -> None:
    """As a new kernel image might: here the recording says what the helper gave."""
    folder = traces("text")

    def other(cells: dict[str, Any]) -> None:
        shown = next(output for output in cells["turn-01-a"].outputs if output.output_type == "stream")
        shown.text = "a log of old\n"

    edit(folder / "text.ipynb", other)
    tested = only(RLM().test(folder))
    assert tested.verdict == "failed"
    assert tested.detail.startswith(
        "turn 2: the request differs from the recorded one: turn-01-a gave something else"
    )
    assert "a log of old" in tested.detail


def test_a_recorded_answer_that_was_tampered_with_fails_the_trace(traces: Callable[..., Path]) -> None:
    folder = traces("folder")

    def tamper(cells: dict[str, Any]) -> None:
        call = next(call for call in cells["turn-01-a"].metadata.rlm.calls if call["kind"] == "llm_query")
        call["answer"] = "forged"

    edit(folder / "folder.ipynb", tamper)
    tested = only(RLM().test(folder))
    assert tested.verdict == "failed"
    assert "forged" in tested.detail


def test_a_reply_that_makes_other_calls_fails_with_the_call(
    traces: Callable[..., Path], openai_env: ModelServer
) -> None:
    folder = traces("text")

    def reword(cells: dict[str, Any]) -> None:
        rlm = cells["turn-01"].metadata.rlm
        rlm["reply"] = rlm["reply"].replace("Summarize: ", "Sum up: ")

    edit(folder / "text.ipynb", reword)
    tested = only(RLM().test(folder))
    assert tested.verdict == "failed"
    assert "turn-01-a makes a call that has no record: 'Sum up: line 0" in tested.detail
    assert openai_env.requests == []


def test_a_changed_prompt_of_rlm_is_told_and_the_recorded_replies_are_used(
    traces: Callable[..., Path],
) -> None:
    folder = traces("list")
    notebook = nbformat.read(folder / "list.ipynb", 4)
    notebook.metadata.rlm.prompt_digest = "0" * 64
    nbformat.write(notebook, folder / "list.ipynb")
    tested = only(RLM().test(folder))
    assert tested.verdict == "same"
    assert any("prompt has changed" in remark for remark in tested.remarks)


def test_a_file_that_is_missing_or_changed_fails_by_name_and_is_found_in_a_folder(
    traces: Callable[..., Path], recorded: Path, tmp_path: Path
) -> None:
    folder = traces("count", "folder")
    moved = tmp_path / "moved"
    shutil.move(recorded / "data", moved)
    try:
        found = RLM().test(folder)
        assert [one.verdict for one in found.traces] == ["failed", "failed"]
        assert all("is not there" in one.detail and "--files" in one.detail for one in found.traces)
        assert RLM().test(folder, files=moved).same
        shutil.copytree(moved, tmp_path / "other")
        (tmp_path / "other" / "a.log").write_text("other")
        found = RLM().test(folder, files=tmp_path / "other")
        assert [one.verdict for one in found.traces] == ["failed", "same"]
        assert "a.log" in found.traces[0].detail
    finally:
        shutil.move(moved, recorded / "data")


def test_a_damaged_trace_fails_by_name_and_other_notebooks_are_left_alone(
    traces: Callable[..., Path],
) -> None:
    folder = traces("count")
    (folder / "broken.ipynb").write_bytes((folder / "count.ipynb").read_bytes()[:3000])
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), folder / "mine.ipynb")
    found = {one.trace.name: one.verdict for one in RLM().test(folder).traces}
    assert found == {"broken.ipynb": "failed", "count.ipynb": "same"}


def test_a_folder_without_traces_is_no_success(rlm: Rlm, tmp_path: Path) -> None:
    done = rlm("test", str(tmp_path))
    assert done.returncode == 2
    assert "There are no traces" in done.stderr


# What is expected


def test_the_folder_says_what_is_expected_of_a_trace(rlm: Rlm, traces: Callable[..., Path]) -> None:
    folder = traces("count", "list", "text", "error")
    (folder / "rlm-test.toml").write_text(
        '["count.ipynb"]\nexpected = 8\n\n["list.ipynb"]\nskip = "the services are being renamed"\n\n'
        '["error.ipynb"]\nexpected = 24.28\ntolerance = 0.001\n'
    )
    done = rlm("test", str(folder), "--json")
    found = {Path(one["trace"]).stem: one for one in json.loads(done.stdout)["traces"]}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "count": "differs", "list": "skipped", "text": "same", "error": "same",
    }  # fmt: skip
    assert found["list"]["detail"] == "the services are being renamed"
    assert found["count"]["then"] == ["8"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('["cuont.ipynb"]\nskip = "x"\n', "count.ipynb"),
        ('["count.ipynb"]\nexpcted = 3\n', "expcted"),
        ('compare = "numbr"\n', "compare"),
        ("compare = ", "not TOML"),
        ("expected = 3\n", "belong to a trace"),
    ],
)
def test_a_wish_that_nobody_would_heed_is_refused(
    rlm: Rlm, traces: Callable[..., Path], text: str, told: str
) -> None:
    folder = traces("count")
    (folder / "rlm-test.toml").write_text(text)
    done = rlm("test", str(folder))
    assert done.returncode == 2
    assert told in done.stderr


def test_new_answers_are_accepted_and_expected_from_then_on(rlm: Rlm, traces: Callable[..., Path]) -> None:
    folder = traces("count", "json")
    edit(folder / "count.ipynb", lambda cells: cells["answer"].metadata.rlm.update(text="8"))
    assert rlm("test", str(folder)).returncode == 1
    done = rlm("test", str(folder), "--update")
    assert done.returncode == 0
    assert json.loads((folder / "rlm-test.accepted.json").read_text()) == {"count.ipynb": ["9"]}
    assert rlm("test", str(folder)).returncode == 0


def test_a_folder_cannot_have_a_model_asked(
    openai_env: ModelServer, traces: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = traces("list")
    (folder / "rlm-test.toml").write_text('["list.ipynb"]\nmodel = "openai/root"\ncompare = "judge"\n')
    monkeypatch.setenv("RLM_MODEL", "openai/root")
    Path("config.json").write_text('{"root_llm": {"model": "openai/root"}}')
    edit(folder / "list.ipynb", lambda cells: cells["answer"].metadata.rlm.update(text="- service-9"))
    tested = only(RLM().test(folder))
    assert tested.verdict == "failed"
    assert "none is named" in tested.detail
    assert openai_env.requests == []


# With models


def test_another_model_is_asked_and_unchanged_sub_calls_are_not(
    speakers: Speakers, openai_env: ModelServer, traces: Callable[..., Path]
) -> None:
    folder = traces("count")
    openai_env.models = {"new": speakers.root}
    suite = RLM("openai/new", options={"root_llm.input_price": 1.0, "root_llm.output_price": 1.0}).test(
        folder
    )
    tested = only(suite)
    assert (tested.verdict, list(tested.now)) == ("same", ["9"])
    assert {request.body["model"] for request in openai_env.requests} == {"new"}
    assert speakers.asked == []
    assert tested.used.calls == tested.before.calls
    assert suite.spent.known_cost > 0
    assert list(tested.remarks) == ["the root model is different"]


def test_several_models_have_a_column_each(
    speakers: Speakers, openai_env: ModelServer, rlm: Rlm, traces: Callable[..., Path], tmp_path: Path
) -> None:
    folder = traces("count", "list")
    openai_env.models = {"good": speakers.root, "bad": lambda messages: repl("FINAL(7)")}
    asked = ("--model", "openai/good", "-m", "openai/bad")
    done = rlm(
        "test", str(folder), *asked, "--junit", str(tmp_path / "x.xml"), "--out", str(tmp_path / "new")
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    head, count, names, total = lines[[line.split()[:1] for line in lines].index(["trace"]) :][:4]
    assert head.split() == ["trace", "expected", "openai/good", "openai/bad"]
    assert count.split()[:4] == ["count.ipynb", "9", "$0.0075", "same"]
    assert ("differs 7" in count, "differs 7" in names) == (True, True)
    assert total.strip()
    assert "count.ipynb, openai/bad: differs\n  '7', expected '9'" in done.stdout
    assert "openai/good  2 same" in done.stdout
    root = ElementTree.parse(tmp_path / "x.xml").getroot()
    assert [(one.get("name"), one.get("failures")) for one in root] == [
        ("openai/good", "0"),
        ("openai/bad", "2"),
    ]
    assert (tmp_path / "new" / "openai-bad" / "count.ipynb").is_file()
    refused = rlm("test", str(folder), *asked, "--update")
    assert (refused.returncode, "Name one --model" in refused.stderr) == (2, True)


def test_no_model_is_asked_where_another_one_has_no_key(
    speakers: Speakers, openai_env: ModelServer, rlm: Rlm, traces: Callable[..., Path]
) -> None:
    openai_env.models = {"good": speakers.root}
    done = rlm("test", str(traces("list")), "-m", "openai/good", "-m", "anthropic/claude-sonnet-4-5")
    assert (done.returncode, "ANTHROPIC_API_KEY" in done.stderr) == (3, True)
    assert openai_env.requests == []


def test_another_prompt_is_asked_of_the_models_and_children_with_it(
    speakers: Speakers, openai_env: ModelServer, traces: Callable[..., Path]
) -> None:
    folder = traces("child", "count")
    suite = RLM(options={"prompt.profile": "short"}).test(folder)
    assert suite.same, [one.detail for one in suite.traces]
    assert speakers.asked == []  # the prompt of the sub model is the code's
    roots = [request.body for request in openai_env.requests]
    assert len(roots) == 2 + 2 + 2
    assert all(one.used.calls == one.before.calls for one in suite.traces)


def test_another_sub_model_is_asked_for_all_calls(
    speakers: Speakers, openai_env: ModelServer, traces: Callable[..., Path]
) -> None:
    folder = traces("count")
    openai_env.models = {"small": lambda messages: "fine"}
    tested = only(RLM(sub_model="openai/small").test(folder))
    assert tested.verdict == "differs"
    assert tested.detail == "'0', expected '9'"
    assert speakers.asked == []


def test_the_same_models_answer_from_the_recording_alone(
    speakers: Speakers, openai_env: ModelServer, traces: Callable[..., Path]
) -> None:
    folder = traces("count", "error", "questions")
    suite = RLM().test(folder, live=True)
    assert suite.same, [one.detail for one in suite.traces]
    assert [one.remarks for one in suite.traces] == [[], [], []]
    assert openai_env.requests == []


def test_where_a_request_differs_the_models_go_on(
    speakers: Speakers, openai_env: ModelServer, traces: Callable[..., Path]
) -> None:
    folder = traces("list")
    edit(folder / "list.ipynb", lambda cells: cells["turn-01-a"].outputs[0].update(text="['service-9']\n"))
    tested = only(RLM().test(folder, live=True))
    assert tested.verdict == "same"
    assert len(openai_env.requests) == 1
    assert any(remark.startswith("turn 2: the request differs") for remark in tested.remarks)


def test_a_judge_is_asked_about_texts_that_differ_and_no_others(
    speakers: Speakers, openai_env: ModelServer, rlm: Rlm, traces: Callable[..., Path]
) -> None:
    folder = traces("text", "count")
    reply = '{"why": "both say that it is a log", "same": true}'
    openai_env.models = {"judge": lambda messages: reply}
    edit(folder / "text.ipynb", lambda cells: cells["answer"].metadata.rlm.update(text="This is a log."))
    assert rlm("test", str(folder)).returncode == 1
    done = rlm("test", str(folder), "--judge", "openai/judge")
    assert done.returncode == 0, done.stdout
    assert len(openai_env.requests) == 1
    reply = '{"why": "it is a book", "same": "true"}'
    done = rlm("test", str(folder), "--judge", "openai/judge")
    assert done.returncode == 1
    assert "gave no verdict" in done.stdout


def test_a_model_without_a_key_ends_all_as_a_matter_of_set_up(rlm: Rlm, traces: Callable[..., Path]) -> None:
    done = rlm("test", str(traces("count", "list")), "--model", "openai/gpt-5")
    assert done.returncode == 3
    assert "OPENAI_API_KEY" in done.stderr


def test_a_flaky_trace_is_the_same_at_its_second_attempt_and_is_called_flaky(
    traces: Callable[..., Path],
) -> None:
    folder = traces("list")
    (folder / "rlm-test.toml").write_text('["list.ipynb"]\nattempts = 3\n')
    tries = 0

    def root(messages: Any) -> str:
        nonlocal tries
        said = sum(message["role"] == "assistant" for message in messages) - _examples(messages)
        tries += said == 0
        if tries == 1 and said:
            return repl("FINAL('- service-9')")
        return SCRIPTS["Which services are named?"][said]

    tested = only(RLM(models=ScriptedModels(root), options={"prompt.profile": "short"}).test(folder))
    assert (tested.verdict, tested.attempts) == ("same", 2)
    assert any("flaky" in remark for remark in tested.remarks)


def _examples(messages: Any) -> int:
    asked = next(
        at for at, message in enumerate(messages) if "Which services are named?" in message["content"]
    )
    return sum(message["role"] == "assistant" for message in messages[:asked])


def test_nothing_is_left_behind_where_all_is_the_same(traces: Callable[..., Path], temporary: Path) -> None:
    folder = traces("count")
    before = sorted(os.listdir(folder))
    assert RLM().test(folder).same
    assert sorted(os.listdir(folder)) == before
    assert [name for name in os.listdir(temporary) if name.startswith("rlm-test-")] == []
