"""The cache of sub-model calls: what it answers, what it never keeps, and what becomes of a run when it
fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlm_kernel.cli import app
from rlm_kernel.config import LLMSettings, OtherLLM, Settings, load_settings
from rlm_kernel.engine.protocols import Completion, Message, Picture, Role, Usage
from rlm_kernel.engine.values import Card
from rlm_kernel.errors import ConfigError, ModelError, SetupError
from rlm_kernel.models import cache as module
from rlm_kernel.models.cache import CachedModels, ReplyCache, cache_path, call_key, clear, look_at
from rlm_kernel.models.factory import open_models
from rlm_kernel.views.live import LiveView

COLD = LLMSettings(model="test/sub", temperature=0.0)
ROOT = LLMSettings(model="test/root", temperature=0.7)


class Counting:
    """Models that reply with the prompt in capitals, and remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.finish: str | None = "stop"
        self.started = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.failing = 0

    def name(self, role: Role) -> str:
        return f"test/{role}"

    def card(self, which: str) -> Card:
        return Card(which, f"test/{which}", 1000)

    others: Sequence[Card] = ()

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        prompt = messages[-1]["content"]
        self.asked.append(prompt)
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise ModelError("It failed.", fault="server", model="test/sub")
        return Completion(prompt.upper(), model or self.name(role), Usage(7, 3), 0.25, 1.5, 2, self.finish)

    async def warm_up(self) -> None:
        pass

    async def aclose(self) -> None:
        raise AssertionError("the cache closes what is its own")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "subcalls.sqlite3"


@contextlib.asynccontextmanager
async def cached(
    path: Path,
    said: list[str],
    models: Counting,
    *,
    sub: LLMSettings = COLD,
    root: LLMSettings = ROOT,
    size: int = 1 << 20,
    **options: Any,
) -> AsyncIterator[CachedModels]:
    front = CachedModels(models, ReplyCache(path, size, said.append, **options), {"root": root, "sub": sub})
    try:
        yield front
    finally:
        await front.aclose()


async def ask(models: CachedModels, prompt: str = "hello", **options: Any) -> Completion:
    return await models.complete([{"role": "user", "content": prompt}], **{"role": "sub", **options})


async def test_the_same_call_is_answered_at_once_and_costs_nothing(path: Path, said: list[str]) -> None:
    models = Counting()
    async with cached(path, said, models) as front:
        first = await ask(front)
        again = await ask(front)
        assert (front.name("sub"), front.card("root").window) == ("test/sub", 1000)
    assert (first.text, first.stored, first.usage, first.cost, first.attempts) == (
        "HELLO",
        False,
        Usage(7, 3),
        0.25,
        2,
    )
    assert (again.text, again.stored, again.usage, again.cost, again.attempts) == (
        "HELLO",
        True,
        Usage(),
        0.0,
        0,
    )
    assert (again.model, again.finish_reason) == (first.model, "stop")
    assert 0 < again.seconds < 1
    async with cached(path, said, models) as front:  # another run
        assert (await ask(front)).stored
    assert models.asked == ["hello"]
    assert said == []


@pytest.mark.parametrize("temperature", [None, 0.7])
async def test_at_another_temperature_every_call_is_made(
    path: Path, said: list[str], temperature: float | None
) -> None:
    models = Counting()
    async with cached(
        path, said, models, sub=LLMSettings(model="test/sub", temperature=temperature)
    ) as front:
        assert [(await ask(front)).stored for _ in range(2)] == [False, False]
    assert look_at(path).entries == 0


async def test_calls_of_the_root_are_always_made(path: Path, said: list[str]) -> None:
    models = Counting()
    async with cached(path, said, models, root=COLD) as front:
        assert [(await ask(front, role="root")).stored for _ in range(2)] == [False, False]


async def test_a_model_that_code_names_counts_by_its_own_settings(path: Path, said: list[str]) -> None:
    models = Counting()
    async with cached(path, said, models) as front:
        assert [(await ask(front, model=name)).stored for name in ("test/sub", None)] == [False, True]
        assert [(await ask(front, model="test/root")).stored for _ in range(2)] == [False, False]
        assert [(await ask(front, model="test/other")).stored for _ in range(2)] == [False, False]


@pytest.mark.parametrize(
    "change",
    [{"model": "test/other"}, {"api_base": "http://127.0.0.1:1/v1"}, {"max_tokens": 10}],
    ids=lambda change: "".join(change),
)
def test_all_that_decides_a_reply_is_in_the_key(change: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "x"}]
    assert call_key(COLD, messages, None) == call_key(
        COLD.model_copy(update={"timeout": 5, "concurrency": 2}), messages, None
    )
    assert call_key(COLD.model_copy(update=change), messages, None) != call_key(COLD, messages, None)


def test_schema_and_messages_and_the_environments_addresses_are_in_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = [{"role": "user", "content": "x"}]
    keys = [
        call_key(COLD, messages, None),
        call_key(COLD, messages, {"type": "string"}),
        call_key(COLD, messages, {"type": "array"}),
        call_key(COLD, [{"role": "user", "content": "\ud800"}], None),
        call_key(COLD, [{"role": "system", "content": "x"}], None),
        call_key(COLD, [{**messages[0], "images": (Picture(b"a", "image/png", 1, 1),)}], None),
        call_key(COLD, [{**messages[0], "images": (Picture(b"b", "image/png", 1, 1),)}], None),
    ]
    assert call_key(COLD, [{**messages[0], "images": ()}], None) == keys[0]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    keys.append(call_key(COLD, messages, None))
    assert len(set(keys)) == len(keys)


async def test_replies_that_are_cut_off_and_failures_are_not_kept(path: Path, said: list[str]) -> None:
    models = Counting()
    async with cached(path, said, models) as front:
        models.finish = "length"
        assert [(await ask(front)).stored for _ in range(2)] == [False, False]
        models.finish, models.failing = "stop", 1
        with pytest.raises(ModelError):
            await ask(front)
        assert [(await ask(front)).stored for _ in range(2)] == [False, True]


async def test_any_text_comes_back_as_it_was(path: Path, said: list[str]) -> None:
    models = Counting()
    prompt = "\ud800\0 é 漢字\r\n" * 100
    async with cached(path, said, models) as front:
        replies = [await ask(front, prompt) for _ in range(2)]
    assert [reply.text for reply in replies] == [prompt.upper()] * 2
    assert replies[1].stored


# Calls at the same time


async def started(models: Counting, calls: int = 1) -> None:
    while len(models.asked) < calls:
        await models.started.wait()
        models.started.clear()


async def test_identical_calls_under_way_are_made_once(path: Path, said: list[str]) -> None:
    models = Counting()
    models.gate = asyncio.Event()
    async with cached(path, said, models) as front:
        calls = [asyncio.create_task(ask(front)) for _ in range(50)]
        await started(models)
        models.gate.set()
        replies = await asyncio.gather(*calls)
    assert models.asked == ["hello"]
    assert {reply.text for reply in replies} == {"HELLO"}
    assert sum(reply.usage.total for reply in replies) == 10
    assert [reply.stored for reply in replies].count(False) == 1


async def test_a_first_asker_that_is_cancelled_leaves_it_to_the_next(path: Path, said: list[str]) -> None:
    models = Counting()
    models.gate = asyncio.Event()
    async with cached(path, said, models) as front:
        calls = [asyncio.create_task(ask(front)) for _ in range(4)]
        await started(models)
        calls[0].cancel()
        calls[2].cancel()  # one that waits
        await started(models, 2)
        models.gate.set()
        replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(reply, asyncio.CancelledError) for reply in replies] == [True, False, True, False]
    assert [reply.stored for reply in replies if isinstance(reply, Completion)] == [False, True]
    assert len(models.asked) == 2


async def test_after_a_failure_each_asks_for_itself(path: Path, said: list[str]) -> None:
    models = Counting()
    models.gate, models.failing = asyncio.Event(), 1
    async with cached(path, said, models) as front:
        calls = [asyncio.create_task(ask(front)) for _ in range(3)]
        await started(models)
        models.gate.set()
        replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(reply, ModelError) for reply in replies] == [True, False, False]
    assert len(models.asked) == 3


WRITER = """
import asyncio, sys
from pathlib import Path
from rlm_kernel.engine.protocols import Completion
from rlm_kernel.models.cache import ReplyCache

async def main(path, who):
    cache = ReplyCache(Path(path), 1 << 24, lambda text: print(text, flush=True))
    sys.stdin.readline()
    await asyncio.gather(*(cache.keep(b"%s %d" % (who.encode(), n), Completion(who * 50, "m")) for n in range(300)))
    await asyncio.gather(*(cache.keep(b"both %d" % n, Completion("both", "m")) for n in range(100)))
    await cache.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("ann", "bob")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate()[0] for writer in writers] == ["", ""]
    assert look_at(path).entries == 700


# The size


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 100
        return self.now


async def test_what_was_not_used_for_longest_makes_room(path: Path, said: list[str]) -> None:
    models, size = Counting(), 400_000
    async with cached(path, said, models, size=size, clock=Clock()) as front:
        for number in range(100):
            await ask(front, f"{number} " + "x" * 10_000)
            assert (await ask(front, "0 " + "x" * 10_000)).stored or number == 0
        entries = look_at(path).entries
        assert 25 <= entries < 40
        asked = len(models.asked)
        for number in (0, 99, 98, 97):
            await ask(front, f"{number} " + "x" * 10_000)
        assert len(models.asked) == asked
        await ask(front, "1 " + "x" * 10_000)
        assert len(models.asked) == asked + 1
    assert look_at(path).size <= size + 50_000
    assert said == []


async def test_a_smaller_size_than_before_shrinks_the_file(path: Path, said: list[str]) -> None:
    models = Counting()
    async with cached(path, said, models) as front:
        for number in range(50):
            await ask(front, f"{number} " + "x" * 10_000)
    async with cached(path, said, models, size=200_000) as front:
        assert (await ask(front, "49 " + "x" * 10_000)).stored
    assert look_at(path).size <= 210_000
    assert said == []


async def test_a_reply_that_is_too_large_for_the_cache_is_not_kept(path: Path, said: list[str]) -> None:
    async with cached(path, said, Counting(), size=100_000) as front:
        assert [(await ask(front, "x" * 50_000)).stored for _ in range(2)] == [False, False]
    assert said == []


# What goes wrong


def damage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def open_to_all(path: Path) -> None:
    path.parent.chmod(0o777)


def no_folder(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file")


@pytest.mark.parametrize("break_it", [damage, cut, open_to_all, no_folder])
async def test_a_cache_that_cannot_be_used_is_told_once_and_the_run_goes_on(
    path: Path, said: list[str], break_it: Callable[[Path], None]
) -> None:
    models = Counting()
    async with cached(path, said, models) as front:
        await asyncio.gather(*(ask(front, f"{n}" * 3000) for n in range(10)))
    break_it(path)
    async with cached(path, said, models) as front:
        replies = await asyncio.gather(*(ask(front, f"{n}" * 3000) for n in range(10)))
    assert [reply.text for reply in replies] == [f"{n}" * 3000 for n in range(10)]
    assert len(said) == 1
    assert said[0].startswith("The cache cannot be used, so this run continues without it: ")


ROW = {"model": "test/sub", "text": b"KEPT", "finish": "stop", "used": 5}


@pytest.mark.parametrize(
    "odd",
    [
        {"text": "KEPT"}, {"text": None}, {"text": 7}, {"text": b"\xff\xfe"}, {"text": b""},
        {"model": 7}, {"model": None}, {"model": b"\xff"}, {"model": "m" * 10**6},
        {"finish": 5}, {"finish": b"\xff"}, {"finish": "length"}, {"finish": "f" * 10**6},
        {"used": None}, {"used": "yesterday"}, {"used": 2**62}, {"used": -(2**62)}, {"used": 1e308},
    ],
    ids=str,
)  # fmt: skip
async def test_a_row_that_nobody_here_kept_is_no_reply_and_nothing_breaks(
    path: Path, said: list[str], odd: dict[str, Any]
) -> None:
    path.parent.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE replies (id, key, model, text, finish, used)")
        key = call_key(COLD, [{"role": "user", "content": "hello"}], None)
        db.execute("INSERT INTO replies VALUES (1, ?, ?, ?, ?, ?)", (key, *(ROW | odd).values()))
        db.commit()
    os.chmod(path, 0o600)
    async with cached(path, said, Counting()) as front:
        replies = [await ask(front), await ask(front)]
    async with cached(path, said, Counting(), size=10) as front:  # all of it is to be dropped
        replies.append(await ask(front))
    assert {(reply.text, reply.model, reply.finish_reason) for reply in replies} <= {
        ("KEPT" if "used" in odd else "HELLO", "test/sub", "stop"),
        ("HELLO", "test/sub", "stop"),
    }
    assert said == []


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.with_name(path.name + "-wal").mkdir(), lambda path: path.with_name(path.name + "-shm").symlink_to("/dev/zero"),
    ],
    ids=["folder", "pipe", "link to itself", "link to zero", "log is a folder", "memory is a link"],
)  # fmt: skip
async def test_what_is_no_file_is_told_once_and_breaks_nothing(
    path: Path, said: list[str], make: Callable[[Path], None]
) -> None:
    path.parent.mkdir(0o700)
    make(path)
    async with cached(path, said, Counting()) as front:
        assert [(await ask(front)).text for _ in range(2)] == ["HELLO"] * 2
    assert len(said) == 1
    with contextlib.suppress(SetupError):
        look_at(path)
    with contextlib.suppress(SetupError):
        clear(path)


def test_where_emptying_cannot_help_it_is_said_what_does(path: Path) -> None:
    path.mkdir(parents=True)
    for work in (look_at, clear):
        with pytest.raises(SetupError) as caught:
            work(path)
        assert "delete it, or set cache.dir to another folder" in caught.value.hint


async def test_a_full_disk_is_told_once_and_the_run_goes_on(
    path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = module._connect

    def small(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.execute("PRAGMA max_page_count = 20")
        return db

    monkeypatch.setattr(module, "_connect", small)
    async with cached(path, said, Counting()) as front:
        replies = [await ask(front, f"{number}" * 10_000) for number in range(20)]
    assert not any(reply.stored for reply in replies)
    assert len(said) == 1
    assert "full" in said[0]


async def test_a_writer_that_does_not_end_is_waited_for_only_so_long(
    path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    async with cached(path, said, Counting()) as front:
        await ask(front)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert (await ask(front)).stored, "reading goes on"
            assert (await ask(front, "more")).text == "MORE"
            assert len(said) == 1
            with pytest.raises(SetupError, match="locked"):
                clear(path)


async def test_only_the_user_can_read_it_and_no_key_is_in_it(path: Path, said: list[str]) -> None:
    secret = LLMSettings.model_validate(COLD.model_dump() | {"api_key": "sk-very-secret"})
    async with cached(path, said, Counting(), sub=secret) as front:
        await ask(front)
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert b"sk-very-secret" not in file.read_bytes()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


# The commands and the settings


def rlm(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


async def test_the_command_shows_it_and_empties_it(said: list[str]) -> None:
    path = cache_path(None)
    assert path.is_relative_to(os.environ["RLM_CACHE_DIR"])
    assert "entries  0" in await asyncio.to_thread(rlm, "cache", "info")
    assert not path.exists()
    async with cached(path, said, Counting()) as front:
        for number in range(30):
            await ask(front, f"{number}" * 2000)
        assert "entries  30\n" in await asyncio.to_thread(rlm, "cache", "info")
        await asyncio.to_thread(rlm, "cache", "clear")
        assert look_at(path).entries == 0
        assert not (await ask(front, "more")).stored, "who uses it goes on"
        assert (await ask(front, "more")).stored
    assert path.stat().st_size < 40_000
    damage(path)
    with pytest.raises(SetupError, match="cannot be read"):
        await asyncio.to_thread(rlm, "cache", "info")
    await asyncio.to_thread(rlm, "cache", "clear")
    assert f'"path": "{path}", "entries": 0, "size": 0' in await asyncio.to_thread(
        rlm, "cache", "info", "--json"
    )


@pytest.fixture
def unready(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """What open_models() has instead of litellm, which takes seconds to import."""
    models = Counting()
    monkeypatch.setattr(models, "aclose", models.warm_up)
    monkeypatch.setattr("rlm_kernel.models.litellm_models.LitellmModels", lambda settings, say: models)
    return models


def configured(**options: Any) -> Settings:
    given = {name.replace("__", "."): value for name, value in options.items()}
    return load_settings(overrides={"root_llm.model": "openai/one", "cache.enabled": True} | given)


async def test_the_models_of_the_settings_have_it_when_it_is_enabled(
    unready: Counting, said: list[str]
) -> None:
    for stored in (False, True):
        async with open_models(configured(sub_llm__temperature=0), said.append) as models:
            assert (await models.complete([{"role": "user", "content": "x"}], role="sub")).stored is stored
    assert unready.asked == ["x"]
    assert said == []


async def test_where_nothing_can_be_kept_the_user_is_told(unready: Counting, said: list[str]) -> None:
    async with open_models(configured(), said.append):
        pass
    assert said == ["The cache is on, but stores nothing, because sub_llm.temperature is not 0. Set it to 0."]
    async with open_models(configured(cache__enabled=False), said.append) as models:
        assert models is unready


def test_what_it_has_to_say_stays_on_the_screen() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    with LiveView(stream=screen) as view:
        view.say("loading… 2 s")
        view.say("The cache is on.")
    assert "The cache is on." in screen.getvalue()


@pytest.mark.parametrize("command", ["ask", "run", "chat", "resume", "fork", "replay"])
def test_the_option_is_the_setting(command: str) -> None:
    text = rlm(command, "--help")
    assert "--cache" in text
    assert "--no-cache" in text


def test_a_size_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"cache\.size"):
        load_settings(overrides={"cache.size": "much"})


async def test_models_beside_root_and_sub_have_replies_of_their_own(path: Path, said: list[str]) -> None:
    models = Counting()
    answering = {
        "root": ROOT,
        "sub": LLMSettings(model="test/sub"),
        "fast": OtherLLM(model="a/b", temperature=0),
    }
    front = CachedModels(models, ReplyCache(path, 1 << 20, said.append), answering)
    try:
        replies = [await ask(front, model=name) for name in ("fast", "fast", "a/b", None, None)]
    finally:
        await front.aclose()
    assert [reply.stored for reply in replies] == [False, True, True, False, False]


@pytest.mark.parametrize(
    "change",
    [
        {"top_p": 0.5},
        {"seed": 1},
        {"stop": ["x"]},
        {"reasoning": "low"},
        {"thinking_tokens": 0},
        {"extra": {"verbosity": "low"}},
        {"headers": {"anthropic-beta": "x"}},
    ],
)
def test_all_that_decides_a_reply_is_part_of_its_key_and_no_secret_is(change: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "hello"}]
    plain = call_key(COLD, messages, None)
    assert call_key(COLD.model_copy(update=change), messages, None) != plain
    secret = {"headers": {"Authorization": "Bearer sk-12345678"}, "retries": 9}
    assert call_key(COLD.model_copy(update=secret), messages, None) == plain
