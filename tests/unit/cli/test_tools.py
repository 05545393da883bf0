"""`rlm tools` and `rlm doctor` show the MCP servers of the settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlm_kernel.cli._app import app
from rlm_kernel.cli.doctor import _check_mcp_servers
from rlm_kernel.config import load_settings

SERVER = Path(__file__).parents[2] / "support" / "mcp_raw.py"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    raw = {"command": sys.executable, "args": [str(SERVER)], "permission": {"echo": "allow"}}
    path.write_text(json.dumps({"mcpServers": {"raw": raw, "gone": {"command": "no-such-program"}}}))
    return path


def test_tools_are_listed_with_their_permission_and_what_does_not_start_is_told(config: Path) -> None:
    shown = CliRunner().invoke(app, ["tools", "--mcp", str(config)])
    assert shown.exit_code == 1, "one of them does not start"
    assert "  allow  raw_echo(text: str | None = None) -> str\n" in shown.output
    assert "  ask    raw_do() -> str\n" in shown.output
    assert "gone: MCP server 'gone': there is no program no-such-program." in shown.output


def test_tools_as_json_have_what_code_sees(config: Path) -> None:
    shown = json.loads(CliRunner().invoke(app, ["tools", "--json", "--mcp", str(config)]).stdout)
    raw, gone = shown["servers"]
    assert [tool["name"] for tool in raw["tools"]][:2] == ["raw_echo", "raw_do"]
    assert "no program" in gone["problem"]


def test_without_servers_it_says_where_they_are_named() -> None:
    shown = CliRunner().invoke(app, ["tools"])
    assert shown.exit_code == 0
    assert "mcp_servers in config.json" in shown.stderr


def test_the_doctor_tells_which_servers_start(config: Path) -> None:
    servers = json.loads(config.read_text())["mcpServers"]
    checks = {
        check.name: check for check in _check_mcp_servers(load_settings(overrides={"mcp.servers": servers}))
    }
    assert checks["mcp raw"].ok
    assert not checks["mcp gone"].ok
    assert not checks["mcp gone"].needed
