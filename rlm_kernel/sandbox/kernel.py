"""A live kernel in its container, as the engine sees it: cells in, results out, and a new kernel when one is
lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from rlm_contract import DESCRIPTION, LOADED, STANDING, STANDS, VARIABLES, WHOLE
from rlm_contract.tokens import MOST_CHARS

from rlm_kernel.engine.events import CellOutput, Listener, UserCellFinished
from rlm_kernel.engine.protocols import CellResult, CellStatus, ContextInfo, Evidence
from rlm_kernel.errors import KernelError, RLMError, SetupError
from rlm_kernel.sandbox import kernel_says
from rlm_kernel.sandbox.broker import Broker
from rlm_kernel.sandbox.channels import Channels, Connection
from rlm_kernel.sandbox.container_spec import SandboxSpec
from rlm_kernel.sandbox.outputs import OutputCollector
from rlm_kernel.sandbox.provisioner import JOIN_SECONDS, DockerProvisioner
from rlm_kernel.sandbox.runner import CellRunner, RunState
from rlm_kernel.sandbox.searching import Found, Search, found_of
from rlm_kernel.sandbox.user_cells import UserCells

GRACE = 5.0
"""Seconds that an interrupted cell has to stop before its kernel is killed."""
_MAX_NAMES = 50
_MAX_UNTOLD = 10


class _OurSpec(KernelSpecManager):
    """Hands out one kernelspec, made in memory: nothing need be installed to run it."""

    def __init__(self, spec: SandboxSpec) -> None:
        super().__init__()
        provisioner = {"provisioner_name": "rlm-docker", "config": {"spec": spec}}
        self._spec = KernelSpec(
            argv=["rlm-docker"],
            display_name="RLM (Docker)",
            language="python",
            interrupt_mode="signal",
            metadata={"kernel_provisioner": provisioner},
        )

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self._spec


class DockerKernel:
    """Implements `engine.protocols.Kernel`.

    Use: start (or join), set_up, run_cell …, stop (or leave); all on one event loop.

    `cell_timeout` in seconds, None for none. `tell` hears the outputs so far of the running cell
    (CellOutput), and each cell that a user has run beside the model (UserCellFinished).
    """

    def __init__(
        self,
        spec: SandboxSpec,
        broker: Broker,
        *,
        cell_timeout: float | None,
        tell: Listener,
        grace: float = GRACE,
    ) -> None:
        self._spec = spec
        self._broker = broker
        self._cell_timeout = cell_timeout
        self._grace = grace
        self._tell = tell
        self._persons = UserCells(self._person_ran)
        self._untold: deque[CellResult] = deque(maxlen=_MAX_UNTOLD)
        self._setup: list[tuple[str, str]] = []
        self._variables: dict[str, str] = {}
        self._manager: AsyncKernelManager | None = None
        self._runner: CellRunner | None = None

    async def start(self) -> None:
        """Start the container and its kernel. Raises KernelError, DockerError."""
        manager = self._manage()
        try:
            await manager.start_kernel()
        finally:
            # It has connected to the kernel by libzmq, which reads ahead whatever is sent there.
            manager.context.destroy(linger=0)
        await self._listen(manager, self._spec.start_timeout)

    async def join(self, set_up: Sequence[tuple[str, str]]) -> bool:
        """Take over the kernel that an earlier owner of the session left, and bring it to rest: `leave` is
        the other end of this.

        `set_up`: the cells (id, code) that loaded its input, for a new kernel if this one is lost. False if
        it is gone or does not answer; then `stop` clears up. Raises DockerError.
        """
        manager = self._manage()
        manager.provisioner = DockerProvisioner(
            kernel_id="", kernel_spec=manager.kernel_spec, parent=manager, spec=self._spec
        )
        connection = Connection.read(self._spec.run.path / "connection.json")
        if connection is None:
            return False
        manager.load_connection_info(connection)
        if not await self._provisioner.join():
            return False
        self._setup = list(set_up)
        try:
            async with asyncio.timeout(
                JOIN_SECONDS + self._grace
            ):  # whatever a kernel that hangs, or is another's, does
                await self._listen(manager, JOIN_SECONDS)
                return await self.settle()
        except (KernelError, TimeoutError):
            return False

    async def leave(self) -> None:
        """Close what leads to the kernel; it and its container stay. Idempotent."""
        manager, runner = self._manager, self._runner
        self._manager = self._runner = None
        if runner is not None:
            await runner.close()
        if manager is not None and isinstance(manager.provisioner, DockerProvisioner):
            await manager.provisioner.leave()

    async def settle(self) -> bool:
        """Interrupt what runs. False if it does not stop: then the kernel is of no use any more."""
        if self._runner is None or not await self._runner.settle(self._grace):
            return False
        await self.variables()
        return self.alive

    @property
    def alive(self) -> bool:
        """It was started or joined, and its container has not ended."""
        return self._runner is not None and not self._provisioner.exited.done()

    async def variables(self) -> dict[str, str]:
        """The names that cells have made, with type and size, by the kernel's own word."""
        if (
            self._runner is not None
            and (found := kernel_says.variables(await self._runner.evaluate(VARIABLES))) is not None
        ):
            self._variables = found
        return self._variables

    async def files(self) -> list[kernel_says.File] | None:
        """The files that are loaded, by the kernel's own word; None where that is unknown.

        Not while a cell runs.
        """
        return kernel_says.files(await self._runner.evaluate(LOADED)) if self._runner is not None else None

    def _manage(self) -> AsyncKernelManager:
        self._manager = AsyncKernelManager(kernel_spec_manager=_OurSpec(self._spec))
        return self._manager

    async def _listen(self, manager: AsyncKernelManager, timeout: float) -> None:
        channels = await Channels.connect(self._provisioner.stream, manager.session)
        self._runner = CellRunner(
            channels, self._provisioner.exited, self._provisioner.interrupt, self._persons.hear
        )
        await self._runner.wait_until_listening(timeout)

    @property
    def _provisioner(self) -> DockerProvisioner:
        assert self._manager is not None
        assert isinstance(self._manager.provisioner, DockerProvisioner)
        return self._manager.provisioner

    async def stop(self) -> None:
        """End the kernel and remove its container. Idempotent; safe after a start that failed half-way."""
        manager = self._manager
        await self.leave()
        # Not manager.shutdown_kernel: it sends to the kernel first, which blocks the loop when the kernel is
        # gone.
        if manager is not None and isinstance(manager.provisioner, DockerProvisioner):
            await manager.provisioner.cleanup()
            self._persons.kernel_ended()

    def person_cells(self) -> Sequence[CellResult]:
        """The cells that a person has run in it since this was last asked; of many the last ten."""
        cells = list(self._untold)
        self._untold.clear()
        return cells

    def _person_ran(self, cell: CellResult) -> None:
        self._untold.append(cell)
        self._tell(UserCellFinished(cell))

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a cell that loads the input; once it was ok, every new kernel runs it again.

        A kernel that waited for a question may have died meanwhile, by no fault of this cell: a cell that
        finds it so is run once more, in the kernel that took its place.
        """
        result = await self.run_cell(cell_id, code)
        if result.status == "died":
            result = await self.run_cell(cell_id, code)
        if result.status == "ok":
            self._setup.append((cell_id, code))
        return result

    async def describe(self, whole: int = 0) -> ContextInfo:
        """What `context` is, by the kernel's own word. `whole`: as of the protocol."""
        assert self._runner is not None
        asked = {"about": DESCRIPTION} | ({"whole": WHOLE.format(limit=whole)} if whole > 0 else {})
        told = await self._runner.evaluate_all(asked)
        found = kernel_says.Described.of(told.get("about"))
        if found is None:
            raise KernelError(
                "The kernel started, but its runtime does not work.", hint="`rlm image build --force`"
            )
        info = found.info()
        if not 0 < info.total_chars <= whole * MOST_CHARS or info.about:
            return info
        return replace(info, whole=kernel_says.whole(told.get("whole"), whole))

    async def search(self, wanted: Search) -> Found | None:
        """What a search of the loaded files finds, by the kernel's own word; None where it takes longer than
        the kernel is waited for: then it is to be settled. Not while a cell runs.
        """
        assert self._runner is not None
        return found_of(await self._runner.evaluate(wanted.expression()), wanted)

    async def standing(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts stand in the input, by the kernel's own word; none where that takes too long."""
        assert self._runner is not None
        told = await self._runner.evaluate(STANDING.format(texts=list(texts)))
        return kernel_says.flags(told, len(texts))

    async def stands(self, evidence: Evidence) -> bool | None:
        """Whether its quotation is at its place in the text that the kernel has read of the file, by the
        kernel's own word: to be asked before it has run a cell of a model. None if the file is not loaded.
        """
        assert self._runner is not None
        asked = STANDS.format(
            path=evidence.path, start=evidence.start, end=evidence.end, quote=evidence.quote
        )
        told = await self._runner.evaluate(asked)
        return None if told is None else told is True

    async def interrupt(self) -> None:
        if self._runner is not None:
            self._runner.interrupt()

    async def run_cell(self, cell_id: str, code: str) -> CellResult:
        """Run one cell to its end.

        A kernel that died, or would not stop, is replaced by a new one with the files loaded.

        Raises KernelError, SetupError if none can be had.
        """
        if self._runner is None:
            raise KernelError("The kernel is not running.")
        self._spec.run.check()  # else each call of the cell fails, and turn after turn is paid for
        started, clock = datetime.now(UTC), time.monotonic()
        state = await self._run(cell_id, code)
        seconds = time.monotonic() - clock - state.waited
        started += timedelta(seconds=state.waited)
        status: CellStatus
        notices: list[str] = []
        if state.status == "died":
            status = "died"
            notices.append(await self._replace(state))
        elif state.timed_out:
            status = "timeout"
            notices.append(
                f"The cell was stopped: it ran over its time-out of {self._cell_timeout:g} s, in which time "
                "that models take does not count. The variables it made are kept. Do the work in smaller "
                "steps."
            )
        else:
            status = "ok" if state.status == "ok" else "error"
        for notice in notices:
            state.collector.say(f"[{notice}]\n")
        collector = state.collector
        return CellResult(
            cell_id,
            code,
            status,
            collector.outputs,
            started,
            seconds,
            state.execution_count,
            collector.truncated,
            tuple(notices),
        )

    async def _run(self, cell_id: str, code: str) -> RunState:
        assert self._runner is not None

        def on_output(collector: OutputCollector) -> None:
            self._tell(CellOutput(cell_id, collector.so_far))

        self._broker.begin(cell_id)
        try:
            state = await self._runner.run(
                cell_id,
                code,
                timeout=self._cell_timeout,
                grace=self._grace,
                on_output=on_output,
                on_interrupt=self._broker.interrupt,
                paused=self._broker.paused_seconds,
            )
        finally:
            await self._broker.end()
        if state.variables is not None:
            self._variables = state.variables
        return state

    async def _replace(self, state: RunState) -> str:
        """Start a new kernel for one that is lost; returns what to tell the model.

        Raises KernelError if none can be had.
        """
        why = self._why_it_died(state)
        lost = list(self._variables)
        self._variables = {}
        try:
            await self.stop()
            await self.start()
            for cell_id, code in self._setup:
                if (await self._run(cell_id, code)).status == "died":
                    raise KernelError("The kernel died again while it loaded the files.")
        except RLMError as error:
            failure = type(error) if isinstance(error, SetupError) else KernelError
            raise failure(
                f"{why} A new kernel could not be started: {error.message}", hint=error.hint
            ) from error
        except Exception as error:
            raise KernelError(
                f"{why} A new kernel could not be started: {error}",
                hint="`rlm doctor` checks the installation.",
            ) from error
        lost = [name for name in lost if name not in self._variables]
        names = ", ".join(lost[:_MAX_NAMES]) + (", …" if len(lost) > _MAX_NAMES else "")
        gone = (
            f"Lost are all variables that cells had made: {names}."
            if lost
            else "No earlier cell's variables were lost."
        )
        return f"{why} A new kernel was started and the input is loaded again. {gone}"

    def _why_it_died(self, state: RunState) -> str:
        exited = self._provisioner.exited
        if state.cut_off:
            return "The kernel was killed: code in it closed its connection to the host."
        if not exited.done() and not state.began:
            return (
                "The kernel was killed: other code kept it busy, and did not stop within "
                f"{self._grace:g} s after it was interrupted."
            )
        if not exited.done():
            reason = (
                f"it ran over its time-out of {self._cell_timeout:g} s"
                if state.timed_out
                else "it was interrupted"
            )
            return (
                f"The kernel was killed: the cell did not stop within {self._grace:g} s after {reason} "
                "(compiled code cannot be "
                "interrupted). Do the work in smaller steps."
            )
        return exited.result().why(self._spec.memory)
