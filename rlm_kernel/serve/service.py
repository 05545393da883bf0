"""Questions of chats, answered: each by an RLM, in its turn, on its key's account."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings, load_settings, parse_size
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.totals import Totals
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.printable import printable
from rlm_kernel.scratch import scratch
from rlm_kernel.serve.chat import Chat, Composed, compose
from rlm_kernel.serve.kernels import Kernel, Kernels, new_name
from rlm_kernel.serve.keys import Key, Keys
from rlm_kernel.serve.reasoning import Reasoning
from rlm_kernel.serve.refusals import Refused
from rlm_kernel.serve.turns import Turns
from rlm_kernel.serve.wire import Answered
from rlm_kernel.session.ask import ask
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.manager import open_session
from rlm_kernel.session.models import ModelSet, models_of

if TYPE_CHECKING:
    from rlm_kernel.session.result import Result
    from rlm_kernel.tools.tool import Tool, ToolSource

NAME = "rlm"
_MOST = 8
"""Questions at once, where that is not set."""
_LEFT_IDLE = 60.0
"""Seconds that a container outlives the time in which its server would have ended it."""
_SIDE_SHOWN = 20_000
_GUARDED = {"sandbox.question_files": False, "sandbox.allow": []}
"""The files of the server's machine are not for its clients."""


@dataclass
class Job:
    """A question that waits for its answer.

    `trace`: where it is or will be; None for what needs none. `known_as`: what its chat is known by once it
    is answered, if it may go on.
    """

    chat: Chat
    key: Key
    kernel: Kernel | None
    reasoning: Reasoning
    goes_on: bool = False
    known_as: str = ""
    trace: Path | None = field(init=False)

    def __post_init__(self) -> None:
        self.trace = None if self.kernel is None else self.kernel.trace


class Service:
    """What answers. Made by `serving`."""

    def __init__(self, settings: Settings, models: ModelSet, keys: Keys, at_once: int) -> None:
        self.settings = settings
        self.keys = keys
        self.turns = Turns(at_once, settings.serve.waiting, shared=keys.needed)
        self.kernels = Kernels(settings.serve.chats, settings.serve.idle)
        self.created = int(time.time())
        self.config_file: Path | None = None
        self.changes: Mapping[str, Any] = {}
        self.tools: Sequence[Tool | ToolSource] = ()
        self.say: Say = silent
        self.running: set[asyncio.Task[Answered]] = set()
        self._models = models

    @property
    def names(self) -> list[str]:
        """The ids of the models: the RLM as configured, and led by each other model."""
        return [NAME, *(f"{NAME}/{card.role}" for card in self._models.models.others)]

    def check_model(self, name: str) -> None:
        """Raises Refused."""
        if name not in self.names:
            raise Refused(
                404,
                f"The model {name[:80]!r} does not exist. Models here: {', '.join(self.names)}.",
                param="model",
                code="model_not_found",
            )

    def job(self, chat: Chat, key: Key, put: Reasoning) -> Job:
        """The question as one that is to be answered. Raises Refused for an unknown model."""
        self.check_model(chat.model)
        if chat.side_request(self.settings.serve.long):
            return Job(chat, key, None, put)
        kernel = None
        if chat.schema is None and chat.before and not chat.after:
            kernel = self.kernels.take(chat.known_as(key.name))
        if kernel is not None:
            return Job(chat, key, kernel, put, goes_on=True)
        name = new_name(key.name)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        trace = (self.settings.trace.dir / f"{stamp}-serve-{name}.ipynb").absolute()
        return Job(chat, key, Kernel(name, trace), put)

    async def answer(self, job: Job) -> Answered:
        """Wait for its turn, and answer it. Cancelling it stops the run and ends its kernel.

        Raises Refused, RLMError.
        """
        try:
            async with self.turns.turn(
                job.key.name,
                job.key.at_once,
                lambda place: job.reasoning.say(f"Waiting for a turn: number {place} in the line."),
            ):
                settings = self._limited(job.key)
                try:
                    return await self._by_kind(job, settings)
                finally:
                    await asyncio.shield(asyncio.to_thread(self._spend, job))
                    await self._settle(job)
        finally:
            await self._settle(job)

    async def _by_kind(self, job: Job, settings: Settings) -> Answered:
        if job.kernel is None:
            return await self._said(job)
        if job.chat.schema is not None:
            return await self._asked_once(job, job.kernel, settings)
        return await self._asked(job, job.kernel, settings)

    def _spend(self, job: Job) -> None:
        """Blocking."""
        used = job.reasoning.totals.usage
        self.keys.spend(job.key, job.reasoning.totals.known_cost, used.prompt + used.completion)

    async def _settle(self, job: Job) -> None:
        """Keep the kernel of a chat that was answered, and end that of any other."""
        kernel, job.kernel = job.kernel, None
        if kernel is not None and job.known_as and self.settings.serve.chats:
            self.kernels.put(job.known_as, kernel)
        elif kernel is not None:
            await asyncio.shield(self.kernels.end(kernel))

    async def _asked(self, job: Job, kernel: Kernel, settings: Settings) -> Answered:
        """Answered in the chat's kernel."""
        composed = compose(
            job.chat, self.settings.serve.long, goes_on=job.goes_on, instructed=kernel.instructions
        )
        files = await asyncio.to_thread(kernel.keep_files, composed.files)
        kernel.view = job.reasoning
        if kernel.session is None:
            await self._make_room(settings)
            await kernel.begin(
                open_session(
                    kernel.name,
                    paths=files,
                    new=True,
                    command="rlm serve",
                    config_file=self.config_file,
                    changes=self.changes,
                    models=self._led(job.chat.model),
                    view=kernel.hear,
                    say=job.reasoning.say,
                    tools=self.tools,
                    trace=kernel.trace,
                )
            )
            files = []
        session = kernel.session
        assert session is not None
        kernel.instructions = composed.instructions
        session.host = replace(session.host, settings=settings, say=job.reasoning.say)
        if files:
            await session.load(files)
        answered = self._answered(job, await session.ask(composed.text))
        job.known_as = job.chat.known_as(job.key.name, answered.text)
        return answered

    async def _asked_once(self, job: Job, kernel: Kernel, settings: Settings) -> Answered:
        """Answered in a form that the client gave, in a kernel for it alone."""
        composed: Composed = compose(job.chat, self.settings.serve.long)
        files = await asyncio.to_thread(kernel.keep_files, composed.files)
        await self._make_room(settings)
        result = await ask(
            composed.text,
            files or None,
            settings=settings,
            trace=kernel.trace,
            models=self._led(job.chat.model),
            view=job.reasoning,
            say=job.reasoning.say,
            tools=self.tools,
            schema=job.chat.schema,
        )
        return self._answered(job, result)

    async def _said(self, job: Job) -> Answered:
        """What a chat program asks for its own sake: the sub model says it, without a kernel."""
        chat = job.chat
        told = [{"role": "system", "content": chat.instructions}] if chat.instructions else []
        told += [{"role": one.role, "content": one.text} for one in chat.before[-4:] if one.role != "tool"]
        told += [{"role": "user", "content": chat.question.text[-_SIDE_SHOWN:]}]
        reply = await self._models.models.complete(told, role="sub")
        totals = Totals(
            calls=1,
            sub_usage=reply.usage,
            known_cost=reply.cost or 0.0,
            unpriced=int(reply.cost is None),
            seconds=reply.seconds,
        )
        job.reasoning.totals = totals
        return Answered(reply.text, "stop", "answered", "", totals)

    def _answered(self, job: Job, result: Result) -> Answered:
        if result.answer is None and result.stop_reason == "error":
            raise Refused(502, f"The run failed. {result.detail}".strip(), code="run_failed")
        text, finish = str(result), "length" if result.forced or result.answer is None else "stop"
        if job.chat.schema is not None and result.value is not None:
            text = json.dumps(result.value, ensure_ascii=False)
        for stop in job.chat.stop:
            before, found, _ = text.partition(stop)
            text, finish = (before, "stop") if found else (text, finish)
        return Answered(text, finish, result.stop_reason, result.trace.name, result.totals)

    def _led(self, name: str) -> Models:
        if name == NAME:
            return self._models.models
        return self._models.led_by(name.partition("/")[2], self.settings).models

    def _limited(self, key: Key) -> Settings:
        """The settings with what is left to a key as limits. Raises Refused."""
        cost, tokens = self.keys.rest(key)
        beside = max(1, key.at_once or 1)
        limits, own = self.settings.limits, dict[str, Any]()
        if cost is not None:
            own["cost"] = min(cost / beside, limits.cost if limits.cost is not None else cost)
        if tokens is not None:
            share = max(1, tokens // beside)
            own["tokens"] = min(share, limits.tokens if limits.tokens is not None else share)
        return self.settings.model_copy(update={"limits": limits.model_copy(update=own)})

    async def _make_room(self, settings: Settings) -> None:
        """Kernels that only wait give way to one that is wanted."""
        from rlm_kernel.sandbox.room import fitting

        memory = parse_size(settings.sandbox.memory)
        while len(self.kernels) and not await asyncio.to_thread(fitting, memory):
            ending = self.kernels.end_oldest()
            if ending is not None:
                await asyncio.shield(ending)

    def stop(self) -> None:
        """Stop all runs; their clients are told."""
        for run in self.running:
            run.cancel()

    def failed(self, error: BaseException) -> None:
        """Tell whoever runs the server of what clients are not told."""
        if not isinstance(error, Refused):
            told = str(error) if isinstance(error, RLMError) else f"{type(error).__name__}: {error}"
            self.say(printable(told)[:2_000])


@contextlib.asynccontextmanager
async def serving(
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    models: Models | None = None,
    tools: Sequence[Tool | ToolSource] = (),
    say: Say = silent,
) -> AsyncIterator[Service]:
    """A service, with its models open; in the end its kernels are ended.

    `tools`: what code may call on this machine, whoever asks.

    Raises UsageError for an address that is open to others without keys, ConfigError, and what the opening of
    models raises.
    """
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    with scratch("serve") as folder:
        place = str(folder)
        settings = load_settings(config_file, given)
        own = {**_GUARDED, "session.dir": place, "session.idle": settings.serve.idle + _LEFT_IDLE}
        given |= own
        settings = load_settings(config_file, given)
        keys = await asyncio.to_thread(Keys, settings.serve.keys)
        if not keys.needed and not _is_loopback(settings.serve.host):
            raise UsageError(
                f"Without keys only this machine may ask, and {settings.serve.host} is open to others.",
                hint="rlm serve --key-file FILE --new-key NAME makes a key; or leave --host out.",
            )
        async with models_of(settings, models, say) as opened:
            service = Service(settings, opened, keys, await _at_once(settings))
            service.config_file, service.changes = config_file, given
            service.tools, service.say = tools, say
            try:
                yield service
            finally:
                await asyncio.shield(service.kernels.close())


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def _at_once(settings: Settings) -> int:
    if settings.serve.at_once is not None:
        return settings.serve.at_once
    from rlm_kernel.sandbox.room import fitting

    there = await asyncio.to_thread(fitting, parse_size(settings.sandbox.memory))
    return max(1, min(_MOST, there))


def to_stderr(text: str) -> None:
    """A line for whoever runs the server."""
    print(printable(text), file=sys.stderr, flush=True)
