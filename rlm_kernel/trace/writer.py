"""The notebook writer: hears a run's events and keeps the trace on disk true to them.

The file is a valid notebook after every event and is replaced atomically. Each cell is serialised when it changes, not when the file is
written, so that the cost of an event hardly grows with the trace. While a cell runs, its progress is written at most every SAVE_SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rlm_kernel import harmless
from rlm_kernel.engine.protocols import Account, Answer, CallKind, CallRecord, CellResult, Completion, Memory, Outcome, Retry, Role, Totals
from rlm_kernel.errors import TraceError
from rlm_kernel.trace import document
from rlm_kernel.trace.notebook_file import replace as replace_file
from rlm_kernel.trace.notebook_file import serialised
from rlm_kernel.trace.reader import code_digest
from rlm_kernel.trace.schema import MAX_THOUGHTS, CallMeta, CellMeta, FileMeta, NotebookMeta, TotalsMeta
from rlm_kernel.trace.writable import Writable

SAVE_SECONDS = 0.5
MAX_OUTPUTS = 40_000_000
"""Characters of outputs of all cells together, passed by no more than the last cell's: a browser has to open them."""
_KERNELSPEC = {"name": "rlm", "display_name": "RLM (Docker)", "language": "python"}
_FULL = f"[The outputs of the cells above have {MAX_OUTPUTS:,} characters: those of this one are left out of the trace.]\n"
_LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}


class NotebookWriter:
    """Implements `engine.protocols.Trace`. `secrets` are replaced wherever they turn up. Raises TraceError when it cannot write."""

    def __init__(self, path: Path, meta: NotebookMeta, secrets: Sequence[str], cells: Iterable[Mapping[str, Any]] | None = None) -> None:
        """`cells`: those of a trace that is taken up, in nbformat's shape. Then nothing is written before the first event."""
        self.path = path
        self._writable = Writable(secrets)
        # Before the title is made of it, which may cut a secret in two.
        self._meta = NotebookMeta.model_validate(self._writable.meta(meta))
        self._cells: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._running: str | None = None
        self._turn = 0
        self._code = ""
        self._outputs: Sequence[Mapping[str, Any]] = ()
        self._calls: dict[str, CallMeta] = {}
        self._kept: dict[str, list[CallMeta]] = {}
        self._children: dict[str, list[CallMeta]] = {}
        self._beside: dict[str, datetime] = {}
        self._taken: dict[str, dict[str, Any]] = {}
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        self._saved = 0.0
        self._save_cost = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._account: Callable[[], Totals] | None = None
        self._before = Totals()
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

    def _take_up(self, cell: Mapping[str, Any]) -> None:
        meta = CellMeta.model_validate(cell["metadata"].get("rlm", {"kind": "person"}))
        self._turn = meta.turn or self._turn
        self._taken[cell["id"]] = dict(cell["metadata"])
        self._children[cell["id"]] = [call for call in meta.calls if call.trace]
        if meta.status == "running":
            # Answers that were paid for: kept until the cell has run again, even if that is cut off as well.
            self._kept[cell["id"]] = meta.calls
        self._put(dict(cell), check=False)

    def opened(self, account: Account, before: Totals) -> None:
        """Each save has the account as it is then: whoever is killed loses none of it."""
        self._before, self._account = before, account.closed

    def turn_started(self, turn: int) -> None:
        self._turn = turn

    def turn_replied(self, turn: int, reply: Completion, prose: str) -> None:
        meta = CellMeta(
            kind="model",
            turn=turn,
            seconds=round(reply.seconds, 3),
            model=reply.model,
            reply=reply.text,
            thoughts=reply.thoughts[:MAX_THOUGHTS],
            prompt_tokens=reply.usage.prompt,
            completion_tokens=reply.usage.completion,
            cached_tokens=reply.usage.cached,
            cost=reply.cost,
        )
        self._markdown(f"turn-{turn:02d}", document.model_words(turn, prose, len(meta.thoughts)), meta)
        self._save()

    def cell_started(self, cell_id: str, turn: int, code: str) -> None:
        self._running, self._code, self._outputs, self._beside = cell_id, code, (), {}
        self._calls = {_key(call): call for call in self._kept.get(cell_id, ())}
        self._turn, self._started, self._clock = turn, datetime.now(UTC), time.monotonic()
        self._write_running()
        self._save()

    def cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        if cell_id == self._running:
            self._outputs = outputs
            self._save_now_and_then()

    def call_started(self, cell_id: str, call_id: str, kind: CallKind) -> None:
        """Calls are recorded when they end."""

    def call_retried(self, cell_id: str, call_id: str, retry: Retry) -> None:
        """A call's record has the number of its attempts."""

    def calls_planned(self, cell_id: str, calls: int) -> None:
        """For those who watch."""

    def call_finished(self, cell_id: str, call: CallRecord) -> None:
        if cell_id == self._running:
            recorded = CallMeta.of(call)
            self._calls[_key(recorded)] = recorded
            self._save_now_and_then()

    def cell_finished(self, turn: int, result: CellResult) -> None:
        meta = CellMeta(
            kind=self._code_kind(result.cell_id),
            turn=turn or None,
            status=result.status,
            truncated=result.truncated,
            seconds=round(result.seconds, 4),
            calls=[CallMeta.of(call) for call in result.calls],
        )
        self._running = None
        self._cancel_due()
        self._children[result.cell_id] = [call for call in meta.calls if call.trace]
        self._ended(result.cell_id, result, meta)
        if earlier := [cell_id for cell_id, started in self._beside.items() if started < result.started]:
            self._move(result.cell_id, earlier[-1])
        self._save()

    def person_ran(self, result: CellResult) -> None:
        status, seconds = result.status, round(result.seconds, 4)
        meta = CellMeta(kind="person", turn=self._turn or None, status=status, truncated=result.truncated, seconds=seconds)
        number = 1
        while (cell_id := f"person-{number:02d}") in self._cells:
            number += 1
        self._beside[cell_id] = result.started
        self._ended(cell_id, result, meta)
        self._save()

    def _ended(self, cell_id: str, result: CellResult, meta: CellMeta) -> None:
        ended = result.started + timedelta(seconds=result.seconds)
        times = {"iopub.execute_input": _iso(result.started), "shell.execute_reply": _iso(ended)}
        self._code_cell(cell_id, result.code, result.outputs, meta, result.execution_count, times, check=True)

    def _move(self, cell_id: str, behind: str) -> None:
        """Put a cell where it belongs, in the order in which the kernel ran them: it had waited for a person's."""
        text = self._cells.pop(cell_id)
        cells = list(self._cells.items())
        cells.insert(list(self._cells).index(behind) + 1, (cell_id, text))
        self._cells = dict(cells)

    def note(self, text: str) -> None:
        self._aside("note", document.note(text), text)

    def question(self, text: str) -> None:
        """A question, put to the root model from here on: the notebook's own if it has none yet, else a further one."""
        self._reopen()
        if self._meta.question and self._turn:
            self._aside("question", document.question(text), text)
            return
        self._meta = self._meta.model_copy(update={"question": self._writable.text(text)})
        self._write_title()
        self._save()

    def _reopen(self) -> None:
        """What closed the notebook closes it no more: the run goes on."""
        self._cells.pop("summary", None)
        if "answer" in self._cells:
            number = sum(name.startswith("answer-") for name in self._cells) + 1
            closing = json.loads(self._cells["answer"]) | {"id": f"answer-{number:02d}"}
            closing["source"] = "".join(closing["source"])
            self._cells = {closing["id"] if name == "answer" else name: text for name, text in self._cells.items()}
            self._put(closing, check=False)
        changes = {"status": "running", "stop_reason": None, "forced": False, "detail": ""}
        self._meta = self._meta.model_copy(update=changes)

    def set_models(self, models: Mapping[Role, str], profile: str, digest: str) -> None:
        """Say who answers from here on, and by which prompt."""
        names = {role: self._writable.text(name) for role, name in models.items()}
        self._meta = self._meta.model_copy(update={"models": names, "prompt_profile": profile, "prompt_digest": digest})
        self._write_title()
        self._save()

    def _write_title(self) -> None:
        self._markdown("title", document.title(self._meta), CellMeta(kind="title"))

    def remembered(self, memory: Memory) -> None:
        usage = memory.reply.usage
        self._aside(
            "memory",
            document.memory(memory),
            memory.text,
            model=memory.reply.model,
            seconds=round(memory.reply.seconds, 3),
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            cached_tokens=usage.cached,
            cost=memory.reply.cost,
            tokens_before=memory.before,
            tokens_after=memory.after,
        )

    def _aside(self, kind: Literal["note", "question", "memory"], shown: str, text: str, **more: Any) -> None:
        number = sum(name.startswith(kind) for name in self._cells) + 1
        while (cell_id := f"{kind}-{self._turn:02d}-{number}") in self._cells:
            number += 1
        self._markdown(cell_id, shown, CellMeta(kind=kind, turn=self._turn or None, text=text, **more))
        self._save()

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        self._cancel_due()
        self._account = None
        if self._running is not None:
            with contextlib.suppress(Exception):  # it may be what the run failed of: then the cell stays as it was last written
                self._write_running()
            self._children[self._running] = [call for call in self._calls.values() if call.trace]
            self._running = None
        if outcome.answer is not None:
            outcome = replace(outcome, answer=Answer(self._writable.text(outcome.answer.text)))
        self._meta = self._meta.model_copy(
            update={
                "status": "finished",
                "stop_reason": outcome.stop_reason,
                "forced": outcome.forced,
                "detail": outcome.detail,
                "totals": TotalsMeta.of(self._before + totals),
            }
        )
        text = outcome.answer.text[: document.ANSWER_CAP] if outcome.answer else None
        children = [call for cell_id in self._cells for call in self._children.get(cell_id, ())]
        self._markdown("answer", document.answer(outcome), CellMeta(kind="answer", turn=self._turn or None, text=text))
        self._markdown("summary", document.summary(self._meta, children), CellMeta(kind="summary"))
        self._save(durable=True)

    @property
    def files(self) -> Sequence[FileMeta]:
        """The files of the trace, as far as they are known."""
        return self._meta.files

    def set_files(self, files: Sequence[FileMeta]) -> None:
        """Say more of the files than was known at first: their digests."""
        self._meta = self._meta.model_copy(update={"files": list(files)})
        self._save()

    def _write_running(self) -> None:
        assert self._running is not None
        kind = self._code_kind(self._running)
        seconds = round(time.monotonic() - self._clock, 4)
        meta = CellMeta(kind=kind, turn=self._turn or None, status="running", seconds=seconds, calls=list(self._calls.values()))
        times = {"iopub.execute_input": _iso(self._started)}
        self._code_cell(self._running, self._code, self._outputs, meta, None, times, check=False)

    def _code_cell(
        self,
        cell_id: str,
        code: str,
        outputs: Sequence[Mapping[str, Any]],
        meta: CellMeta,
        count: int | None,
        times: Mapping[str, str],
        *,
        check: bool,
    ) -> None:
        # Jupyter goes on after a cell with this tag.
        failed = meta.status in ("error", "timeout")
        taken = self._taken.get(cell_id, {})
        tags = [tag for tag in taken.get("tags", []) if tag not in ("parameters", "raises-exception")]
        tags += ["parameters"] if cell_id == "parameters" else ["raises-exception"] if failed else []
        source = self._writable.text(code)
        meta = meta.model_copy(update={"code_digest": code_digest(source)})
        kept = {name: value for name, value in taken.items() if name != "tags"}
        if sum(size for name, size in self._sizes.items() if name != cell_id) > MAX_OUTPUTS:
            meta = meta.model_copy(update={"truncated": True})
            outputs = [{"output_type": "stream", "name": "stderr", "text": _FULL}] if outputs else []
        metadata = {**kept, "execution": dict(times), "rlm": self._writable.meta(meta), **({"tags": tags} if tags else {})}
        cell = {
            "cell_type": "code",
            "id": cell_id,
            "metadata": metadata,
            "source": source,
            "execution_count": count,
            "outputs": [self._writable.output(output) for output in outputs],
        }
        self._put(cell, check=check)

    def _code_kind(self, cell_id: str) -> Any:
        if cell_id in ("parameters", "setup"):
            return cell_id
        taken = self._taken.get(cell_id)
        return "code" if taken is None else taken.get("rlm", {}).get("kind", "person")

    def _markdown(self, cell_id: str, text: str, meta: CellMeta) -> None:
        metadata = {"rlm": self._writable.meta(meta)}
        source = harmless.markdown(self._writable.text(text))
        self._put({"cell_type": "markdown", "id": cell_id, "metadata": metadata, "source": source}, check=False)

    def _put(self, cell: dict[str, Any], *, check: bool) -> None:
        self._cells[cell["id"]] = serialised(cell, check=check)
        self._sizes[cell["id"]] = sum(len(str(part)) for output in cell.get("outputs", ()) for part in output.values())

    def _save_now_and_then(self) -> None:
        # With thousands of calls in a cell its own serialisation costs something: keep that under a tenth of the time.
        wait = self._saved + max(SAVE_SECONDS, 10 * self._save_cost) - time.monotonic()
        if wait <= 0:
            self._save_running()
        elif self._due is None:
            with contextlib.suppress(RuntimeError):  # without an event loop the next event saves
                self._due = asyncio.get_running_loop().call_later(wait, self._save_when_due)

    def _save_running(self) -> None:
        self._cancel_due()
        if self._running is not None:
            started = time.monotonic()
            self._write_running()
            self._save()
            self._save_cost = time.monotonic() - started

    def _save_when_due(self) -> None:
        with contextlib.suppress(TraceError):  # nobody here to hear it; the next event raises it again
            self._save_running()

    def _cancel_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _save(self, *, durable: bool = False) -> None:
        if self._account is not None:
            self._meta = self._meta.model_copy(update={"totals": TotalsMeta.of(self._before + self._account())})
        metadata = {"kernelspec": _KERNELSPEC, "language_info": _LANGUAGE, "rlm": self._writable.meta(self._meta)}
        try:
            replace_file(self.path, self._cells.values(), metadata, durable=durable)
        except OSError as error:
            raise self._failure(error) from error
        self._saved = time.monotonic()

    def _failure(self, error: OSError) -> TraceError:
        # What is there was put there whole.
        then = f"then go on: rlm resume {self.path}" if os.path.isfile(self.path) else "or choose another place with --trace."
        return TraceError(
            f"The trace {self.path} cannot be written: {error.strerror or error}.",
            hint=f"Free some space or check the folder's permissions, {then}",
        )


def _key(call: CallMeta) -> str:
    """What tells calls of a cell apart. Their ids alone do not: those of another kernel's processes may be the same."""
    return f"{call.prompt_digest}-{call.nth}-{call.id}"


def _iso(instant: datetime) -> str:
    return instant.isoformat()
