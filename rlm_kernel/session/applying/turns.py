"""A trace's code on another input: turn after turn without the root model, as long as all is as it was; then
with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.engine import messages
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import Listener, Noted, RunFinished, RunOpened, UserCellFinished
from rlm_kernel.engine.kept import Kept
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Answer, CellResult, Outcome, Totals
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.applying.applied import Applied
from rlm_kernel.session.applying.asked import OldQuestion, OldTurn, code_of, is_persons
from rlm_kernel.session.applying.counterparts import Counterparts
from rlm_kernel.session.applying.expectations import surprise, surprising_answer
from rlm_kernel.session.applying.inputform import InputForm, broken, guessed
from rlm_kernel.session.applying.learned import Learned
from rlm_kernel.session.applying.typedin import TypedIn
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.before import Before
from rlm_kernel.session.conversation import first_question, recorded, turns_of
from rlm_kernel.session.delivery import Give
from rlm_kernel.session.inputs import Inputs, check_setup
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.result import Result
from rlm_kernel.session.running import RunningKernel
from rlm_kernel.session.toolbox import declared
from rlm_kernel.session.tracefiles import FileNotes
from rlm_kernel.session.traces import closing_trace
from rlm_kernel.trace.reader import TraceCell, TraceFile, read_trace
from rlm_kernel.trace.schema import OriginMeta
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.engine.cells import Cells
    from rlm_kernel.engine.loop import Loop

INPUT = "input"
"""What the root model was woken at where no cell had run."""
_EXPECTS = re.compile(r"^expect_answer\((?P<schema>.*)\)$", re.MULTILINE)
_FILES = re.compile(r"^Files: .+$", re.MULTILINE)
_SHOWN = 4_000
"""Characters of code that was not run which the root model is shown."""
_TYPED_IN = "the answer does not depend on the input: the root model had read it in outputs of the first run"


@dataclass(frozen=True)
class Choices:
    """`root`: the root model may be woken; `reuse`: the first run's answers for calls that ask the same."""

    root: bool = True
    reuse: bool = False


@dataclass(frozen=True)
class Plan:
    """What is applied to what, and where the new notebook is."""

    trace: TraceFile
    questions: Sequence[OldQuestion]
    inputs: Inputs
    files: Counterparts
    path: Path
    choices: Choices = Choices()

    @property
    def question(self) -> str:
        return self.files.renamed(self.questions[0].text)


@dataclass(frozen=True)
class Woken:
    """Why the root model is needed: at which cell, and the code that was not run because of it."""

    cell: str
    why: str
    not_run: str = ""

    def message(self, trace: str) -> str:
        """For the root model, and for who reads the notebook."""
        when = "before any of it ran" if self.cell == INPUT else f"at {self.cell}"
        said = (
            f"The code of an earlier run ({trace}) was applied to the input of now, without you: replies "
            f"above are of that run, their outputs are of now. It was stopped {when}: {self.why}. Names and "
            "numbers in those replies may be of the earlier input: go by the outputs, and go on with the "
            "question."
        )
        if not self.not_run:
            return said
        return f"{said}\n\nThe code that was not run:\n\n{messages.truncate(self.not_run, _SHOWN)}"


class Applying:
    """One trace, applied. Used once."""

    def __init__(
        self,
        plan: Plan,
        running: RunningKernel,
        family: Family,
        writer: NotebookWriter,
        view: Listener | None,
    ) -> None:
        self._plan = plan
        self._running = running
        self._family = family
        self._writer = writer
        self._view = view
        self._listeners = everyone(writer, view)
        self._learned = Learned(plan.question, running.kernel.standing)
        self._typed = TypedIn()
        self._results: dict[str, CellResult] = {}
        self._woken: Woken | None = None
        self._awake = False
        self._ran = 0
        self._code_page = ""
        """In which the input of now was read by a guess."""
        self._names = ""
        """The names of its files."""
        self._told = ""
        """What the root model would have been told first; it stands with the first reply."""

    async def run(self, ledger: Ledger, give: Give) -> Result:
        """Apply it; `give` hears the result before anything is closed."""
        plan, environment = self._plan, self._running.environment
        async with closing_trace(self._listeners, ledger.totals, plan.path, environment.host.say) as close:
            self._listeners(RunOpened(plan.question, ledger, Totals()))
            self._listeners(Noted(f"The code of {plan.trace.path.name} is applied to this input."))
            async with FileNotes(environment, self._writer) as notes:
                children = Children(environment, plan.path, self._family, self._view)
                work = Assembly(
                    environment, SubCalls(self._family.models.models, ledger, children), self._listeners
                )
                calls = work.host_calls(
                    history_of(self._now),
                    locate=notes.locate,
                    before=_reused(plan) if plan.choices.reuse else None,
                    beside=plan.path,
                    room=self._writer.room,
                )
                async with self._running.attached(calls, self._listeners):
                    outcome = await self._all(work, work.cells(self._running, calls), ledger)
                    result = Result.of(outcome, close(outcome), plan.path)
                    result = replace(result, applied=self._applied())
                    give(result)
                    return result

    def _now(self) -> TraceFile:
        return read_trace(self._plan.path)

    def _applied(self) -> Applied:
        meta, woken = self._plan.trace.meta, self._woken
        first = meta.totals.totals() if meta.totals is not None else self._plan.trace.spent()
        return Applied(
            self._ran, first, woken.cell if woken else "", woken.why if woken else "", self._plan.choices.root
        )

    async def _all(self, work: Assembly, cells: Cells, ledger: Ledger) -> Outcome:
        """All questions, one after the other: from where the root model is woken, with it."""
        loop = work.loop(cells, self._family.models)
        await self._set_up(loop)
        outcome = Outcome(None, "no_answer")
        for number, asked in enumerate(self._plan.questions):
            if number:
                self._ask_further(asked, outcome, ledger)
            if self._woken is None:
                answer = await self._question(asked, cells, ledger)
                if answer is not None:
                    outcome = Outcome(answer, "answered")
                    continue
            assert self._woken is not None
            if not self._plan.choices.root:
                return Outcome(None, "no_answer", detail=f"At {self._woken.cell}: {self._woken.why}.")
            message = "" if self._awake else self._woken.message(self._plan.trace.path.name)
            self._awake = True
            outcome = await self._with_root(work.loop(cells, self._family.models), message)
        return outcome

    def _ask_further(self, asked: OldQuestion, before: Outcome, ledger: Ledger) -> None:
        text = self._plan.files.renamed(asked.text)
        self._writer(RunFinished(before, ledger.totals()))
        self._writer.question(text)
        self._writer(RunOpened(text, ledger, Totals()))
        self._learned.asked(text)

    async def _set_up(self, loop: Loop) -> None:
        """Load the input, and see whether it has the form of that of then."""
        plan = self._plan
        environment = self._running.environment
        paths = environment.grants.paths
        for cell_id, code in plan.inputs.cells(
            plan.question, paths, _schema(plan.trace), declared(environment.host.tools)
        ):
            check_setup(await loop.set_up(cell_id, code), environment.host.settings)
        info = await loop.look()
        self._told = loop.first_message(plan.question, info, from_files=not plan.inputs.made)
        model = plan.questions[0].turns[0].model.meta
        then, now = _of_input(model.told if model else ""), _of_input(self._told)
        forms = InputForm.told(then), InputForm.told(now)
        both = forms[0].names & forms[1].names if forms[0] and forms[1] else ()
        self._learned.told(then, now, both)
        self._code_page = guessed(*forms)
        self._names = "".join(_FILES.findall(self._told))
        code = code_of(plan.questions)
        if why := self._other_files(code) or broken(*forms, code):
            self._woken = Woken(INPUT, why, _blocks(plan.questions[0].turns, plan.files))

    def _other_files(self, code: str) -> str:
        files = self._plan.files
        if part := files.left_over(code):
            return f"the code chooses files by {part!r}, which no file is called now"
        if files.names_one(code) and (files.gone or files.added):
            more = f"{len(files.added)} more" if files.added else f"{len(files.gone)} less"
            return f"the code names files, and there are {more} now"
        return ""

    async def _question(self, asked: OldQuestion, cells: Cells, ledger: Ledger) -> Answer | None:
        """The answer without the root model; None where that is to be woken."""
        for cell in asked.before:
            await self._cell(cell, 0, cells, ledger)
        answer: Answer | None = None
        for turn in asked.turns:
            last = turn is asked.turns[-1]
            answer = await self._turn(turn, cells, ledger, last=last)
            if self._woken is not None:
                return None
        name = asked.turns[-1].model.id
        if answer is None or asked.answer is None:
            self._woken = Woken(name, "the first run had no answer that its code delivered")
            return None
        if why := surprising_answer(asked.answer, answer.text, self._code_page, self._names):
            self._woken = Woken(name, why)
            return None
        return answer

    async def _turn(self, turn: OldTurn, cells: Cells, ledger: Ledger, *, last: bool) -> Answer | None:
        """Run the cells of a turn.

        Its words are written once the first is about to run: a turn of which nothing ran is the root model's
        to take anew.
        """
        reply = self._plan.files.in_code(turn.reply)
        parsed = parse_reply(reply)
        if last and not turn.cells and parsed.final is not None:
            self._woken = Woken(turn.model.id, _TYPED_IN, reply)
            return None
        answer: Answer | None = None
        written = False
        for place, cell in enumerate(turn.cells):
            left = [self._plan.files.in_code(one.source) for one in turn.cells[place:]]
            if why := await self._stale(cell, last=last):
                self._woken = Woken(cell.id, f"{why}. It was not run", _fenced(left))
                return None
            if not written:
                told, self._told = self._told, ""
                model = turn.model.meta.model if turn.model.meta else ""
                self._writer.words_again(turn.number, reply, parsed.prose, told=told, model=model or "")
                written = True
            result = await self._cell(cell, turn.number, cells, ledger)
            answer = result.answer or answer
            if not is_persons(cell) and (why := surprise(cell, result, self._share())):
                self._woken = Woken(cell.id, why, _fenced(left[1:]))
                return None
        return answer

    async def _stale(self, cell: TraceCell, *, last: bool) -> str:
        """Why a cell must not run as it is."""
        code = self._plan.files.in_code(cell.source)
        typed = self._typed.answer_of(code)
        failed = any(output.get("output_type") == "error" for output in cell.outputs)
        if is_persons(cell) or failed:
            return ""
        return _TYPED_IN if typed and last else await self._learned.stale(code)

    async def _cell(self, cell: TraceCell, turn: int, cells: Cells, ledger: Ledger) -> CellResult:
        code, seconds = self._plan.files.in_code(cell.source), ledger.seconds_left()
        persons = is_persons(cell)
        runs = replace(cells, tell=_nobody) if persons else cells
        result = await runs.run(cell.id, code, turn, seconds=seconds)
        if persons:
            self._listeners(UserCellFinished(result))
        else:
            self._results[cell.id] = result
        self._ran += 1
        then, now = messages.output_text(cell.outputs), messages.output_text(result.outputs)
        self._learned.ran(cell.id, code, then, now)
        self._writer.set_origins(origins_of(self._plan.trace, cell.id))
        return result

    def _share(self) -> float:
        """How many times larger the input is."""
        then = sum(file.size for file in self._plan.trace.meta.files)
        return sum(file.size for file in self._writer.files) / max(1, then)

    async def _with_root(self, loop: Loop, message: str) -> Outcome:
        """Go on with the root model, from the notebook as it is now."""
        trace = self._now()
        info = await loop.look()
        turns = turns_of(trace.cells, recorded(trace.cells) | self._results)
        first = first_question(trace.cells, trace.meta.question)
        return await loop.run(first, info, from_files=not self._plan.inputs.made, past=Past(turns, message))


def _nobody(_event: object) -> None:
    """Hears of a person's cell while it runs."""


def origins_of(trace: TraceFile, cell: str) -> list[OriginMeta]:
    """Where the new notebook comes from: the trace, up to that cell."""
    now = datetime.now(UTC)
    new = OriginMeta(kind="apply", trace=str(trace.path), session=trace.meta.session, cell=cell, at=now)
    return [*trace.meta.origins, new]


def _reused(plan: Plan) -> Before:
    """The answers of the first run, each for one call that asks the same."""
    kept = Kept()
    for cell in plan.trace.code_cells:
        calls = cell.meta.calls if cell.meta else ()
        kept.add(call.record() for call in calls if call.kind == "llm_query")
    return Before(replace(plan.trace, cells=()), kept)


def _schema(trace: TraceFile) -> dict[str, object] | None:
    """The form that the answer must have, which the set-up cell names."""
    setup = next((cell.source for cell in trace.code_cells if cell.kind == "setup"), "")
    found = _EXPECTS.search(setup)
    try:
        schema = ast.literal_eval(found["schema"]) if found else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return schema if isinstance(schema, dict) else None


def _of_input(told: str) -> str:
    """What a first message tells of the input."""
    return told[: told.rfind("\nQuestion: ")] if "\nQuestion: " in told else told


def _blocks(turns: Sequence[OldTurn], files: Counterparts) -> str:
    return _fenced([files.in_code(cell.source) for turn in turns for cell in turn.cells])


def _fenced(cells: Sequence[str]) -> str:
    return "\n\n".join(f"```python\n{code}\n```" for code in cells)
