"""An OpenAI-compatible HTTP server on loopback, for tests, benchmarks and tries by hand.

As a fixture (own thread, own loop):

    with ModelServer(root=["```repl\\nFINAL(1)\\n```"], sub=lambda prompt: "ok") as server:
        server.url            # http://127.0.0.1:PORT/v1, for OPENAI_BASE_URL
        server.fail("rate_limit", times=2, retry_after="0")
        server.requests       # all that came in

As a process: `python -m tests.support.model_server --port 0 --api-key sk-test` prints its address. There
`root` plays a small RLM root (splits `context` into 200 pieces and calls `llm_query_batched`), and `sub`
counts: a prompt `COUNT <word>\\n<text>` is answered with the number of occurrences of the word in the text.

Attributes are read by other threads while the server runs: they are only ever appended to or replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from tests.support.demo_models import count_words, demo_root
from tests.support.openai_wire import Fault, FaultKind, Request, completion, encode, error, faulty, response

ChatMessages = list[dict[str, Any]]
Responder = Sequence[str] | Callable[[ChatMessages], str | bytes | Awaitable[str]]
"""Texts in order, or a function; bytes that it returns are the HTTP response, such as `openai_wire.error`
makes.
"""


@dataclass
class _Meter:
    now: int = 0
    peak: int = 0

    def __enter__(self) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@dataclass
class ModelServer:
    """The server and its knobs. A context manager; `start()` and `stop()` do the same.

    `root` plays the model `root` (a list is replied in order, then 500), `sub` the model `sub` (called with
    the prompt); `models` adds others by name. Names that are none of these get 404.
    """

    root: Responder = ()
    sub: Callable[[str], str | Awaitable[str]] = lambda prompt: f"echo: {prompt}"
    models: Mapping[str, Responder] = field(default_factory=dict)
    api_key: str | None = None
    delay: float = 0.0
    """Seconds that each reply takes."""
    fault_rate: float = 0.0
    """Share of calls, 0 to 1, that meet `random_fault`; reproducible by `seed`."""
    random_fault: Fault = field(default_factory=lambda: Fault("rate_limit", retry_after="0"))
    seed: int = 0
    port: int = 0

    requests: list[Request] = field(default_factory=list, init=False)
    disconnects: int = field(default=0, init=False)
    """Calls that the client gave up before they had a reply."""

    def __post_init__(self) -> None:
        self.connection: Callable[[Any], Connection] = Connection
        self._faults: deque[Fault] = deque()
        self._turns: defaultdict[str, int] = defaultdict(int)
        self._meters: defaultdict[str, _Meter] = defaultdict(_Meter)
        self._random = random.Random(self.seed)
        self._released = asyncio.Event()
        self._connections: set[Connection] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # Life

    def start(self) -> ModelServer:
        """Serve in a thread of its own; returns when the port is open."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="model-server", daemon=True
        )
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the model server did not start")
        return self

    def stop(self) -> None:
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)
            self._thread = None

    def __enter__(self) -> ModelServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: self.connection(self), "127.0.0.1", self.port, backlog=1024
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        for _ in range(3):  # one that is being accepted becomes a connection in the loop's next round
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(0)
        await server.wait_closed()

    # What tests turn and read

    @property
    def url(self) -> str:
        """Base address, for `api_base` or OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def sent(self, model: str) -> int:
        """How many requests to a model have come in."""
        return len([request for request in self.requests if request.model == model])

    def fail(self, kind: FaultKind, *, times: int = 1, **details: Any) -> None:
        """The next `times` calls (of `model=`, or with a `schema`, if given) meet this fault, in the order of
        the calls to fail().
        """
        assert kind in get_args(FaultKind)
        self._faults.extend(Fault(kind, **details) for _ in range(times))

    def send(self, body: bytes | Mapping[str, Any], *, times: int = 1, **details: Any) -> None:
        """The next `times` calls are answered with this body; `status`, `content_type`, `encoding` and
        `model` as of `Fault`.
        """
        self.fail("raw", times=times, body=body, **details)

    def release(self) -> None:
        """Let the calls that hang, and all later ones, be answered."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)

    def peak(self, model: str | None = None) -> int:
        """Most calls that were in progress at one time."""
        return self._meters[model or ""].peak

    def in_progress(self, model: str | None = None) -> int:
        return self._meters[model or ""].now

    # Answering

    def _take_fault(self, request: Request) -> Fault | None:
        for fault in tuple(self._faults):
            if request.meets(fault):
                self._faults.remove(fault)
                return fault
        if self.fault_rate and self._random.random() < self.fault_rate:
            return self.random_fault
        return None

    async def _answer(self, request: Request) -> bytes | None:
        """The raw HTTP response; None to cut the connection."""
        self.requests.append(request)
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return error("auth")
        if request.path.endswith("/models"):
            return response(
                200, encode({"object": "list", "data": [{"id": n, "object": "model"} for n in self._names()]})
            )
        if not request.path.partition("?")[0].endswith(("/chat/completions", "/messages")):
            return error("unknown_model", message=f"No such path: {request.path}")
        with self._meters[""], self._meters[request.model]:
            fault = self._take_fault(request)
            if fault is not None and fault.kind == "hang":
                await self._released.wait()
                fault = None
            if self.delay:
                await asyncio.sleep(self.delay)
            return await self._reply(request) if fault is None else faulty(fault, request)

    def _names(self) -> list[str]:
        return ["root", "sub", *self.models]

    async def _reply(self, request: Request) -> bytes:
        name = request.model
        responder: Responder
        if name in self.models:
            responder = self.models[name]
        elif name == "root":
            responder = self.root
        elif name == "sub":
            responder = lambda messages: self.sub(str(messages[-1]["content"]))  # noqa: E731
        else:
            return error("unknown_model", message=f"The model `{name}` does not exist.")
        try:
            if callable(responder):
                text = responder(list(request.body["messages"]))
                if inspect.isawaitable(text):
                    text = await text
            else:
                text = responder[self._turns[name]]
                self._turns[name] += 1
        except Exception as problem:
            return error("server_error", message=f"{type(problem).__name__}: {problem}")
        return text if isinstance(text, bytes) else response(200, encode(completion(request, str(text))))


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and Content-Length bodies: all that OpenAI clients send."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self)
        if self._task is not None:
            self._task.cancel()
            self._server.disconnects += 1

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        """Start on the next whole request, if it is there and none is being answered."""
        end = self._buffer.find(b"\r\n\r\n")
        if self._task is not None or end < 0:
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        if len(self._buffer) < end + 4 + length:
            return
        raw = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        request = Request(first.split(" ")[1], headers, json.loads(raw) if raw else {}, time.monotonic())
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        response = await self._server._answer(request)
        self._task = None
        if response is None:
            self._transport.abort()
            return
        self._transport.write(response)
        if len(response) < _announced(response):
            self._transport.close()
        self._next()


def _announced(response: bytes) -> int:
    """Size that the response's own header promises."""
    head, _, _ = response.partition(b"\r\n\r\n")
    found = re.search(rb"Content-Length: (\d+)", head)
    return len(head) + 4 + int(found[1]) if found else 0


# As a process


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="OpenAI-compatible test server: models root and sub.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key", help="require this bearer key")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds a reply takes")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of calls that get a 429")
    options = parser.parse_args(argv)
    server = ModelServer(
        root=demo_root, sub=count_words, api_key=options.api_key, delay=options.delay, port=options.port
    )
    server.fault_rate = options.fault_rate
    with server:
        print(server.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{len(server.requests)} requests, at most {server.peak()} at a time")


if __name__ == "__main__":
    main()
