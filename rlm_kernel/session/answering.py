"""A question, answered in a kernel with a trace: the same for a run of its own and for the child RLMs beneath one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import Listener, RunFinished, RunOpened
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import CellResult, Children, Models, Outcome, Role, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import InternalError, RLMError, TraceError, UsageError, is_interrupt
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.conversation import full_history
from rlm_kernel.session.inputs import Inputs
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.stage import Say, Stage, keep_of
from rlm_kernel.session.tracefiles import FileNotes, metas_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import NotebookMeta, ParentMeta
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.kernel import DockerKernel

_TOO_SMALL = (
    (("MemoryError", "Cannot allocate memory"), "memory", "8g"),
    (("No space left on device", "No usable temporary directory"), "tmp", "4g"),
    (("can't start new thread", "Resource temporarily unavailable"), "pids", "512"),
)
"""Signs of a limit that is too low, its setting, and a value that is enough for most."""
OpenKernel = Callable[[HostCalls, Listener], AbstractAsyncContextManager["DockerKernel"]]


@dataclass(frozen=True)
class Asked:
    """A question, and all that answers it but the kernel. `names`: who plays, as the user named them; `named`: files that the question
    names, `absent`: those that it names and that are not there; `schema`: of the answer, if it must have one.

    `view` hears the run's events, from when its trace is there.
    """

    question: str
    inputs: Inputs
    trace: Path
    settings: Settings
    models: Models
    names: Mapping[Role, str]
    profile: Profile
    ledger: Ledger
    view: Listener | None = None
    named: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None
    parent: ParentMeta | None = None
    absent: Sequence[str] = ()

    @property
    def worded(self) -> str:
        """The question with how its answer must look."""
        if self.schema is None:
            return self.question
        return f"{self.question}\n\nDeliver the answer with FINAL, as a value that fits this JSON schema: {json.dumps(self.schema)}"


async def answer(
    asked: Asked,
    on: Stage,
    children: Children,
    open_kernel: OpenKernel,
    ended: Callable[[Outcome, Totals], None] = lambda _outcome, _totals: None,
) -> tuple[Outcome, Totals]:
    """Answer it, with a trace that is closed whatever happens. `ended` hears the outcome before anything is closed. Raises RLMError."""
    settings, path, ledger = asked.settings, asked.trace, asked.ledger
    meta = new_meta(on, asked.worded, settings, asked.names, asked.profile)
    limits = meta.limits | {"depth": ledger.limits.depth}
    files = await asyncio.to_thread(metas_of, on.grants.places(), made=asked.inputs.made)
    writer = NotebookWriter(
        path,
        meta.model_copy(update={"files": files, "parent": asked.parent, "limits": limits}),
        known_secrets(os.environ),
        outputs=parse_size(settings.trace.outputs),
    )
    listeners = everyone(writer, asked.view)
    async with closing_trace(listeners, ledger.totals, path, on.say) as close:
        listeners(RunOpened(asked.question, ledger, Totals()))
        async with FileNotes(on, writer) as notes:
            calls = HostCalls(
                SubCalls(asked.models, ledger, children),
                listeners,
                notes.locate,
                history=lambda cell: full_history(read_trace(path), seen_by=cell),
                keep=keep_of(settings),
            )
            async with open_kernel(calls, listeners) as kernel:
                loop = Loop(
                    Cells(kernel, calls, listeners), asked.models, asked.profile, settings.limits.output_chars, settings.memory_share
                )
                for cell_id, code in asked.inputs.cells(asked.worded, on.grants.paths, asked.schema):
                    check_setup(await loop.set_up(cell_id, code), settings)
                info = await kernel.describe()
                outcome = await loop.run(asked.worded, info, from_files=not asked.inputs.made, named=asked.named, absent=asked.absent)
                totals = close(outcome)
                ended(outcome, totals)
    return outcome, totals


@contextlib.asynccontextmanager
async def closing_trace(
    listeners: Listener, totals: Callable[[], Totals], path: Path, say: Say
) -> AsyncIterator[Callable[[Outcome], Totals]]:
    """Close the trace, once: as soon as there is an outcome, which is told to what this gives, or else where a run is interrupted or fails,
    by whatever comes.

    That what has the answer cannot be written is told by `say`, and costs nobody the answer. Raises RLMError for what is no interrupt.
    """
    closed = False

    def close(outcome: Outcome) -> Totals:
        nonlocal closed
        closed, spent = True, totals()
        try:
            listeners(RunFinished(outcome, spent))
        except Exception as error:
            if outcome.answer is None:
                raise
            what = "The answer is not in the trace." if isinstance(error, TraceError) else "The end of the run could not be shown."
            say(f"{what} {error.message if isinstance(error, RLMError) else error}")
        return spent

    try:
        yield close
    except BaseException as error:
        interrupted = is_interrupt(error)
        failure = error if interrupted else InternalError.of(error, f"The trace is closed, and has all that was done: {path}")
        if not closed:
            outcome = Outcome(None, "interrupted") if interrupted else Outcome(None, "error", detail=_detail(failure, path))
            with contextlib.suppress(Exception):  # a full disk, say, which is then the error itself
                listeners(RunFinished(outcome, totals()))
        if failure is error:
            raise
        raise failure from error


def _detail(failure: BaseException, path: Path) -> str:
    assert isinstance(failure, RLMError)
    return f"{failure.message} To go on: rlm resume {path.name}" if isinstance(failure, InternalError) else failure.message


def new_meta(on: Stage, question: str, settings: Settings, models: Mapping[Role, str], profile: Profile) -> NotebookMeta:
    """What a new trace says of itself."""
    return NotebookMeta(
        session=on.run.session_id,
        created=datetime.now(UTC),
        rlm_version=__version__,
        question=question,
        models=dict(models),
        prompt_profile=profile.name,
        prompt_digest=profile.digest,
        image=on.image.tag,
        image_digest=on.image.id,
        limits=settings.limits.model_dump(),
        sandbox=settings.sandbox.model_dump(mode="json", exclude_none=True),
    )


def check_setup(result: CellResult, settings: Settings) -> None:
    """Raise UsageError if the input could not be loaded."""
    if result.status == "ok":
        return
    if result.status == "died":
        raise UsageError(
            f"The input could not be loaded: {' '.join(result.notices)}",
            hint=f"The kernel has {settings.sandbox.memory} of memory; give it more with sandbox.memory (RLM_SANDBOX__MEMORY=8g).",
        )
    errors = [output for output in result.outputs if output["output_type"] == "error"]
    why = " ".join([str(error["evalue"]) for error in errors] or result.notices)
    kinds = " ".join(str(error["ename"]) for error in errors)
    raise UsageError(f"The input could not be loaded: {why}", hint=_more_room(f"{kinds} {why}", settings))


def _more_room(why: str, settings: Settings) -> str:
    """Which limit of the container to raise, if that is what an error tells of."""
    for signs, setting, value in _TOO_SMALL:
        if any(sign in why for sign in signs):
            variable = f"RLM_SANDBOX__{setting.upper()}"
            now = getattr(settings.sandbox, setting)
            return f"The container is too small: sandbox.{setting} is {now}. Give it more: {variable}={value}"
    return ""
