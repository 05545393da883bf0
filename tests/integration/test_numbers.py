"""All numbers of a run are the same wherever they are shown: live, last line, JSON, trace, `rlm status`, and
when it is taken up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.events import Event, RunFinished
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.session.running import discard
from rlm_kernel.session.state import SessionFolder, sessions
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.views.live import LiveView
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.usefixtures("kernel_image", "_nothing_left")
ASK = """```repl
found = llm_query_batched(['one', 'two', 'two', 'fails'])
print(found, 'x' * 2000)
```"""
CHILD = "```repl\nprint(rlm_query('And of this?', 'some text'), len(context))\n```"
CONFIG = {
    "root_llm": {"model": "openai/root", "input_price": 1.0, "output_price": 2.0},
    "sub_llm": {"model": "openai/sub", "temperature": 0, "retries": 1},
    "cache": {"enabled": True},
    "limits": {"depth": 1},
    "sandbox": {"memory": "1g"},
}


@pytest.fixture
def _nothing_left(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(CONFIG))
    Path("a.txt").write_text("hello world\n" * 100)
    yield
    for name in sessions(tmp_path / ".rlm_state"):
        state = SessionFolder(tmp_path / ".rlm_state", name).read()
        if state is not None:
            discard(state.run)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the live line showed of the account as each question ended."""
    shown: list[str] = []
    hear = LiveView.__call__

    def record(view: LiveView, event: Event) -> None:
        hear(view, event)
        if isinstance(event, RunFinished):
            shown.append(view.account())

    monkeypatch.setattr(LiveView, "__call__", record)
    return shown


def play(server: ModelServer, *turns: str) -> None:
    """The root model's turns, in order; a child answers at once, and a summary is one."""
    upcoming = iter(turns)

    def root(messages: list[dict[str, Any]]) -> str:
        if "And of this?" in str(messages[1]["content"]):
            return "```repl\nprint(llm_query('three'))\nFINAL(len(context))\n```"
        return "It was about some words." if "Now sum up" in str(messages[-1]["content"]) else next(upcoming)

    def sub(prompt: str) -> str:
        if prompt == "fails":
            raise ValueError(prompt)
        return f"about {prompt}"

    server.root, server.sub = root, sub


def of_json(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def totals_of(trace: str) -> Totals:
    return read_trace(Path(trace)).spent()


def shared(found: dict[str, Any], expected: Totals) -> None:
    """An object for programs has the account's numbers."""
    wanted = expected.as_json()
    assert {name: found[name] for name in wanted} == {
        **wanted,
        "known_cost": pytest.approx(wanted["known_cost"]),
    }


def in_the_closing_cell(trace: str, totals: Totals) -> bool:
    cell = next(cell for cell in read_trace(Path(trace)).cells if cell.id == "summary")
    return f"Together: {totals.line()}." in cell.source


def test_a_run_of_all_kinds_of_calls_has_the_same_numbers_everywhere(
    rlm: Rlm, openai_env: ModelServer, live: list[str]
) -> None:
    openai_env.fail("overloaded", model="sub")  # one call of the batch is tried again
    play(
        openai_env,
        ASK,
        CHILD,
        "```repl\nFINAL('It is done.')\n```",
        "```repl\nprint(len(context))\nFINAL('Yes.')\n```",
    )
    first = rlm("run", "What is in it?", "-f", "a.txt", "--json")
    assert first.returncode == 0, first.stderr
    answer = of_json(first.stdout)
    trace = answer["trace"]
    totals = totals_of(trace)

    requests = [request for request in openai_env.requests if request.path.endswith("completions")]
    assert (totals.turns, totals.children, totals.child_turns) == (3, 1, 1)
    assert (totals.calls, totals.stored, totals.failed) == (6, 1, 1), (
        "three and one from the cache, the child's turn and its sub-call"
    )
    sent = {name: sum(request.model == name for request in requests) for name in ("root", "sub")}
    assert sent["root"] == 4, "three turns, and the child's"
    assert sent["sub"] == 4 + 2, "one was tried again, and one failed twice"
    assert totals.unpriced == 3
    assert totals.cost is None
    assert totals.known_cost == pytest.approx(
        (totals.root_usage.prompt + 2 * totals.root_usage.completion) / 1e6
    )

    asked = {name for name in totals.as_json() if name not in ("seconds", "models")}
    assert {name: answer[name] for name in asked} == {name: totals.as_json()[name] for name in asked}
    by_model = {name: (share.calls, share.usage) for name, share in totals.models.items()}
    assert by_model == {"root": (4, totals.root_usage), "sub": (5, totals.sub_usage)}
    assert answer["models"]["sub"] == totals.as_json()["models"]["sub"]
    assert first.stderr.splitlines()[-2] == totals.line()
    assert live[-1] in totals.line()
    assert "+ unknown" in live[-1]
    assert in_the_closing_cell(trace, totals)
    status = rlm("status", "--json")
    shared(of_json(status.stdout), totals)
    assert totals.line() in rlm("status").stdout

    # What its cells and its child's trace say comes to the same.
    file = read_trace(Path(trace))
    summed = replace(file, meta=file.meta.model_copy(update={"totals": None})).spent()
    assert (summed.turns, summed.calls, summed.children, summed.stored) == (
        totals.turns,
        totals.calls,
        totals.children,
        totals.stored,
    )
    assert summed.usage == totals.usage
    child = next(call for cell in file.cells if cell.meta for call in cell.meta.calls if call.trace)
    below = totals_of(str(file.path.parent / child.trace))
    assert (below.turns, below.calls, below.child_turns) == (1, 1, 0)
    assert (child.calls, child.prompt_tokens, child.cost) == (2, below.usage.prompt, below.cost)
    children = [line for line in first.stderr.splitlines() if line.startswith("child 1: ")]
    assert children == [f"child 1: answered, {below.line()}"]

    # A second question has its own numbers; the session those of both.
    second = rlm("run", "Is it so?", "--json")
    assert second.returncode == 0, second.stderr
    own, both = of_json(second.stdout), totals_of(trace)
    assert own["turns"] == 1
    assert second.stderr.splitlines()[-2].startswith("1 turn, 0 sub-calls, ")
    assert live[-1] in second.stderr.splitlines()[-2]
    assert (both.turns, both.calls) == (4, 6)
    assert both.usage.total == totals.usage.total + own["tokens"]["prompt"] + own["tokens"]["completion"]
    assert both.seconds == pytest.approx(totals.seconds + own["seconds"], abs=0.01)
    shared(of_json(rlm("status", "--json").stdout), both)
    assert in_the_closing_cell(trace, both)
    assert rlm("stop").returncode == 0

    # A replay asks nobody; a fork pays for what is new alone, and leaves the trace as it is.
    before = len(openai_env.requests)
    assert rlm("replay", trace).returncode == 0
    assert len(openai_env.requests) == before
    play(openai_env, "```repl\nprint(len(found))\nFINAL('Four.')\n```")
    fork = rlm("fork", trace, "How many were they?", "--trace", "fork.ipynb", "--json")
    assert fork.returncode == 0, fork.stderr
    forked = totals_of("fork.ipynb")
    assert (forked.turns, forked.calls, forked.children) == (1, 0, 0)
    shared(of_json(fork.stdout), forked)
    assert live[-1] in fork.stderr.splitlines()[-2] == forked.line()
    assert in_the_closing_cell("fork.ipynb", forked)
    assert totals_of(trace) == both


def test_a_forced_answer_is_a_turn_and_a_resumed_run_goes_on_with_its_account(
    rlm: Rlm, openai_env: ModelServer, live: list[str]
) -> None:
    play(
        openai_env,
        ASK,
        "FINAL(Perhaps.)",
        "```repl\nprint(context[:5])\n```",
        "```repl\nFINAL(llm_query('four'))\n```",
    )
    first = rlm("ask", "What is in it?", "-f", "a.txt", "--max-turns", "1", "--trace", "t.ipynb", "--json")
    assert first.returncode == 0, first.stderr
    forced = totals_of("t.ipynb")
    assert of_json(first.stdout)["forced"] is True
    assert (forced.turns, forced.calls, forced.failed, forced.unpriced) == (2, 4, 1, 2)
    shared(of_json(first.stdout), forced)

    done = rlm("resume", "t.ipynb", "--max-turns", "6", "--json")
    assert done.returncode == 0, done.stderr
    whole = totals_of("t.ipynb")
    assert (whole.turns, whole.calls) == (4, 5)
    assert (whole.stored, whole.failed, whole.unpriced) == (forced.stored, forced.failed, forced.unpriced + 1)
    assert all(
        getattr(whole, part.name) >= getattr(forced, part.name)
        for part in fields(Totals)
        if "usage" not in part.name and part.name != "models"
    )
    assert {name: share.calls for name, share in whole.models.items()} == {"root": 4, "sub": 5}
    shared(of_json(done.stdout), whole)
    assert live[-1] in done.stderr.splitlines()[-2] == whole.line()
    assert in_the_closing_cell("t.ipynb", whole)
