"""The engine's seams for tests without a container: a kernel that evaluates expressions, a listener that
remembers, and a run of both.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import Event, Listener, Noted
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.loop import Loop, View
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import (
    CellResult,
    CellStatus,
    ContextInfo,
    HostCall,
    HostCallHandler,
    Message,
    Models,
    Outcome,
)
from rlm_kernel.engine.purse import Purse
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import FileRefused, KernelError, RLMError

Kind = TypeVar("Kind")
Kind = TypeVar("Kind")
PROFILE = Profile("default", "SYSTEM {context_hint}", (), "0" * 64, 10**9, 300)
INFO = ContextInfo("str", 11, [("a.txt", 11)], 1, "hello world")


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def picture(data: bytes, kind: str = "image/png") -> dict[str, Any]:
    shown = {kind: base64.b64encode(data).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": shown, "metadata": {}}


def failure(name: str, value: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": [f"{name}: {value}"]}


class Interrupted(Exception):
    pass


class FakeKernel:
    """Implements `engine.protocols.Kernel`: a cell is one Python expression over the names below.

    `say(x)` prints, `show(png)` displays pictures, `nth()` is the cell's number, `fail()` raises, `die()` ends the kernel, `lose()` for
    good, `wait()` lasts until it is interrupted, `ask(prompt)` is an llm_query, `FINAL(x)` and
    `FINAL_VAR(name)` deliver; `context` is the input.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, HostCallHandler] = {}
        self.variables: dict[str, Any] = {"context": "hello world"}
        self.ran: list[tuple[str, str]] = []
        self.interrupts = 0
        self.persons: list[CellResult] = []
        self.cancelled = 0
        self.running = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._outputs: list[dict[str, Any]] = []
        self._cell = ""
        self._calls = 0

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        return await self.run_cell(cell_id, code)

    async def describe(self, whole: int = 0) -> ContextInfo:
        text = str(self.variables["context"])
        return replace(INFO, whole=[("a.txt", text)] if len(text) <= whole else [])

    def person_cells(self) -> list[CellResult]:
        found, self.persons = self.persons, []
        return found

    async def interrupt(self) -> None:
        self.interrupts += 1
        self._interrupt.set()

    async def run_cell(self, cell_id: str, code: str) -> CellResult:
        self.ran.append((cell_id, code))
        self._outputs, self._cell = [], cell_id
        self._interrupt.clear()
        self.running.set()
        status: CellStatus = "ok"
        try:
            value = eval(code, self._names() | self.variables)
            if inspect.isawaitable(value):
                value = await value
            if value is not None:
                self._outputs.append(stream(str(value)))
        except (KernelError, asyncio.CancelledError) as error:
            self.cancelled += isinstance(error, asyncio.CancelledError)
            raise
        except SystemExit:
            status = "died"
        except Exception as error:
            status = "error"
            self._outputs.append(failure(type(error).__name__, str(error)))
        return CellResult(cell_id, code, status, self._outputs, datetime.now(UTC), 0.25, len(self.ran))

    def _names(self) -> dict[str, Any]:
        return {
            "say": lambda text: self._outputs.append(stream(str(text))),
            "show": lambda *pictures: self._outputs.extend(map(picture, pictures)),
            "fail": self._fail,
            "nth": lambda: len(self.ran),
            "die": self._die,
            "lose": self._lose,
            "wait": self._wait,
            "ask": lambda prompt, model=None: self._call("llm_query", {"prompt": prompt, "model": model}),
            "ask_all": self._ask_all,
            "load": lambda path: self._call("file", {"path": path}),
            "budget": lambda: self._call("budget", {}),
            "FINAL": self._final,
            "FINAL_VAR": self._final_var,
        }

    def _fail(self, *_: Any) -> None:
        raise ValueError("it failed")

    def _die(self) -> None:
        raise SystemExit

    def _lose(self) -> None:
        raise KernelError("The kernel is lost.")

    async def _wait(self) -> None:
        await self._interrupt.wait()
        raise Interrupted

    async def _call(self, kind: str, body: Mapping[str, Any]) -> Any:
        self._calls += 1
        return await self.handlers[kind](HostCall(self._cell, f"1-1-{self._calls}", body))

    async def _ask_all(self, prompts: Sequence[str]) -> list[Any]:
        calls = [self._call("llm_query", {"prompt": prompt, "model": None}) for prompt in prompts]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [type(item).__name__ if isinstance(item, RLMError) else item for item in found]

    def _final_var(self, name: str) -> Awaitable[None]:
        if name not in self.variables:
            raise NameError(f"FINAL_VAR: no variable named {name!r}.")
        return self._final(self.variables[name])

    async def _final(self, value: Any) -> None:
        if isinstance(value, dict) and set(value) == {"content", "ready"}:  # the session's `answer`
            value = value["content"]
            if value is None:
                raise ValueError("nothing was put into `answer`")
        text = value if isinstance(value, str) else str(value)
        await self._call(
            "final", {"text": text} if isinstance(value, str) else {"text": text, "value": value}
        )


class Recorder:
    """A listener that remembers. It raises `fails` when an event of the kind `at` comes."""

    def __init__(self, at: type[Event] | None = None, fails: Exception | None = None) -> None:
        self.events: list[Event] = []
        self._at, self._fails = at, fails

    def __call__(self, event: Event) -> None:
        if self._fails is not None and type(event) is self._at:
            raise self._fails
        self.events.append(event)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.of(Noted)]


class Recorded:
    """Models that remember what they were asked, around others."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.requests: list[list[Message]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Any:
        if options["role"] == "root":
            self.requests.append([dict(message) for message in messages])
        return await self._models.complete(messages, **options)


async def locate(path: str, _asking: object = None) -> Mapping[str, Any]:
    """Knows one file."""
    if path != "/a.txt":
        raise FileRefused(f"{path} was not named")
    return {"inside": "/rlm/files/0", "path": path, "directory": False}


@dataclass
class Run:
    """A loop over a fake kernel; `outcome()` runs it."""

    models: Any
    limits: Limits = field(default_factory=Limits)
    profile: Profile = PROFILE
    output_chars: int = 20_000
    clock: Callable[[], float] | None = None
    heard: Any = field(default_factory=Recorder)
    images: bool = False
    whole: float = 0.0
    purse: Purse | None = None

    def __post_init__(self) -> None:
        self.kernel = FakeKernel()
        self.models = Recorded(self.models)
        self.ledger = Ledger(self.limits, clock=self.clock or time.monotonic, purse=self.purse)
        tell: Listener = self.heard
        self.calls = HostCalls(SubCalls(self.models, self.ledger), tell, locate)
        self.kernel.handlers = self.calls.handlers()
        cells = Cells(self.kernel, self.calls, tell)
        self.loop = Loop(
            cells, self.models, self.profile, View(self.output_chars, images=self.images, whole=self.whole)
        )

    def outcome(
        self, question: str = "What is it?", info: ContextInfo = INFO, past: Past | None = None
    ) -> Awaitable[Outcome]:
        return self.loop.run(question, info, from_files=True, past=past)

    @property
    def cells(self) -> list[str]:
        return [code for _, code in self.kernel.ran]

    def told(self, request: int = -1) -> str:
        """The last message of a request to the root model."""
        return str(self.models.requests[request][-1]["content"])
