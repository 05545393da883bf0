"""Code in a real kernel calls the tools of real MCP servers, and their answers are recorded and replayed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from tests.integration.conftest import Rlm
from tests.unit.tools.test_mcp import SECRET, files_with

pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SERVER = Path(__file__).parents[1] / "support" / "mcp_good.py"


def cell(code: str) -> str:
    return f"Code.\n```repl\n{code}\n```"


def servers(**more: Any) -> dict[str, Any]:
    return {"good": {"command": sys.executable, "args": [str(SERVER)], **more}}


async def run(code: str, trace: Path, **more: Any) -> Any:
    """What the cell delivered, as JSON data."""
    options = {"sandbox.memory": "1g", "mcp.servers": servers(**{"permission": "allow", **more})}
    result = await RLM(models=ScriptedModels([cell(code)]), options=options).aask("What?", trace=trace)
    return json.loads(result.answer or "null")


async def test_code_calls_a_servers_tools_and_reads_its_resources(tmp_path: Path) -> None:
    code = """
import json
logo = good_resource(uri="docs://logo")
seen = {
    "sum": good_add(a=1), "weather": good_forecast(city="Bonn"), "issue": good_get_issue_v2_x(number=3),
    "key": good_environment(name="A_TOKEN"), "linked": repr(good_linked())[:80], "files": sorted(files),
}
try:
    good_fails(why="no")
except ToolError as error:
    seen["error"] = str(error)[:60]
FINAL(json.dumps(seen))
"""
    seen = await run(code, tmp_path / "trace.ipynb", env={"A_TOKEN": SECRET})
    assert seen["sum"] == 2
    assert seen["weather"] == {"city": "Bonn", "unit": "C", "days": None}
    assert seen["issue"] == "issue 3"
    assert seen["key"] == "[redacted]"
    assert "Error executing tool fails" in seen["error"]
    assert [name for name in seen["files"] if "report" in name], seen
    assert not files_with(SECRET, tmp_path)


async def test_a_tool_that_asks_is_refused_where_nobody_can_be_asked(tmp_path: Path) -> None:
    code = """
try:
    good_add(a=1)
except ToolError as error:
    FINAL(str(error))
"""
    options = {"sandbox.memory": "1g", "mcp.servers": servers()}
    result = await RLM(models=ScriptedModels([cell(code)]), options=options).aask(
        "What?", trace=tmp_path / "t.ipynb"
    )
    assert "the user does not allow this call of good_add" in (result.answer or "")


def test_a_replay_answers_from_the_trace_and_starts_no_server(tmp_path: Path, rlm: Rlm) -> None:
    trace = tmp_path / "trace.ipynb"
    assert asyncio.run(run("import json; FINAL(json.dumps(good_add(a=41)))", trace)) == 42
    marker = tmp_path / "started"
    config = tmp_path / "config.json"
    touch = {"command": sys.executable, "args": ["-c", f"open({str(marker)!r}, 'w')"]}
    config.write_text(json.dumps({"mcpServers": {"good": touch}}))
    replayed = rlm("replay", str(trace), "--config", str(config))
    assert replayed.returncode == 0, replayed.stderr
    assert not marker.exists()
