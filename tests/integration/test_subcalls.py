"""Sub-calls by the thousand from a real kernel, over real HTTP: faults, interrupts, time-outs, schemas,
limits, memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.config import load_settings
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import CallsPlanned, CallStarted, CellFinished
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.loop import Loop, View
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import CellResult, Completion, Message
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.models import litellm_models
from rlm_kernel.models.litellm_models import LitellmModels
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox.broker import MAX_IN_FLIGHT, MAX_REQUEST
from rlm_kernel.sandbox.rundir import RunDir
from tests.support.engine import PROFILE, Recorder, locate
from tests.support.model_server import ModelServer
from tests.support.openai_wire import Fault
from tests.support.sandbox import Sandbox, until

# One kernel for all of them, and one event loop.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("subcalls")]
SHOW = "import json; print(json.dumps({}))"


@dataclass
class Host:
    """The host's side of the shared kernel, anew for each test: models, an account, a trace that
    remembers.
    """

    box: Sandbox
    models: Any
    limits: Limits

    def __post_init__(self) -> None:
        self.heard = Recorder()
        self.ledger = Ledger(self.limits)
        self.calls = HostCalls(SubCalls(self.models, self.ledger), self.heard, locate)
        self.box.broker.handlers = self.calls.handlers()
        self.cells = Cells(self.box.kernel, self.calls, self.heard)

    async def run(self, code: str) -> CellResult:
        self.box._cells += 1
        return await self.cells.run(f"cell-{self.box._cells}", code, 1)

    async def text(self, code: str) -> str:
        return output_text((await self.run(code)).outputs)

    async def value(self, code: str, shown: str) -> Any:
        """Run code and then give what an expression is, as JSON has it."""
        text = await self.text(f"{code}\n{SHOW.format(shown)}")
        try:
            return json.loads(text)
        except ValueError:
            pytest.fail(text)

    @property
    def in_flight(self) -> int:
        return len(self.box.broker._tasks)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(kernel_image: Any) -> AsyncIterator[Sandbox]:
    """A kernel whose batches have as many calls under way as the host takes."""
    made = Sandbox(kernel_image, run_dir=RunDir.create(max_request=MAX_REQUEST, window=MAX_IN_FLIGHT))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


Serve = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module")
async def serve(
    box: Sandbox, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Serve]:
    """Makes a host with models on the test's server, from dotted settings of `sub_llm`; retries are quick."""
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 0.001)
    made: list[LitellmModels] = []

    async def make(limits: Limits | None = None, models: Any = None, **settings: Any) -> Host:
        chosen = {"root_llm.model": "openai/root", "sub_llm.model": "openai/sub"}
        chosen |= {f"sub_llm.{name}": value for name, value in settings.items()}
        made.append(LitellmModels(load_settings(overrides=chosen)))
        await made[-1].warm_up()
        return Host(box, made[-1] if models is None else models(made[-1]), limits or Limits())

    yield make
    for models in made:
        await models.aclose()


def prompts(requests: Sequence[Any]) -> list[str]:
    return [request.prompt for request in requests]


# Faults


class Faults:
    """Meets a share of the server's calls with one of the usual faults, by chance that is the same every
    time.
    """

    KINDS = (
        Fault("rate_limit", retry_after="0"),
        Fault("rate_limit"),
        Fault("server_error"),
        Fault("cut"),
        Fault("empty_body"),
    )

    def __init__(self, share: float) -> None:
        self._share = share
        self._random = random.Random(5)
        self.met: Counter[str] = Counter()

    def __call__(self, _model: str) -> Fault | None:
        if self._random.random() >= self._share:
            return None
        fault = self._random.choice(self.KINDS)
        self.met[fault.kind] += 1
        return fault


BATCH = """
answers = llm_query_batched([f"item {n}" for n in range(1000)])
right = [n for n, answer in enumerate(answers) if answer == f"echo: item {n}"]
failed = [(n, bool(a), type(a).__name__, type(a.error).__name__, repr(a)) for n, a in enumerate(answers) if isinstance(a, CallFailed)]
"""
SAID = {
    "rate_limit": "is over its rate limit",
    "server_error": "failed on the provider's side",
    "empty_body": "failed on the provider's side",
    "cut": "cannot be reached",
}


@pytest.mark.parametrize("retries", [0, 6])
async def test_of_1000_prompts_each_comes_back_right_or_as_a_typed_failure(
    serve: Serve, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    faults = Faults(0.05)
    monkeypatch.setattr(openai_env, "_take_fault", faults)
    host = await serve(retries=retries)
    right, failed = await host.value(BATCH, "[right, failed]")
    assert len(right) + len(failed) == 1000, "an item is neither right nor a CallFailed"
    assert sorted(faults.met) == sorted(SAID)
    assert len(openai_env.requests) == 1000 + (faults.met.total() if retries else 0)
    assert len(failed) == (0 if retries else faults.met.total())
    for _, truth, kind, error, shown in failed:
        assert (truth, kind, error) == (False, "CallFailed", "LLMError")
        assert shown.startswith("<CallFailed LLMError: The model openai/sub ")
        assert len(shown) < 500
    told = Counter({said: sum(said in shown for *_, shown in failed) for said in SAID.values()})
    met = Counter[str]()
    for kind, number in faults.met.items():
        met[SAID[kind]] += 0 if retries else number
    assert told == met
    # What a careless model writes about a failed item says what is wrong.
    if failed:
        number = failed[0][0]
        assert "this item has no answer" in await host.text(f"answers[{number}].strip()")
        shown = await host.text(
            f"print(len([answer for answer in answers if answer]), f'{{answers[{number}]}}')"
        )
        assert shown.startswith(f"{len(right)} <CallFailed LLMError: The model")


# Interrupts


@pytest.mark.parametrize(
    "code",
    [
        "llm_query_batched([f'item {n}' for n in range(1000)])",
        "import asyncio\nawait asyncio.gather(*(allm_query(f'item {n}') for n in range(1000)))",
    ],
    ids=["batched", "gathered"],
)
async def test_an_interrupted_cell_returns_and_none_of_its_1000_calls_is_made_any_more(
    serve: Serve, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 60.0)
    monkeypatch.setattr(litellm_models.random, "uniform", lambda _low, high: high)
    host = await serve(concurrency=64)
    openai_env.fail("server_error", times=20)  # which wait to be tried again
    openai_env.fail("hang", times=2000)
    running = asyncio.create_task(host.run(code))
    await until(lambda: host.in_flight == 1000 and openai_env.in_progress("sub") == 64)
    assert len(openai_env.requests) == 84
    started = time.monotonic()
    await host.box.kernel.interrupt()
    result = await running
    assert time.monotonic() - started < 10.0
    assert result.status == "error"
    assert host.in_flight == 0
    assert Counter(record.error_type for record in result.calls) == {None: 1000}
    assert {record.error for record in result.calls} == {"cancelled: the cell ended before the answer came"}
    await until(lambda: openai_env.disconnects == 64)
    openai_env.release()
    assert await host.text("print(llm_query('next'), len(llm_query_batched(['a', 'b'])))") == "echo: next 2"
    assert sorted(prompts(openai_env.requests[84:])) == ["a", "b", "next"]
    assert host.ledger.calls == 1003


# As models write them


GATHERED = """
import asyncio
found = await asyncio.gather(*(allm_query(f"item {n}") for n in range(300)))
"""
POOLED = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(max_workers=32) as pool:
    found = list(pool.map(lambda n: llm_query(f"item {n}"), range(300)))
"""
FORKED = """
from multiprocessing import Pool
def ask(n):
    return llm_query(f"item {n}")
with Pool(4) as pool:
    found = pool.map(ask, range(300))
"""
LOOPED = """
import asyncio, threading
def of_a_thread():
    async def main():
        slots = asyncio.Semaphore(16)
        async def ask(n):
            async with slots:
                return await allm_query(f"item {n}")
        return await asyncio.gather(*(ask(n) for n in range(300)))
    found.extend(asyncio.run(main()))
found = []
thread = threading.Thread(target=of_a_thread)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    "code", [GATHERED, POOLED, FORKED, LOOPED], ids=["gather", "threads", "processes", "a loop of a thread"]
)
async def test_300_calls_as_models_write_them(serve: Serve, openai_env: ModelServer, code: str) -> None:
    host = await serve()
    assert await host.value(code, "found") == [f"echo: item {n}" for n in range(300)]
    assert len(openai_env.requests) == host.ledger.calls == 300


async def test_one_failure_of_gathered_calls_is_its_own_and_can_be_had_as_a_value(
    serve: Serve, openai_env: ModelServer
) -> None:
    openai_env.fail("bad_request")
    host = await serve()
    code = (
        "import asyncio\nfound = await asyncio.gather(*(allm_query(f'item {n}') for n in range(20)), "
        "return_exceptions=True)\n"
        "failed = [type(item).__name__ for item in found if isinstance(item, Exception)]"
    )
    assert await host.value(code, "[failed, sum(isinstance(item, str) for item in found)]") == [
        ["LLMError"],
        19,
    ]


# Time-outs


@pytest.fixture
def hanging(openai_env: ModelServer) -> ModelServer:
    """The server; prompts that begin with "hang" have no reply."""

    async def sub(prompt: str) -> str:
        if prompt.startswith("hang"):
            await asyncio.Event().wait()
        return f"echo: {prompt}"

    openai_env.sub = sub
    return openai_env


async def test_a_calls_own_time_out_harms_no_other_and_frees_its_slot(
    serve: Serve, hanging: ModelServer
) -> None:
    host = await serve(concurrency=2)
    code = (
        "import asyncio\n"
        "found = await asyncio.gather(allm_query('hang', timeout=0.5), *(allm_query(f'item {n}') for n in "
        "range(20)),\n"
        "                             return_exceptions=True)\n"
        "try:\n    llm_query('hang too', timeout=0.2)\nexcept LLMError as error:\n    one = error"
    )
    failed, others, one = await host.value(
        code, "[[type(found[0]).__name__, str(found[0])], found[1:], str(one)]"
    )
    assert failed == ["LLMError", "There was no answer within the call's own time-out of 0.5 s."]
    assert others == [f"echo: item {n}" for n in range(20)]
    assert "0.2 s" in one
    await until(lambda: hanging.in_progress() == 0)
    assert hanging.disconnects <= 2  # on a busy machine a call may be given up before it was sent


async def test_a_batchs_time_out_leaves_what_was_answered_and_fails_the_rest(
    serve: Serve, hanging: ModelServer
) -> None:
    host = await serve()
    code = (
        "found = llm_query_batched([f'hang {n}' if n % 50 == 7 else f'item {n}' for n in range(200)], "
        "timeout=2)"
    )
    found = await host.value(
        code,
        "[item if isinstance(item, str) else [type(item.error).__name__, str(item.error)] for item in found]",
    )
    for number, item in enumerate(found):
        if number % 50 == 7:
            assert item[0] == "LLMError"
            assert "time-out" in item[1]
        else:
            assert item == f"echo: item {number}"
    await until(lambda: hanging.disconnects == 4)


async def test_a_batchs_time_out_holds_for_calls_that_wait_and_for_those_not_yet_sent(
    serve: Serve, hanging: ModelServer
) -> None:
    host = await serve(concurrency=3)
    count = MAX_IN_FLIGHT + 500
    kinds = "sorted({(type(item.error).__name__, bool(item)) for item in found})"
    said = "sum('not asked' in str(item) for item in found)"
    code = f"found = llm_query_batched([f'hang {{n}}' for n in range({count})], timeout=1)"
    result = await host.value(code, f"[len(found), {kinds}, {said}]")
    assert result == [count, [["LLMError", False]], 500]
    # Those whose time is up first leave their places to others, whose time is up a moment later.
    made = len(hanging.requests)
    assert 3 <= made < 100
    await until(lambda: hanging.disconnects == made)
    assert await host.text("print(llm_query('next'))") == "echo: next"
    assert prompts(hanging.requests[made:]) == ["next"]


# Schemas


TYPES = """
from pydantic import BaseModel
class Person(BaseModel):
    name: str
    age: int
made = [
    llm_query("int", schema=int),
    llm_query("list", schema=list[str]),
    llm_query("person", schema=Person),
    llm_query("dict", schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
]
kinds = [type(one).__name__ for one in made]
made[2] = [made[2].name, made[2].age]
"""
AGAIN = "Your last reply was not taken"


async def test_answers_of_a_schema_are_values_and_the_server_is_told_it(
    serve: Serve, openai_env: ModelServer
) -> None:
    replies = {
        "int": '{"answer": 7}',
        "list": '{"answer": ["a", "ä"]}',
        "person": '{"name": "Ann", "age": 7}',
        "dict": '{"n": 3}',
    }
    openai_env.sub = lambda prompt: replies[prompt.split("\n")[0]]
    host = await serve()
    made, kinds = await host.value(TYPES, "[made, kinds]")
    assert made == [7, ["a", "ä"], ["Ann", 7], {"n": 3}]
    assert kinds == ["int", "list", "Person", "dict"]
    assert len(openai_env.requests) == 4
    for request in openai_env.requests:
        sent = request.body["response_format"]["json_schema"]["schema"]
        assert sent["type"] == "object"
        assert json.dumps(sent, sort_keys=True) in request.prompt


async def test_a_wrong_reply_is_asked_for_once_more_and_then_a_typed_failure(
    serve: Serve, openai_env: ModelServer
) -> None:
    def sub(prompt: str) -> str:
        name = prompt.split("\n")[0]
        return {"good": "1", "late": "2" if AGAIN in prompt else "two", "bad": "?"}[name]

    openai_env.sub = sub
    host = await serve()
    code = (
        "found = llm_query_batched(['good', 'late', 'bad', 'good'], schema=int)\n"
        "try:\n    llm_query('bad', schema=int)\nexcept LLMError as error:\n    one = str(error)"
    )
    shown, one = await host.value(
        code, "[[item if isinstance(item, int) else repr(item) for item in found], one]"
    )
    assert [shown[0], shown[1], shown[3]] == [1, 2, 1]
    assert shown[2].startswith(
        "<CallFailed LLMError: The reply does not fit the schema, twice: it holds no JSON."
    )
    assert one.startswith("The reply does not fit the schema, twice")
    assert [AGAIN in prompt for prompt in prompts(openai_env.requests)] == [False] * 4 + [True] * 2 + [
        False,
        True,
    ]
    assert host.ledger.calls == 8


# Limits


async def test_of_a_batch_beyond_the_limit_exactly_so_many_calls_are_made(
    serve: Serve, openai_env: ModelServer
) -> None:
    host = await serve(Limits(calls=30))
    code = "found = llm_query_batched([f'item {n}' for n in range(100)])"
    failed = (
        "[str(item.error) for item in found if isinstance(item, CallFailed) and type(item.error) is "
        "BudgetExceeded]"
    )
    right, said, left = await host.value(code, f"[[item for item in found if item], {failed}, budget()]")
    assert len(openai_env.requests) == len(right) == 30
    assert len(said) == 70
    assert set(said) == {"The limit of calls is reached: 30 of 30 used.\nLeft: 30 turns, 0 calls."}
    assert left["calls"] == 0
    result = await host.run("llm_query_batched(['one', 'more'])")
    assert result.outputs[-1]["ename"] == "BudgetExceeded", "where nothing at all came of it, it raises"
    assert len(openai_env.requests) == 30


@pytest.mark.parametrize(
    "code",
    ["llm_query_batched(asked)", "await asyncio.gather(*map(allm_query, asked), return_exceptions=True)"],
)
async def test_a_cost_limit_is_passed_by_less_than_one_call(
    serve: Serve, openai_env: ModelServer, code: str
) -> None:
    # A prompt of 30 characters is 8 tokens, its reply of 36 is 10.
    price = (8 * 100 + 10 * 1000) / 1e6
    host = await serve(Limits(cost=20.5 * price), input_price=100, output_price=1000)
    asked = "import asyncio\nasked = [f'item {n:025}' for n in range(200)]\n"
    count = await host.value(f"{asked}found = {code}", "sum(isinstance(item, str) for item in found)")
    spent = host.ledger.totals().cost
    assert len(openai_env.requests) == count
    assert 20 <= count <= 21
    assert spent == pytest.approx(count * price)
    assert "Left: 30 turns, 0" in await host.text("llm_query('one more')")
    assert len(openai_env.requests) == count


async def test_calls_that_code_gives_up_on_their_way_are_no_way_around_a_limit_of_money(
    serve: Serve, hanging: ModelServer
) -> None:
    price = (8 * 100 + 10 * 1000) / 1e6
    host = await serve(Limits(cost=10.5 * price), input_price=100, output_price=1000)
    code = (
        f"llm_query('item {1:025}')\nkinds = []\nfor n in range(60):\n    try:\n        llm_query(f'hang "
        "{n:025}', timeout=0.2)\n"
        "    except Exception as error:\n        kinds.append(type(error).__name__)"
    )
    kinds = await host.value(code, "kinds")
    sent = kinds.count("LLMError")
    assert kinds == ["LLMError"] * sent + ["BudgetExceeded"] * (60 - sent)
    # One may be given up before it is sent, and counts nothing, or before the server has read it.
    assert 9 <= sent < 60
    assert len(hanging.requests) <= 1 + 10


class Split(ScriptedModels):
    """The root by a script, at a price; sub-calls over HTTP. `told` is what the root was told last, turn by
    turn.
    """

    def __init__(self, replies: Sequence[str], http: LitellmModels, price: float) -> None:
        super().__init__(replies)
        self._http = http
        self._price = price
        self.told: list[str] = []

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        if options["role"] == "sub":
            return await self._http.complete(messages, **options)
        self.told.append(messages[-1]["content"])
        reply = await super().complete(messages, **options)
        return Completion(reply.text, reply.model, cost=self._price)


async def test_the_root_is_told_at_80_percent_and_has_one_last_answer_at_the_limit(
    serve: Serve, openai_env: ModelServer
) -> None:
    price = (2 * 100 + 4 * 1000) / 1e6
    cells = [
        "found = llm_query_batched([f'ask {n}' for n in range(10, 18)])",
        "more = llm_query_batched([f'ask {n}' for n in range(50, 90)])",
    ]
    replies = [f"```repl\nlen(context)\n{cell}\nprint(budget()['cost'])\n```" for cell in cells]
    host = await serve(
        Limits(cost=10 * price),
        lambda http: Split([*replies, "FINAL(from what I have)"], http, 0.0),
        input_price=100,
        output_price=1000,
    )
    await host.box.run("context = 'hello'")
    loop = Loop(host.cells, host.models, PROFILE, View())
    outcome = await loop.run("What?", await host.box.kernel.describe(), from_files=False)
    told = host.models.told
    assert (outcome.stop_reason, outcome.forced, outcome.answer.text) == ("cost", True, "from what I have")
    assert "80% of the limit of cost are used" in told[1]
    assert "Left: $" in told[1]
    assert len(told) == 3, "one last answer"
    assert "The limit of cost is reached" in told[2]
    assert "No more code will run" in told[2]
    assert len(openai_env.requests) == 10
    assert host.ledger.totals().cost == pytest.approx(10 * price)
    assert any("80% of the limit of cost" in note for note in host.heard.notes)


# Memory


MANY = """
import resource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
found = llm_query_batched(f"item {n}" for n in range(10_000))
grown = peak() - before
in_order = found == [f"ITEM {n}" for n in range(10_000)]
"""


async def test_10000_prompts_keep_their_order_in_bounded_memory(box: Sandbox) -> None:
    at_once = 0

    async def sub(prompt: str) -> str:
        nonlocal at_once
        at_once = max(at_once, host.in_flight)
        await asyncio.sleep(0.001 * (len(prompt) % 3))
        return prompt.upper()

    host = Host(box, ScriptedModels([], sub), Limits())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    in_order, grown = await host.value(MANY, "[in_order, grown]")
    assert in_order
    assert grown < 50_000, f"the kernel grew by {grown} KB"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert 0 < at_once <= MAX_IN_FLIGHT
    assert host.ledger.calls == 10_000


async def test_the_size_of_a_batch_is_told_before_its_calls_and_that_of_gathered_calls_while_they_run(
    serve: Serve, openai_env: ModelServer
) -> None:
    host = await serve()
    code = """
import asyncio
def texts(number):
    return [f'p{i}' for i in range(number)]
a = llm_query_batched(texts(300))
b = llm_query_batched([*texts(3), 'x' * (17 << 20), 'last'])
c = await asyncio.gather(*map(allm_query, texts(1500)))
d = await allm_query('alone')
e = llm_query_batched(['p', 'q'], timeout=0.000001)
f = [llm_query('one'), llm_query('two')]
"""
    shown = "[len(a), len(b), len(c), sum(map(bool, a)), bool(b[3]), bool(b[4]), d, len(e), len(f)]"
    assert await host.value(code, shown) == [300, 5, 1500, 300, False, True, "echo: alone", 2, 2]
    planned = [event.calls for event in host.heard.of(CallsPlanned)]
    assert planned == [300, 305, 304, 1804, 1807, 1805], (
        "a request that is too large and what its time-out ended are taken back"
    )
    kinds = host.heard.kinds
    assert kinds.index(CallsPlanned) < kinds.index(CallStarted), "the first is there before its calls"
    assert [record.kind for record in host.heard.of(CellFinished)[0].result.calls].count("llm_query") == 1807


# Replies that are not whole


async def test_a_cell_is_told_once_how_many_replies_were_cut_and_its_records_say_which(
    serve: Serve, openai_env: ModelServer
) -> None:
    def cut(times: int) -> None:
        body = {
            "choices": [{"finish_reason": "MAX_TOKENS", "message": {"content": "1. alpha\n2. be"}}],
            "usage": {"prompt_tokens": 9},
        }
        openai_env.send(body, times=times)

    host = await serve(concurrency=1)
    cut(2)
    code = (
        "print(len(llm_query_batched(['a', 'b', 'c'])))\nimport asyncio\nprint(await "
        "asyncio.gather(allm_query('d')))"
    )
    result = await host.run(code)
    told = [output["text"] for output in result.outputs if output.get("name") == "stderr"]
    assert told == [
        "Note: 2 of 4 replies were cut at the model's token limit and may lack the end; ask for less in one "
        "call.\n"
    ]
    assert sorted(call.cut for call in result.calls) == [False, False, True, True]
    assert sorted(call.usage.estimated for call in result.calls) == [False, False, True, True]

    assert "cut" not in await host.text("llm_query('whole')"), "each cell is told of its own"
    cut(1)
    assert "Note: the reply was cut" in await host.text("text = llm_query('again')")


async def test_a_prompt_that_is_too_long_tells_code_its_size_and_the_limit(
    serve: Serve, openai_env: ModelServer
) -> None:
    host = await serve()
    openai_env.fail("too_long")
    text = await host.text("try:\n    llm_query('中' * 40_000)\nexcept LLMError as error:\n    print(error)")
    assert (
        "The prompt has 40,000 characters (about 32,000 tokens); the window is 8,192 tokens, about 10,240 "
        "such characters." in text
    )
    assert "Send smaller pieces." in text
