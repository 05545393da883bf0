"""The kernel of a notebook in Jupyter: the Docker kernel with the notebook's own files and recording.

Registered as `rlm-notebook` in the entry point group `jupyter_client.kernel_provisioners`; `rlm kernelspec
install` makes the kernelspec that names it. JupyterLab, nbclient, nbconvert, papermill and other programs on
jupyter_client then start it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool

from rlm_kernel import loops
from rlm_kernel.config import Settings, load_api_keys, load_settings
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import (
    ROLES,
    UNWATCHED,
    Card,
    Completion,
    Locate,
    Message,
    Models,
    PauseTimer,
    Role,
    Watch,
)
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.container_spec import SandboxSpec
from rlm_kernel.sandbox.grants import FileGrants
from rlm_kernel.sandbox.provisioner import DockerProvisioner
from rlm_kernel.session.answering import Children
from rlm_kernel.session.assembly import Assembly
from rlm_kernel.session.conversation import full_history
from rlm_kernel.session.environment import (
    Environment,
    Host,
    find_or_build_image,
    limits_of,
    new_folder,
    silent,
)
from rlm_kernel.session.jupyter.notebook import Opened, OpenedFiles, files_of, find_opened
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.models import models_of
from rlm_kernel.session.running import broker_and_spec
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.recording import TraceRecording

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

    from rlm_kernel.sandbox.rundir import RunDir

HOW_TO_ALLOW = (
    'This kernel does not ask models. To let it ask them: choose the kernel "RLM (Docker, live model '
    'calls)", which '
    "`rlm kernelspec install --live` adds; `rlm replay --live --out NEW.ipynb` also records the answers, "
    "and `rlm fork` lets the root model continue from here."
)

_ROOM_SECONDS = 40.0
"""In which there has to be room for the kernel: Jupyter's programs wait for a minute, and are told nothing
meanwhile.
"""


class NotebookProvisioner(DockerProvisioner):
    """One Docker kernel for one notebook. Each start, a restart too, reads the notebook anew.

    Raises, as the kernel starts, SetupError (no engine, no image), ConfigError, KernelError; TraceError for a
    trace named by RLM_TRACE.
    """

    live = Bool(False, help="Ask the models for answers that are not recorded.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run: RunDir | None = None
        self._host: _Host | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        # Here and not in a thread: it looks at who is calling.
        opened = find_opened(kwargs.get("env"))
        if self._doors is not None:
            # At once: at a restart after a death they are 0, and a browser that connects again in the
            # meantime would take them for true.
            self._doors.tell(self.parent)
        async with self._all_or_nothing():
            if self._run is None:
                # Jupyter's clients connect again after a restart, to where they were connected.
                self._run = await asyncio.to_thread(new_folder, load_settings(), replayed=True)
            self._host = _Host(self._run, opened, live=self.live)
            self.spec = await self._host.start()
            return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        async with self._all_or_nothing():
            return await super().launch_kernel(cmd, **kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the container, end the host's part, and, unless it is for a restart, delete the folder.

        Idempotent.
        """
        await super().cleanup(restart)
        host, self._host = self._host, None
        if host is not None:
            await asyncio.to_thread(host.stop)
        if not restart and self._run is not None:
            run, self._run = self._run, None
            await asyncio.to_thread(run.remove)

    @contextlib.asynccontextmanager
    async def _all_or_nothing(self) -> Any:
        """jupyter_client does not clean up after a start that failed."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self.cleanup())
            raise


class _Host:
    """The host's part of one kernel: the broker, and what it answers from.

    On an event loop in a thread of its own, because Jupyter's programs run theirs when they like: papermill
    only while a cell runs, a blocking client hardly ever.
    """

    def __init__(self, run: RunDir, opened: Opened | None, *, live: bool) -> None:
        self._run = run
        self._opened = opened
        self._live = live
        self._up: concurrent.futures.Future[SandboxSpec] = concurrent.futures.Future()
        self._hello: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._over: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._work, name=f"rlm-{run.session_id}", daemon=True)

    async def start(self) -> SandboxSpec:
        """What the container is made of, once the broker listens. Raises what `_serve` does."""
        ready, loop = asyncio.Event(), asyncio.get_running_loop()
        # The hello comes in the other thread.
        self._hello.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(ready.set))
        self._up.set_running_or_notify_cancel()
        self._thread.start()
        return replace(await asyncio.wrap_future(self._up), ready=ready)

    def stop(self) -> None:
        """End it. Blocking."""
        if not self._over.done():
            self._over.set_result(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            loops.run(self._serve())
        except BaseException as error:
            if self._up.done():
                raise
            self._up.set_exception(error)

    async def _serve(self) -> None:
        """Raises SetupError, ConfigError, TraceError, before the broker listens.

        Blocks its loop until then: nobody else uses it.
        """
        host = Host(load_settings())
        node, trace, problem = self._opened.read() if self._opened else (None, None, "")
        environment, files = self._environment(host, node, trace)
        models = _LazyModels(host.settings, trace) if self._live else None
        # A person's kernel waits for the person: its life counts for no limit.
        ledger = Ledger(replace(limits_of(host.settings), seconds=None, depth=0))
        children = Children(environment, trace.path if trace else Path())
        recording = TraceRecording(trace.cells, waiting=False) if trace else None
        sub_calls = SubCalls(models, ledger, children, f"{problem} {HOW_TO_ALLOW}".strip())
        calls = Assembly(environment, sub_calls, everyone()).host_calls(
            lambda cell: full_history(trace, seen_by=recording.cell_id(cell)) if trace and recording else [],
            locate=_locate_in(environment, files),
            recording=recording,
        )
        broker, spec = broker_and_spec(environment, calls.handlers(), wait=_ROOM_SECONDS)
        broker.any_cell = True
        try:
            self._up.set_result(replace(spec, loop=asyncio.get_running_loop(), debugger=True))
            hello = asyncio.create_task(broker.ready.wait())
            hello.add_done_callback(lambda task: None if task.cancelled() else self._hello.set_result(None))
            await asyncio.wrap_future(self._over)
            hello.cancel()
        finally:
            await broker.stop()
            if models is not None:
                await models.aclose()

    def _environment(self, host: Host, node: Any, trace: TraceFile | None) -> tuple[Environment, OpenedFiles]:
        image = find_or_build_image(host.settings, silent, build=False)
        files = files_of(self._opened, node, trace, host.settings.sandbox.allow)
        shutil.rmtree(self._run.path / "copies", ignore_errors=True)  # those of the kernel before a restart
        return Environment(host, self._run, FileGrants(files.paths, self._run, files.known_as), image), files


def _locate_in(environment: Environment, files: OpenedFiles) -> Locate:
    async def locate(asked: str, asking: PauseTimer) -> Mapping[str, Any]:
        try:
            return await environment.locate(files.place(asked), asking)
        except FileRefused:
            raise files.why_not(asked) from None

    return locate


class _LazyModels:
    """The models of the settings, or else those that the trace was made with.

    Got ready when the first call comes.
    """

    def __init__(self, settings: Settings, trace: TraceFile | None) -> None:
        self._settings = settings
        self._recorded = trace.meta.models if trace else {}
        self._open: Models | None = None
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    def name(self, role: Role) -> str:
        return self.card(role).name

    def card(self, which: str) -> Card:
        if self._open:
            return self._open.card(which)
        if which in ROLES:
            root = self._settings.root_llm.model
            told = {"root": root, "sub": self._settings.sub_llm.model or root} if root else self._recorded
            return Card(which, told.get(which) or "")
        return next(card for card in self.others if card.role == which)

    @property
    def others(self) -> Sequence[Card]:
        if self._open:
            return self._open.others
        return [Card(name, llm.model or "", about=llm.about) for name, llm in self._settings.models.items()]

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        async with self._opening:
            if self._open is None:
                self._open = (
                    await self._stack.enter_async_context(models_of(self._chosen(), None, silent))
                ).models
        return await self._open.complete(messages, role=role, model=model, schema=schema, watch=watch)

    def _chosen(self) -> Settings:
        load_api_keys()
        if self._settings.root_llm.model is not None:
            return self._settings
        recorded = {
            f"{role}_llm.model": name
            for role, name in self._recorded.items()
            if role in ROLES and not name.startswith("scripted/")
        }
        return load_settings(overrides=recorded)

    async def aclose(self) -> None:
        await self._stack.aclose()
