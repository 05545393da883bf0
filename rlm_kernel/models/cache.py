"""Replies of sub models that are kept between runs: the same call at temperature 0 is answered at once, and
costs nothing.

`CachedModels` is the Models in front of others, `ReplyCache` the file behind it: SQLite, for all processes of
one user. What goes wrong with the file is told once, and the run goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rlm_kernel import system
from rlm_kernel.config import LLMSettings
from rlm_kernel.engine.protocols import (
    ROLES,
    UNWATCHED,
    Card,
    Completion,
    Message,
    Models,
    Role,
    Usage,
    Watch,
)
from rlm_kernel.errors import SetupError
from rlm_kernel.models.slots import Slots, slots_of
from rlm_kernel.secrets import names_secret

_T = TypeVar("_T")
FILE_NAME = "subcalls.sqlite3"
BUSY_SECONDS = 5.0
"""How long one process waits for another that writes."""
FORMAT = 1
"""Part of every key: a change of what decides a reply, or of how replies are kept, makes new keys."""
_ADDRESSES = ("_API_BASE", "_BASE_URL", "_API_VERSION")
"""Ends of the variables that say where a model without an address of its own is."""
_WHOLE = (None, "stop")
"""Reasons to finish of a reply that is not cut off."""
_LONGEST_NAME = 1000
"""Characters of a model's name."""
_LARGEST = 10
"""A reply larger than this part of the file's size is not kept."""
_DECIDE = ("top_p", "seed", "stop", "reasoning", "thinking_tokens", "extra")
"""Settings that decide a reply where they are set, beside those that always do."""
_BATCH = 20
"""The part of the file's size that is made free at a time."""
_ROW = 200
"""Bytes that an entry takes beside its text, about."""
_TOUCH_SECONDS = 60
"""A hit is noted as a use only if the last one was so long ago: most hits then write nothing."""
_LOG_BYTES = 4 << 20
"""What is kept of the write-ahead log beside the file."""
_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, model TEXT NOT NULL, text BLOB NOT NULL, finish TEXT, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON replies (used, id);
"""  # noqa: E501
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
"""SQLite's results for a file that is no database, is a broken one, or has not the table."""
_opening = threading.Lock()
"""Closing a file that this process made would take the locks that its SQLite has on the same file."""


def cache_path(folder: Path | None) -> Path:
    """The cache's file, whether it is there or not. `folder` as of the setting `cache.dir`."""
    return (folder or system.cache_dir() / "calls") / FILE_NAME


class CachedModels:
    """Models in front of others: sub-model calls at temperature 0 are looked up first, and kept.

    Implements `engine.protocols.Models`.

    `answering`: the settings of the models that answer, by the role of their cards; a `temperature` that is
    not set is not 0. Identical calls that are under way at the same time are made once. Belongs to the event
    loop of its first call. aclose() closes the cache, and not the other models.
    """

    def __init__(self, models: Models, cache: ReplyCache, answering: Mapping[str, LLMSettings]) -> None:
        self._models = models
        self._cache = cache
        self._answer = answering
        self._asked: dict[bytes, asyncio.Future[Completion | None]] = {}

    @property
    def slots(self) -> Mapping[str, Slots]:
        """As the other models have them."""
        return slots_of(self._models)

    def name(self, role: Role) -> str:
        """As the other models have it."""
        return self._models.name(role)

    def card(self, which: str) -> Card:
        """As the other models have it."""
        return self._models.card(which)

    @property
    def others(self) -> Sequence[Card]:
        """As the other models have them."""
        return self._models.others

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """One reply; `stored` if it is an earlier one. Raises ModelError, as the other models do."""

        async def ask() -> Completion:
            return await self._models.complete(messages, role=role, model=model, schema=schema, watch=watch)

        llm = self._answering(role, model)
        if llm is None:
            return await ask()
        started = time.monotonic()
        key = call_key(llm, messages, schema)
        while (first := self._asked.get(key)) is not None:
            await asyncio.wait([first])  # which leaves it alone when this call is cancelled
            if first.cancelled():
                continue  # its asker was: one of those that wait is now the first
            reply = first.result()
            return _again(reply, started) if reply else await ask()
        first = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self._cache.find(key)
            reply = found or await ask()
            whole = bool(reply.text) and reply.finish_reason in _WHOLE
            first.set_result(reply if whole else None)
            if whole and not found:
                await self._cache.keep(key, reply)
            return _again(reply, started) if found else reply
        except Exception:
            if not first.done():
                first.set_result(None)
            raise
        finally:
            first.cancel()  # unless it has a result
            del self._asked[key]

    async def aclose(self) -> None:
        """Close the cache. Idempotent."""
        await self._cache.aclose()

    def _answering(self, role: Role, model: str | None) -> LLMSettings | None:
        """The settings of the model that answers, if its replies are to be kept."""
        if role != "sub":
            return None
        named = {llm.model: llm for llm in self._answer.values()} | {
            name: llm for name, llm in self._answer.items() if name not in ROLES
        }
        llm = self._answer["sub"] if model in (None, self._answer["sub"].model) else named.get(model)
        return llm if llm is not None and llm.temperature == 0 else None


def _again(reply: Completion, started: float) -> Completion:
    """The reply to a call that was not made."""
    return replace(
        reply, usage=Usage(), cost=0.0, seconds=time.monotonic() - started, attempts=0, stored=True
    )


def call_key(llm: LLMSettings, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> bytes:
    """sha256 of all that decides the reply; API keys are no part of it."""
    # Without an address of its own the environment decides, by variables that differ from provider to
    # provider.
    address = llm.api_base or sorted(item for item in os.environ.items() if item[0].endswith(_ADDRESSES))
    parts = [
        FORMAT,
        llm.model,
        address,
        llm.temperature,
        llm.max_tokens,
        schema,
        [_known(message) for message in messages],
    ]
    more = {name: value for name in _DECIDE if (value := getattr(llm, name)) not in (None, {}, [])}
    more |= {name: value for name, value in llm.headers.items() if not names_secret(name)}
    parts += [more] if more else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _known(message: Message) -> dict[str, Any]:
    """A message as JSON data, pictures by their digests."""
    said = {name: part for name, part in message.items() if name != "images"}
    pictures = [picture.digest for picture in message.get("images", ())]
    return said | {"images": pictures} if pictures else said


class ReplyCache:
    """The file of replies, for one event loop; the file itself is worked on by one thread.

    `size` in bytes; `say` hears what goes wrong.
    """

    def __init__(
        self, path: Path, size: int, say: Callable[[str], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._say = say
        self._store = _Store(path, size, clock)
        self._thread = ThreadPoolExecutor(1, "reply-cache")
        self._off = False

    async def find(self, key: bytes) -> Completion | None:
        """The reply that is kept under the key."""
        return await self._in_thread(self._store.find, key)

    async def keep(self, key: bytes, reply: Completion) -> None:
        """Keep a reply. What was not used for longest makes room."""
        await self._in_thread(self._store.keep, key, reply)

    async def aclose(self) -> None:
        """Close the file. Idempotent."""
        self._off = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with contextlib.suppress(RuntimeError, sqlite3.Error):  # ended already; a damaged file
            self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _in_thread(self, do: Callable[..., _T], *arguments: Any) -> _T | None:
        if self._off:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)
        except Exception as error:  # whatever is in the file, it ends no run
            if not self._off:
                self._off = True
                self._say(
                    f"The cache cannot be used, so this run continues without it: {error} ({self._path})."
                )
            return None


class _Store:
    """The file, opened when it is first used.

    Lives in one thread, but for what is checked by SQLite itself.
    """

    def __init__(self, path: Path, size: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._size = size
        self._clock = clock
        self._connection: sqlite3.Connection | None = None

    def find(self, key: bytes) -> Completion | None:
        db = self._open()
        row = db.execute("SELECT model, text, finish, used FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None or (reply := _reply(*row[:3])) is None:
            return None
        now, used = int(self._clock()), row[3]
        if type(used) is not int or abs(now - used) >= _TOUCH_SECONDS:
            db.execute("UPDATE replies SET used = ? WHERE key = ?", (now, key))
        return reply

    def keep(self, key: bytes, reply: Completion) -> None:
        text = reply.text.encode("utf-8", "surrogatepass")
        if len(text) + _ROW > self._size // _LARGEST:
            return
        db = self._open()
        while self._taken(db) + len(text) + _ROW > self._size and self._drop_some(db):
            pass
        row = (key, reply.model, text, reply.finish_reason, int(self._clock()))
        db.execute(
            "INSERT OR REPLACE INTO replies (key, model, text, finish, used) VALUES (?, ?, ?, ?, ?)", row
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            with _opening:
                _make_private(self._path)
                self._connection = _connect(self._path)
            # A smaller size than that of the last run's.
            while self._taken(self._connection) > self._size and self._drop_some(self._connection):
                pass
            _shrink(self._connection, self._size)
        return self._connection

    def _taken(self, db: sqlite3.Connection) -> int:
        """Bytes of the file that are in use."""
        pages = [
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        ]
        return int((pages[0] - pages[1]) * pages[2])

    def _drop_some(self, db: sqlite3.Connection) -> bool:
        """Make room, in a transaction short enough for others to wait. False if there is nothing to drop."""
        with _transaction(db):
            freed, last = 0, None
            for used, number, length in db.execute(
                "SELECT used, id, coalesce(length(text), 0) FROM replies ORDER BY used, id"
            ):
                freed, last = freed + length + _ROW, (used, number)
                if freed >= self._size // _BATCH:
                    break
            if last is None:
                return False
            return db.execute("DELETE FROM replies WHERE (used, id) <= (?, ?)", last).rowcount > 0


def _reply(model: Any, text: Any, finish: Any) -> Completion | None:
    """What a row has; None where that is nothing that is kept here, so that the model is asked and the row
    replaced.
    """
    if (
        type(model) is not str
        or len(model) > _LONGEST_NAME
        or type(text) is not bytes
        or not text
        or finish not in _WHOLE
    ):
        return None
    try:
        return Completion(text.decode("utf-8", "surrogatepass"), model, cost=0.0, finish_reason=finish)
    except UnicodeDecodeError:
        return None


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    # At once for writing: one that reads first and writes later is refused when another process has written
    # in between.
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _shrink(db: sqlite3.Connection, size: int) -> None:
    """Give free pages above the size back; those below are used again."""
    count, page = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if (above := count - size // page) > 0:
        # Not execute(), which would take one step, and that is one page.
        db.executescript(f"PRAGMA incremental_vacuum({above})")


def _make_private(path: Path) -> None:
    """The folder and the file, for this user alone.

    Raises OSError, also where others could put something there.
    """
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    for place in (path.parent, path):
        found = place.stat()
        if not system.is_closed_to_others(found):
            raise PermissionError(f"{place} belongs to another user, or other users may write to it")
    path.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    db.text_factory = lambda text: text.decode(
        "utf-8", "replace"
    )  # else a broken name is an error of the whole file
    try:
        # First of all, as it holds for a file without a table only.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        with _transaction(db):
            for statement in _TABLE.split(";"):
                db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


# For people

_ELSE = "If that fails, delete it, or set cache.dir to another folder."


@dataclass(frozen=True)
class CacheInfo:
    """What there is: `entries` replies in `size` bytes on disk."""

    path: Path
    entries: int
    size: int


def look_at(path: Path) -> CacheInfo:
    """What the cache has. Blocking. Raises SetupError if it cannot be read."""
    if not path.exists():
        return CacheInfo(path, 0, 0)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as db:
            tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'replies'").fetchone()[0]
            entries = db.execute("SELECT count(*) FROM replies").fetchone()[0] if tables else 0
    except sqlite3.Error as error:
        raise SetupError(
            f"The cache {path} cannot be read: {error}.", hint=f"`rlm cache clear` makes a new one. {_ELSE}"
        ) from error
    return CacheInfo(path, entries, sum(file.stat().st_size for file in _files(path)))


def clear(path: Path) -> None:
    """Empty the cache, also one that others use or that is damaged.

    Blocking. Raises SetupError if it cannot be written.
    """
    if not path.exists():
        return
    try:
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
                db.execute("DELETE FROM replies")
                _shrink(db, 0)
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise
            for file in _files(path):
                file.unlink()
    except (sqlite3.Error, OSError) as error:
        raise SetupError(f"The cache {path} cannot be emptied: {error}.", hint=_ELSE) from error


def _files(path: Path) -> list[Path]:
    return [file for end in ("", "-wal", "-shm") if (file := path.with_name(path.name + end)).exists()]
