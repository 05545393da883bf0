"""`rlm serve` in the process of a test: the real HTTP server, real containers, and models that a script plays."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from rlm_kernel.engine.protocols import Message, Models
from rlm_kernel.serve.server import listen
from rlm_kernel.serve.service import Service, serving
from tests.support.story import repl
from tests.support.talk import Talk

SMALL = {"sandbox.memory": "1g", "serve.port": 0, "root_llm.model": "scripted/root"}


class ChatTalk(Talk):
    """Runs what stands first in the last message that has something to run: earlier questions stand behind."""

    def _speak(self, messages: Sequence[Message]) -> str:
        asked = [found for one in messages if (found := re.findall(r"run: (.*)", one["content"]))]
        return repl(asked[-1][0])


@dataclass
class Served:
    """A server that listens at `url`, which ends with /v1. `said`: what it told whoever runs it."""

    url: str
    service: Service
    said: list[str]
    clients: list[AsyncOpenAI] = field(default_factory=list)
    """They are closed before the server ends."""

    def client(self, key: str = "none") -> AsyncOpenAI:
        made = AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=120)
        self.clients.append(made)
        return made

    @property
    def port(self) -> int:
        return int(self.url.removesuffix("/v1").rpartition(":")[2])


@contextlib.asynccontextmanager
async def served(models: Models | None = None, **changes: Any) -> AsyncIterator[Served]:
    """A server with these settings: two underscores stand for the dot of a name."""
    own = {name.replace("__", "."): value for name, value in changes.items()}
    said: list[str] = []
    async with serving(changes=SMALL | own, models=models or ChatTalk(), say=said.append) as service:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(listen(service, url.set_result))
        either: set[asyncio.Future[Any]] = {url, listening}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
        server = Served(await url, service, said)
        try:
            yield server
        finally:
            for made in server.clients:
                await made.close()
            listening.cancel()
            await asyncio.wait({listening})
