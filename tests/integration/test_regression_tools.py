"""`rlm test` over traces whose code called tools: offline by their records, and for real where that is said."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.session.regression.results import CaseResult, Suite
from tests.integration.conftest import Rlm
from tests.support.story import repl

pytestmark = [
    pytest.mark.usefixtures("kernel_image"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SERVER = Path(__file__).parents[1] / "support" / "mcp_good.py"
OPTIONS = {"sandbox.memory": "256m"}
CELLS = [
    "rows = [price('tea'), price('tea'), len(context)]\n"
    "try:\n    price('gone')\nexcept ToolError as error:\n    rows.append(str(error))\n"
    "rows.append(listed())\nprint(rows)",
    "FINAL([price('salt'), rows])",
]


class Shop:
    """Two tools. `asked`: what they were called for."""

    def __init__(self, prices: dict[str, int], place: Path) -> None:
        self.asked: list[str] = []
        self._prices, self._place = prices, place

    def price(self, name: str) -> int:
        """What a thing costs."""
        self.asked.append(name)
        return self._prices[name]

    def listed(self) -> Path:
        """The list of prices."""
        self._place.write_text("tea 3, salt 1")
        return self._place

    @property
    def tools(self) -> list[Any]:
        return [self.price, self.listed]


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Shop]:
    return lambda **prices: Shop({"tea": 3, "salt": 1, **prices}, tmp_path / "list.txt")


@pytest.fixture
def traces(isolated: Path, shop: Callable[..., Shop], tmp_path: Path) -> Path:
    """A folder with a trace, away from where it was made, and without the file that a tool gave."""
    rlm = RLM(
        models=ScriptedModels([repl(code) for code in CELLS], str.upper), tools=shop().tools, options=OPTIONS
    )
    result = rlm.ask("What does salt cost?", "abc", trace=isolated / "made" / "one.ipynb")
    assert result.value == [1, [3, 3, 3, "KeyError: 'gone'", "tea 3, salt 1"]]
    (tmp_path / "list.txt").unlink()
    return Path(shutil.move(isolated / "made", isolated / "traces"))


def again(folder: Path, **options: Any) -> CaseResult:
    suite: Suite = RLM(options=OPTIONS).test(folder, **options)
    (one,) = suite.traces
    return one


def test_calls_of_tools_have_their_recorded_results_without_the_tools(traces: Path) -> None:
    one = again(traces)
    assert (one.verdict, one.detail, one.remarks) == ("same", "", [])
    assert one.used.tool_calls == one.before.tool_calls == 5


def test_tools_that_are_given_are_called_for_real_and_the_others_are_not(
    traces: Path, shop: Callable[..., Shop]
) -> None:
    now = shop()
    one = again(traces, tools=[now.price])
    assert (one.verdict, one.used.tool_calls) == ("same", 5)
    assert now.asked == ["tea", "tea", "gone", "salt"]


def test_a_tool_that_gives_something_else_now_is_told_by_what_it_changed(
    traces: Path, shop: Callable[..., Shop]
) -> None:
    answer = again(traces, tools=shop(salt=2).tools)
    assert (answer.verdict, answer.detail) == ("differs", "without '1'; with '2'")
    cell = again(traces, tools=shop(tea=4).tools)
    assert cell.verdict == "failed"
    assert "turn-01-a gave something else than in the recording" in cell.detail


@pytest.mark.parametrize("live", [False, True])
def test_a_call_of_a_tool_without_a_record_fails_the_trace_by_name(traces: Path, live: bool) -> None:
    trace = traces / "one.ipynb"
    trace.write_text(trace.read_text("utf-8").replace("price('salt')", "price('sugar')"), "utf-8")
    models = ScriptedModels([repl("FINAL('caught')")]) if live else None
    one = again(traces, live=live, models=models)
    assert (one.verdict, one.detail) == (
        "failed",
        "turn-02-a makes a call that has no record: price(name='sugar')",
    )


def test_the_command_calls_what_tools_names_and_starts_no_server_of_the_configuration(
    isolated: Path, rlm: Rlm
) -> None:
    folder = isolated / "traces"
    server = {"command": sys.executable, "args": [str(SERVER)], "permission": "allow"}
    (isolated / "cwd" / "tools.py").write_text("def half(n: int) -> int:\n    return n // 2\n")
    names: dict[str, Any] = {}
    exec((isolated / "cwd" / "tools.py").read_text(), names)
    code = "print(len(context), half(8), good_add(a=1))"
    RLM(
        models=ScriptedModels([repl(code), repl("FINAL(half(20))")]),
        tools=[names["half"]],
        options={**OPTIONS, "mcp.servers": {"good": server}},
    ).ask("Half?", "abc", trace=folder / "one.ipynb")
    (isolated / "cwd" / "tools.py").write_text(
        "def half(n: int) -> int:\n    return n // 2 if n == 8 else 7\n"
    )
    broken = {"good": {**server, "args": [str(isolated / "gone.py")]}}
    (isolated / "cwd" / "config.json").write_text(json.dumps({"mcp_servers": broken}))
    offline = rlm("test", str(folder), "--json")
    assert offline.returncode == 0, offline.stdout + offline.stderr
    assert "gone.py" not in offline.stderr
    live = rlm("test", str(folder), "--tools", "tools.py", "--json")
    assert (live.returncode, json.loads(live.stdout)["traces"][0]["now"]) == (1, ["7"])

    (isolated / "servers.json").write_text(json.dumps({"mcpServers": {"good": server}}))
    served = rlm("test", str(folder), "--mcp", str(isolated / "servers.json"), "--json")
    assert served.returncode == 0, served.stdout + served.stderr
