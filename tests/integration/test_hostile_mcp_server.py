"""Hostile MCP servers, as programs and at addresses: each meets a wall, and the run goes on."""

from __future__ import annotations

import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.config import MCPServer
from rlm_kernel.errors import RLMError
from rlm_kernel.tools.mcp import MAX_TOOLS
from rlm_kernel.tools.mcp_gate import MAX_MESSAGE
from tests.support.mcp_http import hostile_server
from tests.unit.tools.test_mcp import SECRET, SUPPORT, files_with, opened, raw, servers_left

pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WALLS = {
    "huge-line": "sent a message of more than 16 MiB",
    "values": "too many values",
    "deep-result": "nested too deep",
    "deep-300": "nested too deep",
    "notes": "too much that nobody had asked for",
    "never": "did not answer within 3 seconds",
    "escape-error": "owned",
    "files": None,
    "no-content": None,
    "no-newline-flood": None,
}
ADDRESS_WALLS = {
    "huge": "sent more than 16 MiB at once",
    "values": "too many values",
    "endless-events": "too much that nobody had asked for",
    "endless-line": "limit",
    "gzip": "compressed",
    "html": "Unexpected content type",
    "not-json": "no message of the protocol",
    "500": "HTTP 500",
    "wrong-id": "did not answer within 2 seconds",
    "hangs": "did not answer within 2 seconds",
}


@pytest.mark.parametrize("behaviour", WALLS)
async def test_a_hostile_answer_fails_its_call_with_a_sentence_in_bounded_memory(behaviour: str) -> None:
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with opened(s=raw(behaviour, timeout=3 if behaviour == "never" else 60)) as server:
        if (told := WALLS[behaviour]) is None:
            await server.call("s_do")
        else:
            with pytest.raises(RLMError, match=told) as raised:
                await server.call("s_do")
            assert raised.value.message.replace("\n", "").isprintable()
        assert (await server.call("s_echo", text="x")).value == '{"text": "x"}', "the next call works"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 20 * MAX_MESSAGE
    assert not servers_left()


@pytest.mark.parametrize("behaviour", ADDRESS_WALLS)
async def test_a_hostile_address_fails_its_call_with_a_sentence(behaviour: str) -> None:
    with hostile_server(behaviour) as server:
        seconds = 2 if "within 2 seconds" in ADDRESS_WALLS[behaviour] else 60
        async with opened(s=MCPServer(url=server.url, timeout=seconds)) as found:
            with pytest.raises(RLMError, match=ADDRESS_WALLS[behaviour]):
                await found.call("s_do")


@pytest.mark.parametrize("behaviour", ["redirect", "redirect-get"])
async def test_headers_go_to_no_other_host_by_a_redirect(behaviour: str) -> None:
    with hostile_server() as thief, hostile_server(behaviour, thief.url.removesuffix("/mcp")) as server:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with opened(s=MCPServer(url=server.url, headers=headers)) as found:
            with pytest.raises(RLMError, match="not followed"):
                await found.call("s_do")
    assert thief.requests == []


async def test_a_link_to_another_address_is_read_by_the_server_alone() -> None:
    with hostile_server() as inner, hostile_server("link", inner.url.removesuffix("/mcp")) as server:
        async with opened(s=MCPServer(url=server.url)) as found:
            (file,) = (await found.call("s_do")).files
            assert file.read_text() == "its own words"
    assert inner.requests == []


async def test_a_link_to_a_file_of_the_host_gives_what_the_server_says_and_not_the_file() -> None:
    async with opened(s=raw("passwd")) as server:
        (file,) = (await server.call("s_do")).files
        assert file.read_text() == "the server's own words on file:///etc/passwd"


async def test_lies_in_ids_and_second_answers_are_not_heard() -> None:
    async with opened(s=raw("ids")) as server:
        for _ in range(3):
            assert (await server.call("s_do")).value == "the truth"


@pytest.mark.parametrize(
    ("behaviour", "most"), [("many", MAX_TOOLS), ("pages", 102), ("same-page", 4), ("deep", 5), ("odd", 9)]
)
async def test_lists_of_tools_without_end_and_odd_definitions_are_bounded(behaviour: str, most: int) -> None:
    async with opened(s=raw(behaviour)) as server:
        assert 2 < len(server.tools) <= most
        assert all(len(tool.doc) < 2_000 and len(tool.signature) < 2_000 for tool in server.tools.values())
        assert all(name.startswith("s_") for name in server.tools)


async def test_no_tool_takes_the_name_of_a_helper_or_of_another_server() -> None:
    async with opened(FINAL=raw("odd"), s=raw(), S=raw()) as found:
        assert "FINAL" not in found.tools
        assert len(found.tools) == 9 + 4 + 4
        assert {"s_echo", "S_echo"} <= set(found.tools)


async def test_a_poisoned_description_is_marked_as_the_servers_and_has_no_control_characters() -> None:
    async with opened(s=raw("escapes", resources=[])) as server:
        (tool,) = server.tools.values()
        assert tool.doc.startswith("[MCP server s, in its own words]")
        assert "```" not in tool.doc
        assert (tool.doc + tool.signature).replace("\n", "").isprintable()


@pytest.mark.parametrize("behaviour", ["silent", "at-once", "never-lists"])
async def test_a_server_that_does_not_come_up_costs_its_time_and_no_more(behaviour: str) -> None:
    async with opened(s=raw(behaviour, startup=1)) as found:
        assert found.tools == {}
        assert "The run continues without its tools." in found.said[0]
    assert not servers_left()


async def test_a_run_in_a_real_kernel_goes_on_beside_hostile_servers(tmp_path: Path) -> None:
    code = """
import json
seen = {}
for name in ("a_do", "b_do", "c_do", "d_do"):
    try:
        seen[name] = repr(globals()[name]())[:100]
    except ToolError as error:
        seen[name] = str(error)
FINAL(json.dumps(seen))
"""
    behaviours = {"a": "huge-line", "b": "secret", "c": "escape-error", "d": "passwd", "e": "many"}
    servers = {
        name: {
            "command": sys.executable, "args": [str(SUPPORT / "mcp_raw.py"), how], "permission": "allow", "timeout": 30,
            "env": {"THE_KEY": SECRET},
        }
        for name, how in behaviours.items()
    }  # fmt: skip
    servers["b"]["args"][1] = "die"
    rlm = RLM(
        models=ScriptedModels([f"Code.\n```repl\n{code}\n```"]),
        options={"sandbox.memory": "1g", "mcp.servers": servers},
    )
    result = await rlm.aask("What?", trace=tmp_path / "trace.ipynb")
    seen: dict[str, Any] = json.loads(result.answer or "null")
    assert "more than 16 MiB" in seen["a_do"]
    assert "[redacted]" in seen["b_do"]
    assert seen["c_do"].replace("\n", "").isprintable()
    assert "root:" not in json.dumps(seen)
    assert not files_with(SECRET, tmp_path)
    assert not servers_left()
