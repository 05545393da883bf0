"""The models that an applied trace needs: without the root model, only those that its code calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import MODEL_CALLS
from rlm_kernel.session.applying.asked import OldQuestion, cells_of
from rlm_kernel.session.applying.turns import Choices
from rlm_kernel.session.environment import Say
from rlm_kernel.session.models import ModelSet, models_of
from rlm_kernel.session.replaying import RunAgain
from rlm_kernel.session.unasked import unasked_models
from rlm_kernel.trace.reader import TraceFile

_HOW_TO_ASK = "To have sub-calls answered, name a model: --sub-model"


def needed_models(
    trace: TraceFile, asked: Sequence[OldQuestion], again: RunAgain, choices: Choices, say: Say
) -> tuple[Settings, AbstractAsyncContextManager[ModelSet]]:
    """The settings, and the models that they name, still closed.

    A root model that may not be woken needs no key, unless the code asked child RLMs. Nor does a sub model
    that the code did not call, or whose recorded answers are reused and which was a script. Raises
    ConfigError, UsageError.
    """
    given = {name for name, value in again.changes.items() if value is not None}
    called = {call.kind for cell in cells_of(asked) if cell.meta for call in cell.meta.calls} & {*MODEL_CALLS}
    if choices.root or again.models is not None or "root_llm.model" in given or "rlm_query" in called:
        settings = again.settings(trace)
        return settings, models_of(settings, again.models, say)
    from_trace = choices.reuse and trace.meta.models["sub"].startswith("scripted/")
    if "sub_llm.model" not in given and (not called or from_trace):
        settings = again.settings(trace, live=False)
        return settings, unasked_models(trace, settings, _HOW_TO_ASK)
    settings = again.settings(trace, root=False)
    return settings, _with_root_of(trace, models_of(settings, None, say))


@contextlib.asynccontextmanager
async def _with_root_of(
    trace: TraceFile, opening: AbstractAsyncContextManager[ModelSet]
) -> AsyncIterator[ModelSet]:
    """The models, with the root model that the trace names: its replies are in the new notebook."""
    async with opening as models:
        yield replace(models, names={**models.names, "root": trace.meta.models["root"]})
