"""MCP servers as settings: the forms that other programs write, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import MCPServer, explain_settings, from_assignments, from_server_files, load_settings
from rlm_kernel.errors import ConfigError

SECRET = "sekret-token-12345"


def servers(folder: Path, content: Any) -> dict[str, MCPServer]:
    (folder / "config.json").write_text(json.dumps(content))
    return load_settings(cwd=folder, environ={}).mcp.servers


@pytest.mark.parametrize("name", ["mcp_servers", "mcpServers"])
def test_what_other_programs_have_can_be_pasted(tmp_path: Path, name: str) -> None:
    pasted = {
        "git-hub.v2": {
            "type": "http",
            "url": "https://x.test/mcp",
            "headers": {"X-N": 5},
            "autoApprove": ["a"],
        },
        "files": {"type": "stdio", "command": "npx", "args": ["-y", "f"], "env": {"PORT": 80, "OFF": None}},
        "old": {"serverUrl": "https://x.test", "enabled": False, "description": "x"},
    }
    found = servers(tmp_path, {name: pasted})
    assert found["git-hub.v2"].headers == {"X-N": "5"}
    assert found["files"].env == {"PORT": "80"}
    assert found["old"].url == "https://x.test"
    assert found["old"].disabled
    assert found["files"].permission == "ask"


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({}, "either a command or a url"),
        ({"command": "a", "url": "http://b"}, "either a command or a url"),
        ({"comand": "a"}, "did you mean command?"),
        ({"type": "sse", "url": "http://b"}, "streamable HTTP"),
        ({"url": "ftp://b"}, "must begin with https"),
        ({"command": "a", "timeout": 0}, "greater than 0"),
        ({"command": "a", "permission": "yes"}, "'allow', 'ask' or 'deny'"),
        ({"url": "http://b", "headers": {"A": "x\ny"}}, "not allowed in an HTTP header"),
        ("npx", "dictionary"),
    ],
)
def test_what_is_wrong_is_told_with_the_servers_name(tmp_path: Path, server: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=r"mcp_servers\.s") as raised:
        servers(tmp_path, {"mcpServers": {"s": server}})
    assert told in raised.value.message


def test_servers_of_all_sources_are_there_and_the_last_of_one_name_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"mcp_servers": {"a": {"command": "one"}, "b": {"command": "b"}}})
    )
    (tmp_path / "mcp.json").write_text(json.dumps({"servers": {"a": {"command": "two"}}, "inputs": []}))
    given = from_server_files(
        [tmp_path / "mcp.json"], from_assignments(['mcp.servers={"c": {"command": "c"}}'])
    )
    found = load_settings(
        overrides=given, cwd=tmp_path, environ={"RLM_MCP__SERVERS": '{"d": {"command": "d"}}'}
    ).mcp.servers
    assert {name: one.command for name, one in found.items()} == {"a": "two", "b": "b", "c": "c", "d": "d"}


def test_a_file_without_servers_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no MCP servers"):
        from_server_files([tmp_path / "x.json"], {})


def test_no_secret_of_a_server_is_shown_or_taken_on_the_command_line(tmp_path: Path) -> None:
    content = {
        "a": {
            "command": "x",
            "args": ["--api-key", SECRET, f"postgres://u:{SECRET}@h/d"],
            "env": {"A_TOKEN": SECRET},
        },
        "b": {"url": f"https://u:{SECRET}@x.test/mcp?api_key={SECRET}", "headers": {"X-Thing": SECRET}},
    }
    (tmp_path / "config.json").write_text(json.dumps({"mcpServers": content}))
    (shown,) = (one for one in explain_settings(cwd=tmp_path, environ={}) if one.key == "mcp.servers")
    assert SECRET not in str(shown)
    assert shown.value["a"]["env"] == {"A_TOKEN": "set"}
    assert SECRET not in load_settings(cwd=tmp_path, environ={}).model_dump_json(
        exclude={"mcp": {"servers": {"a": {"args"}, "b": {"url"}}}}
    )
    with pytest.raises(ConfigError, match="cannot be set on the command line"):
        from_assignments([f'mcp.servers={{"a": {{"command": "x", "env": {{"A_TOKEN": "{SECRET}"}}}}}}'])
    assert from_assignments(['mcp.servers={"a": {"command": "x", "env": {"A_TOKEN": "${A_TOKEN}"}}}'])


def test_the_first_glob_that_fits_says_whether_a_tool_may_be_called() -> None:
    server = MCPServer(command="x", permission={"get_*": "allow", "get_secret": "deny", "*_all": "deny"})
    assert [server.may_call(name) for name in ("get_a", "get_secret", "drop_all", "put")] == [
        "allow",
        "allow",
        "deny",
        "ask",
    ]
