"""`rlm batch` and `rlm bench` with `--engine ray`, as commands, on a real cluster of two nodes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.session.batch.results import rows
from tests.support.model_server import ModelServer
from tests.support.ray_machines import RayMachines, ray_machines
from tests.support.sandbox import until

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(400)]
MODELS = ("-m", "openai/root", "--sub-model", "openai/sub")
COUNT = 6


@pytest.fixture(scope="module")
def machines() -> Iterator[RayMachines]:
    with ray_machines() as made:
        yield made


class Gate:
    """Sub calls have their replies as far as it is open."""

    def __init__(self) -> None:
        self.begun = 0
        self._open = 0

    def open(self, calls: int = 1_000_000) -> None:
        self._open = calls

    async def __call__(self, prompt: str) -> str:
        self.begun += 1
        number = self.begun
        await until(lambda: number <= self._open, 300)
        return prompt.upper()


@pytest.fixture
def gate(openai_env: ModelServer) -> Gate:
    """A root model that asks the sub model once, which waits for the gate."""
    gate = Gate()
    openai_env.sub = gate
    openai_env.root = lambda messages: "```repl\nFINAL(llm_query(context))\n```"
    return gate


@pytest.fixture
def asked(tmp_path: Path, kernel_image: Any) -> Path:
    """The folder with questions, each of a file of its own."""
    for number in range(COUNT):
        (tmp_path / f"{number}.txt").write_text(f"the text {number} of {COUNT}")
    lines = [
        {"id": f"q{number}", "question": f"ASKED-{number}-", "files": f"{number}.txt"}
        for number in range(COUNT)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(machines: RayMachines, tmp_path: Path) -> Iterator[Start]:
    """Begins a command in its folder; what is started is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "rlm_kernel", *words],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | machines.environment,
                start_new_session=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def batch(start: Start, *more: str, engine: str = "ray") -> subprocess.Popen[str]:
    return start("batch", "q.jsonl", *MODELS, "--engine", engine, *more)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def times_asked(server: ModelServer) -> Counter[str]:
    """How often the root model was asked each question."""
    found = (
        re.search(r"ASKED-(\d+)-", json.dumps(one.body)) for one in server.requests if one.model == "root"
    )
    return Counter(one[1] for one in found if one)


def check_results(folder: Path) -> None:
    """Each question has its own answer, once, and a trace that is here. What was killed may have lines, too."""
    all_ = list(rows(folder / "q.results.jsonl"))
    found = [row for row in all_ if (row["error"] or {}).get("kind") != "Stopped"]
    assert sorted(row["id"] for row in found) == [f"q{number}" for number in range(COUNT)]
    for row in found:
        assert row["answer"] == f"THE TEXT {row['id'][1:]} OF {COUNT}"
        assert row["node"]
        assert (folder / row["trace"]).is_file()
    index = (folder / "q.results.traces" / "index.jsonl").read_text().splitlines()
    assert len(index) == COUNT


def test_what_runs_on_the_nodes_is_told_while_it_runs_and_results_and_traces_come_home(
    start: Start, gate: Gate, asked: Path
) -> None:
    process = batch(start, "--json", "--json-events")
    assert process.stderr is not None
    events = []
    for line in process.stderr:
        events.append(json.loads(line))
        if events[-1]["event"] == "question_running" and events[-1]["turns"]:
            gate.open()  # nothing is done yet
    code, out, _ = ended(process)
    assert code == 0, events
    kinds = Counter(event["event"] for event in events)
    assert kinds["question_done"] == COUNT
    running = [event for event in events if event["event"] == "question_running"]
    assert {event["id"] for event in running} <= {f"q{number}" for number in range(COUNT)}
    assert all(event["node"] and event["turns"] <= 1 and event["calls"] <= 1 for event in running)
    last = [event for event in events if event["event"] == "question_done"][-1]
    assert (last["done"], last["total"], last["node"]) == (COUNT, COUNT, running[0]["node"])
    told = json.loads(out)
    assert (told["answered"], told["calls"]) == (COUNT, 2 * COUNT)
    check_results(asked)


def of_cluster(machines: RayMachines, docker: Any) -> set[int]:
    """The workers that own containers now."""
    return machines.owners(docker.api.containers(all=True, filters={"label": "rlm-kernel.owner"}))


def left_of(owners: set[int], docker: Any) -> list[str]:
    found = docker.api.containers(all=True, filters={"label": "rlm-kernel.owner"})
    return [one["Id"] for one in found if int(one["Labels"]["rlm-kernel.owner"]) in owners]


async def test_after_one_ctrl_c_no_container_is_left_and_the_same_command_goes_on(
    start: Start, gate: Gate, asked: Path, machines: RayMachines, docker_client: Any, openai_env: ModelServer
) -> None:
    gate.open(2)
    process = batch(start)
    out = asked / "q.results.jsonl"
    await until(lambda: out.exists() and out.read_bytes().count(b"\n") == 2, 200)
    await until(lambda: gate.begun > 2, 60)
    owners = of_cluster(machines, docker_client)
    assert owners
    process.send_signal(signal.SIGINT)
    code, _, err = await asyncio.to_thread(ended, process)
    assert code == 130, err
    assert "to continue:\nrlm batch" in err
    assert left_of(owners, docker_client) == []
    gate.open()
    code, _, err = await asyncio.to_thread(ended, batch(start))
    assert code == 0, err
    assert "2 in the results before" in err
    check_results(asked)
    done = {row["id"][1:] for row in list(rows(out))[:2]}
    assert all(times_asked(openai_env)[name] == 1 for name in done)


@pytest.mark.hostile
async def test_after_two_ctrl_cs_it_ends_at_once_and_so_do_the_containers(
    start: Start, gate: Gate, asked: Path, machines: RayMachines, docker_client: Any
) -> None:
    process = batch(start)
    await until(lambda: gate.begun > 2, 200)
    owners = of_cluster(machines, docker_client)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    code, _, err = await asyncio.to_thread(ended, process)
    assert code == 130, err
    await until(lambda: left_of(owners, docker_client) == [], 90)
    gate.open()
    code, _, err = await asyncio.to_thread(ended, batch(start, "--quiet"))
    assert (code, err) == (0, "")
    check_results(asked)


@pytest.mark.hostile
async def test_a_node_that_is_lost_while_it_runs_costs_no_result(
    start: Start, gate: Gate, asked: Path, machines: RayMachines
) -> None:
    process = batch(start, "--json")
    await until(lambda: gate.begun > 2, 200)
    await asyncio.to_thread(machines.replace_a_node)
    gate.open()
    code, out, err = await asyncio.to_thread(ended, process)
    assert code == 0, err
    assert json.loads(out)["answered"] == COUNT
    check_results(asked)


def test_a_machine_that_is_no_part_of_the_cluster_asks_by_ray_client(
    start: Start, gate: Gate, asked: Path, machines: RayMachines
) -> None:
    gate.open()
    code, _, err = ended(batch(start, engine=machines.client))
    assert code == 0, err
    check_results(asked)


def test_the_places_for_calls_hold_over_the_cluster_and_refusals_cost_no_answer(
    start: Start, gate: Gate, asked: Path, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = 0
    lock = threading.Lock()

    async def sub(prompt: str) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        await asyncio.sleep(0.05)
        with lock:
            now -= 1
        return prompt.upper()

    openai_env.sub = sub
    openai_env.root = lambda messages: (
        "```repl\nparts = llm_query_batched([context] * 20)\nFINAL(parts[-1])\n```"
    )
    openai_env.fail("rate_limit", times=3, model="sub", retry_after="0")
    monkeypatch.setenv("RLM_SUB_LLM__CONCURRENCY", "4")
    code, _, err = ended(batch(start))
    assert code == 0, err
    check_results(asked)
    assert openai_env.sent("sub") == 20 * COUNT + 3
    assert 1 < most <= 4  # with two nodes, each of which would have 4


def test_a_benchmark_is_answered_by_the_nodes_and_judged_here(
    start: Start, asked: Path, openai_env: ModelServer
) -> None:
    openai_env.root = lambda messages: (
        "```repl\nFINAL(context.split('is: ')[1].split('.')[0])\n```"
        if "```" in json.dumps(messages[0])
        else "It is 77."
    )
    tasks = []
    for number in range(3):
        text = f"Straw. The number of day {number} is: {number + 77}. Straw."
        (asked / f"hay-{number}.txt").write_text(text)
        tasks.append(
            {"question": "Which number?", "files": [f"hay-{number}.txt"], "expected": str(number + 77)}
        )
    (asked / "own.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    command = ("bench", "jsonl:own.jsonl", *MODELS, "--engine", "ray", "--strategy", "rlm,bare", "--json")
    code, out, err = ended(start(*command))
    assert code == 0, err
    groups = {group["strategy"]: group["score"] for group in json.loads(out)["groups"]}
    assert groups == {"rlm": 1, "bare": pytest.approx(1 / 3)}
    for row in json.loads(out)["rows"]:
        assert row["strategy"] == "bare" or (asked / "rlm-bench" / row["trace"]).is_file()
    sent = len(openai_env.requests)
    code, out, err = ended(start(*command))
    assert code == 0, err
    assert len(openai_env.requests) == sent
