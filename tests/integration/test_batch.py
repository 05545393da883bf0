"""`rlm batch` over real HTTP and in real containers: no question is asked twice, whatever ends the command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_kernel import RLM
from rlm_kernel.session.batch.results import rows
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.openai_wire import Request
from tests.support.sandbox import until
from tests.support.tree import containers

MODEL = ("-m", "openai/root")
MANY = 20
HOSTILE = "../../a b\n$(touch x)'\".txt"


def reply(messages: Any) -> str:
    return "```repl\nFINAL('none' if context is None else str(len(str(context))))\n```"


@pytest.fixture
def knowing(openai_env: ModelServer, kernel_image: Any, tmp_path: Path) -> ModelServer:
    openai_env.root = reply
    folder = tmp_path / "docs"
    folder.mkdir()
    lines = []
    for number in range(MANY):
        name = Path(HOSTILE).name if number == 7 else f"{number}.txt"
        if number != 5:  # it is not there
            (folder / name).write_text("x" * number)
        lines.append(
            {
                "id": HOSTILE if number == 7 else f"id-{number}",
                "question": f"ASKED-{number}-",
                "files": f"docs/{name}",
            }
        )
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return openai_env


def asked(server: ModelServer) -> Counter[str]:
    """How often the root model was asked each question."""
    return Counter(found[-1] for request in server.requests if (found := _names(request)))


def _names(request: Request) -> list[str]:
    return re.findall(r"ASKED-(\d+)-", json.dumps(request.body)) if request.model == "root" else []


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: dict(row) for row in rows(folder / "q.results.jsonl")}


def ended(folder: Path) -> dict[str, dict[str, Any]]:
    """Those that need not be asked again: a killed process leaves lines for what it had begun, too."""
    found = results(folder)
    return {id_: row for id_, row in found.items() if (row["error"] or {}).get("kind") != "Stopped"}


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rlm_kernel", "batch", "q.jsonl", *MODEL, *more]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture
def ends() -> Iterator[list[subprocess.Popen[str]]]:
    """What is started is ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_twenty_questions_of_which_one_fails_and_one_has_a_hostile_name(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rlm("batch", "q.jsonl", *MODEL, "--jobs", "4", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["answered"], report["failed"], report["kinds"]) == (MANY - 1, 1, {"FileRefused": 1})
    assert "--retry-all" in done.stderr
    found = results(tmp_path)
    assert found["id-5"]["error"]["kind"] == "FileRefused"
    for id_, row in found.items():
        if id_ != "id-5":
            trace = tmp_path / row["trace"]
            assert trace.is_file()
            assert trace.resolve().is_relative_to(tmp_path / "q.results.traces")
    assert not list(tmp_path.glob("**/x"))
    assert set(asked(knowing).values()) == {1}

    (tmp_path / "docs" / "5.txt").write_text("x" * 5)  # the same command sees that it has changed
    again = rlm("batch", "q.jsonl", *MODEL)
    assert again.returncode == 0, again.stderr
    assert "asked again because they changed" in again.stderr
    assert asked(knowing) == Counter({str(number): 1 for number in range(MANY)})
    listed = rlm("traces", "--dir", "q.results.traces", "--json")
    assert json.loads(listed.stdout)["count"] == MANY


def test_all_questions_stay_within_their_budget_and_a_larger_one_goes_on(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rlm("batch", "q.jsonl", *MODEL, "--jobs", "4", "--max-tokens-all", "9000")
    assert done.returncode == 1, done.stderr
    assert "The budget of all questions is used up" in done.stderr
    assert "With a larger budget, the same command continues: rlm batch q.jsonl" in done.stderr
    first = results(tmp_path)
    used = [row["tokens"] for row in first.values()]
    assert sum(used) <= 9_000 + max(used)
    assert len(first) < MANY
    again = rlm("batch", "q.jsonl", *MODEL, "--jobs", "4", "--json")
    assert json.loads(again.stdout)["answered"] == MANY - 1, again.stderr
    assert {row["status"] for id_, row in results(tmp_path).items() if id_ != "id-5"} == {"answered"}


def test_after_sigkill_the_same_command_goes_on_and_asks_nothing_twice(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "q.results.jsonl"
    for count in (1, 8):
        process = start(tmp_path, "--jobs", "3")
        ends.append(process)
        asyncio.run(until(lambda count=count: out.exists() and len(ended(tmp_path)) >= count))  # type: ignore[misc]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = ended(tmp_path)
    assert 8 <= len(kept) < MANY
    before = asked(knowing)
    done = rlm("batch", "q.jsonl", *MODEL, "--jobs", "3")
    assert done.returncode == 1, done.stderr  # one has no file
    assert set(results(tmp_path)) == {HOSTILE, *(f"id-{number}" for number in range(MANY) if number != 7)}
    done_ = [row for row in rows(out) if (row["error"] or {}).get("kind") != "Stopped"]
    assert len(done_) == MANY, "what the killed processes had begun has lines of its own"
    assert not out.with_name(f"{out.name}.running").exists()
    new = asked(knowing) - before
    had_answers = {str(row["line"] - 1) for row in kept.values()}
    assert not had_answers & set(new)


def test_ctrl_c_stops_what_runs_and_says_how_to_go_on(
    knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    knowing.fail("hang", times=1)
    process = start(tmp_path, "--jobs", "1")
    ends.append(process)
    asyncio.run(until(lambda: knowing.in_progress("root") == 1))
    second = start(tmp_path)
    _, told = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "Another process" in told
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to continue:\nrlm" in told
    (row,) = results(tmp_path).values()
    assert row["error"]["kind"] == "Stopped"
    assert row["lost_tokens"] > 0, "the provider bills the call that was on its way"
    assert not containers(process.pid)


def test_a_wrong_key_ends_it_with_one_error(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    done = rlm("batch", "q.jsonl", *MODEL)
    assert done.returncode == 3
    assert done.stderr.count("key") <= 4
    assert (
        len(list(rows(tmp_path / "q.results.jsonl")) if (tmp_path / "q.results.jsonl").exists() else []) <= 1
    )


def test_rows_of_a_table_are_contexts_and_retry_asks_what_may_pass(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("name,body\nanna,hello\nben,bye\n")
    knowing.fail("overloaded", times=1)
    command = (
        "batch",
        "ASKED-1- of {name}?",
        "--rows",
        "t.csv",
        "--id",
        "name",
        "--out",
        "q.results.jsonl",
        *MODEL,
    )
    done = rlm(*command, "--set", "root_llm.retries=0", "--jobs", "1")
    assert done.returncode == 1, done.stderr
    assert f"next: rlm {' '.join(command[:1])}" in done.stderr
    assert "--retry-failed" in done.stderr
    again = rlm(*command, "--retry-failed")
    assert again.returncode == 0, again.stderr
    found = results(tmp_path)
    assert {id_: (row["answer"], row["attempt"]) for id_, row in found.items()} == {
        "anna": ("33", 2),
        "ben": ("30", 1),
    }


def test_every_row_and_every_file_has_the_files_of_all_beside_it(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("name,price\nanna,pen\nben,bag\n")
    (tmp_path / "prices.csv").write_text("item,euros\npen,3\nbag,45\n")
    code = (
        "import json\n"
        "row = next((json.loads(text) for name, text in context.items() if name.endswith('.json')), None)\n"
        "own = row['price'] if row else next(text for name, text in context.items() if name.startswith('1'))\n"
        "FINAL(f'{own} {[line.text for line in grep(own, \"prices.csv\")]}')"
    )
    knowing.root = lambda _messages: f"```repl\n{code}\n```"
    command = ("batch", "What is it?", "-f", "prices.csv", "--out", "q.results.jsonl", *MODEL)
    done = rlm(*command, "--rows", "t.csv", "--id", "name")
    assert done.returncode == 0, done.stderr
    assert {id_: row["answer"] for id_, row in results(tmp_path).items()} == {
        "anna": "pen ['pen,3']",
        "ben": "bag ['bag,45']",
    }
    (tmp_path / "docs" / "1.txt").write_text("bag")
    done = rlm(*command, "--each", "docs/1.txt")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["docs/1.txt"]["answer"] == "bag ['bag,45']"


def test_map_gives_answers_of_a_type(knowing: ModelServer, tmp_path: Path) -> None:
    knowing.root = lambda _messages: "```repl\nFINAL({'item': context['item'], 'euros': len(files)})\n```"

    class Price(BaseModel):
        item: str
        euros: float

    rlm = RLM(root_model="openai/root", options={"trace.dir": str(tmp_path / "traces")})
    done = list(rlm.map(["What is it?"], [{"item": "pen"}], answer_type=Price))
    assert [one.value for one in done] == [Price(item="pen", euros=0.0)]
    assert not containers(os.getpid())


def test_paths_in_values_of_a_table_are_not_loaded(
    rlm: Rlm, knowing: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (tmp_path / "t.csv").write_text(f"body\n{secret}\n")
    code = f"try:\n    load_file({str(secret)!r})\n    FINAL('loaded')\nexcept FileRefused:\n    FINAL('refused')"
    knowing.root = lambda _messages: f"```repl\n{code}\n```"
    for question, answer in {"Spam? {body}": "refused", f"Is it spam? {secret}": "loaded"}.items():
        done = rlm("batch", question, "--rows", "t.csv", "--out", "q.results.jsonl", *MODEL)
        assert done.returncode == 0, done.stderr
        assert answer in [row["answer"] for row in results(tmp_path).values()], results(tmp_path)


def test_map_answers_in_containers_and_leaves_none(knowing: ModelServer, tmp_path: Path) -> None:
    rlm = RLM(root_model="openai/root", options={"trace.dir": str(tmp_path / "traces")})
    done = {one.item.question: one for one in rlm.map(["ASKED-1-", "ASKED-2-"], ["four", [1, 2]])}
    assert {name: one.result and one.result.answer for name, one in done.items()} == {
        "ASKED-1-": "4",
        "ASKED-2-": "6",
    }
    assert all(one.trace is not None and one.trace.is_file() for one in done.values())
    assert not containers(os.getpid())
