"""Tools of real MCP servers: programs that speak on stdin and stdout, and servers at an address."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import MCPServer
from rlm_kernel.errors import ConfigError, RLMError
from rlm_kernel.secrets import redact
from rlm_kernel.tools.mcp import MCPServers
from rlm_kernel.tools.mcp_results import Folder, result_of
from rlm_kernel.tools.tool import Tool, ToolResult
from tests.support.mcp_http import hostile_server

SUPPORT = Path(__file__).parents[2] / "support"
SECRET = "sekret-token-12345"


def good(**more: Any) -> MCPServer:
    return MCPServer(command=sys.executable, args=[str(SUPPORT / "mcp_good.py")], **more)


def raw(behaviour: str = "", *args: str, **more: Any) -> MCPServer:
    return MCPServer(command=sys.executable, args=[str(SUPPORT / "mcp_raw.py"), behaviour, *args], **more)


class Opened:
    """The tools of some servers, and what was said."""

    def __init__(self, tools: Sequence[Tool], said: list[str]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.said = said

    async def call(self, name: str, /, **arguments: Any) -> ToolResult:
        return await self.tools[name].call(arguments)


@asynccontextmanager
async def opened(lookup: Mapping[str, str] | None = None, **servers: MCPServer) -> AsyncIterator[Opened]:
    said: list[str] = []

    async def known(name: str) -> str | None:
        return (lookup or {}).get(name)

    async with MCPServers(servers, said.append, known).opened() as tools:
        yield Opened(tools, said)


async def test_a_tool_that_cannot_be_called_in_the_plain_way_is_left_out_and_told() -> None:
    async with opened(s=raw("tasks")) as server:
        assert set(server.tools) >= {"s_echo", "s_do", "s_either"}
        assert "s_slow" not in server.tools
        assert "slow" in server.said[0]


async def test_a_value_comes_back_as_the_server_gave_it() -> None:
    async with opened(s=good()) as server:
        assert (await server.call("s_add", a=1)).value == 2
        assert (await server.call("s_forecast", city="Bonn", days=None)).value == {
            "city": "Bonn",
            "unit": "C",
            "days": None,
        }
        assert (await server.call("s_get_issue_v2_x", number=3)).value == "issue 3"
        assert server.tools["s_add"].signature == "(a: int, b: int = 1) -> int"
        assert "in its own words] Add two numbers." in server.tools["s_add"].doc
        assert server.said == []


async def test_pictures_and_linked_resources_come_as_files_that_end_with_the_run() -> None:
    async with opened(s=good()) as server:
        result = await server.call("s_linked")
        assert result.value == "see the report"
        assert [path.name for path in result.files] == ["image.png", "report.md"]
        assert result.files[1].read_text() == "# Report\nAll is well.\n"
    assert not any(path.exists() for path in result.files)


async def test_resources_are_listed_and_loaded_where_the_settings_let_them() -> None:
    async with opened(s=good(resources=["docs://l*"])) as server:
        listed = (await server.call("s_resources")).value
        assert [one["uri"] for one in listed] == ["docs://logo"]
        (logo,) = (await server.call("s_resource", uri="docs://logo")).files
        assert logo.suffix == ".png"
        with pytest.raises(RLMError, match="do not let code read docs://report"):
            await server.call("s_resource", uri="docs://report")


async def test_a_tool_that_fails_raises_what_the_server_says() -> None:
    async with opened(s=good()) as server:
        with pytest.raises(RLMError, match="Error executing tool fails"):
            await server.call("s_fails", why="no")
        with pytest.raises(RLMError, match="valid integer"):
            await server.call("s_add", a="x")


async def test_a_server_gets_the_variables_that_are_set_for_it_and_no_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-servers")
    server = good(env={"PLACE": "${WHERE:-Bonn}", "PORT": "${PORT}"})
    async with opened({"PORT": "80"}, s=server) as found:
        assert (await found.call("s_environment", name="OPENAI_API_KEY")).value == "None"
        assert (await found.call("s_environment", name="PLACE")).value == "Bonn"
        assert (await found.call("s_environment", name="PORT")).value == "80"
        assert os.environ["PATH"] == (await found.call("s_environment", name="PATH")).value


async def test_a_secret_that_a_server_tells_reaches_neither_code_nor_prompt_nor_errors() -> None:
    server = raw("secret", env={"THE_KEY": "${MY_PAT}"}, resources=[])
    async with opened({"MY_PAT": SECRET}, s=server) as found:
        assert "key [redacted]" in found.tools["s_tell"].doc
        assert (await found.call("s_tell")).value == "the key is [redacted]"
    async with opened({"MY_PAT": SECRET}, s=raw("die", env={"THE_KEY": "${MY_PAT}"})) as found:
        with pytest.raises(
            RLMError, match=r"has ended\. It last wrote: fatal: no way on, my key is \[redacted\]"
        ):
            await found.call("s_do")
    assert redact(SECRET, ()) == "[redacted]", "whatever writes a trace or a log knows it, too"


async def test_a_variable_that_is_not_set_is_named() -> None:
    async with opened(s=good(env={"TOKEN": "${NO_SUCH}"})) as found:
        assert "needs NO_SUCH, which is not set" in found.said[0]
    with pytest.raises(ConfigError, match=r"\$\{input:token\}, which rlm does not support"):
        async with opened(s=good(env={"TOKEN": "${input:token}"}, required=True)):
            pass


async def test_only_the_tools_of_the_settings_are_there_and_each_has_its_permission() -> None:
    server = good(
        tools=["add", "get-*", "fails", "nope"],
        deny=["fails"],
        resources=[],
        permission={"get*": "allow", "*": "ask"},
    )
    async with opened(s=server) as found:
        assert {name: tool.permission for name, tool in found.tools.items()} == {
            "s_add": "ask",
            "s_get_issue_v2_x": "allow",
        }
        assert found.said == ["MCP server 's' has no tool 'nope'."]


@pytest.mark.parametrize(
    ("more", "has"),
    [
        ({}, {"s_resources", "s_resource"}),
        ({"deny": ["resource"]}, {"s_resources"}),
        ({"deny": ["resource*"]}, set()),
        ({"permission": "deny"}, set()),
        ({"permission": {"resources": "deny", "*": "allow"}}, {"s_resource"}),
    ],
)
async def test_what_is_denied_may_be_a_function_for_resources(more: dict[str, Any], has: set[str]) -> None:
    async with opened(s=good(**more)) as found:
        assert {name for name in found.tools if "resource" in name} == has


LINK = {"type": "resource_link", "name": "x"}


async def _read(uri: str) -> Mapping[str, Any]:
    if "gone" in uri:
        raise RLMError("it is \x1b[31mgone")
    return {"contents": [{"uri": uri, "text": "here"}]}


@pytest.mark.parametrize("structured", [False, True])
async def test_a_link_that_leads_nowhere_is_told_and_the_rest_of_the_answer_is_there(
    structured: bool, tmp_path: Path
) -> None:
    content = [
        {"type": "text", "text": "see"},
        *({**LINK, "uri": uri} for uri in ("docs://a.txt", "docs://gone", 7)),
    ]
    answer: dict[str, Any] = {"content": content, **({"structuredContent": {"n": 1}} if structured else {})}
    result = await result_of(answer, Folder(tmp_path), _read, unwrap=False)
    told = "[docs://gone could not be loaded: it is \N{REPLACEMENT CHARACTER}[31mgone]"
    if structured:
        assert result.value == {"n": 1}
        assert told in result.files[-1].read_text()
        assert result.files[-1].name == "not-loaded.txt"
    else:
        assert result.value == f"see\n{told}"
    assert [path.read_text() for path in result.files[:1]] == ["here"]


async def test_a_server_that_does_not_start_is_told_and_the_run_has_the_tools_of_the_others() -> None:
    servers = {"gone": MCPServer(command="no-such-program"), "bad": raw("at-once"), "s": good()}
    async with opened(**servers, off=MCPServer(command="x", disabled=True)) as found:
        assert "s_add" in found.tools
        assert sorted(found.said) == [
            "MCP server 'bad' does not start: it ended at once. It last wrote: cannot load the module nonsense. "
            "The run continues without its tools.",
            "MCP server 'gone': there is no program no-such-program. The run continues without its tools.",
        ]


async def test_a_run_ends_where_a_server_does_not_start_that_is_required() -> None:
    with pytest.raises(RLMError, match="there is no program no-such-program") as raised:
        async with opened(s=good(), gone=MCPServer(command="no-such-program", required=True)):
            pass
    assert "Install it" in raised.value.hint


async def test_a_server_that_starts_too_slowly_is_given_up_and_named() -> None:
    async with opened(s=raw("silent", startup=0.5)) as found:
        assert "did not start within 0.5 seconds" in found.said[0]


async def test_lines_of_logs_on_stdout_do_no_harm() -> None:
    async with opened(s=raw("logs")) as found:
        assert (await found.call("s_do")).value == "did"


async def test_a_server_that_dies_fails_one_call_and_is_started_once_more() -> None:
    async with opened(s=good()) as found:
        with pytest.raises(RLMError, match="The connection to MCP server 's' has ended"):
            await found.call("s_dies")
        assert (await found.call("s_add", a=1)).value == 2
        with pytest.raises(RLMError, match="has ended"):
            await found.call("s_dies")
        with pytest.raises(RLMError, match="not started a third time"):
            await found.call("s_add", a=1)


async def test_a_call_that_is_not_answered_ends_and_the_next_one_works() -> None:
    async with opened(s=raw("never", timeout=0.3)) as found:
        with pytest.raises(RLMError, match=r"did not answer within 0\.3 seconds"):
            await found.call("s_do")
        assert (await found.call("s_echo", text="x")).value == '{"text": "x"}'


async def test_a_tool_that_its_server_changes_is_called_no_more() -> None:
    async with opened(s=good()) as found:
        assert (await found.call("s_grows")).value == "grown"
        with pytest.raises(RLMError, match="changed its tool add since the run began"):
            await found.call("s_add", a=1)
        assert (await found.call("s_get_issue_v2_x", number=1)).value == "issue 1"


async def test_progress_does_not_disturb_and_what_servers_want_of_us_is_refused() -> None:
    async with opened(a=raw("progress"), b=raw("wants")) as found:
        assert (await found.call("a_do")).value == "done"
        wanted = '{"w0": false, "w1": false, "w2": false, "w3": true, "w4": false}'
        assert (await found.call("b_do")).value == wanted, "sampling, roots, elicitation; a ping is answered"


async def test_calls_at_one_time_each_get_their_own_answer() -> None:
    async with opened(s=raw()) as found:
        results = await asyncio.gather(*(found.call("s_echo", text=str(number)) for number in range(200)))
        assert [result.value for result in results] == [f'{{"text": "{number}"}}' for number in range(200)]


@pytest.mark.parametrize("behaviour", ["stubborn", "leaves-child"])
async def test_nothing_that_a_server_started_is_left(behaviour: str, tmp_path: Path) -> None:
    async with opened(s=raw(behaviour, str(tmp_path / "pids"))) as found:
        assert (await found.call("s_echo", text="x")).value
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(alive, pids))
    assert not any(alive(pid) for pid in pids)


async def test_nothing_is_left_when_a_run_is_cancelled_in_a_call(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def run() -> None:
        async with opened(
            s=raw("stubborn", str(tmp_path / "pids"), timeout=60), n=raw("never", timeout=60)
        ) as found:
            call = asyncio.ensure_future(found.call("n_do"))
            called.set()
            await call

    running = asyncio.create_task(run())
    await called.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("steps", [1, 5, 20, 60, 200])
async def test_nothing_is_left_when_a_run_is_cancelled_while_its_servers_start(steps: int) -> None:
    async def run() -> None:
        async with opened(s=raw(), t=raw("silent", startup=60)):
            raise AssertionError("it cannot have started")

    running = asyncio.create_task(run())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not servers_left()


async def test_servers_may_be_opened_in_one_task_and_closed_in_another() -> None:
    source = MCPServers({"s": raw()}, lambda _said: None)
    context = source.opened()
    tools = await asyncio.create_task(context.__aenter__())
    assert tools
    await asyncio.create_task(context.__aexit__(None, None, None))


async def test_a_session_that_an_address_has_forgotten_is_begun_anew_and_the_call_done() -> None:
    with hostile_server("forgets") as server:
        async with opened(s=MCPServer(url=server.url)) as found:
            assert (await found.call("s_do")).value == "did"
    assert server.sessions == 2


async def test_headers_are_sent_with_every_request_and_redacted() -> None:
    headers = {"Authorization": "Bearer ${TOKEN}", "X-Team": "${TEAM:-red}"}
    with hostile_server() as server:
        async with opened({"TOKEN": SECRET}, s=MCPServer(url=server.url, headers=headers)) as found:
            assert (await found.call("s_do")).value == "did"
    assert {sent["authorization"] for _, _, sent in server.requests} == {f"Bearer {SECRET}"}
    assert {sent["x-team"] for _, _, sent in server.requests} == {"red"}
    assert redact(f"x {SECRET}", ()) == "x [redacted]"


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("unauthorized", "are its headers right?"),
        ("gone", "cannot be reached at"),
    ],
)
async def test_an_address_that_does_not_serve_is_told_with_the_reason(behaviour: str, told: str) -> None:
    with hostile_server(behaviour) as server:
        url = server.url if behaviour != "gone" else "http://127.0.0.1:9/mcp"
        async with opened(s=MCPServer(url=url)) as found:
            assert told in found.said[0]


def alive(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return state.strip()[:1] not in ("", "Z")


def servers_left() -> set[str]:
    """Processes of tests' servers that this process has started."""
    shown = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {line for line in shown.stdout.splitlines() if "mcp_raw" in line or "mcp_good" in line}


def files_with(secret: str, folder: Path) -> list[Path]:
    """The files below a folder in which the secret stands as it is."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
