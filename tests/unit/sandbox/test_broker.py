from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_contract import SIZE, SIZES

from rlm_kernel.engine.protocols import HostCall
from rlm_kernel.errors import BudgetExceeded, FileRefused, ModelError, RLMError, TraceError
from rlm_kernel.sandbox import broker as broker_module
from rlm_kernel.sandbox.broker import Broker
from rlm_kernel.sandbox.rundir import RunDir
from tests.support.pipes import Pipe, listen
from tests.support.sandbox import until

CELL = "turn-01-a"


class Client:
    """The kernel's end, as code in a cell could play it."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.pipe: Pipe | None = None

    def request(self, kind: str = "echo", call: str = "1-1-1", body: Any = None, **changes: Any) -> list[Any]:
        """A head and a body."""
        return [
            {"token": self.run.token, "cell": CELL, "call": call, "kind": kind} | changes,
            {"text": call} if body is None else body,
        ]

    async def send(self, *parts: Any) -> None:
        if self.pipe is None:
            self.pipe = Pipe(*await asyncio.open_unix_connection(self.run.path / "calls"))
        head, body = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts)
        self.put(SIZES.pack(len(head), len(body)) + head + body)
        await asyncio.sleep(0)

    def put(self, data: bytes) -> None:
        """Send whatever it is, as far as it is taken."""
        assert self.pipe is not None
        self.pipe._writer.write(data)

    async def reply(self) -> dict[str, Any]:
        assert self.pipe is not None
        async with asyncio.timeout(10):
            (size,) = SIZE.unpack(await self.pipe.read(SIZE.size))
            reply: dict[str, Any] = json.loads(await self.pipe.read(size))
        return reply

    async def ask(self, *arguments: Any, **changes: Any) -> dict[str, Any]:
        await self.send(*self.request(*arguments, **changes))
        return await self.reply()

    async def close(self) -> None:
        if self.pipe is not None:
            await self.pipe.gone()


class Host:
    """A broker with a few handlers, and clients to talk to it."""

    def __init__(self) -> None:
        self.run = RunDir.create(max_request=broker_module.MAX_REQUEST, window=8)
        self.gate = asyncio.Event()
        self.waiting = self.most = 0
        self.failure: Exception = RLMError("no")
        self.broker = Broker(
            self.run, {"echo": self._echo, "wait": self._wait, "fail": self._fail, "odd": self._odd}
        )
        self.clients: list[Client] = []

    async def start(self) -> None:
        self.server = await listen(self.run.path / "calls", self.broker.accept)  # type: ignore[arg-type]
        self.broker.cell = CELL

    def client(self) -> Client:
        self.clients.append(Client(self.run))
        return self.clients[-1]

    async def stop(self) -> None:
        self.server.close()
        await self.broker.stop()
        for client in self.clients:
            await client.close()
        self.run.remove()

    async def _echo(self, call: HostCall) -> Any:
        return {"cell": call.cell, "call": call.id, **call.body}

    async def _wait(self, call: HostCall) -> Any:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return call.id

    async def _fail(self, *_: Any) -> Any:
        raise self.failure

    async def _odd(self, *_: Any) -> Any:
        return object()


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    await made.start()
    yield made
    await made.stop()


async def test_a_request_is_answered_by_its_handler(host: Host) -> None:
    reply = await host.client().ask(body={"text": "é"})
    assert reply == {"call": "1-1-1", "ok": True, "value": {"cell": CELL, "call": "1-1-1", "text": "é"}}
    assert not host.broker.refused


async def test_hello_says_that_the_kernel_is_up_even_before_any_cell(host: Host) -> None:
    host.broker.cell = None
    assert not host.broker.ready.is_set()
    assert (await host.client().ask("hello", cell="", body={}))["ok"]
    assert host.broker.ready.is_set()


async def test_pictures_come_behind_the_json_as_they_are(host: Host) -> None:
    seen: list[Any] = []

    async def look(call: HostCall) -> Any:
        seen.append(call.body)

    host.broker.handlers["echo"] = look
    client = host.client()
    pieces = [b"\0\xff{", b"x" * 100_000, b'"}']
    for body in ({"prompt": "größer"}, {"images": ["of JSON"]}):
        await client.send(
            client.request(images=list(map(len, pieces)))[0], json.dumps(body).encode() + b"".join(pieces)
        )
        assert (await client.reply())["ok"]
    assert seen == [{"prompt": "größer", "images": pieces}, {"images": pieces}]


async def test_a_body_that_ends_within_its_pictures_is_answered_with_an_error(host: Host) -> None:
    client = host.client()
    for sizes in ([17], [16, 1], [1, 15], [(1 << 53) - 1]):
        await client.send(client.request(images=sizes)[0], b'{"prompt": "ab"}')
        reply = await client.reply()
        assert "This echo request cannot be taken" in reply["error"]["message"]
    assert (await client.ask())["ok"]


MALFORMED: list[Any] = [
    b"",
    b"\xff\xfe\x00",
    b"no json",
    b"[]",
    b"null",
    b"[" * 100_000,
    b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.",
    b"1" * 10_000,
    {},
    {"token": 1},
]


@pytest.mark.parametrize("frame", MALFORMED)
async def test_malformed_requests_are_counted_and_dropped(host: Host, frame: Any) -> None:
    client = host.client()
    await client.send(frame if len(frame) < 5000 else frame[:4000], {})
    assert (await client.ask())["ok"]
    assert host.broker.refused == {"shape": 1}


@pytest.mark.parametrize("frame", [body for body in MALFORMED if not isinstance(body, dict)])
async def test_a_body_that_is_no_object_is_answered_with_an_error(host: Host, frame: bytes) -> None:
    client = host.client()
    reply = await client.ask(body=frame)
    assert "This echo request cannot be taken" in reply["error"]["message"]
    assert (await client.ask())["ok"]
    assert host.broker.refused == {"shape": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"token": None},
        {"token": "t" * 65},
        {"token": "\ud800"},
        {"cell": 5},
        {"cell": "c" * 65},
        {"call": ""},
        {"call": "1; rm"},
        {"call": "1-1\n"},
        {"call": "1" * 81},
        {"kind": "k" * 33},
        {"kind": ["echo"]},
        {"nth": -1},
        {"more": 1},
        {"images": "text"},
        {"images": {"a": 1}},
        {"images": [0]},
        {"images": [-5]},
        {"images": [1.5]},
        {"images": [True]},
        {"images": [1] * 21},
        {"images": [1 << 60]},
    ],
)
async def test_requests_of_another_shape_are_counted_and_dropped(host: Host, changes: dict[str, Any]) -> None:
    client = host.client()
    head, body = client.request()
    await client.send(head | changes, body)
    assert (await client.ask())["ok"]
    assert host.broker.refused == {"shape": 1}


async def test_an_oversized_request_costs_its_sender_the_connection_and_nobody_else(host: Host) -> None:
    other, client = host.client(), host.client()
    assert (await other.ask())["ok"]
    await client.send(b"x" * 50_000_000, {})
    assert (await other.ask())["ok"]
    with pytest.raises(ConnectionError):
        await client.reply()
    assert (await host.client().ask())["ok"]  # it may connect again
    assert host.broker.refused == {"frames": 1}


async def test_a_wrong_token_is_counted_and_dropped(host: Host) -> None:
    client = host.client()
    await client.send(*client.request(token="0" * 32))
    await client.send(*client.request(token=""))
    assert (await client.ask())["ok"]
    assert host.broker.refused == {"token": 2}


@pytest.mark.parametrize(("running", "named"), [(CELL, "turn-01-b"), (CELL, ""), (None, CELL), (None, "")])
async def test_a_call_in_the_name_of_no_running_cell_is_refused(
    host: Host, running: str | None, named: str
) -> None:
    host.broker.cell = running
    reply = await host.client().ask(cell=named)
    assert not reply["ok"]
    assert "only while the model's cell runs" in reply["error"]["message"]
    assert host.broker.refused == {"cell": 1}


async def test_an_unknown_kind_is_refused(host: Host) -> None:
    reply = await host.client().ask("eval")
    assert reply["error"] == {"type": "HostCallError", "message": "There is no such host call."}
    assert host.broker.refused == {"kind": 1}


async def test_an_oversized_body_is_passed_over_and_its_caller_told(host: Host) -> None:
    other, client = host.client(), host.client()
    most = broker_module.MAX_REQUEST - 100
    host.broker.handlers["final"] = host.broker.handlers["llm_query"] = host.broker.handlers["echo"]
    for kind, size in (("final", most * 2), ("llm_query", most * 2), ("echo", 1 << 20)):
        reply = await client.ask(kind, body={"text": "x" * size})
        assert "has a body of at most" in reply["error"]["message"]
    assert (await other.ask())["ok"]
    assert (await client.ask("final", body={"text": "x" * most}))["ok"]
    assert host.broker.refused == {"size": 3}


async def test_a_body_that_would_grow_beyond_measure_is_refused(host: Host) -> None:
    client = host.client()
    host.broker.handlers["final"] = host.broker.handlers["echo"]
    for body in (
        b"[" + b"{}," * 4_000_000 + b"1]",
        b'{"a":[' + b'"ab",' * 2_000_000 + b"1]}",
        b'{"a":"' + b"\\u0041" * 2_700_000 + b'"}',
    ):
        assert "cannot be taken" in (await client.ask("final", body=body))["error"]["message"]
    assert host.broker.refused == {"shape": 3}
    text = {"text": "a, b, " * 2_700_000}
    assert (await client.ask("final", body=text))["value"]["text"] == text["text"]


async def test_lone_surrogates_do_not_leave_a_caller_waiting(host: Host) -> None:
    reply = await host.client().ask(body={"text": "a\ud800b"})
    assert reply["value"]["text"] == "a\ud800b"


async def test_deeply_nested_bodies_are_answered(host: Host) -> None:
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    for text in ("[" * 100_000, '{"a":' * 100_000):
        assert not (await host.client().ask(body=text.encode()))["ok"]
    assert (await host.client().ask(body={"value": nested}))["value"]["value"] == nested


@pytest.mark.parametrize(
    ("failure", "name"),
    [
        (BudgetExceeded("spent", limit="calls"), "BudgetExceeded"),
        (FileRefused("not named"), "FileRefused"),
        (ModelError("no reply", fault="timeout", model="m"), "LLMError"),
        (TraceError("disk full"), "HostCallError"),
    ],
)
async def test_errors_reach_the_cell_by_kind(host: Host, failure: RLMError, name: str) -> None:
    host.failure = failure
    assert (await host.client().ask("fail"))["error"] == {"type": name, "message": failure.message}


@pytest.mark.parametrize("kind", ["fail", "odd"])
async def test_a_defect_of_a_handler_is_answered_without_its_details(
    host: Host, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_DEBUG", "1")  # else the command's log is quiet
    host.failure = ZeroDivisionError("secret detail")
    error = (await host.client().ask(kind))["error"]
    assert error["type"] == "HostCallError"
    assert error["message"].startswith("internal error")
    assert "secret detail" not in error["message"]
    assert "host call failed" in caplog.text


async def test_calls_are_worked_on_at_once(host: Host) -> None:
    client = host.client()
    for number in range(100):
        await client.send(*client.request("wait", f"1-1-{number}"))
    await until(lambda: host.waiting == 100)
    assert (await host.client().ask())["ok"]
    host.gate.set()
    replies = [await client.reply() for _ in range(100)]
    assert {reply["value"] for reply in replies} == {f"1-1-{number}" for number in range(100)}


async def test_no_more_than_a_number_of_calls_are_in_flight(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 3)
    client = host.client()
    for number in range(10):
        await client.send(*client.request("wait", f"1-1-{number}"))
    await until(lambda: host.waiting == 3)
    host.gate.set()
    assert len({(await client.reply())["value"] for _ in range(10)}) == 10
    assert host.most == 3


async def test_no_more_than_so_many_bytes_are_in_flight_and_one_request_always_fits(host: Host) -> None:
    host.broker.handlers["llm_query"] = host.broker.handlers["wait"]
    client = host.client()
    for number in range(6):
        await client.send(*client.request("llm_query", f"1-1-{number}", {"text": "x" * 15_000_000}))
    await until(lambda: host.waiting == 3)
    small = host.client()
    await small.send(*small.request("wait", "2-2-2", {"text": "x" * 10_000}))
    host.gate.set()
    assert {(await client.reply())["value"] for _ in range(6)} == {f"1-1-{number}" for number in range(6)}
    assert (await small.reply())["ok"]
    assert host.most <= 4
    wide = {"text": "x" * 4_000_000 + "\U0001f600"}  # takes four bytes for each
    assert (await client.ask("llm_query", body=wide))["ok"]


async def test_who_does_not_read_its_replies_harms_nobody(host: Host) -> None:
    deaf = host.client()
    host.broker.handlers["llm_query"] = host.broker.handlers["echo"]

    async def ask() -> None:
        for _ in range(100):
            await deaf.send(*deaf.request("llm_query", body={"text": "y" * 1_000_000}))

    asking = asyncio.create_task(ask())
    await until(lambda: host.broker._bytes > broker_module.MAX_BYTES - 10_000_000)
    for _ in range(50):
        assert host.broker._bytes < broker_module.MAX_BYTES * 2 + 10_000_000
        await asyncio.sleep(0.001)
    started = time.monotonic()
    await host.broker.end()
    assert time.monotonic() - started < 10
    host.broker.begin(CELL)
    assert (await host.client().ask())["ok"]
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_one_history_at_a_time_is_told(host: Host) -> None:
    host.broker.handlers["history"] = host.broker.handlers["wait"]
    clients = [host.client() for _ in range(5)]
    for number, client in enumerate(clients):
        await client.send(*client.request("history", str(number)))
    await until(lambda: host.waiting == 1)
    host.gate.set()
    assert [(await client.reply())["value"] for client in clients] == list("01234")
    assert host.most == 1


async def test_what_code_plans_needs_no_room_and_has_no_reply(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 1)
    planned: list[Any] = []

    async def hear(call: HostCall) -> None:
        planned.append(call.body)
        if len(planned) == 2:
            raise RLMError("no")

    host.broker.handlers["planned"] = hear
    first, other = host.client(), host.client()
    await first.send(*first.request("wait", "0"))
    await until(lambda: host.waiting == 1)
    for number in range(1, 4):
        await other.send(*other.request("planned", str(number), {"calls": number}))
    await until(lambda: len(planned) == 3)
    await other.send(*other.request("planned", "4", {"calls": "9" * 2000}))
    assert (await other.reply())["ok"] is False, "too long, which is the only one with a reply"
    host.gate.set()
    assert (await first.reply())["ok"]
    assert planned == [{"calls": 1}, {"calls": 2}, {"calls": 3}]


async def test_what_calls_in_flight_wait_for_needs_no_room(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 1)
    host.broker.handlers["received"] = host.broker.handlers["echo"]
    clients = [host.client() for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(*client.request("wait", str(number)))
    await until(lambda: host.waiting == 1)
    other = host.client()
    assert (await other.ask("received", "7"))["ok"]
    await other.send(*other.request("cancel", "8", {"calls": ["0", "1", "2"]}))
    assert [(await client.reply())["ok"] for client in clients] == [False] * 3
    assert host.most == 1, "those that had not been read were given up, too"


async def test_calls_that_are_given_up_before_they_are_read_are_remembered_within_bounds(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_GIVEN_UP", 3)
    client = host.client()
    await client.send(
        *client.request("cancel", "1", {"calls": [str(number) for number in range(9)] + ["x" * 100_000]})
    )
    replies = [(await client.ask("echo", str(number)))["ok"] for number in range(9)]
    assert replies.count(False) == 3
    await client.send(*client.request("cancel", "1", {"calls": ["2", "3"]}))
    assert (await client.ask("echo", "4"))["ok"]
    host.broker.begin(CELL)
    assert (await client.ask("echo", "2"))["ok"], "a new cell begins anew"


async def test_a_call_that_waited_until_its_cell_had_ended_is_refused(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 1)
    client = host.client()
    await client.send(*client.request("wait", "1"))
    await client.send(*client.request("wait", "2"))
    await until(lambda: host.waiting == 1)
    await host.broker.end()
    replies = {
        reply["call"]: reply["error"]["type"] for reply in [await client.reply(), await client.reply()]
    }
    assert replies == {"1": "Cancelled", "2": "HostCallError"}
    assert host.most == 1


async def test_each_client_gets_its_own_replies(host: Host) -> None:
    clients = [host.client() for _ in range(5)]
    await asyncio.gather(
        *(client.send(*client.request(call=f"{index}")) for index, client in enumerate(clients))
    )
    replies = await asyncio.gather(*(client.reply() for client in clients))
    assert [reply["value"]["call"] for reply in replies] == ["0", "1", "2", "3", "4"]


async def test_who_waits_for_a_cancelled_call_is_told(host: Host) -> None:
    client = host.client()
    for number in range(5):
        await client.send(*client.request("wait", f"1-1-{number}"))
    await until(lambda: host.waiting == 5)
    await host.broker.cancel_calls()
    assert host.waiting == 0
    replies = [await client.reply() for _ in range(5)]
    assert {reply["call"] for reply in replies} == {f"1-1-{number}" for number in range(5)}
    assert {reply["error"]["type"] for reply in replies} == {"Cancelled"}
    assert (await client.ask(call="9"))["call"] == "9"


async def test_an_interrupted_cell_has_its_calls_cancelled_and_makes_no_more_that_cost(host: Host) -> None:
    host.broker.handlers["llm_query"] = host.broker.handlers["echo"]
    client = host.client()
    await client.send(*client.request("wait", "1-1-1"))
    await until(lambda: host.waiting == 1)
    host.broker.interrupt()
    assert (await client.reply())["error"]["type"] == "Cancelled"
    assert (await client.ask("llm_query"))["error"]["type"] == "Cancelled"
    assert (await client.ask("echo", call="3"))["ok"], "an answer, say, can still be delivered"
    host.broker.begin(CELL)
    assert (await client.ask("llm_query", call="4"))["ok"]


async def test_the_cells_clock_stands_still_only_where_a_call_says_so(host: Host) -> None:
    working = 0

    async def child(call: HostCall) -> None:
        nonlocal working
        await host.gate.wait()
        with call.pause_timer():
            working += 1
            await over.wait()

    over = asyncio.Event()
    host.broker.handlers["rlm_query"] = child
    host.broker.begin(CELL)
    client = host.client()
    for number in range(2):
        await client.send(*client.request("rlm_query", str(number)))
    await until(lambda: len(host.broker._tasks) == 2)
    assert host.broker.paused_seconds() == 0, "they were asked for, and nobody works yet"
    host.gate.set()
    await until(lambda: working == 2)
    first = host.broker.paused_seconds()
    await until(lambda: host.broker.paused_seconds() > first)
    over.set()
    assert [(await client.reply())["ok"] for _ in range(2)] == [True, True]
    assert host.broker.paused_seconds() == host.broker.paused_seconds() > first
    host.broker.begin(CELL)
    assert host.broker.paused_seconds() == 0


async def test_code_can_give_its_calls_up(host: Host) -> None:
    client, other = host.client(), host.client()
    for number in range(3):
        await client.send(*client.request("wait", f"1-1-{number}"))
    await until(lambda: host.waiting == 3)
    await other.send(*other.request("cancel", "2-2-2", body={"calls": ["1-1-0", "1-1-2", 7, "none"]}))
    assert {(await client.reply())["call"] for _ in range(2)} == {"1-1-0", "1-1-2"}
    assert host.waiting == 1
    await other.send(*other.request("cancel", "2-2-3", body={"calls": "all"}))
    assert (await other.ask(call="8"))["ok"]
    assert host.waiting == 1


async def test_a_client_that_left_before_its_reply_harms_nobody(host: Host) -> None:
    gone = host.client()
    await gone.send(*gone.request("wait"))
    await until(lambda: host.waiting == 1)
    await gone.close()
    host.clients.remove(gone)
    host.gate.set()
    assert (await host.client().ask())["ok"]


async def test_stopping_cancels_what_is_in_flight_and_may_be_done_twice(host: Host) -> None:
    client = host.client()
    await client.send(*client.request("wait"))
    await until(lambda: host.waiting == 1)
    await host.broker.stop()
    assert host.waiting == 0
    await host.broker.stop()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from([CELL, "1-1", "echo", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("token", "cell", "call", "nth", "kind", "body", "more")
KINDS = ("echo", "wait", "fail", "odd", "hello", "cancel", "none")


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    """What to change of a good head, and the body."""
    changes = draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2))
    if draw(st.booleans()):
        changes["kind"] = draw(st.sampled_from(KINDS))
    return changes, draw(JSON | st.binary(max_size=50))


@given(st.lists(requests(), max_size=12), st.binary(max_size=100))
@settings(max_examples=30, deadline=None)
def test_whatever_is_asked_the_next_request_is_answered_and_nothing_is_left(
    asked: list[Any], rest: bytes
) -> None:
    async def ask() -> None:
        host = Host()
        await host.start()
        try:
            client = host.client()
            for changes, body in asked:
                head, _ = client.request()
                await client.send(head | changes, body)
            if client.pipe is not None:
                client.put(rest)
            assert (await host.client().ask(call="2-2-2"))["value"]["call"] == "2-2-2"
            await host.broker.end()
            assert not host.broker._tasks
            assert host.broker._bytes == 0
        finally:
            await host.stop()

    asyncio.run(ask())
