"""Tools of a run: their names, who may call them, and what of their results the kernel can have."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import pytest

from rlm_kernel.config import Settings
from rlm_kernel.errors import FileRefused, ToolError, UsageError
from rlm_kernel.session.environment import Host, ledger_of
from rlm_kernel.session.toolbox import Toolbox, check_names, declared, free_id, opened, undeclared
from rlm_kernel.tools.functions import tool
from rlm_kernel.tools.tool import Tool


class Grants:
    """Of one file; `allowed` are those that tools gave."""

    def __init__(self, known: Path | None = None) -> None:
        self.known = known
        self.allowed: list[Path] = []

    def allow(self, named: Sequence[Path]) -> list[Path]:
        self.allowed += named
        return list(named)

    def locate(self, asked: str) -> Any:
        if self.known is None or asked != str(self.known):
            raise FileRefused(f"{asked} was not named by the user.")
        return type("Grant", (), {"source": self.known})()


def made(tmp_path: Path, *functions: Any, known: Path | None = None, **host: Any) -> Toolbox:
    settings = host.pop("settings", Settings())
    tools = [one if isinstance(one, Tool) else tool(one) for one in functions]
    grants: Any = Grants(known)
    return Toolbox(Host(settings, tools=tools, **host), grants, tmp_path / "trace.ipynb")


async def call(box: Toolbox, name: str, **arguments: Any) -> Any:
    return await box.call(name, arguments, contextlib.nullcontext, contextlib.nullcontext)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def make(folder: str) -> None:
    Path(folder).expanduser().mkdir(parents=True, exist_ok=True)


def gives(value: Any) -> Tool:
    return tool(lambda: value, name="gives")


@pytest.mark.parametrize(
    "name",
    [
        "llm_query",
        "FINAL",
        "print",
        "context",
        "class",
        "match",
        "_own",
        "a b",
        "",
        "x" * 65,
        "<lambda>",
        "café",
    ],
)
def test_a_name_that_the_kernel_has_or_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="No tool can be called"):
        check_names([tool(lambda: 1, name=name)])


def test_two_tools_of_one_name_are_refused_and_so_are_too_many() -> None:
    with pytest.raises(UsageError, match="Two tools have the name 'a'"):
        check_names([tool(lambda: 1, name="a"), tool(lambda: 2, name="a")])
    with pytest.raises(UsageError, match="at most 200"):
        check_names([tool(lambda: 1, name=f"t{number}") for number in range(201)])


async def test_sources_are_open_as_long_as_the_run_lives() -> None:
    log: list[str] = []

    class Source:
        @contextlib.asynccontextmanager
        async def opened(self) -> AsyncIterator[Sequence[Tool]]:
            log.append("opened")
            yield [tool(lambda: 1, name="theirs")]
            log.append("closed")

    async with opened(Host(Settings(), tools=[tool(lambda: 2, name="ours"), Source()])) as host:
        assert [one.name for one in host.tools if isinstance(one, Tool)] == ["ours", "theirs"]
        assert log == ["opened"]
    assert log == ["opened", "closed"]


def test_a_docstring_cannot_leave_its_literal() -> None:
    code = declared([tool(lambda: 1, name="a", doc='"""]); import os\n```\n\x1b[2J</details>')])
    names: dict[str, Any] = {}
    exec(code, {"tools": lambda given: names.update(given=given)})
    assert "import os" in names["given"][0]["doc"]
    assert "\x1b" not in code


def test_tools_are_declared_again_only_where_they_are_others() -> None:
    one, other = tool(lambda: 1, name="a"), tool(lambda: 1, name="b")
    code = declared([one])
    assert undeclared([one], [f"x = 1\n{code}\nload_files(paths)"]) == ""
    assert undeclared([other], [code]) == declared([other])
    assert undeclared([], [code]) == "tools([])"
    assert undeclared([], [code, "tools([])"]) == undeclared([], ["x = 1"]) == ""
    assert undeclared([one], ["tools([", "print('tools([1])')"]) == code

    class Cell:
        id = "tools"

    assert free_id("tools", [Cell()]) == "tools-2"


async def test_a_result_is_json_data_without_nan_and_lone_surrogates(tmp_path: Path) -> None:
    value = {"nan": float("nan"), "inf": float("-inf"), "text": "\ud800", "set": {1}, "deep": [[1]]}
    found = await call(made(tmp_path, gives(value)), "gives")
    assert found["value"]["nan"] is None
    assert found["value"]["inf"] == "-inf"
    json.dumps(found).encode()
    found["value"]["text"].encode()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (nested(200), "nested deeper"),
        (nested(100_000), "nested|recursion|cannot"),
        (cyclic(), "Circular|ircular|cannot"),
        ("x" * 9_000_000, "8,388,608 at most"),
        ([0] * 2_000_000, "values"),
        (object(), "object"),
    ],
    ids=["deep", "very deep", "cyclic", "huge", "many", "object"],
)
async def test_a_result_that_is_no_bounded_data_is_an_error_of_the_call(
    tmp_path: Path, value: Any, told: str
) -> None:
    with pytest.raises(ToolError, match=told):
        await call(made(tmp_path, gives(value)), "gives")


async def test_an_error_tells_type_and_message_and_nothing_of_the_host(tmp_path: Path) -> None:
    def fails(how: str) -> None:
        if how == "exit":
            raise SystemExit("bye")
        raise ValueError("no \x1b[31mred\x1b[0m such thing")

    box = made(tmp_path, fails)
    with pytest.raises(ToolError) as error:
        await call(box, "fails", how="x")
    assert str(error.value).startswith("ValueError: no ")
    assert "\x1b" not in str(error.value)
    assert "test_toolbox" not in str(error.value)
    with pytest.raises(ToolError, match="SystemExit: bye"):
        await call(box, "fails", how="exit")


async def test_of_a_group_of_errors_those_in_it_are_told(tmp_path: Path) -> None:
    async def fails() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(find("Ulm"))

    async def find(city: str) -> None:
        raise KeyError(city)

    with pytest.raises(ToolError, match=r"^ExceptionGroup: .*1 sub-exception.*: KeyError: 'Ulm'$"):
        await call(made(tmp_path, fails), "fails")


async def test_a_result_that_cannot_be_taken_is_told_as_a_result(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"^The result of gives cannot be taken: JSON cannot hold a value"):
        await call(made(tmp_path, gives(object())), "gives")


async def test_a_call_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ToolError, match=r"TimeoutError: waits gave no result within 0\.01 s"):
        await call(made(tmp_path, tool(waits, seconds=0.01)), "waits")
    settings = Settings.model_validate({"tools": {"timeout": 0.01}})
    with pytest.raises(ToolError, match="TimeoutError"):
        await call(made(tmp_path, waits, settings=settings), "waits")


async def test_a_function_that_cancels_itself_fails_and_ends_nothing_else(tmp_path: Path) -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ToolError, match="CancelledError"):
        await call(made(tmp_path, gives_up), "gives_up")


async def test_no_more_calls_are_under_way_than_may_be(tmp_path: Path) -> None:
    at_work, most, go = 0, 0, asyncio.Event()

    async def works() -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 2:
            go.set()
        await go.wait()
        at_work -= 1

    box = made(tmp_path, works, settings=Settings.model_validate({"tools": {"at_once": 2}}))
    await asyncio.gather(*(call(box, "works") for _ in range(10)))
    assert most == 2


async def test_who_asks_is_asked_once_for_always_and_a_no_is_remembered(tmp_path: Path) -> None:
    asked: list[Mapping[str, Any]] = []
    answers: list[Any] = [False, True, "always"]

    async def allow(name: str, arguments: Mapping[str, Any]) -> Any:
        asked.append(arguments)
        return answers.pop(0)

    box = made(tmp_path, tool(lambda x: x, name="f", permission="ask"), allow_call=allow)
    for _ in range(2):
        with pytest.raises(ToolError, match="does not allow this call of f"):
            await call(box, "f", x=1)
    for x in (2, 3, 4, 5):
        assert (await call(box, "f", x=x))["value"] == x
    assert asked == [{"x": 1}, {"x": 2}, {"x": 3}]


async def test_nobody_who_can_be_asked_and_deny_are_a_no(tmp_path: Path) -> None:
    for permission in ("ask", "deny"):
        with pytest.raises(ToolError, match="PermissionError"):
            await call(made(tmp_path, tool(lambda: 1, name="f", permission=permission)), "f")  # type: ignore[arg-type]


async def test_the_time_that_the_user_thinks_is_not_the_cells(tmp_path: Path) -> None:
    log: list[str] = []

    async def allow(_name: str, _arguments: Mapping[str, Any]) -> bool:
        log.append("asked")
        return True

    def entered(what: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            log.append(what)
            yield
            log.append("goes on")

        return paused

    box = made(tmp_path, tool(lambda: 1, name="f", permission="ask"), allow_call=allow)
    await box.call("f", {}, entered("works"), entered("thinks"))
    assert log == ["thinks", "asked", "goes on", "works", "goes on"], "and that of the call neither"


async def test_files_are_kept_beside_the_trace_and_granted(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "a.txt").write_text("a")
    (given / "b.txt").write_bytes(bytes(2_000))
    settings = Settings.model_validate({"tools": {"kept": "1k"}})
    box = made(tmp_path, gives([given / "a.txt", given / "b.txt", given]), settings=settings)
    found = await call(box, "gives")
    kept, large, folder = map(Path, found["files"])
    assert kept.parent == tmp_path / "trace.tools"
    assert kept.read_text() == "a"
    assert (large, folder) == ((given / "b.txt").resolve(), given.resolve())
    found = await call(made(tmp_path, gives(b"bytes")), "gives")
    assert [read(path) for path in found["files"]] == [b"bytes"]
    assert found["value"] is None


@pytest.mark.parametrize(
    "where", ["/etc/passwd", "/proc/self/environ", "/dev/null", "/", "~/.ssh", "~", "gone", "link"]
)
async def test_a_tool_hands_out_no_file_of_the_machine_and_no_link(tmp_path: Path, where: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    make("~/.ssh")
    path = Path(where) if where[0] in "/~" else tmp_path / where
    with pytest.raises(ToolError, match=r"cannot be taken"):
        await call(made(tmp_path, gives(path)), "gives")


async def test_a_path_that_is_an_argument_is_a_file_of_the_session(tmp_path: Path) -> None:
    known = tmp_path / "known.txt"

    def size(path: Path, others: list[Path] | None = None) -> str:
        return f"{path} {others}"

    box = made(tmp_path, size, known=known)
    assert (await call(box, "size", path=str(known)))["value"] == f"{known} None"
    with pytest.raises(ToolError, match="FileRefused: /etc/passwd was not named"):
        await call(box, "size", path="/etc/passwd")
    with pytest.raises(ToolError, match="FileRefused"):
        await call(box, "size", path=str(known), others=["/etc/passwd"])


class Job(TypedDict):
    source: Path


def in_tuple(given: tuple[Path, int]) -> str:
    return str(given)


def in_names(**given: Path) -> str:
    return str(given)


def in_class(given: Job) -> str:
    return str(given)


def in_dict(given: dict[str, list[Path | None]]) -> str:
    return str(given)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (in_tuple, lambda path: [path, 1]),
        (in_names, lambda path: {"a": path}),
        (in_class, lambda path: {"source": path}),
        (in_dict, lambda path: {"a": [None, path]}),
    ],
)
async def test_so_is_one_within_an_argument(tmp_path: Path, function: Any, given: Any) -> None:
    known = tmp_path / "known.txt"
    box = made(tmp_path, function, known=known)
    assert str(known) in (await call(box, function.__name__, given=given(str(known))))["value"]
    with pytest.raises(ToolError, match="FileRefused: /etc/passwd was not named"):
        await call(box, function.__name__, given=given("/etc/passwd"))


async def test_many_numbers_for_a_tool_that_takes_no_file_are_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_kernel.session.toolbox._STEPS", 1_000)

    def count(given: list[int | None]) -> int:
        return len(given)

    box = made(tmp_path, count)
    assert (await call(box, "count", given=[1] * 2_000))["value"] == 2_000


async def test_a_schema_that_leads_to_itself_in_many_ways_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_kernel.session.toolbox._STEPS", 1_000)
    both = {"anyOf": [{"$ref": "#/$defs/A"}] * 2, "description": "path"}
    parameters = {"properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": {"A": both}}
    box = made(tmp_path, replace(tool(lambda x: 1, name="f"), parameters=parameters))
    for value in ("text", ["text"]):
        with pytest.raises(ToolError, match=r"too many|too deep"):
            await call(box, "f", x=value)


async def test_arguments_are_bounded(tmp_path: Path) -> None:
    box = made(
        tmp_path, tool(lambda x: 1, name="f"), settings=Settings.model_validate({"tools": {"size": "1k"}})
    )
    with pytest.raises(ToolError, match="1,024 at most"):
        await call(box, "f", x="x" * 2_000)


def test_the_limit_of_calls_is_there_only_with_tools() -> None:
    assert "tool_calls" not in ledger_of(Host(Settings())).left()
    assert ledger_of(Host(Settings(), tools=[gives(1)])).left()["tool_calls"] == 1000


async def test_what_a_function_says_of_its_failure_has_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "sk-0123456789abcdef")

    def price() -> int:
        raise OSError("GET https://shop.example/price?key=sk-0123456789abcdef failed")

    with pytest.raises(ToolError) as raised:
        await call(made(tmp_path, price), "price")
    assert "sk-0123456789abcdef" not in str(raised.value)
    assert "[redacted]" in str(raised.value)
