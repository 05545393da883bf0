"""Child RLMs in real containers: trees, their account, what they are handed and may have, and that nothing of
them is left.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.tree import run_tree
from rlm_kernel import RLM
from rlm_kernel.engine.events import CallFinished, Event
from rlm_kernel.engine.protocols import Card, Completion, Usage
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session import pool
from rlm_kernel.session.ask import ask
from rlm_kernel.session.replay import replay
from rlm_kernel.session.result import Result
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.schema import CallMeta
from tests.support.sandbox import until
from tests.support.tree import (
    PRICE,
    SMALL,
    Levels,
    Watch,
    be_killed,
    containers,
    family,
    patient,
    settings,
    short_folder,
)

pytestmark = pytest.mark.xdist_group("children")
WORDS = "hello world\n" * 100


@pytest.fixture(autouse=True)
def runtime(kernel_image: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sessions' folders are; afterwards no container and no folder may be left."""
    with short_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
        assert containers(os.getpid()) == []
        assert os.listdir(folder) == []


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text(WORDS)
    return path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When containers of children were begun."""
    begun: list[float] = []
    real = pool.new_kernel

    async def make(*arguments: Any, **options: Any) -> Any:
        begun.append(time.monotonic())
        return await real(*arguments, **options)

    monkeypatch.setattr(pool, "new_kernel", make)
    return begun


async def run(models: Any, text: Path | None, depth: int = 1, view: Any = None, **changes: Any) -> Result:
    trace = Path(os.getcwd(), "t.ipynb")
    return await ask(
        "What is in it?", text, settings=settings(depth, **changes), trace=trace, models=models, view=view
    )


def calls(trace: TraceFile, kind: str = "rlm_query") -> list[CallMeta]:
    return [call for cell in trace.cells if cell.meta for call in cell.meta.calls if call.kind == kind]


def printed(trace: TraceFile, cell: str = "turn-01-a") -> str:
    found = next(one for one in trace.cells if one.id == cell)
    return "".join(output.get("text", "") for output in found.outputs)


@asynccontextmanager
async def responsive(seconds: float = 5.0) -> AsyncIterator[None]:
    """Fails if the event loop was ever held up for longer."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
    assert longest < seconds


def adds_up(trace: TraceFile) -> None:
    """The account in the trace is the sum over its cells, and so over the traces of its children."""
    cut_off = replace(trace, meta=trace.meta.model_copy(update={"totals": None}))
    account, summed = trace.spent(), cut_off.spent()
    assert summed.cost == pytest.approx(account.cost)
    assert summed.calls == account.calls
    # A last answer is no turn, and one whose call was refused has no reply.
    assert abs(summed.turns - account.turns) <= int(trace.meta.stop_reason == "cost")
    whole = account.root_usage + account.sub_usage
    assert summed.root_usage + summed.sub_usage == whole


async def test_a_tree_of_depth_three_is_whole_in_its_traces_and_its_account(started: list[float]) -> None:
    async with responsive():
        figures = await run_tree([2, 1, 2], at_once=6, folder=Path.cwd())
    found = family(figures.trace)
    assert [len(one.meta.files) for one in found] == [1] * 9
    assert (figures.children, len(found)) == (8, 9)
    assert figures.models.calls == 9 + 4
    for one in found:
        assert (one.meta.status, one.meta.stop_reason) == ("finished", "answered")
        adds_up(one)
    top = found[0].spent()
    assert top.cost == pytest.approx(13 * PRICE)
    assert (top.turns, top.calls, top.children) == (1, 12, 8)
    assert [one.meta.limits["depth"] for one in found] == [3, 2, 1, 0, 0, 2, 1, 0, 0]
    assert printed(found[0]).endswith(" 3\n")
    # The parent alone, and a grandchild alone: without models, and without another container.
    begun = len(started)
    for one in (found[0], found[2]):
        assert (await replay(one.path)).same
    assert len(started) == begun


async def test_a_limit_of_money_holds_exactly_over_the_tree(text: Path) -> None:
    top = (
        "first = llm_query('one')\n"
        "try:\n"
        "    found = rlm_query_batched(['LEVEL1'] * 6, list(chunks(200)))\n"
        "    print([f'{one.error!r}' if not one else one for one in found])\n"
        "except BudgetExceeded as error:\n"
        "    print(repr(error))\n"
        "llm_query('one more')"
    )
    below = ["print(llm_query('one'))", "print([llm_query('two') for _ in range(4)])\nFINAL(len(context))"]
    models = Levels([top], below)
    result = await run(models, text, **{"limits.cost": 15 * PRICE})
    assert (result.answer, result.stop_reason, result.forced) == ("perhaps", "cost", True)
    assert result.cost == pytest.approx(15 * PRICE)
    assert models.calls == 15
    found = family(result.trace)
    for one in found:
        adds_up(one)
    said = printed(found[0])
    assert "BudgetExceeded('The child RLM gave no answer (cost). The limit of cost is reached" in said
    failed = [call for call in calls(found[0]) if call.error is not None]
    assert failed
    assert {call.error_type for call in failed} == {"BudgetExceeded"}
    assert sum(call.cost or 0 for call in calls(found[0])) == pytest.approx(12 * PRICE)


@pytest.mark.hostile
async def test_calls_without_end_are_bounded_and_make_few_containers(
    text: Path, started: list[float]
) -> None:
    cell = (
        "found = rlm_query_batched(['LEVEL1'] * 2_000)\n"
        "print(len(found), sum(map(bool, found)), {type(one.error).__name__ for one in found if not one})\n"
        "FINAL('over')"
    )
    async with responsive():
        result = await run(
            Levels([cell], ["FINAL('yes')"]), text, **{"limits.calls": 3, "sandbox.children": 2}
        )
    assert printed(read_trace(result.trace)) == "2000 3 {'BudgetExceeded'}\n"
    assert result.totals.calls == 3
    assert len(started) <= 3 + 2, "those that had begun, and one ahead"


async def test_a_tree_that_is_interrupted_ends_at_once_and_its_traces_are_closed(text: Path) -> None:
    asking = asyncio.Event()
    waiting: list[str] = []

    def heard(event: Event, level: int) -> None:
        if isinstance(event, CallFinished) and level == 1 and event.call.preview == "quick 2":
            waiting.append(event.call.id)
            if len(waiting) == 3:
                asking.set()

    running = asyncio.create_task(run(patient(), text, view=Watch(heard)))
    await asking.wait()
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - begun < 20
    found = family(Path(os.getcwd(), "t.ipynb"))
    assert len(found) == 4
    assert {(one.meta.status, one.meta.stop_reason) for one in found} == {("finished", "interrupted")}
    for call in calls(found[0]):
        assert call.error is not None
        # The turn, three quick calls, and the slow one, which was sent and has no price.
        assert (call.calls, call.cost, call.error.split(":")[0]) == (5, pytest.approx(4 * PRICE), "cancelled")


@pytest.mark.hostile
def test_a_tree_that_is_killed_is_gone_and_can_be_resumed(
    runtime: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Path("t.ipynb").absolute()
    process = get_context("forkserver").Process(
        target=be_killed, args=(str(runtime), os.getcwd(), str(trace), str(text))
    )
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert process.pid is not None
    pid = process.pid
    begun = time.monotonic()
    asyncio.run(until(lambda: not containers(pid), 20))
    assert time.monotonic() - begun < 10
    before = read_trace(trace)
    assert before.meta.status == "running"
    left = sorted(Path("t.children").glob("*.ipynb"))
    assert len(left) == 3
    for path in left:
        child = read_trace(path)
        nbformat.validate(child.node)
        assert child.meta.status == "running"
        assert len(calls(child, "llm_query")) == 3
    monkeypatch.setenv("SLOW", "0")
    result = RLM(models=patient(), options=SMALL).resume(trace)
    assert result.value == [400, 400, 400]
    # What the lost children used is in the account: a turn and three calls each.
    assert result.cost == pytest.approx((1 + 3 * 4 + 3 * 5) * PRICE)
    found = family(trace)
    assert len(found) == 4
    assert {one.meta.stop_reason for one in found} == {"answered"}
    for folder in runtime.glob("rlm-*"):  # swept a minute later
        os.utime(folder / "lease", (0, 0))
    asyncio.run(run(Levels(["FINAL(1)"]), None))


ODD = "\ufeffa\0b\ud800\r\n\u00e9"
HANDS = f"""
odd = {ODD!r} * 1000
data = {{"b": 1, "a": [None, 1.5, {{"\u00e9": "x"}}]}}
contexts = ["plain", odd, data, ["x", 2], None, files["b.txt"], files]
found = rlm_query_batched([f"LEVEL1 {{n}}" for n in range(len(contexts))], contexts)
assert [list(found[2]), list(found[2]["a"][2])] == [["b", "a"], ["\u00e9"]]
print(found[:2] == ["plain", odd.replace(chr(0xD800), "?")], found[2:])
try:
    rlm_query("LEVEL1", {{1, 2}})
except HostCallError as error:
    print(str(error)[:43])
none, given = rlm_query_batched(["LEVEL1 none", "LEVEL1 given"], [{{1, 2}}, "x"])
print(type(none.error).__name__, given)
try:
    rlm_query("LEVEL1 typed", "x", schema=int)
except LLMError as error:
    print(str(error)[:42])
print(rlm_query("LEVEL1 typed", None, schema=list[int] | None), len(rlm_query("LEVEL1 long " + "word " * 4000)))
FINAL(found[2])
"""
TAKES = """
import os
names = [name for _, _, names in os.walk("/rlm/files") for name in names]
if QUESTION.startswith("LEVEL1 5"):
    FINAL([context, len(names)])
elif QUESTION.startswith("LEVEL1 6"):
    FINAL([sorted(context), len(names)])
else:
    FINAL(context)
"""


async def test_whatever_is_handed_over_arrives_as_it_was_and_the_answer_comes_back_as_it_is(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"of {name}\n")
    result = await run(Levels([HANDS], [TAKES]), folder)
    found = family(result.trace)
    assert printed(found[0]).splitlines() == [
        "True [{'b': 1, 'a': [None, 1.5, {'é': 'x'}]}, ['x', 2], None, ['of b\\n', 1], [['a.txt', 'b.txt'], "
        "2]]",
        "not handed over: a context is a text, a loa",
        "HostCallError x",
        "The child RLM gave no answer (no_answer). ",
        "None 20012",
    ]
    assert result.value == {"b": 1, "a": [None, 1.5, {"é": "x"}]}
    # What was no loaded file is kept beside the child's trace; a loaded one is not copied.
    kept = sorted(
        path.suffixes[-2:] for path in map(Path, os.listdir("t.children")) if ".context" in path.name
    )
    assert kept.count([".context", ".txt"]) == 4
    assert kept.count([".context", ".json"]) == 3
    files = {one.meta.question: [file.path for file in one.meta.files] for one in found[1:]}
    assert [len(files[f"LEVEL1 {n}"]) for n in range(7)] == [1, 1, 1, 1, 0, 1, 2]
    assert files["LEVEL1 5"] == [str(folder / "b.txt")]


ATTACK = """
import os
from rlm_runtime import wire
print(sorted(os.listdir("/rlm/files")), budget()["depth"])
def tried(do):
    try:
        return do()
    except Exception as error:
        return type(error).__name__
print([tried(lambda: wire.call("file", {"path": path})) for path in ["SECRET", "/etc/shadow", "GIVEN"]])
inside = [os.path.join(at, name) for at, _, names in os.walk("/rlm/files") for name in names]
print(tried(lambda: open(inside[0], "a")) if inside else "nothing")
print(*[wire.call("rlm_query", {"question": question, "context": None, "depth": 5}) for question in ["a child?", "LEVEL2"]])
print(tried(lambda: wire.call("rlm_query", {"question": "x", "context": {"files": ["GIVEN"]}})))
print(tried(lambda: wire.call("rlm_query", {"question": "x", "context": {"handed": "../../1-1", "form": "text"}})))
FINAL("tried" + context[:0])
"""


async def test_a_child_can_have_no_more_than_it_was_handed_and_goes_no_deeper_than_allowed(
    text: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("of the parent alone")
    attack = ATTACK.replace("SECRET", str(secret)).replace("GIVEN", str(text))
    top = "FINAL([rlm_query('LEVEL1 without', 'x'), rlm_query('LEVEL1 with', files['in.txt'])])"
    trace = Path(os.getcwd(), "t.ipynb")
    chosen = settings(1)
    result = await ask("Q", [text, secret], settings=chosen, trace=trace, models=Levels([top], [attack]))
    assert result.value == ["tried", "tried"]
    without, given = (printed(child).splitlines() for child in family(trace)[1:])
    refused = ["FileRefused", "FileRefused", "FileRefused"]
    assert without[1] == str(refused)
    assert given[1].startswith("['FileRefused', 'FileRefused', ")
    assert given[1] != str(refused), "its own file may be asked for again"
    for said in (without, given):
        assert said[0].endswith(" 0")
        assert said[3] == "A CHILD? LEVEL2", "the sub model's word: no child was made"
        assert said[5] == "HostCallError"
    assert given[2] in ("PermissionError", "OSError")
    assert (without[4], given[4]) == ("FileRefused", "TextWanted")
    assert result.totals.children == 2


async def test_the_time_of_children_is_not_that_of_the_cell_but_of_the_whole_run(text: Path) -> None:
    top = "try:\n    found = rlm_query('LEVEL1', context)\nfinally:\n    print('over')\nFINAL(found)"
    child = "import time\ntime.sleep(0.7)"
    models = Levels([top], [child] * 4 + ["FINAL('slow' + context[:0])"])
    result = await run(models, text, **{"limits.cell_timeout": 2.0})
    assert (result.answer, result.totals.turns) == ("slow", 1)


async def test_a_child_that_fails_is_a_failed_call_and_no_more(text: Path) -> None:
    top = (
        "found = rlm_query_batched(['LEVEL1 dies', 'LEVEL1 well'], context[:1], schema=int)\n"
        "print(found)\nFINAL(found[1])"
    )
    child = "import os\nif 'dies' in QUESTION:\n    os.kill(os.getpid(), 9)\nFINAL(6 + len(context))"
    result = await run(Levels([top], [child]), text, **{"limits.turns": 2})
    assert result.value == 7
    assert "CallFailed" in printed(family(result.trace)[0])


LED = """```repl
parts = llm_query_batched(["A", "B", "C"], model="fast")
print([str(part) if part else part for part in parts])
try:
    llm_query("x", model="fats")
except LLMError as error:
    print(error)
child = rlm_query("How many words?", context, model="strong")
print(child, budget()["models"])
FINAL(child)
```"""


async def test_code_asks_models_by_name_a_child_is_led_by_one_and_their_limits_hold_in_the_tree(
    text: Path,
) -> None:
    asked: list[tuple[str, str]] = []

    def strong(messages: Any) -> str:
        asked.append((messages[0]["content"], messages[-1]["content"]))
        return (
            "```repl\nprint(len(context.split()), llm_query('D', model='fast'))\n```"
            if len(messages) < 4
            else "```repl\ntry:\n    llm_query('E', model='fast')\nexcept BudgetExceeded as e:\n    print(e)\nFINAL('five')\n```"
        )

    class Priced(ScriptedModels):
        async def complete(self, *arguments: Any, **options: Any) -> Completion:
            reply = await super().complete(*arguments, **options)
            return replace(reply, usage=Usage(10, 1, 6, False, 2, 1), cost=0.01)

    models = Priced(
        [LED],
        {},
        others={"fast": str.lower, "strong": strong},
        cards=[Card("fast", "a/fast", 9_000, 0.1, 0.2, about="labels"), Card("strong", "a/strong")],
    )
    result = await run(models, text, **{"models.fast.model": "a/fast", "models.fast.calls": 4})
    trace = read_trace(result.trace)
    out = printed(trace)
    assert "['a', 'b', 'c']" in out
    assert "There is no model 'fats' here." in out
    assert "'fast' (a/fast), for labels" in out
    assert "{'fast': {'calls': 0}}" in out
    assert len(asked) == 2
    (child,) = calls(trace)
    assert (child.role, child.model) == ("strong", "a/strong")
    beneath = read_trace(result.trace.parent / child.trace)
    assert (beneath.meta.models["root"], beneath.meta.models["fast"]) == ("a/strong", "a/fast")
    assert "The limit of calls of the model fast is reached: 4 of 4 used." in printed(beneath, "turn-02-a")
    shares = trace.spent().models
    assert {name: share.calls for name, share in shares.items()} == {"root": 1, "fast": 4, "strong": 2}
    assert shares["fast"].usage == Usage(40, 4, 24, False, 8, 4)
    assert result.totals.models == shares
    assert "(fast $0.0400, strong $0.0200, root $0.0100)" in result.totals.line()
    whole = replace(trace, meta=trace.meta.model_copy(update={"totals": None})).spent()
    assert whole.models == shares
    assert "| fast | `a/fast` | 4 | 40 | 24 | 4 |" in trace.cells[-1].source
    assert (await replay(result.trace)).same
