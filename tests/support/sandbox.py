"""A kernel in a container with its broker, for tests: what `session.ask` puts together, without models and
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.config import SandboxSettings
from rlm_kernel.engine.events import CellOutput, Event, UserCellFinished
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import CellResult, HostCall
from rlm_kernel.sandbox.broker import MAX_REQUEST, Broker
from rlm_kernel.sandbox.container_spec import SandboxSpec
from rlm_kernel.sandbox.grants import FileGrants
from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.kernel import DockerKernel
from rlm_kernel.sandbox.rundir import RunDir


class Sandbox:
    """`run(code)` gives a cell's result, `text(code)` its output; `answers` are what FINAL delivered."""

    def __init__(
        self,
        image: ImageInfo,
        *,
        files: Sequence[Path] = (),
        llm: Callable[[str], Awaitable[str]] | None = None,
        cell_timeout: float | None = 60,
        grace: float = 3,
        run_dir: RunDir | None = None,
        idle: float = 0,
        **spec: Any,
    ) -> None:
        self.run_dir = run_dir or RunDir.create(max_request=MAX_REQUEST, window=64, idle=idle)
        self.grants = FileGrants(files, self.run_dir)
        self.answers: list[Mapping[str, Any]] = []
        self.prompts: list[str] = []
        self.order: list[str] = []
        self.printed = asyncio.Event()
        self._llm = llm
        handlers = {"llm_query": self._query, "final": self._final, "file": self._file, "order": self._order}
        self.broker = Broker(self.run_dir, handlers)
        limits = {name: spec.pop(name) for name in SandboxSettings.model_fields if name in spec}
        sandbox = SandboxSettings.model_validate({"memory": "1g", "tmp": "512m", **limits})
        options = {"sandbox": sandbox, "shares": self.grants.shares, **spec}
        self.spec = SandboxSpec(image.id, self.run_dir, self.broker.ready, self.broker.accept, **options)
        self.persons: list[CellResult] = []
        self.kernel = DockerKernel(
            self.spec,
            self.broker,
            cell_timeout=cell_timeout,
            grace=grace,
            tell=self._hear,
        )
        self._cells = 0

    def _hear(self, event: Event) -> None:
        if isinstance(event, UserCellFinished):
            self.persons.append(event.result)
        elif isinstance(event, CellOutput):
            self.printed.set()

    @property
    def container(self) -> str:
        return self.run_dir.container_name

    @property
    def persons_open(self) -> bool:
        """Whether a person's cell runs."""
        return self.kernel._persons._open is not None

    async def start(self) -> None:
        await self.kernel.start()

    async def join(self) -> bool:
        """Take over the kernel that another one left in `run_dir`."""
        return await self.kernel.join([])

    async def leave(self) -> Path:
        """Let go of the kernel; where it is."""
        await self.kernel.leave()
        await self.broker.stop()
        self.run_dir.leave()
        return self.run_dir.path

    async def stop(self) -> None:
        await self.kernel.stop()
        await self.broker.stop()
        self.run_dir.remove()

    async def run(self, code: str) -> CellResult:
        self._cells += 1
        return await self.kernel.run_cell(f"cell-{self._cells}", code)

    async def text(self, code: str) -> str:
        return output_text((await self.run(code)).outputs)

    async def _query(self, call: HostCall) -> str:
        prompt = call.body["prompt"]
        self.prompts.append(prompt)
        return await self._llm(prompt) if self._llm else f"echo {prompt}"

    async def _order(self, call: HostCall) -> None:
        self.order = call.body["calls"]

    async def _final(self, call: HostCall) -> None:
        self.answers.append(call.body)

    async def _file(self, call: HostCall) -> dict[str, Any]:
        found = self.grants.locate(call.body["path"])
        return {"inside": str(found.inside), "path": str(found.path), "directory": found.directory}


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that has no event of its own; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
