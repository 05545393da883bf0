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
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import Purse
from rlm_kernel.engine.subcalls import complete
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.printable import printable
from rlm_kernel.scratch import scratch
from rlm_kernel.serve.accounts import Account, Accounts, alone
from rlm_kernel.serve.chat import Chat, compose, without_earlier
from rlm_kernel.serve.files import ClientFiles
from rlm_kernel.serve.kernels import Kernel, Kernels, new_name
from rlm_kernel.serve.keys import Key, Keys
from rlm_kernel.serve.parts import Attached
from rlm_kernel.serve.reasoning import Reasoning
from rlm_kernel.serve.refusals import Refused
from rlm_kernel.serve.retries import Retries
from rlm_kernel.serve.turns import Turns
from rlm_kernel.serve.wire import Answered, cut
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
_SWEEP_SECONDS = 3_600.0
"""After which files are looked at again, of which some may be too old."""
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

    def __init__(
        self, settings: Settings, models: ModelSet, keys: Keys, accounts: Accounts, at_once: int
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.accounts = accounts
        self.turns = Turns(at_once, settings.serve.waiting, shared=keys.needed)
        self.kernels = Kernels(settings.serve.chats, settings.serve.idle)
        self.files = ClientFiles(
            settings.trace.dir, parse_size(settings.serve.files), settings.serve.files_days
        )
        self._answering: set[Path] = set()
        """Folders with the files of chats that are being answered."""
        self._filing = asyncio.Lock()
        self.created = int(time.time())
        self.config_file: Path | None = None
        self.changes: Mapping[str, Any] = {}
        self.tools: Sequence[Tool | ToolSource] = ()
        self.say: Say = silent
        self.running: set[asyncio.Task[Answered]] = set()
        self.retries = Retries()
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
        if chat.before and not chat.after and not chat.is_aside:  # the user goes on in the chat's kernel
            kernel = self.kernels.take(chat.known_as(key.name))
        if kernel is not None:
            return Job(chat, key, kernel, put, goes_on=True)
        name = new_name(key.name)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        trace = (self.settings.trace.dir / f"{stamp}-serve-{name}.ipynb").absolute()
        keeps = self.settings.serve.files_days != 0
        return Job(chat, key, Kernel(name, trace, keeps=keeps), put)

    async def answer(self, job: Job) -> Answered:
        """Wait for its turn, and answer it. Cancelling it stops the run and ends its kernel.

        Raises Refused, RLMError.
        """
        if job.kernel is not None:
            self._answering.add(job.kernel.folder)
        try:
            async with self.turns.turn(
                job.key.name,
                job.key.at_once,
                lambda place: job.reasoning.say(f"Waiting: number {place} in the queue."),
            ):
                account = self.accounts.of(job.key)
                settings = self._limited(account)
                try:
                    if job.kernel is None:
                        return await self._said(job, account)
                    return await self._asked(job, job.kernel, settings, account)
                finally:
                    await self.accounts.keep()
                    await self._settle(job)
        finally:
            await self._settle(job)

    async def _settle(self, job: Job) -> None:
        """Keep the kernel of a chat that was answered, and end that of any other."""
        kernel, job.kernel = job.kernel, None
        if kernel is None:
            return
        self._answering.discard(kernel.folder)
        if job.known_as and self.settings.serve.chats:
            self.kernels.put(job.known_as, kernel)
        else:
            await asyncio.shield(self.kernels.end(kernel))

    async def _asked(self, job: Job, kernel: Kernel, settings: Settings, purse: Purse) -> Answered:
        """Answered in the chat's kernel. A file that could not be read when its message was sent is sent
        again with each later one: it is left out then.
        """
        chat = job.chat
        while True:
            try:
                return await self._asked_of(chat, job, kernel, settings, purse)
            except UsageError as error:
                lost = [digest for digest, name in kernel.loaded.items() if f"/{name}: " in error.message]
                less = None if kernel.session is not None else without_earlier(chat, lost)
                if less is None:
                    raise
                chat = less
                kernel.loaded.clear()

    async def _asked_of(
        self, chat: Chat, job: Job, kernel: Kernel, settings: Settings, purse: Purse
    ) -> Answered:
        composed = await asyncio.to_thread(  # a long message takes a while
            compose,
            chat,
            self.settings.serve.long,
            goes_on=job.goes_on,
            instructed=kernel.instructions,
        )
        files = await self._keep(kernel, composed.files)
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
        session.purse = purse
        if files:
            await session.load(files)
        answered = self._answered(job, await session.ask(composed.text, schema=job.chat.schema))
        if not answered.call and not job.chat.is_aside:
            job.known_as = job.chat.known_as(job.key.name, answered.text)
        return answered

    async def _keep(self, kernel: Kernel, files: Sequence[Attached]) -> list[Path]:
        """Write what the kernel has not loaded; older files, and kernels that only wait, give way to it.

        Raises Refused, OSError.
        """
        named = kernel.lacking(files)
        size = sum(len(file.data) for file in named)
        if size > self.files.most:
            raise Refused(
                413,
                f"Files can have at most {self.files.most:,} bytes (serve.files).",
                code="request_too_large",
            )
        async with self._filing:
            while named and not await self._room(size):
                ending = self.kernels.end_oldest()
                if ending is None:
                    raise Refused(
                        503,
                        "There is no space for more files at the moment.",
                        code="unavailable",
                        retry_after=30,
                    )
                await asyncio.shield(ending)
            return await asyncio.to_thread(kernel.keep_files, named)

    async def _room(self, size: int) -> bool:
        in_use = self._answering | self.kernels.folders
        return await asyncio.to_thread(self.files.make_room, size, in_use)

    async def sweep(self) -> None:
        """Remove files that are too old or too many, now and for as long as it goes on."""
        while True:
            async with self._filing:
                await self._room(0)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _said(self, job: Job, purse: Purse) -> Answered:
        """What a chat program asks for its own sake: the sub model says it, without a kernel."""
        chat = job.chat
        shown = chat.instructions[:_SIDE_SHOWN]
        told = [{"role": "system", "content": shown}] if shown else []
        told += [
            {"role": one.role, "content": one.text[:_SIDE_SHOWN]}
            for one in chat.before[-4:]
            if one.role != "tool"
        ]
        told += [{"role": "user", "content": chat.question.text[-_SIDE_SHOWN:]}]
        ledger = Ledger(Limits(), purse=purse)
        reply = await complete(self._models.models, ledger, told, role="sub")
        text, finish = cut(reply.text, chat.stop, chat.most)
        return Answered(text, finish or "stop", "answered", "", ledger.totals())

    def _answered(self, job: Job, result: Result) -> Answered:
        if result.answer is None and result.stop_reason == "error":
            raise Refused(502, f"The run failed. {result.detail}".strip(), code="run_failed")
        text, finish = str(result), "length" if result.forced or result.answer is None else "stop"
        if job.chat.schema is not None and result.value is not None:
            text = json.dumps(result.value, ensure_ascii=False)
        if job.chat.call and result.value is not None:
            return Answered(
                text, "tool_calls", result.stop_reason, result.trace.name, result.totals, job.chat.call
            )
        text, why = cut(text, job.chat.stop, job.chat.most)
        return Answered(text, why or finish, result.stop_reason, result.trace.name, result.totals)

    def _led(self, name: str) -> Models:
        if name == NAME:
            return self._models.models
        return self._models.led_by(name.partition("/")[2], self.settings).models

    def _limited(self, account: Account) -> Settings:
        """The settings with what is left to a key as limits: so a question that has all of it to itself keeps
        some back for its last answer. Raises Refused.
        """
        limits = self.settings.limits
        left = dict(zip(("cost", "tokens"), account.left(), strict=True))
        own = {
            name: most if (limit := getattr(limits, name)) is None else min(most, limit)
            for name, most in left.items()
            if most is not None
        }
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
        self.retries.close()
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
    with scratch("serve") as folder, contextlib.ExitStack() as held:
        place = str(folder)
        settings = load_settings(config_file, given)
        own = {**_GUARDED, "session.dir": place, "session.idle": settings.serve.idle + _LEFT_IDLE}
        given |= own
        settings = load_settings(config_file, given)
        keys = await asyncio.to_thread(Keys, settings.serve.keys)
        held.enter_context(alone(settings.serve.keys))
        accounts = await asyncio.to_thread(Accounts, settings.serve.keys, say)
        if not keys.needed and not _is_loopback(settings.serve.host):
            raise UsageError(
                "Without keys, only this machine may ask, but other machines can reach "
                f"{settings.serve.host}.",
                hint="Make a key (rlm serve --key-file FILE --new-key NAME), or leave --host out.",
            )
        async with models_of(settings, models, say) as opened:
            service = Service(settings, opened, keys, accounts, await _at_once(settings))
            service.config_file, service.changes = config_file, given
            service.tools, service.say = tools, say
            loop = asyncio.get_running_loop()
            beside = {loop.create_task(service.sweep()), loop.create_task(accounts.keep_up())}
            try:
                yield service
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.shield(service.kernels.close())
                await accounts.keep()
                await asyncio.wait(beside)


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
