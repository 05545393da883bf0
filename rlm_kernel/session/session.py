"""A session that is kept between commands: `rlm init`, `rlm run`, `rlm chat`.

Nothing of ours runs between commands. The container waits for its next owner, and all else is in the trace:
each question takes up the conversation from there. A kernel that is lost is rebuilt by a replay of the trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import loops
from rlm_kernel.config import Settings
from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import Event, Listener, Noted, RunOpened, UserCellFinished
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import ROLES, Outcome, Totals
from rlm_kernel.engine.purse import Purse
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.engine.totals import duration
from rlm_kernel.errors import KernelError, UsageError, backstop
from rlm_kernel.report.records import questions_asked
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.asyncitems import in_thread
from rlm_kernel.session.before import before_this, left_behind
from rlm_kernel.session.conversation import conversation, first_question, recorded, turns_of
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.environment import Host, image_for, ledger_of, limits_of
from rlm_kernel.session.giving import gather_beside, numbered_id
from rlm_kernel.session.inputs import STDIN, Context, check_setup, expand, gather
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.models import ModelSet, profile_for
from rlm_kernel.session.places import free_path
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.questions import Question, extract_paths, read_question, refuse_missing
from rlm_kernel.session.rebuild import rebuild
from rlm_kernel.session.result import Result
from rlm_kernel.session.running import GivenFiles, Left, Lost, RunningKernel, join_kernel, new_kernel
from rlm_kernel.session.state import SessionFolder, State
from rlm_kernel.session.status import SessionStatus, status_of, told_by
from rlm_kernel.session.toolbox import TOOLS_CELL, declared, free_id, undeclared
from rlm_kernel.session.tracefiles import FileNotes, metas_of
from rlm_kernel.session.traces import closing_trace, new_meta, new_writer
from rlm_kernel.session.tree import spent_on_lost
from rlm_kernel.session.watching import Watched
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.taken import before_last_question, ended
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.searching import Found, Search


class Session:
    """A session in use: its lock is held and its kernel is there.

    Made by `session.manager.open_session`; used by one task at a time.
    """

    def __init__(self, folder: SessionFolder, state: State, host: Host, view: Listener | None = None) -> None:
        """`view` hears what happens, beside the trace."""
        self.folder = folder
        self.state = state
        self.host = host
        self.models: Awaitable[ModelSet] | None = None
        """Those that answer, as soon as they are ready; None if no question will be asked."""
        self.opened: list[str] = []
        """What became of the session when it was taken up, for the user."""
        self.used = Totals()
        """What the last question has used, with the summary before it."""
        self.progress = False
        """Whether each question shows how far it is."""
        self.purse: Purse | None = None
        """What its questions may use together with others."""
        self._view = view
        self._running: RunningKernel | None = None
        self._writer: NotebookWriter | None = None
        self._has_object = False
        """`context` is a value that was given, and no text of a file."""
        self._left = threading.Event()
        self._told: State | None = None
        """With what the kernel had when it was left."""

    @property
    def settings(self) -> Settings:
        return self.host.settings

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
    async def begin(self, paths: Sequence[Path], image: ImageInfo) -> None:
        """Start the container and load the files. Raises what `ask` raises of its set-up."""
        inputs = await asyncio.to_thread(gather, list(paths) or None, self.trace)
        files = GivenFiles(inputs.paths, depot=self.folder.depot)
        self._running = running = await new_kernel(
            self.host, image, files, replayed=True, idle=self.settings.session.idle
        )
        await running.start()
        grants = running.environment.grants
        meta = new_meta(running.environment, "", dict.fromkeys(ROLES, ""), profile_for(self.settings))
        metas = await asyncio.to_thread(metas_of, grants.places())
        more = {"files": metas, "name": self.name, "totals": TotalsMeta.of(Totals())}
        self._write_to(new_writer(self.trace, meta.model_copy(update=more), self.settings, say=self.host.say))
        run = Assembly(running.environment, SubCalls(None, Ledger(limits_of(self.settings))), self._tell)
        calls = run.host_calls(self._history)
        async with running.attached(calls, self._tell):
            for cell_id, code in inputs.cells("", grants.paths, tools=declared(self.host.tools)):
                check_setup(
                    await run.cells(running, calls).run(cell_id, code, 0, setup=True, seconds=None),
                    self.settings,
                )
        self._keep(running)

    @backstop
    async def take_up(self, image: ImageInfo) -> None:
        """Join the kernel, or rebuild it. Raises TraceError, FileRefused, SetupError, KernelError."""
        trace = await self._read()
        set_up = [(cell.id, cell.source) for cell in trace.code_cells if cell.kind in ("parameters", "setup")]
        found = await join_kernel(
            Left(self.state.run, self.state.grants, self.folder.depot, set_up), self.host, image
        )
        if isinstance(found, Lost):
            await self._rebuild(found.why, image)
            return
        self._running = found
        self._write_to(self._goes_on(trace))
        self._attach(found, trace)
        idle = max(
            0.0, (datetime.now(UTC) - self.state.used).total_seconds()
        )  # the clock may have been put back
        self.opened.append(f"The session's kernel is as you left it {duration(idle)} ago.")
        self._keep(found)

    async def _rebuild(self, why: str, image: ImageInfo) -> None:
        trace = await self._read()
        rebuilt = await rebuild(trace, self.host, image, self.folder.depot, everyone(self._view))
        self._running = rebuilt.running
        self._write_to(rebuilt.writer)
        self._attach(rebuilt.running, trace)
        rebuilt.writer(Noted(rebuilt.told))
        self.opened.append(f"{why}. {rebuilt.told}")
        self._keep(rebuilt.running)

    def _tell(self, event: Event) -> None:
        """Whoever is told something tells the notebook's writer of the moment: each question has one of its
        own.
        """
        everyone(self._writer, self._view)(event)

    def _write_to(self, writer: NotebookWriter) -> None:
        if self._writer is not None:
            self._writer.release()
        self._writer = writer

    def _goes_on(self, trace: TraceFile) -> NotebookWriter:
        """A writer that goes on with the trace.

        Cells that were cut off will not be taken up any more: they have ended.
        """
        return new_writer(self.trace, trace.meta, self.settings, ended(trace.node.cells), say=self.host.say)

    def _attach(self, running: RunningKernel, trace: TraceFile, notes: FileNotes | None = None) -> None:
        """Have the session's notebook hear what people run in the kernel; no models are asked."""
        run = Assembly(running.environment, SubCalls(None, Ledger(limits_of(self.settings))), self._tell)
        calls = run.host_calls(
            self._history, locate=notes.locate if notes else None, before=before_this(trace)
        )
        running.attach(calls, self._tell)

    def _history(self, cell: str) -> Any:
        return history_of(lambda: read_trace(self.trace))(cell)

    async def _read(self) -> TraceFile:
        return await asyncio.to_thread(read_trace, self.trace)

    def _keep(self, running: RunningKernel) -> None:
        """Write down where the session is, and what its kernel has.

        As long as cells may run that is unknown: this command may be killed.
        """
        run, grants = running.environment.run, running.environment.grants
        changes = {
            "run": run.path,
            "grants": grants.dump(),
            "used": datetime.now(UTC),
            "idle": self.settings.session.idle,
            "variables": self._told.variables if self._told else None,
            "files": self._told.files if self._told else None,
        }
        self.state = self.state.model_copy(update=changes)
        self.folder.write(self.state)
        run.describe(trace=self.trace, question=f"session {self.name}")

    async def _living_kernel(self) -> RunningKernel:
        """The kernel, rebuilt if it was lost since."""
        if self._running is None or not await _is_there(self._running):
            if self._running is not None:
                lost, self._running = self._running, None
                await lost.close()
            await self._rebuild("Its container ended", await image_for(self.host))
        assert self._running is not None
        return self._running

    @backstop
    async def ask(
        self,
        question: str,
        answered: Give = lambda _result: None,
        *,
        progress: bool | None = None,
        schema: Mapping[str, Any] | None = None,
        cite: bool | None = None,
        view: Listener | None = None,
        approve: Approve | None = None,
    ) -> Result:
        """Answer a question in the session; limits hold for it alone.

        `answered` hears the answer as soon as it is there. `progress`: show how far it is. `schema`: a JSON
        schema that the answer must fit. `cite`, `approve`: for this question, in place of the session's.
        `view` hears this question's events, beside that of the session.

        Cancelling it stops the running cell and closes the trace; the session goes on. Once there is an
        answer, that is the result all the same. Raises what `session.ask.ask` raises.
        """
        theirs, host = self._view, self.host
        heard = theirs if view is None else everyone(theirs, view)
        with Watched(self.progress if progress is None else progress, heard, trace=self.trace) as shown:
            self._view, self.host = shown.view, host.asked(cite, approve)
            try:
                return shown.done(
                    await answer_first(lambda give: self._ask(question, schema, give), answered, host.say)
                )
            finally:
                self._view, self.host = theirs, host

    async def _ask(self, text: str, schema: Mapping[str, Any] | None, give: Give) -> Result:
        if not text.strip():
            raise UsageError("The question is empty.", hint='Ask something: rlm run "How many …?"')
        if self.models is None:
            raise UsageError("This session was opened without models.", hint="Open it with models.")
        models = await asyncio.shield(
            self.models
        )  # a question that is stopped must not stop what readies them for the next
        running = await self._living_kernel()
        question = await self._look_at(running, text, schema)
        await self._load_first(running, question.named)
        await self._declare_tools(running)
        trace = await self._read()
        writer = self._goes_on(trace)
        self._write_to(writer)
        spent = trace.spent() + await asyncio.to_thread(spent_on_lost, trace)
        try:
            async with (
                FileNotes(running.environment, writer, self._left) as notes,
                KernelPool(self.host, running.environment.image) as kernels,
            ):
                result = await self._answer(running, question, trace, spent, notes, Family(models, kernels))
                give(result)
        except asyncio.CancelledError:
            await loops.to_its_end(self._settle(running))
            raise
        return result

    async def _answer(
        self,
        running: RunningKernel,
        question: Question,
        trace: TraceFile,
        spent: Totals,
        notes: FileNotes,
        family: Family,
    ) -> Result:
        ledger = ledger_of(self.host, purse=self.purse)
        children = Children(running.environment, self.trace, family, self._view)
        environment = replace(running.environment, host=self.host)
        run = Assembly(environment, SubCalls(family.models.models, ledger, children), self._tell)
        before = await asyncio.to_thread(before_this, trace)
        models, writer = family.models, self._writer
        assert writer is not None
        calls = run.host_calls(
            self._history, locate=notes.locate, before=before, beside=self.trace, room=writer.room
        )
        async with closing_trace(self._tell, ledger.totals, self.trace, self.host.say) as close:
            # Within it: a question that is put has an end in the trace, whatever comes.
            writer.set_models(models.names, models.profile.name, models.profile.digest)
            writer.question(question.worded)
            self._tell(RunOpened(question.text, ledger, spent))
            async with running.attached(calls, self._tell):
                loop = run.loop(run.cells(running, calls), family.models)
                outcome = await self._converse(loop, trace, question)
                self.used = close(outcome)
        return Result.of(outcome, self.used, self.trace, questions_asked(trace))

    async def _converse(self, loop: Loop, trace: TraceFile, question: Question) -> Outcome:
        """Put a question after what was said before, by the trace."""
        info = await loop.look()
        if question.schema is not None or info.typed:  # of the question before
            told = None if question.schema is None else dict(question.schema)
            expecting = await loop.set_up(numbered_id("expect", trace), f"expect_answer({told!r})")
            check_setup(expecting, self.settings)
            info = replace(info, typed=told is not None)
        turns = turns_of(trace.cells, recorded(trace.cells), further=True)
        past = Past(turns, left_behind(trace, info.partial), question.worded) if turns else None
        first = first_question(trace.cells, trace.meta.question) if turns else question.worded
        files = not self._has_object
        return await loop.run(first, info, from_files=files, past=past, **question.loop_options())

    async def _settle(self, running: RunningKernel) -> None:
        if not await running.kernel.settle():
            self._running = None
            await running.close()
            self.host.say(
                "The cell did not stop, so its kernel was ended: it is rebuilt for the next question."
            )

    async def _look_at(self, running: RunningKernel, text: str, schema: Mapping[str, Any] | None) -> Question:
        """The question, with the files allowed that it and those before it name.

        Raises UsageError where they are not there, and there is nothing else to ask of.
        """
        named = self.settings.sandbox.question_files
        question, grants = await read_question(text, schema, files=named), running.environment.grants

        def allow() -> list[Path]:
            for earlier, _ in self.conversation() if named else ():
                grants.allow(extract_paths(earlier, Path.cwd()))
            return grants.allow(question.named)

        question = replace(question, named=await asyncio.to_thread(allow))
        if question.absent and not question.named and (await running.kernel.describe()).kind == "None":
            refuse_missing(question.absent)
        question.tell_absent(self.host.say)
        return question

    async def _load_first(self, running: RunningKernel, named: Sequence[Path]) -> None:
        """With nothing loaded yet, load the files that the question names: they are what it is about.

        What cannot be read is not.
        """
        files = [path for path in named if path.is_file()]
        if files and (await running.kernel.describe()).kind == "None":
            with contextlib.suppress(UsageError):
                await self.load(files)

    async def _declare_tools(self, running: RunningKernel) -> None:
        """Have the tools in the kernel that are given now, where an earlier command gave it others."""
        trace = await self._read()
        code = undeclared(self.host.tools, [cell.source for cell in trace.code_cells])
        if code:
            self._attach(running, trace)
            result = await running.kernel.set_up(free_id(TOOLS_CELL, trace.cells), code)
            self._tell(UserCellFinished(result))
            self._keep(running)
            check_setup(result, self.settings)

    @backstop
    async def load(self, paths: Sequence[Path]) -> list[str]:
        """Load files into the session, as the user's own cell.

        What is loaded then, by lines. Raises FileRefused, UsageError.
        """
        stdin = free_path(self.trace.with_suffix(STDIN))
        given = await asyncio.to_thread(expand, paths, stdin)
        self._has_object = False
        return await self._load(given, lambda granted: f"load_files({granted!r})")

    @backstop
    async def give(self, context: Context) -> list[str]:
        """Load a context into the session, beside what is there, as the user's own cell: `context` becomes
        it.

        Files, tables, bytes and texts are then in `files`; what JSON holds is in `context_1`, the next in
        `context_2`. What is loaded then, by lines. Raises UsageError, FileRefused, TraceError.
        """
        given = await in_thread(gather_beside, context, self.trace)
        if not given.made:
            return await self.load(given.paths)
        loaded = await self._load(
            given.paths, lambda granted: f"{given.variable} = load_object({granted[0]!r})"
        )
        self._has_object = True
        return loaded

    async def _load(self, given: Sequence[Path], code: Callable[[list[str]], str]) -> list[str]:
        running = await self._living_kernel()
        assert self._writer is not None
        grants, trace = running.environment.grants, await self._read()
        granted = [str((await grants.add(path, self.host.say)).path) for path in given]
        async with FileNotes(running.environment, self._writer, self._left) as notes:
            await notes.note()
            self._attach(running, trace, notes)
            try:
                result = await running.kernel.set_up(numbered_id("load", trace), code(granted))
            except asyncio.CancelledError:
                await loops.to_its_end(self._settle(running))
                raise
            self._tell(UserCellFinished(result))
        self._keep(running)
        check_setup(result, self.settings)
        return output_text(result.outputs).splitlines()

    @backstop
    async def search(self, wanted: Search) -> Found:
        """Search the loaded files in the kernel, without a model; the trace has nothing of it.

        Raises UsageError for a bad pattern, an unknown file, or a search that takes too long.
        """
        running = await self._living_kernel()
        found = None
        try:
            found = await running.kernel.search(wanted)
        finally:
            if found is None:
                await asyncio.shield(self._settle(running))
        if found is None:
            raise UsageError(
                "The search was stopped, because it took too long or found too much.",
                hint="Try a simpler pattern, or fewer hits.",
            )
        return found

    @backstop
    async def undo(self) -> str:
        """Take the last question back: its cells leave the notebook, and the kernel is rebuilt without them.

        Raises UsageError.
        """
        trace = await self._read()
        kept = before_last_question(trace.node.cells)
        if kept is None:
            raise UsageError("There is no question to undo.", hint="Ask one first.")
        assert self._writer is not None
        self._writer.close()
        copy = free_path(self.trace.with_stem(f"{self.trace.stem}-undone"))
        # With prompts of its own: the session goes on with those of its notebook.
        new_writer(copy, trace.meta, self.settings, trace.node.cells, of=self.trace).close()
        question = (
            trace.meta.question
            if any(cell["metadata"].get("rlm", {}).get("kind") == "model" for cell in kept)
            else ""
        )
        new_writer(
            self.trace, trace.meta.model_copy(update={"question": question}), self.settings, kept
        ).close()
        if self._running is not None:
            running, self._running = self._running, None
            await running.close()
        await self._rebuild("The last question was undone", await image_for(self.host))
        return f"The last question was undone. The old notebook: {copy}"

    def conversation(self) -> list[tuple[str, str | None]]:
        """The questions and their answers, from the trace."""
        return conversation(read_trace(self.trace))

    @backstop
    async def status(self) -> SessionStatus:
        """What the session has and has used. Not while a question is answered."""
        return await status_of(self.state, self._running)

    @backstop
    async def stop(self) -> None:
        """End the session: the container is removed, and the session forgotten; its trace stays."""
        self._left.set()
        running, self._running = self._running, None
        if running is not None:
            await running.close()
        self.folder.remove(self.state)

    async def leave(self) -> None:
        """Let go of the kernel, for the next command."""
        self._left.set()
        running, self._running = self._running, None
        if running is not None:
            try:
                self._told = await told_by(running, self.state)
            finally:
                self._keep(running)
                await running.leave()


async def _is_there(running: RunningKernel) -> bool:
    """Whether the kernel answers: that its container has just ended may not be known yet."""
    try:
        await running.kernel.describe()
    except KernelError:
        return False
    return running.kernel.alive
