"""The trace of a run: what it says of the run, who writes it, and that it is closed whatever happens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlm_kernel._version import __version__
from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.events import Listener, RunFinished
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import Outcome, Totals
from rlm_kernel.errors import InternalError, RLMError, TraceError, is_interrupt
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.environment import Environment, Say, silent
from rlm_kernel.trace.prompt_writer import PromptKeeper, Taken
from rlm_kernel.trace.schema import NotebookMeta
from rlm_kernel.trace.writer import NotebookWriter


def new_meta(
    environment: Environment, question: str, names: Mapping[str, str], profile: Profile
) -> NotebookMeta:
    """What a new trace says of itself. `names`: those of the models."""
    settings = environment.host.settings
    return NotebookMeta(
        session=environment.run.session_id,
        created=datetime.now(UTC),
        rlm_version=__version__,
        question=question,
        models=dict(names),
        prompt_profile=profile.name,
        prompt_digest=profile.digest,
        image=environment.image.tag,
        image_digest=environment.image.id,
        limits=settings.limits.model_dump() | _own_limits(settings),
        sandbox=settings.sandbox.model_dump(mode="json", exclude_none=True),
    )


def _own_limits(settings: Settings) -> dict[str, float | None]:
    """Those of models beside root and sub, by the names of their settings."""
    return {
        f"models.{name}.{what}": limit
        for name, llm in settings.models.items()
        for what, limit in (("calls", llm.calls), ("cost", llm.cost))
        if limit is not None
    }


def new_writer(
    path: Path,
    meta: NotebookMeta,
    settings: Settings,
    cells: Iterable[Mapping[str, Any]] | None = None,
    *,
    say: Say = silent,
    of: Path | None = None,
) -> NotebookWriter:
    """What writes a trace: without the secrets of this process, and with no more output than the settings
    say.

    `cells`: those of a trace that is taken up; then nothing is written before the first event. `of`: that
    trace, if it is another file. `say` hears that the prompts of models cannot be kept.
    """
    taken = Taken(of or path, meta.prompts) if meta.prompts else None
    full = settings.trace.prompts == "full"
    if of is not None and of != path:
        meta = meta.model_copy(update={"prompts": ""})
    return NotebookWriter(
        path,
        meta,
        known_secrets(os.environ),
        cells,
        outputs=parse_size(settings.trace.outputs),
        prompts=(lambda writable: PromptKeeper(path, writable, say, taken)) if full else None,
    )


@contextlib.asynccontextmanager
async def closing_trace(
    listeners: Listener, totals: Callable[[], Totals], path: Path, say: Say
) -> AsyncIterator[Callable[[Outcome], Totals]]:
    """Close the trace, once: as soon as there is an outcome, which is told to what this gives, or else where
    a run is interrupted or fails, by whatever comes.

    That what has the answer cannot be written is told by `say`, and costs nobody the answer. Raises RLMError
    for what is no interrupt.
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
            what = (
                "The answer is not in the trace."
                if isinstance(error, TraceError)
                else "The end of the run could not be shown."
            )
            say(f"{what} {error.message if isinstance(error, RLMError) else error}")
        return spent

    try:
        yield close
    except BaseException as error:
        interrupted = is_interrupt(error)
        failure = (
            error if interrupted else InternalError.of(error, f"The trace is closed and complete: {path}")
        )
        if not closed:
            outcome = (
                Outcome(None, "interrupted")
                if interrupted
                else Outcome(None, "error", detail=_detail(failure, path))
            )
            with contextlib.suppress(Exception):  # a full disk, say, which is then the error itself
                listeners(RunFinished(outcome, totals()))
        if failure is error:
            raise
        raise failure from error


def _detail(failure: BaseException, path: Path) -> str:
    assert isinstance(failure, RLMError)
    return (
        f"{failure.message} To continue: rlm resume {path.name}"
        if isinstance(failure, InternalError)
        else failure.message
    )
