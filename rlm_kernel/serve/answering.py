"""One request and its answer: a run that ends with its client, and a stream that says that it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from rlm_kernel.serve import wire
from rlm_kernel.serve.chat import Chat
from rlm_kernel.serve.keys import Key
from rlm_kernel.serve.reasoning import Reasoning
from rlm_kernel.serve.refusals import Refused, refusal_of
from rlm_kernel.serve.retries import Attempt
from rlm_kernel.serve.service import Service

ALIVE_SECONDS = 15.0
"""Without anything to say, after which a stream says that it goes on: proxies cut what is silent for a
minute. A client that tells a time-out hears something three times within it.
"""
_OFTEN = 0.5
"""Seconds between such lines at least, whatever time-out a client tells."""
SEND_SECONDS = 60.0
"""For a client to take what it is sent."""
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class Exchange:
    """An ASGI application that answers one chat. Raises Refused for an unknown model when it is made.

    It is called once more for the next attempt at the same request (retries.py), whose `attempt` it then has.
    """

    def __init__(self, service: Service, chat: Chat, key: Key, attempt: Attempt) -> None:
        self.attempt = attempt
        self._service = service
        self._chat = chat
        self._key = key
        self._texts: deque[str] = deque()
        self._more = asyncio.Event()
        self._job = service.job(chat, key, Reasoning(self._hear))
        self._reply = wire.Reply(chat.model)
        self._run: asyncio.Task[wire.Answered] | None = None

    def _hear(self, text: str) -> None:
        self._texts.append(text)
        self._more.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._run or self._begin()
        gone = asyncio.get_running_loop().create_task(_gone(receive))
        gone.add_done_callback(lambda _: self._more.set())
        taken = False
        try:
            if self._chat.stream:
                await self._stream(run, gone, send)
            else:
                await asyncio.wait({run, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    taken = await self._held()
                else:
                    await self._whole(run, scope, receive, send)
        except (OSError, TimeoutError):
            pass  # it reads no more
        finally:
            gone.cancel()
            if not taken:
                await self._end(run)

    def _begin(self) -> asyncio.Task[wire.Answered]:
        self._run = run = asyncio.get_running_loop().create_task(self._service.answer(self._job))
        self._service.running.add(run)
        run.add_done_callback(lambda _: self._more.set())
        return run

    async def _held(self) -> bool:
        """Whether another attempt has taken the run of a client that has gone."""
        attempt = self.attempt
        if not (attempt.asks_again or attempt.waited_out):
            return False
        taken = await self._service.retries.hold(attempt, self)
        if attempt.waited_out and not taken:
            self._service.say(
                f"A client ({self._key.name or 'without a key'}) gave up after its time-out of "
                f"{attempt.patience:g} s: set a longer time-out in the client, or let it request a stream."
            )
        return taken

    async def _end(self, run: asyncio.Task[wire.Answered]) -> None:
        run.cancel()
        await asyncio.shield(asyncio.wait({run}))
        self._service.running.discard(run)
        if not run.cancelled() and (error := run.exception()) is not None:
            self._service.failed(error)

    async def _whole(
        self, run: asyncio.Task[wire.Answered], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            answered = self._outcome(run)
        except Refused as refused:
            response = JSONResponse(refused.body(), refused.status, refused.headers() | self._about())
        else:
            response = JSONResponse(self._reply.whole(answered, "".join(self._texts)), headers=self._about())
        await response(scope, receive, send)

    async def _stream(self, run: asyncio.Task[wire.Answered], gone: asyncio.Task[None], send: Send) -> None:
        """Raises OSError, TimeoutError for a client that does not read."""
        headers = [(name.encode(), value.encode()) for name, value in (_HEADERS | self._about()).items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _sent(send, self._reply.first())
        patience = self.attempt.patience
        alive = ALIVE_SECONDS if patience is None else max(_OFTEN, min(ALIVE_SECONDS, patience / 3))
        while not gone.done():
            self._more.clear()
            if self._texts:
                text = "".join(self._texts)
                self._texts.clear()
                await _sent(send, b"".join(map(self._reply.thought, wire.pieces(text))))
            elif run.done():
                await _sent(send, self._last(run), more=False)
                return
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(alive):
                        await self._more.wait()
                    continue
                await _sent(send, wire.ALIVE)

    def _last(self, run: asyncio.Task[wire.Answered]) -> bytes:
        try:
            answered = self._outcome(run)
        except Refused as refused:
            return wire.failed(refused)
        # Programs that know of no reasoning show it with the answer behind it.
        said = self._reply.thought("\n\n") + self._reply.said(answered)
        return said + self._reply.last(answered, with_usage=self._chat.usage) + wire.DONE

    def _outcome(self, run: asyncio.Task[wire.Answered]) -> wire.Answered:
        """Raises Refused, which names files as the client knows them."""
        if run.cancelled():
            raise Refused(503, "The server is being stopped.", code="unavailable", retry_after=30)
        try:
            return run.result()
        except Exception as error:
            refused = refusal_of(error)
            if (trace := self._job.trace) is not None:
                refused.message = refused.message.replace(f"{trace.parent.absolute()}{os.sep}", "")
            raise refused from error

    def _about(self) -> dict[str, str]:
        return {} if self._job.trace is None else {"x-rlm-trace": self._job.trace.name}


async def _gone(receive: Receive) -> None:
    """Until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _sent(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})
