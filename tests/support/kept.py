"""A kept session without a kernel: questions over a fake one, each as a process of its own would put it, after
what the trace has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import RunFinished
from rlm_kernel.engine.protocols import ContextInfo, Outcome
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.conversation import first_question, recorded, turns_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.taken import ended
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import INFO, Run
from tests.support.trace import meta


def begun(path: Path) -> Path:
    """A kept session's trace without any question."""
    NotebookWriter(path, meta("", name="work"), [])
    return path


async def put(
    path: Path,
    question: str,
    root: Any,
    *,
    verbatim: int = 8_000,
    share: float | None = 0.6,
    info: ContextInfo = INFO,
    sees: Callable[[Run], None] = lambda _run: None,
    **options: Any,
) -> Run:
    """Put a question after what the trace has, as a kept session does.

    `root`: the replies, a summary among them.
    """
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, [], ended(trace.node.cells))
    writer.question(question)
    models = root if hasattr(root, "complete") else ScriptedModels(root, str.upper)
    run = Run(models, heard=writer, **options)
    run.loop.conversation.share, run.loop.conversation.verbatim = share, verbatim
    sees(run)
    turns = turns_of(trace.cells, recorded(trace.cells), further=True)
    first = first_question(trace.cells, trace.meta.question) if turns else question
    try:
        outcome = await run.loop.run(
            first, info, from_files=True, past=Past(turns, question=question) if turns else None
        )
    except ModelError as error:
        outcome = Outcome(None, "error", detail=error.message)
    writer(RunFinished(outcome, run.ledger.totals()))
    return run
