"""Questions on a Ray cluster whose workers and nodes are killed at random: is a result lost or doubled, a
container left, a limit passed?

    .venv/bin/python benchmarks/cluster.py --sessions 60 --kills 25 [--limit DOLLARS] [--seed N]

A real cluster of a head and three nodes, on this machine; real containers; a model that replies at once and
costs $0.01 a call, which it notes in a file of its own. Prints a row of a table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own 15 they stand still on a busy machine

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.engine.protocols import UNWATCHED, Completion, Message, Role, Watch
from rlm_kernel.errors import BudgetExceeded
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.session.batch.item import Done
from rlm_kernel.session.batch.ray_engine import OnRay, RayEngine

WORKER, NODE = "worker", "node"
CALL = 0.01
"""US dollars."""
HEADER = (
    "sessions | kills: workers, nodes | wall s | driver MiB | workers MiB | asked again | given up | lost "
    "| doubled | wrong | containers left | spent of limit"
)
STORE = 80 << 20
"""Bytes of a node's object store: the least that Ray takes."""
WAIT = 45.0
"""Seconds that a container may live on after its owner was killed."""


class Paid(ScriptedModels):
    """Scripted models that cost, and note each call where their process cannot forget it."""

    def __init__(self, notes: Path, seconds: float) -> None:
        super().__init__(_root, lambda prompt: prompt.upper())
        self.notes, self.seconds = notes, seconds

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        with self.notes.open("a") as file:
            file.write("call\n")
        await asyncio.sleep(self.seconds)
        reply = await super().complete(messages, role=role, model=model, schema=schema, watch=watch)
        return replace(reply, cost=CALL)


def _root(messages: Sequence[Message]) -> str:
    turn = sum(message["role"] == "assistant" for message in messages)
    if not turn:
        return "First a part.\n```repl\npart = llm_query(context)\nprint(len(part))\n```"
    return "```repl\nFINAL(part)\n```"


@dataclass
class Killed:
    """What the killer has done."""

    workers: int = 0
    nodes: int = 0
    pids: set[int] = field(default_factory=set)
    peak: int = 0


class Machines:
    """A head and nodes, all on this machine."""

    def __init__(self, nodes: int, **of_head: Any) -> None:
        """`of_head`: further options of the head."""
        from ray._private import utils
        from ray.cluster_utils import Cluster

        utils.set_sigterm_handler = lambda _handler: None  # nodes are added in threads
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, **of_head}
        self._cluster = _tried(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._nodes = [self._new() for _ in range(nodes)]
        self.address = self._cluster.address

    def _new(self) -> Any:
        return _tried(
            lambda: self._cluster.add_node(num_cpus=1, object_store_memory=STORE, resources={"rlm": 1})
        )

    def replace_one(self, chance: random.Random) -> None:
        """A node dies at once, and another one joins. Blocking."""
        node = self._nodes.pop(chance.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._new())

    def close(self) -> None:
        self._cluster.shutdown()


def _tried(make: Callable[[], Any]) -> Any:
    """On a busy machine a node may not have all its parts within the seconds that it waits for them."""
    for _ in range(8):
        try:
            return make()
        except Exception as error:
            failure = error
    raise failure


@contextlib.asynccontextmanager
async def killing(
    engine: RayEngine, machines: Machines, plan: Sequence[str], pause: float, chance: random.Random
) -> AsyncIterator[Killed]:
    """Kill workers and nodes, one after the other, as long as the context lasts."""
    done, left_to_do = Killed(), list(plan)

    async def kill() -> None:
        while True:
            done.pids |= {handle.pid for handle in engine.handles}
            done.peak = max(done.peak, sum(_resident(handle.pid) for handle in engine.handles))
            await asyncio.sleep(chance.uniform(0.2, 2 * pause))
            handles = engine.handles
            done.pids |= {handle.pid for handle in handles}
            if not left_to_do or not any(handle.busy for handle in handles):
                continue
            if left_to_do.pop(0) == NODE:
                done.nodes += 1
                await asyncio.to_thread(machines.replace_one, chance)
            else:
                done.workers += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice([handle for handle in handles if handle.busy]).pid, signal.SIGKILL)

    task = asyncio.create_task(kill())
    try:
        yield done
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def left(pids: set[int], seconds: float) -> int:
    """How many containers of these processes there are, after so many seconds at the most. Blocking."""
    until = time.monotonic() + seconds
    client = connect()
    try:
        while True:
            found = client.api.containers(all=True, filters={"label": f"{containers.LABEL}.owner"})
            ours = [one for one in found if int(one["Labels"][f"{containers.LABEL}.owner"]) in pids]
            if not ours or time.monotonic() > until:
                return len(ours)
            time.sleep(1)
    finally:
        client.close()


@dataclass(frozen=True)
class Round:
    """What is tried. `plan`: what is killed, in order; `pause`: seconds between two kills, on average;
    `call`: of a call.
    """

    sessions: int
    plan: Sequence[str]
    limit: float | None = None
    pause: float = 5.0
    call: float = 0.3
    seed: int = 0


async def run(tried: Round, folder: Path, machines: Machines) -> dict[str, Any]:
    """Ask, kill, and count."""
    chance = random.Random(tried.seed)
    text = folder / "text.txt"
    text.write_text("the same file for all\n" * 1000)
    notes, out = folder / "calls", folder / "results.jsonl"
    notes.touch()
    models = Paid(notes, tried.call)
    os.environ["RAY_ADDRESS"] = machines.address
    rlm = RLM(models=models)
    small = rlm.settings.sandbox.model_copy(update={"memory": "256m"})
    settings = rlm.settings.model_copy(update={"sandbox": small})
    engine = RayEngine(settings, OnRay(cost=tried.limit), models=models, say=_say)
    questions = [
        {
            "id": f"q{n}",
            "question": f"Number {n}?",
            **({"files": [str(text)]} if n % 3 == 0 else {"context": f"text {n}"}),
        }
        for n in range(tried.sessions)
    ]
    heard = Heard()
    began = time.monotonic()
    async with killing(engine, machines, tried.plan, tried.pause, chance) as killed:
        try:
            more: dict[str, Any] = {"max_cost": tried.limit, "keep_going": True}
            async for done in rlm.map(questions, out=out, engine=engine, **more):
                heard.add(done)
        except BudgetExceeded as error:
            _say(error.message)
    wall = time.monotonic() - began
    calls = len(notes.read_text().splitlines())
    left_over = await asyncio.to_thread(left, killed.pids, WAIT)
    if tried.limit is not None:  # the same again, with a limit that is far away, has what is missing
        last = RayEngine(settings, OnRay(), models=models, say=_say)
        async for done in rlm.map(questions, out=out, engine=last):
            heard.add(done)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    final = {str(row["id"]): row for row in rows}
    failed = [row for row in final.values() if row.get("error")]
    for row in failed:
        _say(f"{row['id']}: {row['error']}")
    expected = {q["id"]: (text.read_text() if "files" in q else str(q["context"])).upper() for q in questions}
    answered = Counter(str(row["id"]) for row in rows if row["status"] == "answered")
    return {
        "sessions": tried.sessions,
        "kills": f"{killed.workers + killed.nodes}: {killed.workers}, {killed.nodes}",
        "wall": round(wall),
        "driver": _resident(os.getpid()) >> 20,
        "workers": killed.peak >> 20,
        "again": engine.lost,
        "failed": len(failed),
        "lost": len(set(expected) - set(answered) - {str(row["id"]) for row in failed}),
        "doubled": sum(count - 1 for count in (*answered.values(), *heard.times.values()) if count > 1),
        "wrong": sum(answer.strip() != expected[name].strip() for name, answer in heard.answers.items())
        + sum(not (out.parent / row["trace"]).exists() for row in rows if row["status"] == "answered"),
        "left": left_over,
        "spent": f"${calls * CALL:.2f} of {'none' if tried.limit is None else f'${tried.limit:.2f}'}",
    }


@dataclass
class Heard:
    """What was told: the answers, and how often each."""

    answers: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)

    def add(self, done: Done) -> None:
        """Another one."""
        if done.result is not None and done.result.answer is not None:
            self.times[done.item.id] += 1
            self.answers[done.item.id] = done.result.answer


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run a round, and print its row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--plan", help="worker,node,… in place of --kills")
    parser.add_argument("--json", action="store_true", help="the row as an object")
    parser.add_argument("--limit", type=float, default=None)
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    plan = (
        given.plan.split(",")
        if given.plan
        else [NODE if chance.random() < 0.3 else WORKER for _ in range(given.kills)]
    )
    tried = Round(given.sessions, plan, given.limit, given.pause, seed=given.seed)
    machines = Machines(3)
    try:
        with tempfile.TemporaryDirectory() as folder:
            row = asyncio.run(run(tried, Path(folder), machines))
    finally:
        machines.close()
    if given.json:
        print(json.dumps(row))
        return
    print(HEADER)
    print(" | ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
