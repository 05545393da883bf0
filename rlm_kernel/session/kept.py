"""A session that is kept between commands: `rlm init`, `rlm run`, `rlm chat`.

Nothing of ours runs between commands. The container waits for its next owner, and all else is in the trace: each question takes up the
conversation from there. A kernel that is lost is rebuilt by a replay of the trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import Listener, Noted, RunFinished, RunOpened, UserCellFinished
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import ROLES, CallRecord, Memory, Models, Outcome, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.engine.totals import duration
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.answering import check_setup, closing_trace, new_meta
from rlm_kernel.session.ask import Result, free_path
from rlm_kernel.session.children import Children, Family, spent_on_lost
from rlm_kernel.session.conversation import conversation, first_question, full_history, recorded, turns_of
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.inputs import STDIN, expand, gather
from rlm_kernel.session.listeners import Gate, everyone
from rlm_kernel.session.live import Live, Lost, join, make
from rlm_kernel.session.named import missing_paths, named_paths, refuse_missing
from rlm_kernel.session.players import model_names, profile_for
from rlm_kernel.session.rebuild import rebuild
from rlm_kernel.session.stage import Say, keep_of, limits_of
from rlm_kernel.session.state import SessionFolder, State
from rlm_kernel.session.status import SessionStatus, status_of
from rlm_kernel.session.tracefiles import FileNotes, metas_of
from rlm_kernel.session.warm import WarmKernels
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.schema import TotalsMeta
from rlm_kernel.trace.taken import before_last_question, ended
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent


class KeptSession:
    """A session in use: its lock is held and its kernel is there. Made by `session.opening.open_session`; used by one task at a time."""

    def __init__(
        self,
        folder: SessionFolder,
        state: State,
        settings: Settings,
        models: Awaitable[Models] | None,
        view: Listener | None,
        say: Say,
        consent: Consent | None,
    ) -> None:
        """`models`: those that answer, as soon as they are ready; None if no question will be asked."""
        self.folder = folder
        self.state = state
        self.settings = settings
        self.opened: list[str] = []
        """What became of the session when it was taken up, for the user."""
        self.used = Totals()
        """What the last question has used, with the summary after it."""
        self._models = models
        self._gate = Gate()
        self._view = view
        self._listeners = everyone(self._gate, view)
        self._say = say
        self._consent = consent
        self._live: Live | None = None
        self._answered: tuple[Loop, Outcome, Ledger] | None = None
        self._left = threading.Event()

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def trace(self) -> Path:
        return self.state.trace

    @property
    def idle(self) -> float:
        """Seconds without use after which the container ends."""
        return self.state.idle

    @backstop
    async def begin(self, paths: Sequence[Path]) -> None:
        """Start the container and load the files. Raises what `ask` raises of its set-up."""
        inputs = await asyncio.to_thread(gather, list(paths) or None, self.trace)
        idle, depot = self.settings.session.idle, self.folder.depot
        models = asyncio.shield(self._models) if self._models is not None else None
        live = await make(
            inputs.paths, self.settings, self._listeners, self._say, depot=depot, consent=self._consent, idle=idle, models=models
        )
        self._live = live
        meta = new_meta(live.on, "", self.settings, dict.fromkeys(ROLES, ""), profile_for(self.settings))
        files = await asyncio.to_thread(metas_of, {path: path for path in live.on.grants.paths})
        more = {"files": files, "name": self.name, "totals": TotalsMeta.of(Totals())}
        self._write_to(NotebookWriter(self.trace, meta.model_copy(update=more), known_secrets(os.environ)))
        calls = self._calls(None, Ledger(limits_of(self.settings)), None, None)
        cells = Cells(live.kernel, calls, self._listeners)
        for cell_id, code in inputs.cells("", live.on.grants.paths):
            check_setup(await cells.run(cell_id, code, 0, setup=True, seconds=None), self.settings)
        self._keep(live)

    @backstop
    async def take_up(self) -> None:
        """Join the kernel, or rebuild it. Raises TraceError, FileRefused, SetupError, KernelError."""
        trace = read_trace(self.trace)
        set_up = [(cell.id, cell.source) for cell in trace.code_cells if cell.kind in ("parameters", "setup")]
        found = await join(
            self.state.run,
            self.state.grants,
            set_up,
            self.settings,
            self._listeners,
            self._say,
            depot=self.folder.depot,
            consent=self._consent,
        )
        if isinstance(found, Lost):
            await self._rebuild(found.why)
        else:
            self._live = found
            self._write_to(self._writer(trace))
            idle = max(0.0, (datetime.now(UTC) - self.state.used).total_seconds())  # the clock may have been put back
            self.opened.append(f"The session's kernel is as it was left {duration(idle)} ago.")
            self._keep(found)

    async def _rebuild(self, why: str) -> None:
        trace = read_trace(self.trace)
        self._gate.open = False
        live, writer, told = await rebuild(trace, self.settings, self._listeners, self._say, self.folder.depot, self._consent)
        self._live = live
        self._write_to(writer)
        writer(Noted(told))
        self.opened.append(f"{why}. {told}")
        self._keep(live)

    def _writing(self) -> NotebookWriter:
        assert isinstance(self._gate.listener, NotebookWriter)
        return self._gate.listener

    def _write_to(self, writer: NotebookWriter) -> None:
        if isinstance(self._gate.listener, NotebookWriter):
            self._gate.listener.release()
        self._gate.listener, self._gate.open = writer, True

    def _writer(self, trace: TraceFile) -> NotebookWriter:
        """A writer that goes on with the trace. Cells that were cut off will not be taken up any more: they have ended."""
        most = parse_size(self.settings.trace.outputs)
        return NotebookWriter(self.trace, trace.meta, known_secrets(os.environ), ended(trace.node.cells), outputs=most)

    def _keep(self, live: Live) -> None:
        """Write down where the session is."""
        on = live.on
        changes = {"run": on.run.path, "grants": on.grants.dump(), "used": datetime.now(UTC), "idle": self.settings.session.idle}
        self.state = self.state.model_copy(update=changes)
        self.folder.write(self.state)
        on.run.describe(trace=self.trace, question=f"session {self.name}")

    async def _kernel(self) -> Live:
        """The kernel, rebuilt if it was lost since."""
        if self._live is None or not self._live.kernel.alive:
            if self._live is not None:
                lost, self._live = self._live, None
                await lost.end()
            await self._rebuild("Its container ended")
        assert self._live is not None
        return self._live

    def _calls(
        self, trace: TraceFile | None, ledger: Ledger, models: Models | None, notes: FileNotes | None, children: Children | None = None
    ) -> HostCalls:
        """The host calls of what runs next in the kernel. `trace`: as it is now, if it has calls, which count in what it may have."""
        assert self._live is not None
        locate = notes.locate if notes else self._live.on.locate
        calls = HostCalls(
            SubCalls(models, ledger, children),
            self._listeners,
            locate,
            history=lambda cell: full_history(read_trace(self.trace), seen_by=cell),
            keep=keep_of(self.settings).beside(_calls_in(trace) if trace else ()),
        )
        self._live.broker.handlers = calls.handlers()
        return calls

    @backstop
    async def ask(self, question: str, answered: Give = lambda _result: None) -> Result:
        """Answer a question in the session; limits hold for it alone. `answered` hears the answer as soon as it is there.

        Cancelling it stops the running cell and closes the trace; the session goes on. Once there is an answer, that is the result all the
        same. Raises what `session.ask.ask` raises.
        """
        return await answer_first(lambda give: self._ask(question, give), answered, self._say)

    async def _ask(self, question: str, give: Give) -> Result:
        if not question.strip():
            raise UsageError("The question is empty.", hint='Ask something: rlm run "How many …?"')
        if self._models is None:
            raise UsageError("This session was opened without models.", hint="Open it with models to ask.")
        models = await asyncio.shield(self._models)  # a question that is stopped must not stop what readies them for the next
        live = await self._kernel()
        named = await self._grant_named(live, question)
        absent = await self._absent(live, named, question)
        await self._load_first(live, named)
        trace = read_trace(self.trace)
        ledger = Ledger(limits_of(self.settings))
        writer = self._writer(trace)
        self._write_to(writer)
        profile = profile_for(self.settings, models)
        writer.set_models(model_names(self.settings, models), profile.name, profile.digest)
        writer.question(question)
        spent = trace.spent() + await asyncio.to_thread(spent_on_lost, trace)
        try:
            async with (
                FileNotes(live.on, writer, self._left) as notes,
                WarmKernels(self.settings, live.on.image, self._say) as kernels,
            ):
                family = Family(self.settings, models, model_names(self.settings, models), profile, kernels)
                calls = self._calls(trace, ledger, models, notes, Children(live.on, self.trace, family, self._view))
                loop = self._new_loop(live, models, calls, profile)
                self._listeners(RunOpened(question, ledger, spent))
                async with closing_trace(self._listeners, ledger.totals, self.trace, self._say) as close:
                    outcome = await self._converse(loop, trace, question, named, absent)
                    self.used = close(outcome)
                self._answered = (loop, outcome, ledger) if outcome.answer is not None else None
                result = Result.of(outcome, self.used, self.trace)
                give(result)
        except asyncio.CancelledError:
            await asyncio.shield(self._settle(live))
            raise
        return result

    def _new_loop(self, live: Live, models: Models, calls: HostCalls, profile: Profile) -> Loop:
        limit, share = self.settings.limits.output_chars, self.settings.memory_share
        return Loop(Cells(live.kernel, calls, self._listeners), models, profile, limit, share)

    async def _converse(self, loop: Loop, trace: TraceFile, question: str, named: Sequence[Path], absent: Sequence[str]) -> Outcome:
        """Put a question after what was said before, by the trace."""
        info = await loop.cells.kernel.describe()
        turns = turns_of(trace.cells, recorded(trace.cells), self.settings.limits.output_chars, further=True)
        past = Past(turns, question=question) if turns else None
        first = first_question(trace.cells, trace.meta.question) if turns else question
        return await loop.run(first, info, from_files=True, past=past, named=[str(path) for path in named], absent=absent)

    async def _settle(self, live: Live) -> None:
        if not await live.kernel.settle():
            self._live = None
            await live.end()
            self._say("The cell did not stop, so its kernel was ended: it is rebuilt for the next question.")

    async def _grant_named(self, live: Live, question: str) -> list[Path]:
        """Allow what the user names in a question, and has named in those before. The real paths of this one."""

        def allow() -> list[Path]:
            for earlier, _ in self.conversation():
                live.on.grants.allow(named_paths(earlier, Path.cwd()))
            return live.on.grants.allow(named_paths(question, Path.cwd()))

        return await asyncio.to_thread(allow)

    async def _absent(self, live: Live, named: Sequence[Path], question: str) -> list[str]:
        """What is said of paths that the question names and that are not there. Raises UsageError where there is nothing else to ask of."""
        missing = await asyncio.to_thread(missing_paths, question, Path.cwd())
        if missing and not named and (await live.kernel.describe()).kind == "None":
            refuse_missing(missing)
        for one in missing:
            self._say(f"The question names a path, but {one}.")
        return [str(one) for one in missing]

    async def _load_first(self, live: Live, named: Sequence[Path]) -> None:
        """With nothing loaded yet, load the files that the question names: they are what it is about. What cannot be read is not."""
        files = [path for path in named if path.is_file()]
        if files and (await live.kernel.describe()).kind == "None":
            with contextlib.suppress(UsageError):
                await self.load(files)

    @backstop
    async def remember(self) -> Memory | None:
        """After an answer: have the root model sum it up, and keep that in place of its turns. None if there is nothing to gain."""
        if self._answered is None or self.settings.memory_share is None:
            return None
        (loop, outcome, ledger), self._answered = self._answered, None
        memory = await loop.remember()
        if memory is not None:
            self.used = ledger.totals()
            self._listeners(RunFinished(outcome, self.used))  # what the summary cost is in the account, too
        return memory

    @backstop
    async def load(self, paths: Sequence[Path]) -> list[str]:
        """Load files into the session, as the user's own cell. What is loaded then, by lines. Raises FileRefused, UsageError."""
        live = await self._kernel()
        given = await asyncio.to_thread(expand, paths, free_path(self.trace.with_suffix(STDIN)))
        granted = [(await live.on.grants.add(path, self._say)).path for path in given]
        async with FileNotes(live.on, self._writing(), self._left) as notes:
            await notes.note()
            self._calls(read_trace(self.trace), Ledger(limits_of(self.settings)), None, notes)
            try:
                result = await live.kernel.set_up(f"load-{len(live.on.grants.paths)}", f"load_files({[str(path) for path in granted]!r})")
            except asyncio.CancelledError:
                await asyncio.shield(self._settle(live))
                raise
            self._listeners(UserCellFinished(result))
        self._keep(live)
        check_setup(result, self.settings)
        return output_text(result.outputs).splitlines()

    @backstop
    async def undo(self) -> str:
        """Take the last question back: its cells leave the notebook, and the kernel is rebuilt without them. Raises UsageError."""
        trace = read_trace(self.trace)
        kept = before_last_question(trace.node.cells)
        if kept is None:
            raise UsageError("There is no question to take back.", hint="Ask one first.")
        self._writing().close()
        copy = free_path(self.trace.with_stem(f"{self.trace.stem}-undone"))
        await asyncio.to_thread(shutil.copyfile, self.trace, copy)
        question = trace.meta.question if any(cell["metadata"].get("rlm", {}).get("kind") == "model" for cell in kept) else ""
        writer = NotebookWriter(self.trace, trace.meta.model_copy(update={"question": question}), known_secrets(os.environ), kept)
        writer.close()
        if self._live is not None:
            live, self._live = self._live, None
            await live.end()
        await self._rebuild("The last question was taken back")
        return f"The last question was taken back. The notebook as it was: {copy}"

    def conversation(self) -> list[tuple[str, str | None]]:
        """The questions and their answers, from the trace."""
        return conversation(read_trace(self.trace))

    @backstop
    async def status(self) -> SessionStatus:
        """What the session has and has used. Not while a question is answered."""
        return await status_of(self.state, self._live)

    @backstop
    async def stop(self) -> None:
        """End the session: the container is removed, and the session forgotten; its trace stays."""
        self._left.set()
        live, self._live = self._live, None
        if live is not None:
            await live.end()
        self.folder.remove(self.state)

    async def leave(self) -> None:
        """Let go of the kernel, for the next command."""
        self._left.set()
        live, self._live = self._live, None
        if live is not None:
            self._keep(live)
            await live.leave()


def _calls_in(trace: TraceFile) -> Iterator[CallRecord]:
    for cell in trace.cells:
        for call in cell.meta.calls if cell.meta else ():
            yield call.record()
