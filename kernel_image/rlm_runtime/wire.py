"""The kernel's end of host calls: JSON on connections of our own (`line`).

A request is a head, {"token", "cell", "call", "nth", "kind"}, and the body, with pictures behind it; a reply
is {"call", "ok", "value" | "error"}; a model's has "cut", too: whether it ends at the model's limit of
tokens. Each thread of each process has its own connection, made when first needed: none crosses threads or
forks. Replies are matched by call id, so one that arrives after its caller was interrupted is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rlm_contract import MAX_BATCHES, MAX_CELL_ID, RUN, Batch, Head, Kind, Reply, Session

from rlm_runtime.line import Line, Lost, packed

_encode = json.JSONEncoder(ensure_ascii=False).encode
_counter = itertools.count(1)
_local = threading.local()
_asked: dict[int, itertools.count[int]] = {}
"""Counts how often the cell in progress has asked the very same, by hash."""
_runs: Counter[str] = Counter()
"""How often code without a cell id was run, by its digest."""
_receipts: list[str] = []
"""Ids of the calls of the cell in progress, in the order in which this process had their answers."""
_replies: list[bool] = []
"""Of each reply of a model in the cell in progress, whether it was cut."""
_acknowledgements: dict[int, SimpleQueue[str]] = {}
_planned = 0
"""Calls of models that the cell in progress makes in all, as far as that is known."""
asking = 0.0
"""Seconds in which the user was asked whether calls may be made, as far as the host has told."""
current_cell = ""
"""Id of the cell in progress, or what stands for it."""


def begin_cell(cell_id: str | None, code: str) -> None:
    """A cell starts.

    Where a client sends no id that a notebook could have (nbclient and consoles send none, VS Code a long
    address), the cell is known by its code and how often it was run.
    """
    global current_cell, _planned
    if not isinstance(cell_id, str) or not 0 < len(cell_id) <= MAX_CELL_ID:
        digest = hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:32]
        cell_id = f"code-{digest}-{_runs[digest]}"
        _runs[digest] += 1
    current_cell, _planned = cell_id, 0
    _asked.clear()
    _receipts.clear()
    _replies.clear()


def end_cell() -> None:
    """A cell ends.

    If several threads asked, the host is told who had its answer first: a replay gives the answers in that
    order.

    Code that has replies which were cut is told, once.
    """
    if cut := sum(_replies):
        which = f"{cut} of {len(_replies)} replies were" if len(_replies) > 1 else "the reply was"
        print(
            f"Note: {which} cut at the model's token limit and may lack the end; ask for less in one call.",
            file=sys.stderr,
        )
    if len({receipt.rpartition("-")[0] for receipt in _receipts}) > 1:
        with contextlib.suppress(HostCallError):  # it is for the record alone
            call("order", {"calls": list(_receipts)})


class HostCallError(RuntimeError):
    """The host could not do what was asked."""

    brief = False
    """It says all in one line, to a person: no traceback is shown with it."""


class LLMError(HostCallError):
    """A sub model gave no usable reply, after retries."""

    timed_out = False
    """The time-out that code gave the call was over."""


class BudgetExceeded(HostCallError):
    """A limit of this run is reached: the call was not made. `budget()` says what is left."""


class FileRefused(HostCallError):
    """The file was not named by the user, or cannot be read."""


class ToolError(HostCallError):
    """A tool failed or may not be called; the message has the type of the host's error."""


class Cancelled(HostCallError):
    """The call was cancelled, because its cell was interrupted."""


class PictureError(HostCallError):
    """What was given as a picture is none that can be sent to a model."""


class TextWanted(HostCallError):
    """At the depth limit: the text itself is wanted, of so many characters at most, not the name of a
    file.
    """


class NoRecord(HostCallError):
    """This session is a replay, and the trace has no answer to this call."""


class CallFailed:
    """Stands in a batch's results for an item that failed.

    It is falsy, and no text; `error` is the exception.
    """

    def __init__(self, error: HostCallError) -> None:
        self.error = error

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<CallFailed {type(self.error).__name__}: {self.error}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"no .{name}: this item has no answer ({self.error}). Leave such items out: `if answer`"
        )


def timed_out(message: str) -> LLMError:
    """The error of a call whose own time-out was over."""
    error = LLMError(message)
    error.timed_out = True
    return error


_ERRORS: dict[str, Callable[[str], HostCallError]] = {
    error.__name__: error
    for error in (LLMError, BudgetExceeded, FileRefused, NoRecord, Cancelled, TextWanted, ToolError)
} | {"TimedOut": timed_out}


@functools.cache
def session() -> Session:
    """What the host says of this session."""
    loaded: Session = json.loads(Path(RUN, "session.json").read_text())
    return loaded


def _line() -> Line:
    """This thread's connection. One that was lost is made anew. Raises HostCallError."""
    pid = os.getpid()
    if getattr(_local, "pid", None) != pid or _local.line.ended():
        try:
            _local.line = Line()
        except Lost as error:
            raise lost(error) from error
        _local.pid = pid
    line: Line = _local.line
    return line


def lost(error: OSError) -> HostCallError:
    """What the caller hears whose connection has ended before there was a reply."""
    return Cancelled(f"The call was cut off: {error}.")


def request(kind: Kind, body: Mapping[str, Any], same: object = None) -> tuple[str, bytes]:
    """A call's id, and what is to be sent.

    `same`: what tells it from other calls of its kind, in place of the body.
    """
    # First of all, before other threads can come in between: this number is what a replay tells identical
    # calls apart by.
    asked = hash((kind, same if same is not None else str(body)))
    nth = next(_asked.setdefault(asked, itertools.count()))
    call = f"{os.getpid()}-{threading.get_ident()}-{next(_counter)}"
    head: Head = {"token": session()["token"], "cell": current_cell, "call": call, "nth": nth, "kind": kind}
    limit = session()["max_request"]
    images: list[bytes] = body.get("images") or []
    if images:
        head["images"] = list(map(len, images))
        body = {name: value for name, value in body.items() if name != "images"}
    # Texts alone that are over the limit are refused as they are: to write them takes several times their
    # memory.
    _refuse_over(limit, kind, sum(len(text) for text in body.values() if isinstance(text, str)))
    try:
        payload = _encode(body).encode()  # half as long, and less, for texts that are not English
    except UnicodeEncodeError:  # lone surrogates
        payload = json.dumps(body).encode()
    payload = b"".join((payload, *images))
    _refuse_over(limit, kind, len(payload))
    return call, packed(json.dumps(head).encode(), payload)


def _refuse_over(limit: int, kind: str, size: int) -> None:
    if size > limit:
        raise HostCallError(
            f"this {kind} request has {size:,} bytes or more; the limit is {limit:,}. Send less, in pieces."
        )


def _send(kind: Kind, body: Mapping[str, Any], same: object = None) -> str:
    call, made = request(kind, body, same)
    transmit(made)
    return call


def transmit(made: bytes | bytearray) -> None:
    """Send requests on this thread's connection. Raises HostCallError."""
    if not made:
        return
    try:
        _line().send(made)
    except Lost as error:
        raise lost(error) from error


def has_reply() -> bool:
    """Whether this thread's next reply can be had without a wait."""
    return bool(_local.line.has_reply())


def reply() -> Reply:
    """The next reply on this thread's connection. Raises HostCallError."""
    try:
        return _local.line.reply()  # type: ignore[no-any-return]
    except Lost as error:
        raise lost(error) from error


def arrived() -> list[Reply]:
    """After an exception in the middle of a wait: the replies that had come."""
    return list(_local.line.arrived()) if getattr(_local, "pid", None) == os.getpid() else []


def cancel(calls: Iterable[str]) -> None:
    """Have the host drop calls whose answers nobody waits for any more."""
    with contextlib.suppress(HostCallError):
        if waiting := list(calls):
            _send("cancel", {"calls": waiting})


def plan(calls: int) -> None:
    """So many calls of models more are to come in this cell, or fewer."""
    global _planned
    _planned += calls


def plans(batches: Sequence[Batch] = ()) -> bytes:
    """What tells the host how many calls the cell makes in all, for the user to see, and which `batches` of
    them begin now.

    Without any, no more come of those that had begun.
    """
    return request("planned", {"calls": _planned, "batches": batches[:MAX_BATCHES]})[1]


def hand(name: str, piece: bytes) -> None:
    """Send a piece of what is to be handed over to a child RLM; the first of a name is empty.

    It has no reply. Raises HostCallError.
    """
    _one_way("hand", name, piece)


def unhand(name: str) -> None:
    """Have the host drop what was handed over."""
    with contextlib.suppress(HostCallError):
        _one_way("unhand", name, b"")


def _one_way(kind: Kind, call: str, body: bytes) -> None:
    head: Head = {"token": session()["token"], "cell": current_cell, "call": call, "nth": 0, "kind": kind}
    transmit(packed(json.dumps(head).encode(), body))


def value_of(found: Reply) -> Any:
    """What a reply holds. Raises the error that it holds."""
    global asking
    asking = max(asking, found.get("asking", 0.0))
    if found["ok"]:
        if "cut" in found:
            _replies.append(bool(found["cut"]))
        return found["value"]
    error = found["error"]
    raised = _ERRORS.get(error["type"], HostCallError)(error["message"])
    raised.brief = error.get("brief", False)
    raise raised


def received(call: str) -> None:
    """Remember that this thread has its answer.

    In a replay the host is told, and gives the next thread its own only then.
    """
    _receipts.append(call)
    if session()["replayed"]:
        acknowledgements().put(call)


def acknowledgements() -> SimpleQueue[str]:
    """Where a replay's receipts go, to be sent by a thread of their own: a thread that sent them itself would
    let others overtake it.
    """
    pid = os.getpid()
    if pid not in _acknowledgements:
        _acknowledgements[pid] = SimpleQueue()
        threading.Thread(target=_acknowledge, args=(_acknowledgements[pid],), daemon=True).start()
    return _acknowledgements[pid]


def _acknowledge(receipts: SimpleQueue[str]) -> None:
    while True:
        receipt = receipts.get()
        with contextlib.suppress(HostCallError):  # the cell has ended in the meantime
            _ask("received", {"call": receipt})


def _ask(kind: Kind, body: Mapping[str, Any], same: object = None) -> Reply:
    wanted = _send(kind, body, same)
    try:
        while True:
            found = reply()
            if found["call"] == wanted:
                return found
    except KeyboardInterrupt:
        cancel([wanted])
        raise


def call(kind: Kind, body: Mapping[str, Any], same: object = None) -> Any:
    """Ask the host and wait for its reply. Raises HostCallError or one of its kinds."""
    if kind == "llm_query":
        plan(1)
    found = _ask(kind, body, same)
    received(found["call"])
    return value_of(found)
