"""`rlm mcp` as clients use it: the official Python client, real containers, models over HTTP."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import ListRootsResult, Root

from rlm_kernel.engine.protocols import Completion
from rlm_kernel.errors import BudgetExceeded
from rlm_kernel.mcpserver.asked import Ask
from rlm_kernel.mcpserver.doing import Doing, Rules
from rlm_kernel.mcpserver.progress import Progress
from tests.support.mcp_clients import TOKEN, call, made_by, on_http, on_stdio, raw, refused, runs
from tests.support.model_server import ModelServer
from tests.support.sandbox import until
from tests.support.serving import ChatTalk

pytestmark = [
    pytest.mark.usefixtures("kernel_image", "models"),
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def models(openai_env: ModelServer) -> ModelServer:
    openai_env.root = runs
    return openai_env


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.log").write_text("one needle\ntwo\nthree needle\n")
    return tmp_path


def _gone(pid: Path) -> Any:
    return lambda: not made_by(int(pid.read_text()))


async def test_a_question_is_answered_with_cost_trace_and_progress(folder: Path) -> None:
    parameters, pid = on_stdio(folder, str(folder))
    told: list[str] = []

    async def hear(number: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with Client(parameters) as client:
        result = await client.call_tool(
            "ask",
            {"question": "run: FINAL(str(context.count('needle')))", "paths": ["a.log"]},
            progress_callback=hear,
        )
        found = result.structured_content
        assert not result.is_error
        assert found["answer"] == "2"
        assert found["stop_reason"] == "answered"
        assert found["turns"] == 1
        assert result.content[0].text.startswith("2\n")
        assert any("turn 1" in line for line in told)
        listed = (await client.list_resources()).resources
        assert [one.name for one in listed] == [found["trace"]]
        shown = (await client.read_resource(listed[0].uri)).contents[0].text
        assert "context.count" in shown
        assert '"nbformat"' in (await client.read_resource(f"{listed[0].uri}.ipynb")).contents[0].text
        assert (await call(client, "show_trace", trace=found["trace"], limit=10))["characters"] > 100
        part = await client.call_tool("show_trace", {"trace": found["trace"], "cell": "turn-01-a"})
        assert "context.count" in part.content[0].text
    assert _gone(pid)()


async def test_a_text_is_an_input(folder: Path) -> None:
    parameters, _ = on_stdio(folder)
    async with Client(parameters) as client:
        found = await call(client, "ask", question="run: FINAL(context.upper())", text="a needle")
        assert found["answer"] == "A NEEDLE"
        assert "it cannot read paths" in await refused(client, "ask", question="run: 1", paths=["a.log"])


async def test_a_session_keeps_its_variables_and_ends_with_its_client(folder: Path) -> None:
    parameters, pid = on_stdio(folder, str(folder))
    async with Client(parameters) as client:
        session = (await call(client, "session_start", paths=["a.log"]))["session"]
        await call(client, "session_ask", session=session, question="run: kept = 41; FINAL(kept)")
        found = await call(client, "session_ask", session=session, question="run: FINAL(str(kept + 1))")
        assert found["answer"] == "42"
        hits = (await call(client, "search", session=session, pattern="^t"))["hits"]
        assert [hit["line"] for hit in hits] == [2, 3]
        assert (await call(client, "session_status", session=session))["questions"] == 2
        assert made_by(int(pid.read_text()))
    assert _gone(pid)()


async def test_a_session_that_was_stopped_is_no_session(folder: Path) -> None:
    parameters, pid = on_stdio(folder, str(folder))
    async with Client(parameters) as client:
        session = (await call(client, "session_start", paths=["a.log"]))["session"]
        await call(client, "session_stop", session=session)
        assert _gone(pid)()
        for tool in ("session_stop", "session_status"):
            assert "no session" in await refused(client, tool, session=session)
        assert "no session" in await refused(client, "session_ask", session=session, question="run: 1")


async def test_a_search_needs_no_model_and_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    parameters, pid = on_stdio(folder, str(folder))
    async with Client(parameters) as client:
        found = await call(client, "search", pattern="NEEDLE", paths=[str(folder)], ignore_case=True, limit=1)
        assert found["hits"] == [{"file": "a.log", "line": 1, "text": "one needle"}]
        assert found["more"]
        assert not (await client.list_resources()).resources
    assert _gone(pid)()


async def test_a_cancelled_question_leaves_no_container(folder: Path, models: ModelServer) -> None:
    async with raw(folder) as client:
        client.call(1, "ask", question="run: import time; time.sleep(600)", paths=["a.log"])
        while "1 call of" not in str(told := await client.message()) and "turn 1" not in str(told):
            pass
        assert made_by(client.process.pid)
        client.cancel(1)
        await until(lambda: not made_by(client.process.pid))
        client.call(2, "ask", question="run: FINAL('still here')", paths=["a.log"])
        assert "still here" in str(await client.reply(2))


@pytest.mark.parametrize("ends", ["stdin", "SIGTERM"])
async def test_the_server_ends_in_the_middle_of_a_question_and_leaves_nothing(
    folder: Path, ends: str
) -> None:
    async with raw(folder) as client:
        client.call(1, "session_start", paths=["a.log"])
        await client.reply(1)
        client.call(2, "ask", question="run: import time; time.sleep(600)", paths=["a.log"])
        while "turn 1" not in str(await client.message()):
            pass
        process = client.process
        if ends == "stdin":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()
    assert not made_by(process.pid)


async def test_stdout_carries_the_protocol_alone(folder: Path, models: ModelServer) -> None:
    """`Raw.message` takes each line for a message; libraries, failures of models and cells print elsewhere."""
    models.fail("rate_limit", times=1, retry_after="0")
    async with raw(folder) as client:
        client.call(1, "ask", question="run: print('printed'); FINAL(llm_query('hello'))", paths=["a.log"])
        assert "echo: hello" in str(await client.reply(1))
        client.call(2, "ask", question="run: FINAL(1)", model="nobody/nothing", paths=["a.log"])
        assert (await client.reply(2))["result"]["isError"]
        client.request(3, "tools/list")
        assert len((await client.reply(3))["result"]["tools"]) == 7
    assert not any("\r" in line for line in client.lines)


async def test_paths_are_read_below_the_clients_roots_alone_and_these_may_change(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a b.txt").write_text(f"needle of {name}\n")
    roots = [tmp_path / "one"]

    async def told(_context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=root.as_uri()) for root in roots])

    parameters, _ = on_stdio(tmp_path)
    async with Client(parameters, mode="legacy", list_roots_callback=told) as client:
        path = (tmp_path / "one" / "a b.txt").as_uri()
        assert (await call(client, "search", pattern="needle", paths=[path]))["hits"]
        other = str(tmp_path / "other" / "a b.txt")
        assert "not in a folder" in await refused(client, "search", pattern="needle", paths=[other])
        roots[:] = [tmp_path / "other"]
        with pytest.warns(MCPDeprecationWarning, match="roots"):
            await client.send_roots_list_changed()
        assert (await call(client, "search", pattern="needle", paths=[other]))["hits"]
        assert "not in a folder" in await refused(client, "search", pattern="needle", paths=[path])


async def test_money_is_counted_over_the_servers_life(folder: Path) -> None:
    parameters, _ = on_stdio(folder, str(folder), "--total-cost", "0")
    async with Client(parameters) as client:
        told = await refused(client, "ask", question="run: FINAL(1)", text="a")
        assert "The server's limit of cost is reached: 0 of 0 US dollars used" in told
        assert "--total-cost" in told


class Priced(ChatTalk):
    """Each reply costs a dollar."""

    async def complete(self, *arguments: Any, **options: Any) -> Completion:
        return replace(await super().complete(*arguments, **options), cost=1.0)


async def test_questions_at_one_time_use_the_servers_money_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    async def send(_number: float, _line: str) -> None:
        pass

    changes = {"sandbox.memory": "1g", "root_llm.model": "scripted/root"}
    doing = Doing(Rules(changes, total_cost=6.0, kernels=2, models=Priced()))
    client = doing.new_client()

    async def ask(calls: int) -> Mapping[str, Any]:
        code = f"run: print(len([llm_query(str(n)) for n in range({calls})])); FINAL('done')"
        return (await doing.ask(client, Ask(question=code, text="a"), [], Progress(send))).data

    found = await asyncio.gather(ask(4), ask(0))
    assert [one["answer"] for one in found] == ["done", "done"], "one may use more than half of it"
    assert doing.purse.spent.cost == 6.0
    with pytest.raises(BudgetExceeded, match="The server's limit of cost is reached"):
        await ask(0)


@pytest.fixture
async def http(folder: Path) -> AsyncIterator[tuple[str, Any]]:
    async with on_http(folder) as served:
        yield served


def _client(url: str, token: str = TOKEN) -> Client:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60)
    return Client(streamable_http_client(url, http_client=http))


async def test_clients_of_one_http_server_see_their_own_sessions_and_traces_alone(
    folder: Path, http: tuple[str, Any]
) -> None:
    url, process = http
    async with _client(url) as one, _client(url) as other:
        session = (await call(one, "session_start", paths=["a.log"]))["session"]
        found = await call(one, "session_ask", session=session, question="run: FINAL(len(context))")
        for tool in ("session_status", "session_stop"):
            assert "no session" in await refused(other, tool, session=session)
        assert "no session" in await refused(other, "search", session=session, pattern="a")
        assert "None of your runs" in await refused(other, "show_trace", trace=found["trace"])
        assert not (await other.list_resources()).resources
        assert made_by(process.pid)
    await until(lambda: not made_by(process.pid))  # both have said goodbye
