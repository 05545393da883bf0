"""`rlm show` and `rlm export`: a trace to be read, whatever is in it, and its calls as training data."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.cli import main
from rlm_kernel.config import Settings
from rlm_kernel.engine.events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    RunFinished,
    TurnReplied,
)
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals, Usage
from rlm_kernel.engine.values import PictureNote
from rlm_kernel.printable import printable
from rlm_kernel.session.traces import new_writer
from rlm_kernel.trace.schema import FileMeta, ParentMeta
from tests.support import hostile_text
from tests.support.engine import failure, stream
from tests.support.examples import TRACES
from tests.support.terminal import Terminal
from tests.support.trace import call, meta, result, tell

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["rlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return run


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(
    path: Path,
    calls: int = 3,
    *,
    prompts: str = "full",
    end: bool = True,
    word: str = "Classify ",
    words: str = "I look.",
    **more: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(trace={"prompts": prompts})  # type: ignore[arg-type]
    writer = new_writer(path, meta(**more), settings)
    first = [
        {"role": "system", "content": "You are an RLM."},
        {"role": "user", "content": "How many? It is long."},
    ]
    reply = Completion(f"{words}\n```repl\nx\n```", "openai/root", Usage(100, 20, 5), 0.5, 2.5)
    tell(writer, [TurnReplied(1, reply, words, "How many?", first), CellStarted("turn-01-a", 1, "x = 1")])
    made = []
    for number in range(1, calls + 1):
        prompt = f"{word * 100}{number}"
        tell(writer, [CallStarted("turn-01-a", f"7-1-{number}", "llm_query", prompt, None, digest(number))])
        failed = {"answer": None, "error": "It is busy.", "error_type": "LLMError"} if number == 2 else {}
        made.append(call(number, prompt_digest=digest(number), preview=prompt[:200], **failed))
        writer(CallFinished("turn-01-a", made[-1]))
    if end:
        outputs = [stream("".join(f"line {number}\n" for number in range(100)))]
        tell(writer, [CellFinished(1, result("turn-01-a", "x = 1", outputs=outputs, calls=made))])
        tell(writer, [CellFinished(1, result("turn-01-b", "y", "error", [failure("ValueError", "bad")]))])
        tell(writer, [RunFinished(Outcome(Answer("There are **five**."), "answered"), Totals(1, calls))])
    else:
        writer._save_running()
        writer.release()
    return path


def test_show_has_question_answer_words_code_outputs_and_counts(rlm: Run, tmp_path: Path) -> None:
    done = rlm("show", write(tmp_path / "t.ipynb"))
    assert done.returncode == 0
    for shown in ("How many?\n", "There are **five**.", "Turn 1 · openai/root", "I look.", "turn-01-a · ok · 0.2 s · 3 calls (1 failed)",
                  "x = 1", "│ line 0", "… 70 more lines", "--cell turn-01-a", "turn-01-b · error", "ValueError: bad"):  # fmt: skip
        assert shown in done.stdout, shown
    assert "line 50" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_show_has_the_models_words_as_it_said_them(rlm: Run, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb", words="# Plan\n\nI count <title> tags & ![marks], from $5 to $9.")
    for shown in (("show", trace), ("export", trace, "--html"), ("export", trace, "--md")):
        assert "&amp;lt;" not in (out := rlm(*shown).stdout)
        assert "<span>&#36;" not in out
    assert "# Plan\n\nI count <title> tags & ![marks], from $5 to $9.\n" in rlm("show", trace).stdout


def test_show_takes_the_last_trace_where_none_is_named(
    rlm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no trace" in rlm("show").stderr
    write(tmp_path / "rlm-traces" / "t.ipynb")
    done = rlm("show")
    assert "five" in done.stdout
    assert "t.ipynb" in done.stderr
    assert rlm("export", "--jsonl").returncode == 0


def test_show_of_one_cell_has_all_of_it(rlm: Run, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb")
    done = rlm("show", trace, "--cell", "turn-01-a")
    assert "line 99" in done.stdout
    assert "I look" not in done.stdout
    turn = rlm("show", trace, "--cell", "turn-01")
    assert all(text in turn.stdout for text in ("I look.", "line 99", "ValueError"))
    wrong = rlm("show", trace, "--cell", "turn-1-a")
    assert wrong.returncode == 2
    assert "Did you mean turn-01-a?" in wrong.stderr


def test_show_lists_calls_and_shows_one_in_full(rlm: Run, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb")
    table = rlm("show", trace, "--calls").stdout.splitlines()
    assert len(table) == 4
    assert "It is busy." in table[2]
    one = rlm("show", trace, "--call", 3).stdout
    assert "Classify " * 100 + "3" in one
    assert "Answer\n5\n" in one
    assert rlm("show", trace, "--calls", "--full").stdout.count("Classify " * 100) == 3
    for number in (0, -1, 4):
        assert rlm("show", trace, "--call", number).returncode == 2
    assert rlm("show", trace, "--cell", "turn-01-b", "--calls").stdout.count("\n") == 1


def test_show_says_where_only_the_beginning_of_a_prompt_is_kept(rlm: Run, tmp_path: Path) -> None:
    one = rlm("show", write(tmp_path / "t.ipynb", prompts="preview"), "--call", 1).stdout
    assert "Prompt (only its beginning is kept)" in one
    trace = write(tmp_path / "u.ipynb")
    (tmp_path / "u.prompts.zst").unlink()
    assert "u.prompts.zst is not next to the trace" in rlm("show", trace, "--call", 1).stderr


def test_show_lists_files_and_which_cells_made_calls(rlm: Run, tmp_path: Path) -> None:
    out = rlm("show", write(tmp_path / "t.ipynb"), "--sources").stdout
    assert re.search(r"1,234 bytes .*/data/a\.txt", out)
    assert "turn-01-a        3 calls" in out


def test_a_page_looks_for_sources_in_large_files_only_where_asked(rlm: Run, tmp_path: Path) -> None:
    def told(size: int, *words: str) -> str:
        (tmp_path / "a.txt").write_text("five")
        files = [FileMeta(path=str(tmp_path / "a.txt"), size=size)]
        trace = write(tmp_path / f"{size}{len(words)}.ipynb", files=files)
        done = rlm("export", trace, "--md", "-o", tmp_path / "page.md", *words)
        assert done.returncode == 0
        return str(done.stderr)

    assert "300 MB. To include it: --sources" in told(300_000_000)
    assert "--sources" not in told(300_000_000, "--sources")
    assert "--sources" not in told(4)


def test_show_as_json_is_one_object(rlm: Run, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb")
    found = json.loads(rlm("show", trace, "--json").stdout)
    assert found["answer"] == "There are **five**."
    assert [cell["id"] for cell in found["cells"] if cell["kind"] == "code"] == ["turn-01-a", "turn-01-b"]
    assert all("calls" not in cell for cell in found["cells"])
    calls = json.loads(rlm("show", trace, "--json", "--cell", "turn-01-a", "--calls", "--full").stdout)[
        "cells"
    ][0]["calls"]
    assert [one["call"] for one in calls] == [1, 2, 3]
    assert calls[2]["prompt"] == "Classify " * 100 + "3"


def test_show_tells_of_a_trace_that_is_cut_off_or_edited(rlm: Run, tmp_path: Path) -> None:
    cut = rlm("show", write(tmp_path / "t.ipynb", end=False)).stdout
    assert "turn-01-a · cut off while it ran" in cut
    assert "its run is in progress, or was cut off" in cut
    trace = write(tmp_path / "u.ipynb")
    trace.write_text(trace.read_text().replace('"x = 1"', '"x = 2"'))
    assert "edited since it ran" in rlm("show", trace).stdout


def test_what_no_trace_is_told_and_no_crash(rlm: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.ipynb"
    other.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    for path in (tmp_path / "none.ipynb", other, tmp_path):
        for command in (("show", path), ("export", path, "--jsonl")):
            done = rlm(*command)
            assert done.returncode in (1, 2)
            assert done.stderr.startswith("rlm: ")
            assert "Traceback" not in done.stderr


EVIL = hostile_text.EVIL.replace("\x00", "") + "\r"


def test_nothing_in_a_trace_changes_the_terminal(rlm: Run, tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = new_writer(
        path,
        meta(
            EVIL,
            models={"root": EVIL, "sub": EVIL},
            files=[{"path": f"/data/{EVIL}", "size": 1}],
            detail=EVIL,
        ),
        Settings(),
    )
    reply = Completion(f"{EVIL}", EVIL, Usage(1, 1), 0.5, 2.5, thoughts=EVIL)
    tell(
        writer,
        [
            TurnReplied(1, reply, EVIL, EVIL, [{"role": "user", "content": EVIL}]),
            CellStarted("turn-01-a", 1, EVIL),
        ],
    )
    tell(writer, [CallStarted("turn-01-a", "1", "llm_query", EVIL, {"description": EVIL}, digest(1))])
    one = call(1, prompt_digest=digest(1), preview=EVIL, answer=EVIL, model=EVIL)
    two = call(
        2, prompt_digest=digest(2), preview=EVIL, answer=None, error=EVIL, model=EVIL, trace=f"{EVIL}.ipynb"
    )
    tell(
        writer,
        [
            CellFinished(
                1, result("turn-01-a", EVIL, "error", [stream(EVIL), failure(EVIL, EVIL)], calls=[one, two])
            )
        ],
    )
    tell(writer, [RunFinished(Outcome(Answer(EVIL), "answered"), Totals(1, 2))])
    for options in (
        (),
        ("--cell", "turn-01"),
        ("--calls",),
        ("--call", 1),
        ("--call", 2),
        ("--sources",),
        ("--calls", "--full"),
        ("--json",),
    ):
        done = rlm("show", path, *options)
        assert done.returncode == 0
        text = done.stdout + done.stderr
        assert printable(text) == text, options
        assert "\r" not in text
    bad = rlm("show", path, "--cell", EVIL)
    assert printable(bad.stderr) == bad.stderr


def exported(rlm: Run, *words: Any) -> list[Any]:
    done = rlm("export", "--jsonl", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_export_has_each_call_with_its_messages_and_its_reply(rlm: Run, tmp_path: Path) -> None:
    records = exported(rlm, write(tmp_path / "t.ipynb"))
    root, first, failed, last = records
    assert root["messages"] == [
        {"role": "system", "content": "You are an RLM."},
        {"role": "user", "content": "How many? It is long."},
        {"role": "assistant", "content": "I look.\n```repl\nx\n```"},
    ]
    assert (root["call"], root["model"], root["turn"], root["prompt_tokens"], root["cost"]) == (
        "root",
        "openai/root",
        1,
        100,
        0.5,
    )
    assert first["messages"] == [
        {"role": "user", "content": "Classify " * 100 + "1"},
        {"role": "assistant", "content": "5"},
    ]
    assert (first["call"], first["cell"], first["seconds"], first["id"]) == ("sub", "turn-01-a", 0.5, "7-1-1")
    assert failed["error"] == "It is busy."
    assert [one["role"] for one in failed["messages"]] == ["user"]
    assert all(record["complete"] and record["trace"] == "t.ipynb" for record in records)
    assert len({tuple(record) for record in records}) == 1
    assert last["reply"] == "5"


def test_an_export_says_where_prompts_are_not_whole(rlm: Run, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb", prompts="preview")
    done = rlm("export", trace, "--jsonl")
    assert [json.loads(line)["complete"] for line in done.stdout.splitlines()] == [False] * 4
    assert "4 of 4 calls have only the beginning of their prompt" in done.stderr
    short = write(tmp_path / "u.ipynb", prompts="preview", word="")
    assert [one["complete"] for one in exported(rlm, short, "--only", "sub")] == [True] * 3


def test_an_export_has_the_calls_that_were_made_alone(rlm: Run, tmp_path: Path) -> None:
    writer = new_writer(tmp_path / "t.ipynb", meta(), Settings())
    calls = [
        call(1, answer={"label": "ä"}),
        call(2, answer=None, error="no money", error_type="BudgetExceeded"),
        call(3, again=True),
        call(4, kind="rlm_query", answer=None, error="4", error_type="TextWanted"),
        call(5, kind="file"),
        call(6, images=(PictureNote("a" * 64, "image/png", 10, 2, 3),)),
    ]
    tell(writer, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", "x", calls=calls))])
    writer.close()
    records = exported(rlm, tmp_path / "t.ipynb")
    assert [record["id"] for record in records] == ["7-1-1", "7-1-6"]
    assert records[0]["reply"] == '{"label": "ä"}'
    assert json.loads(records[1]["images"]) == [
        {"message": 0, "digest": "a" * 64, "media_type": "image/png", "size": 10, "width": 2, "height": 3}
    ]


def test_an_export_has_the_children_each_once_and_says_which_are_missing(rlm: Run, tmp_path: Path) -> None:
    trace = tmp_path / "t.ipynb"
    writer = new_writer(trace, meta(), Settings())
    calls = [call(n, kind="rlm_query", trace=f"t.children/turn-01-a-{n}.ipynb") for n in (1, 2, 1)]
    tell(writer, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", "x", calls=calls))])
    writer.close()
    parent = ParentMeta(trace="../t.ipynb", session="1a2b3c4d", cell="turn-01-a")
    write(tmp_path / "t.children" / "turn-01-a-1.ipynb", parent=parent, session="5e6f7a8b")
    done = rlm("export", trace, "--jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["trace"] for record in records] == ["t.children/turn-01-a-1.ipynb"] * 4
    assert {(record["parent"], record["parent_cell"]) for record in records} == {("1a2b3c4d", "turn-01-a")}
    assert "turn-01-a-2.ipynb of a child RLM does not exist" in done.stderr
    assert exported(rlm, trace, "--no-children") == []


def test_an_export_to_a_file_is_whole_or_not_there(rlm: Run, tmp_path: Path) -> None:
    trace, out = write(tmp_path / "t.ipynb"), tmp_path / "out.jsonl"
    out.write_text("before")
    done = rlm("export", trace, "--jsonl", "-o", out)
    assert done.stdout == ""
    assert len(out.read_text().splitlines()) == 4
    assert os.listdir(tmp_path).count("out.jsonl") == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    for wrong in (tmp_path / "no" / "out.jsonl", tmp_path, trace, tmp_path / "t.prompts.zst"):
        failed = rlm("export", trace, "--jsonl", "-o", wrong)
        assert failed.returncode == 2
        assert failed.stderr.startswith("rlm: ")
    assert json.loads(trace.read_text())


@pytest.mark.parametrize(
    "words", [(), ("--jsonl", "--html"), ("--jsonl", "--only", "all"), ("--html", "--only", "sub")]
)
def test_an_export_says_what_to_type(rlm: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = rlm("export", write(tmp_path / "t.ipynb"), *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# In a terminal and in a pipe


def shown(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlm_kernel", "show", *words]


async def in_terminal(*words: str, keys: bytes = b"", **environ: str) -> Terminal:
    before = {name: os.environ.get(name) for name in environ}
    os.environ.update(environ)
    try:
        async with Terminal(*shown(*words)) as terminal:
            if keys:
                await terminal.type("", "line 0")
                os.write(terminal.keyboard, keys)
            assert await terminal.ended() == 0
            await asyncio.sleep(0)
            return terminal
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


async def test_a_terminal_has_a_pager_that_can_be_left(tmp_path: Path) -> None:
    trace = str(write(tmp_path / "t.ipynb"))
    program = tmp_path / "pager"
    program.write_text(
        '#!/bin/sh\nread line\nread line2\nread line3\necho paged "$line"\necho line 0\nread key < /dev/tty\n'
    )
    program.chmod(0o755)
    left = await in_terminal(trace, keys=b"\x03q\n", PAGER=str(program))
    assert "paged" in left.text
    assert "rlm:" not in left.text
    assert "Traceback" not in left.text
    assert "paged" not in (await in_terminal(trace, PAGER=str(program), CI="true")).text


async def test_a_pager_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    trace = str(write(tmp_path / "t.ipynb"))
    without = await in_terminal(trace, PAGER="no-such-pager")
    assert "the pager no-such-pager cannot be started" in without.text
    assert "line 0" in without.text
    assert b"\x1b[1mHow many?" in (await in_terminal(trace, "--no-pager")).seen
    assert b"\x1b[1m" not in (await in_terminal(trace, "--no-pager", NO_COLOR="1")).seen


def test_a_pipe_that_is_closed_early_is_no_fault(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.ipynb", 2_000)
    line = f"{sys.executable} -m rlm_kernel show {trace} --calls --full | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_the_examples_and_older_traces_are_shown_with_their_answers(rlm: Run) -> None:
    for path in TRACES:
        done = rlm("show", path)
        assert done.returncode == 0
        assert "There is none." not in done.stdout
        assert json.loads(rlm("show", path, "--json").stdout)["answer"]
