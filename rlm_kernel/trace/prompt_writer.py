"""Keeps what models are sent in full, in the file beside the notebook (`trace.prompts`), as events tell it.

A thread masks, compresses and writes, so that an event costs no more than its place in a queue. What was
heard is on the disk as soon as the thread has come to it. Whoever makes calls faster than that waits for
`room` first, on the event loop, which goes on. Nothing here ends a run: where the file cannot be written,
that is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.engine.events import CallFinished, CallStarted, CellFinished, Event, Summarized, TurnReplied
from rlm_kernel.trace.prompts import digest_of, digests_in, is_beside, is_own, open_beside, own_name, short
from rlm_kernel.trace.schema import MAX_THINKING
from rlm_kernel.trace.writable import Writable

if TYPE_CHECKING:
    from rlm_kernel.engine.protocols import Message

MAX_UNPAID = 64_000_000
"""Characters of prompts that are written before their calls have been made, or that come to none: code that
asks for ever and is refused must not fill the disk.
"""
MAX_WAITING = 48_000_000
"""Characters that wait for the thread; beyond them there is no room."""
MAX_KNOWN = 50_000
"""Digests that are remembered; what was known before them is written once more."""
MAX_SCAN = 256 << 20
"""Bytes, unpacked, of a file that is gone on with in which it is looked what is there already."""
_EACH = 200
"""Characters that count for a prompt beside its own."""
_BATCH = 24_000_000
"""Characters that wait at most until they are compressed."""
_AT_ONCE = 2_000_000
"""Bytes that are compressed at once."""
_PAUSE, _LONGEST = 0.02, 1.0
"""Seconds without anything new after which what waits is written, and that it waits at most."""
_MOST_NAMES = 1_000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Taken:
    """The file of prompts of a trace that is taken up: its name beside that notebook."""

    notebook: Path
    name: str


class PromptKeeper:
    """Hears a run's events, as the notebook's writer does. Never raises.

    `name`: of the file, from the first event on that has something for it; "" before. `say` is told, on the
    thread of the events, that it cannot be written.
    """

    def __init__(
        self, notebook: Path, writable: Writable, say: Callable[[str], None], taken: Taken | None = None
    ) -> None:
        """`taken`: what the file goes on with. That of the same notebook is added to, another one copied."""
        self.name = ""
        self._notebook = notebook
        self._writable = writable
        self._say = say
        self._taken = taken
        self._copies = (
            taken is not None
            and taken.notebook != notebook
            and is_beside(taken.name)
            and os.path.lexists(taken.notebook.with_name(taken.name))
        )
        self._queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._waiting = 0
        self._for_room: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._unpaid = 0
        self._asked: dict[str, int] = {}
        self._left_out = False
        self._failure: str | None = None
        self._told = False
        self._known: dict[bytes, None] = {}
        self._last: list[tuple[Message, str]] = []

    def hear(self, event: Event) -> str:
        """Keep what an event tells; the name of the file."""
        match event:
            case TurnReplied(turn=turn, messages=messages) if messages:
                # All but what is new was heard before, and takes no time.
                self._put("turn", turn, messages, size=sum(len(one["content"]) for one in messages[-2:]))
            case Summarized(memory=memory) if memory.sent:
                size = sum(len(one["content"]) for one in memory.sent)
                self._put("memory", memory.text, memory.sent, size=size)
            case CallStarted(digest=digest) if digest:
                self._call_started(event)
            case CallFinished(call=call, sent=sent):
                size = self._asked.pop(call.id, 0)
                self._unpaid -= size if call.calls or call.trace else 0
                if sent:
                    self._put("sent", call.prompt_digest, sent, size=len(sent))
            case CellFinished():
                self._asked.clear()
            case _:
                pass
        if self._copies and self._thread is None:
            self._put()
        return self._tell()

    async def room(self) -> None:
        """Returns when there is room for another prompt."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._waiting <= MAX_WAITING or self._failure is not None:
                    return
                future = loop.create_future()
                self._for_room.append((loop, future))
            await future

    def _tell(self) -> str:
        if self._failure is not None and not self._told:
            self._told = True
            self._say(self._failure)
        return self.name

    def _call_started(self, event: CallStarted) -> None:
        size = len(event.prompt) + _EACH
        if self._unpaid + size > MAX_UNPAID:
            if not self._left_out:
                self._left_out = True
                self._say(
                    "The prompts of calls that are not made, or not recorded, take too much space: rlm does "
                    "not keep further ones in full."
                )
            return
        self._unpaid += size
        self._asked[event.call_id] = size
        self._put("call", event.digest, event.kind, event.prompt, event.schema, size=size)

    def close(self) -> str:
        """Have all that was heard on the disk, and the file closed; its name. An event opens it again."""
        if self._copies and self._thread is None:
            self._put()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(())
            self._closing.set()
            thread.join()
        return self._tell()

    def _put(self, *item: Any, size: int = 0) -> None:
        if self._failure is not None:
            return
        if self._thread is None:
            try:
                file, source = self._opened()
            except OSError as error:
                self._fail(error)
                return
            self._copies = False
            self._closing.clear()
            self._thread = threading.Thread(
                target=self._work, args=(file, source), name="rlm-prompts", daemon=True
            )
            self._thread.start()
        if not item:
            return
        with self._lock:
            self._waiting += size
        self._queue.put((size, *item))

    def _opened(self) -> tuple[int, int | None]:
        """The file to write to, and the one to copy first. Raises OSError."""
        if self.name:
            file = open_beside(self._notebook, self.name, os.O_RDWR)
            if _locked(file):
                return file, None
            os.close(file)
            raise OSError(11, "another run writes to it", self.name)
        source: int | None = None
        if (taken := self._taken) is not None:
            with contextlib.suppress(OSError, ValueError):  # it is not there any more, or none of ours
                own = taken.notebook == self._notebook and is_own(taken.name, self._notebook)
                source = open_beside(taken.notebook, taken.name, os.O_RDWR if own else os.O_RDONLY)
                if own and _locked(source):
                    self.name = taken.name
                    return source, None
        return self._made(), source

    def _made(self) -> int:
        """A new file. A new run replaces that of the notebook which it replaces; nothing else is touched."""
        folder = Path(os.path.realpath(self._notebook)).parent
        if self._taken is None:
            _remove_old(self._notebook)
        for number in range(1, _MOST_NAMES):
            name = own_name(self._notebook, number)
            try:
                file = system.open_plain(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            _locked(file)
            self.name = name
            return file
        raise FileExistsError(17, "all names for it are taken", str(folder))

    def _fail(self, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = self.name or own_name(self._notebook)
        self._failure = f"From here on, rlm does not keep full prompts: {name}: {why}."

    # In the thread

    def _work(self, file: int, source: int | None) -> None:
        from rlm_kernel.trace.zstd_log import ZstdLog

        try:
            if source is not None:
                _copy(source, file)
            log, self._last = ZstdLog(file), []
            if not self._known and os.fstat(file).st_size:
                self._known = digests_in(file, MAX_SCAN, MAX_KNOWN)
            while self._write(log):
                pass
        except Exception as error:  # a full disk, say: the run goes on without the file
            self._fail(error)
            self._wrote(self._waiting)
        finally:
            for one in (file, source):
                if one is not None:
                    os.close(one)

    def _write(self, log: Any) -> bool:
        """Write what waits; False at the end."""
        items = self._batch()
        ended = not items[-1]
        raw, size = bytearray(), 0
        for item in items[:-1] if ended else items:
            for line in self._lines(*item[1:]):
                raw += line
            size += item[0]
            if len(raw) > _AT_ONCE:
                self._write_down(log, raw, size)
                raw, size = bytearray(), 0
        self._write_down(log, raw, size)
        return not ended

    def _write_down(self, log: Any, raw: bytearray, size: int) -> None:
        if raw:
            log.write(raw)
        self._wrote(size)

    def _wrote(self, size: int) -> None:
        """So many characters do not wait any more: who waits for room looks again."""
        with self._lock:
            self._waiting -= size
            waiting, self._for_room = self._for_room, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # a loop that is closed
                loop.call_soon_threadsafe(_wake, future)

    def _batch(self) -> list[tuple[Any, ...]]:
        """What waits, as soon as nothing more comes for a moment: calls of a batch that come one upon the
        other have the processor for themselves. Not for ever.
        """
        items = [self._queue.get()]
        begun, held = time.monotonic(), 0
        while items[-1] and held < _BATCH and time.monotonic() - begun < _LONGEST:
            self._closing.wait(_PAUSE)
            before = len(items)
            with contextlib.suppress(queue.Empty):
                while items[-1]:
                    items.append(self._queue.get_nowait())
            if len(items) == before:
                break
            held += sum(item[0] for item in items[before:] if item)
        return items

    def _lines(self, kind: str, *told: Any) -> Iterator[bytes]:
        if kind == "turn":
            yield from self._turn({"turn": told[0]}, told[1])
        elif kind == "memory":
            yield from self._turn({"memory": digest_of(self._writable.text(told[0]))}, told[1])
        elif self._is_new(kind, told[0]):
            digest, *rest = told
            if kind == "sent":
                yield _line({"sent": digest, "prompt": self._writable.text(rest[0])})
                return
            call_kind, prompt, schema = rest
            more = {} if schema is None else {"schema": self._writable.value(dict(schema))}
            yield _line({"call": digest, "kind": call_kind, "prompt": self._writable.text(prompt), **more})

    def _turn(self, named: Mapping[str, Any], messages: Sequence[Message]) -> Iterator[bytes]:
        keep = 0
        for (known, _), message in zip(self._last, messages, strict=False):
            if known is not message:
                break
            keep += 1
        self._last, digests = self._last[:keep], []
        for message in messages[keep:]:
            body = self._message(message)
            digest = hashlib.sha256(_line(body)).hexdigest()
            if self._is_new("message", digest):
                yield _line({"message": digest, **body})
            digests.append(digest)
            self._last.append((message, digest))
        yield _line({**named, "keep": keep, "messages": digests})

    def _message(self, message: Message) -> dict[str, Any]:
        body: dict[str, Any] = {"role": message["role"], "content": self._writable.text(message["content"])}
        if images := message.get("images"):
            body["images"] = [
                {
                    "digest": one.digest,
                    "media_type": one.media_type,
                    "size": len(one.data),
                    "width": one.width,
                    "height": one.height,
                }
                for one in images
            ]
        if thinking := self._writable.whole(message.get("thinking", ()), MAX_THINKING):
            body["thinking"] = thinking
        return body

    def _is_new(self, kind: str, digest: str) -> bool:
        key = short(kind, digest)
        if key in self._known:
            return False
        self._known[key] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return True


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _line(value: Mapping[str, Any]) -> bytes:
    import msgspec

    try:
        return msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:  # halves of characters, which no UTF-8 has
        return msgspec.json.encode(_whole(value)) + b"\n"


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    return {_whole(name): _whole(one) for name, one in value.items()} if isinstance(value, Mapping) else value


def _remove_old(notebook: Path) -> None:
    """Delete a notebook's file of prompts, if it is a plain file that nobody writes."""
    with contextlib.suppress(OSError, ValueError):
        file = open_beside(notebook, own_name(notebook), os.O_RDWR)
        if _locked(file):
            system.remove_open(Path(os.path.realpath(notebook)).with_name(own_name(notebook)), file)
        else:
            os.close(file)


def _locked(file: int) -> bool:
    try:
        return system.lock(file)
    except OSError:  # a file system without locks
        return True


def _copy(source: int, target: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    while block := os.read(source, _CHUNK):
        left = memoryview(block)
        while left:
            left = left[os.write(target, left) :]
