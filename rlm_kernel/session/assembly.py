"""The parts of a run, put together: the one place where host calls are wired and where a loop is made.

Host ── settings, who is told, who is asked
 └─ Environment ── folder, files, image
     └─ RunningKernel ── container, broker          Ledger ── what is used
         └── Assembly: host calls and loop ──────── Trace ── who hears of it
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.loop import Loop, View
from rlm_kernel.engine.protocols import Locate, Recording
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.proof.quotes import check_all
from rlm_kernel.session.before import Before
from rlm_kernel.session.conversation import full_history
from rlm_kernel.session.environment import Environment, keep_of
from rlm_kernel.session.toolbox import Toolbox

if TYPE_CHECKING:
    from rlm_kernel.session.models import ModelSet
    from rlm_kernel.session.running import RunningKernel
    from rlm_kernel.trace.reader import TraceFile

History = Callable[[str], Any]
"""The conversation as a cell sees it, by the cell's id. Blocking."""


@dataclass(frozen=True)
class Assembly:
    """The parts of one run: where it is, who makes the calls that cost something, and who hears what
    happens.
    """

    environment: Environment
    sub_calls: SubCalls
    listener: Listener

    def host_calls(
        self,
        history: History,
        *,
        locate: Locate | None = None,
        recording: Recording | None = None,
        before: Before | None = None,
        beside: Path | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> HostCalls:
        """What does the host calls of a kernel.

        `locate` finds a host path for the kernel, by default as the environment does. `recording` answers
        what it knows. `before`: what the session did so far. `beside`: the trace, beside which
        files that tools give are kept; by default none can be called. `room`: of the trace's writer.
        """
        keep = keep_of(self.environment.host.settings)
        return HostCalls(
            self.sub_calls,
            self.listener,
            locate or self.environment.locate,
            recording=recording,
            history=history,
            keep=keep.beside(before.calls) if before else keep,
            kept=before.kept if before else None,
            check=lambda given: check_all(given, self.environment.grants.place_of),
            tools=Toolbox(self.environment.host, self.environment.grants, beside) if beside else None,
            room=room,
        )

    def cells(self, running: RunningKernel, calls: HostCalls) -> Cells:
        """What runs cells in the kernel with these host calls."""
        return Cells(running.kernel, calls, self.listener)

    def loop(self, cells: Cells, models: ModelSet) -> Loop:
        """What answers a question with these cells."""
        settings = self.environment.host.settings
        view = View(
            output_chars=settings.limits.output_chars,
            share=settings.memory_share,
            verbatim=settings.memory_compaction.tokens,
            images=settings.prompt.images,
            cell_seconds=settings.limits.cell_timeout,
            whole=settings.prompt.whole,
            cite=settings.prompt.cite,
        )
        return Loop(cells, models.models, models.profile, view)


def history_of(read: Callable[[], TraceFile]) -> History:
    """The conversation by the trace that `read` gives when it is asked for."""
    return lambda cell: full_history(read(), seen_by=cell)
