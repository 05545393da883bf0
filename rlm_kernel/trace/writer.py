"""The notebook writer: hears a run's events and keeps the trace on disk true to them.

What was heard is on disk after every event, in the notebook or in the journal beside it, and the notebook
itself is valid at every moment (`trace.notebook_file`). Each cell is serialised when it changes, so that the
cost of an event does not grow with the trace.

Its parts, each on top of the one before: `saving` (to the disk), `cell_writer` (how cells stand there),
`frame_writer` (title, answer, summary), `running_writer` (the cell in progress), and here the events.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, assert_never

from rlm_kernel.engine.events import (
    CallFinished,
    CallRetried,
    CallsPlanned,
    CallStarted,
    CellFinished,
    CellOutput,
    CellStarted,
    ChildEvent,
    Event,
    Noted,
    RunFinished,
    RunOpened,
    Summarized,
    TurnCutOff,
    TurnPiece,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.protocols import (
    CallRecord,
    CellResult,
    Completion,
    Memory,
    Outcome,
    Totals,
)
from rlm_kernel.errors import TraceNotWritten
from rlm_kernel.trace import calltable, document
from rlm_kernel.trace.calls import cell_meta, linked
from rlm_kernel.trace.progress import RunningCell
from rlm_kernel.trace.prompt_writer import PromptKeeper
from rlm_kernel.trace.reader import instant
from rlm_kernel.trace.running_writer import RunningWriter
from rlm_kernel.trace.schema import (
    MAX_THINKING,
    MAX_THOUGHTS,
    CallMeta,
    CellMeta,
    NotebookMeta,
    tokens_of,
)
from rlm_kernel.trace.writable import Writable

_PROMPTS = 60
"""Calls of a cell, the first that it makes, of which the prompts' ends are kept to be shown."""


class NotebookWriter(RunningWriter):
    """A listener (`engine.events`).

    `secrets` are replaced wherever they turn up. Raises TraceError when it cannot write.
    """

    def __init__(
        self,
        path: Path,
        meta: NotebookMeta,
        secrets: Sequence[str],
        cells: Iterable[Mapping[str, Any]] | None = None,
        *,
        outputs: int | None = None,
        prompts: Callable[[Writable], PromptKeeper] | None = None,
    ) -> None:
        """`cells`: those of a trace that is taken up, in nbformat's shape.

        Then nothing is written before the first event. `outputs`: characters of outputs that are kept, by
        default MAX_OUTPUTS. `prompts` makes what keeps the prompts of models in full; None: nothing does.
        """
        super().__init__(path, meta, secrets, outputs)
        self._prompts = prompts(self._writable) if prompts else None
        self._persons = 0
        self._kept: dict[str, Sequence[CallMeta]] = {}
        self._words: dict[int, dict[str, Any]] = {}
        self._earlier_words: dict[int, dict[str, Any]] = {}
        """Of turns that had ended: a cell of theirs may be run again."""
        self._beside: dict[str, datetime] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failure(error) from error
        self._write_title()
        for cell in cells or ():
            if cell["id"] != "title":
                self._take_up(cell)
        if cells is None:
            self._save()
        else:
            words = self._words
            self._close_turns()
            self._words = words  # their cells are run anew, which takes another time
            self._write_title()

    def _take_up(self, cell: Mapping[str, Any]) -> None:
        meta = cell_meta(cell["metadata"].get("rlm", {"kind": "person"}))
        self._turn = meta.turn or self._turn
        self._taken[cell["id"]] = dict(cell["metadata"])
        self._children[cell["id"]] = linked(meta)
        if meta.status == "running":
            # Answers that were paid for: kept until the cell has run again, even if that is cut off as well.
            self._kept[cell["id"]] = meta.calls
        self._tally.heard(cell["id"], meta, instant(cell["metadata"].get("execution")))
        if meta.kind == "model" and meta.turn:
            self._words[meta.turn] = dict(cell)
        elif meta.kind == "question":
            self._asked = meta.text or ""
        elif cell["id"] == "answer":
            self._answer = meta.text
        self._put(dict(cell), check=False)

    def __call__(self, event: Event) -> None:
        """Write what an event tells. Raises TraceNotWritten."""
        self._keep_prompts(event)
        match event:
            case RunOpened(account=account, before=before):
                # Each save has the account as it is then: whoever is killed loses none of it.
                self._before, self._account = before, account.closed
            case TurnStarted(turn):
                self._close_turns()
                self._turn = turn
            case TurnReplied(turn, reply, prose, told):
                self._turn_replied(turn, reply, prose, told)
            case TurnCutOff(turn, text, thoughts):
                self._turn_cut_off(turn, text, thoughts)
            case CellStarted(cell_id, turn, code):
                self._cell_started(cell_id, turn, code)
            case CellOutput(cell_id, outputs):
                self._cell_output(cell_id, outputs)
            case CallStarted(cell_id, call_id, _, prompt):
                self._call_started(cell_id, call_id, prompt)
            case CallFinished(cell_id, call):
                self._call_finished(cell_id, call)
            case CellFinished(turn, result):
                self._cell_finished(turn, result)
            case UserCellFinished(result):
                self._user_cell_finished(result)
            case Summarized(memory):
                self._summarized(memory)
            case Noted(text):
                self._aside("note", document.note(text), text)
            case RunFinished(outcome, totals):
                self._finished(outcome, totals)
            case TurnPiece() | CallRetried() | CallsPlanned() | ChildEvent():
                pass  # replies and calls are recorded when they end; children have traces of their own
            case _:
                assert_never(event)

    async def room(self) -> None:
        """Returns when there is room for the prompt of another call."""
        if self._prompts is not None:
            await self._prompts.room()

    def _keep_prompts(self, event: Event) -> None:
        if self._prompts is not None:
            self._name_prompts(self._prompts.hear(event))

    def _name_prompts(self, name: str) -> None:
        if name and name != self._meta.prompts:
            self._meta = self._meta.model_copy(update={"prompts": name})

    def _turn_replied(self, turn: int, reply: Completion, prose: str, told: str) -> None:
        meta = CellMeta(
            kind="model",
            turn=turn,
            seconds=round(reply.seconds, 3),
            model=reply.model,
            told=told,
            reply=reply.text,
            thoughts=reply.thoughts[:MAX_THOUGHTS],
            thinking=self._writable.whole(reply.thinking, MAX_THINKING),
            cost=reply.cost,
            **tokens_of(reply.usage),
        )
        cell_id = f"turn-{turn:02d}"
        self._words[turn] = self._markdown(cell_id, [document.model_words(turn, prose)], meta)
        self._tally.heard(cell_id, meta)
        self._save()

    def _close_turns(self) -> None:
        """Have the headings of turns tell what they hold, now that they have ended."""
        for turn, cell in self._words.items():
            titled = document.titled(_joined(cell["source"]), self._tally.heading(turn))
            if titled != _joined(cell["source"]):
                self._put({**cell, "source": titled}, check=False)
            self._earlier_words[turn] = cell
        self._words = {}

    def _turn_cut_off(self, turn: int, text: str, thoughts: str) -> None:
        number = 1
        while (cell_id := f"unfinished-{turn:02d}-{number}") in self._file.cells:
            number += 1
        # It is of no turn: the turn is begun anew by whoever goes on.
        meta = CellMeta(kind="unfinished", text=text, thoughts=thoughts[:MAX_THOUGHTS])
        self._markdown(cell_id, [document.unfinished(turn, text)], meta)
        self._save()

    def _cell_started(self, cell_id: str, turn: int, code: str) -> None:
        self._running, self._turn, self._beside = RunningCell(cell_id, code, datetime.now(UTC)), turn, {}
        self._prompts_shown = {}
        for call in self._kept.get(cell_id, ()):
            self._running.add(call.record())
        self._write_running(self._running)
        self._save()

    def _cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        if self._running is not None and cell_id == self._running.cell_id:
            self._running.show(outputs)
            self._save_now_and_then()

    def _call_started(self, cell_id: str, call_id: str, prompt: str) -> None:
        """Keep of the first calls what is shown of their prompts: their records have the beginnings alone."""
        if (
            self._running is not None
            and cell_id == self._running.cell_id
            and len(self._prompts_shown) < _PROMPTS
        ):
            self._prompts_shown[call_id] = calltable.shortened(self._writable.text(prompt))

    def _call_finished(self, cell_id: str, call: CallRecord) -> None:
        if self._running is not None and cell_id == self._running.cell_id:
            self._running.add(call)
            self._save_now_and_then()

    def _cell_finished(self, turn: int, result: CellResult) -> None:
        meta = CellMeta(
            kind=self._code_kind(result.cell_id),
            turn=turn or None,
            status=result.status,
            truncated=result.truncated,
            seconds=round(result.seconds, 4),
            calls=list(map(CallMeta.of, result.calls)),
            left_out=result.left_out,
            batch_cut=result.partial is not None,
        )
        self._running = None
        self._cancel_due()
        self._children[result.cell_id] = [call for call in meta.calls if call.trace]
        self._ended(result.cell_id, result, meta)
        self._tally.heard(result.cell_id, meta, result.started)
        if turn in self._earlier_words:
            self._words.setdefault(turn, self._earlier_words[turn])
        if earlier := [cell_id for cell_id, started in self._beside.items() if started < result.started]:
            # In the order in which the kernel ran them: it had waited for a person's.
            self._file.move(result.cell_id, behind=earlier[-1])
        self._show_pictures(result.cell_id, meta)
        self._save()

    def _show_pictures(self, cell_id: str, meta: CellMeta) -> None:
        """Put a cell behind this one that shows the pictures which its calls sent."""
        text, attached = document.pictures(meta.calls)
        if not attached:
            return
        name, shown = f"{cell_id}-pictures", CellMeta(kind="pictures", turn=meta.turn)
        metadata = {"rlm": self._writable.meta(shown)}
        cell = {"cell_type": "markdown", "id": name, "metadata": metadata, "source": text}
        self._put({**cell, "attachments": attached}, check=False)
        self._file.move(name, behind=cell_id)

    def _user_cell_finished(self, result: CellResult) -> None:
        status, seconds = result.status, round(result.seconds, 4)
        meta = CellMeta(
            kind="person", turn=self._turn or None, status=status, truncated=result.truncated, seconds=seconds
        )
        self._persons += 1
        while (cell_id := f"person-{self._persons:02d}") in self._file.cells:
            self._persons += 1
        self._beside[cell_id] = result.started
        self._ended(cell_id, result, meta)
        self._tally.heard(cell_id, meta, result.started)
        self._save()

    def _ended(self, cell_id: str, result: CellResult, meta: CellMeta) -> None:
        ended = result.started + timedelta(seconds=result.seconds)
        times = {"iopub.execute_input": result.started.isoformat(), "shell.execute_reply": ended.isoformat()}
        self._code_cell(cell_id, result.code, result.outputs, meta, result.execution_count, times, check=True)

    def words_again(self, turn: int, text: str, prose: str, *, told: str, model: str) -> None:
        """A reply of the run whose code is applied here: the root model was not asked for it now."""
        self._close_turns()
        self._turn = turn
        meta = CellMeta(kind="model", turn=turn, model=model, told=told, reply=text, cost=0.0, again=True)
        self._words[turn] = self._markdown(f"turn-{turn:02d}", [document.model_words(turn, prose)], meta)
        self._save()

    def question(self, text: str) -> None:
        """A question, put to the root model from here on: the notebook's own if it has none yet, else a
        further one.
        """
        self._reopen()
        if self._meta.question and self._turn:
            self._asked = self._writable.text(text)
            self._write_title()
            self._aside("question", document.question(text), text)
            return
        self._meta = self._meta.model_copy(update={"question": self._writable.text(text)})
        self._write_title()
        self._save()

    def _summarized(self, memory: Memory) -> None:
        self._aside(
            "memory",
            document.memory(memory),
            memory.text,
            model=memory.reply.model,
            seconds=round(memory.reply.seconds, 3),
            cost=memory.reply.cost,
            tokens_before=memory.before,
            tokens_after=memory.after,
            since=memory.since,
            **tokens_of(memory.reply.usage),
        )

    def _aside(self, kind: Literal["note", "question", "memory"], shown: str, text: str, **more: Any) -> None:
        number = self._counts[kind] + 1
        while (cell_id := f"{kind}-{self._turn:02d}-{number}") in self._file.cells:
            number += 1
        meta = CellMeta(kind=kind, turn=self._turn or None, text=text, **more)
        self._markdown(cell_id, [shown], meta)
        if kind == "memory":
            self._tally.heard(cell_id, meta)
        self._save()

    def _finished(self, outcome: Outcome, totals: Totals) -> None:
        self._cancel_due()
        self._account = None
        if self._running is not None:
            ended = self._meta_of(self._running)
            with contextlib.suppress(
                Exception
            ):  # it may be what the run failed of: then the cell stays as it was last written
                self._write_running(self._running, ended)
            self._children[self._running.cell_id] = [
                CallMeta.of(call) for call in self._running.calls if call.trace
            ]
            self._tally.heard(self._running.cell_id, ended, self._running.started)
            self._running = None
        self._close_turns()
        self._conclude(outcome, totals)
        self._close_prompts()  # before the seal is made, which covers them
        self._closed = True
        try:
            self._save()
        except TraceNotWritten:
            self.release()  # what is in the journal stays there, for whoever takes the run up
            raise

    def close(self) -> None:
        self._close_prompts()
        super().close()

    def release(self) -> None:
        self._cancel_due()
        self._close_prompts()
        super().release()

    def _close_prompts(self) -> None:
        if self._prompts is not None:
            self._name_prompts(self._prompts.close())


def _joined(source: Any) -> str:
    """A cell's text, which a file may have by lines."""
    return source if isinstance(source, str) else "".join(source)
