"""The kernel's end of host calls: JSON over a ZMQ socket of our own.

A request is one frame, {"token", "cell", "call", "kind", "body"}; a reply is one frame, {"call", "ok", "value" | "error"}. Each
thread of each process has its own DEALER socket, made when first needed: sockets cross neither threads nor forks. Replies are matched
by call id, so one that arrives after its caller was interrupted is dropped.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

HOST = Path("/rlm/host")
_counter = itertools.count(1)
_local = threading.local()
_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}
current_cell = ""
"""Id of the cell in progress; set by the extension before each cell."""


class HostCallError(RuntimeError):
    """The host could not do what was asked."""


class LLMError(HostCallError):
    """A sub model gave no usable reply, after retries."""


class BudgetExceeded(HostCallError):
    """A limit of this run is reached: the call was not made. `budget()` says what is left."""


class FileRefused(HostCallError):
    """The file was not named by the user, or cannot be read."""


class CallFailed:
    """Stands in a batch's results for an item that failed. It is falsy; `error` is the exception."""

    def __init__(self, error: HostCallError) -> None:
        self.error = error

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<CallFailed {type(self.error).__name__}: {self.error}>"


_ERRORS = {error.__name__: error for error in (LLMError, BudgetExceeded, FileRefused)}


def session() -> dict[str, Any]:
    """What the host says of this session: its token and the size of a batch's window."""
    loaded: dict[str, Any] = json.loads((HOST / "session.json").read_text())
    return loaded


def _socket() -> zmq.Socket[bytes]:
    pid = os.getpid()
    if getattr(_local, "pid", None) != pid:
        # After a fork the parent's context must be neither used nor closed.
        context = _contexts.setdefault(pid, zmq.Context())
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(f"ipc://{HOST}/broker")
        _local.pid, _local.socket, _local.session = pid, socket, session()
    sock: zmq.Socket[bytes] = _local.socket
    return sock


def _send(kind: str, body: dict[str, Any]) -> str:
    socket = _socket()
    call = f"{os.getpid()}-{threading.get_ident()}-{next(_counter)}"
    request = {"token": _local.session["token"], "cell": current_cell, "call": call, "kind": kind, "body": body}
    payload = json.dumps(request).encode("utf-8", "replace")
    limit = _local.session["max_request"]
    if len(payload) > limit:
        raise HostCallError(f"this {kind} request is {len(payload):,} bytes; the limit is {limit:,}. Send less, in pieces.")
    socket.send(payload)
    return call


def _value(reply: dict[str, Any]) -> Any:
    if reply["ok"]:
        return reply["value"]
    error = reply["error"]
    raise _ERRORS.get(error["type"], HostCallError)(error["message"])


def call(kind: str, body: dict[str, Any]) -> Any:
    """Ask the host and wait for its reply. Raises HostCallError or one of its kinds."""
    wanted = _send(kind, body)
    while True:
        reply = json.loads(_socket().recv())
        if reply["call"] == wanted:
            return _value(reply)


def call_many(kind: str, bodies: list[dict[str, Any]]) -> list[Any]:
    """Ask many things at once; results in order, CallFailed for those that failed.

    At most the session's `window` of requests is under way, so that a batch of any length needs bounded memory on the host.
    Raises BudgetExceeded if every single item was refused for it.
    """
    _socket()
    window = int(_local.session["window"])
    results: list[Any] = [None] * len(bodies)
    waiting: dict[str, int] = {}
    upcoming: Iterator[tuple[int, dict[str, Any]]] = iter(enumerate(bodies))
    done = 0
    while done < len(bodies):
        for index, body in itertools.islice(upcoming, window - len(waiting)):
            try:
                waiting[_send(kind, body)] = index
            except HostCallError as error:
                results[index] = CallFailed(error)
                done += 1
        if not waiting:
            continue
        reply = json.loads(_socket().recv())
        place = waiting.pop(reply["call"], None)
        if place is None:
            continue
        done += 1
        try:
            results[place] = _value(reply)
        except HostCallError as error:
            results[place] = CallFailed(error)
    refusals = [r.error for r in results if isinstance(r, CallFailed) and isinstance(r.error, BudgetExceeded)]
    if bodies and len(refusals) == len(bodies):
        raise refusals[0]
    return results
