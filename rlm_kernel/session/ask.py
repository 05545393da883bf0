"""One question, from the command line or from Python: everything is put together here, and taken apart again
whatever happens.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.config import Settings
from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import Purse
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.session.answering import Asked, Family, answer
from rlm_kernel.session.asyncitems import in_thread
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.environment import Host, Say, ledger_of, silent
from rlm_kernel.session.inputs import Context, check_readable, gather
from rlm_kernel.session.listeners import with_spans
from rlm_kernel.session.models import ModelSet, models_of
from rlm_kernel.session.places import give_back, take_path
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.questions import read_question, refuse_missing
from rlm_kernel.session.result import Result
from rlm_kernel.session.running import GivenFiles, new_kernel
from rlm_kernel.session.setup import set_up
from rlm_kernel.session.toolbox import opened

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource


def trace_name(settings: Settings, question: str) -> Path:
    """A path in the settings' folder that tells when was asked, and what; another may have it, too."""
    words = "-".join(re.findall(r"[a-z0-9]+", question.lower())[:6])[:50] or "question"
    return settings.trace.dir / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{words}.ipynb"


def trace_path(settings: Settings, question: str, chosen: Path | None) -> Path:
    """Where the trace goes: the chosen place, or a name of its own in the settings' folder, which is taken.

    Raises UsageError.
    """
    if chosen is None:
        chosen = take_path(trace_name(settings, question))
    if not system.is_possible_name(chosen.name):
        raise UsageError(
            f"On Windows, a file cannot have the name {chosen.name!r}.",
            hint="Give --trace another name, without a colon.",
        )
    if chosen.is_dir():
        raise UsageError(
            f"{chosen} is a folder.", hint="Give --trace the name of a file that ends with .ipynb."
        )
    return chosen.absolute()


@backstop
async def ask(
    question: str,
    context: Context = None,
    *,
    settings: Settings,
    trace: Path | None = None,
    models: Models | None = None,
    view: Listener | None = None,
    say: Say = silent,
    consent: Consent | None = None,
    approve: Approve | None = None,
    tools: Sequence[Tool | ToolSource] = (),
    allow_call: AllowCall | None = None,
    schema: Mapping[str, Any] | None = None,
    purse: Purse | None = None,
    answered: Give = lambda _result: None,
) -> Result:
    """Answer a question over a context, in a container of its own, with a trace.

    Args:
        question: what is asked. Paths that stand in it may be loaded.
        context: a text, a JSON-like object, or the path or paths of files and folders.
        settings: as `load_settings` gives them.
        trace: where the notebook goes. Default: a name of its own in `trace.dir`.
        models: instead of those of the settings, as scripted ones. The caller closes them.
        view: hears the run's events beside the trace.
        say: hears what is being set up, a line at a time.
        consent: asked where the code wants a file that neither the context nor the question names. Default:
            it is refused.
        approve: asked before the code spends more than `limits.ask`, where there is no limit on the cost.
            Default: it may.
        tools: what code in the kernel may call on the host.
        allow_call: asked before a call of a tool that asks. Default: it is refused.
        schema: a JSON schema that the answer must fit.
        purse: what this run and others may use together.
        answered: hears the answer as soon as it is there, before the container is removed.

    Returns:
        What came of it. Of a run that ends without an answer, `answer` is None. Cancelling it stops the
        running cell, closes the trace and removes the container; once there is an answer, that is the result
        all the same.

    Raises:
        RLMError: what prevents a run (see `rlm_kernel.errors`).
    """

    host = Host(settings, say, consent, approve, tools, allow_call)

    async def work(give: Give) -> Result:
        asked, files = await look_at(question, context, schema, trace, host)
        heard = await with_spans(view, say)
        return await _answered(
            replace(asked, view=heard), files, host, models_of(settings, models, say), give, purse
        )

    trace = trace_path(settings, question, trace)
    try:
        return await answer_first(work, answered, say)
    finally:
        give_back(trace)


async def look_at(
    text: str, context: Context, schema: Mapping[str, Any] | None, trace: Path | None, host: Host
) -> tuple[Asked, GivenFiles]:
    """What can be said of a question before anything is set up.

    Raises UsageError, FileRefused, TraceError.
    """
    if not text.strip():
        raise UsageError("The question is empty.", hint='Ask something: rlm ask "How many …?" -f FILE')
    path = trace_path(host.settings, text, trace)
    question = await read_question(text, schema, files=host.settings.sandbox.question_files)
    # With nothing else to look at, the files that the question names are what it is about.
    given = context if context is not None else [file for file in question.named if file.is_file()] or None
    if given is None and not question.named:
        refuse_missing(question.absent)
    question.tell_absent(host.say)
    inputs = await in_thread(gather, given, path)
    await asyncio.to_thread(check_readable, inputs.paths)
    late = bool(question.named or host.tools or host.settings.mcp.servers) or host.consent is not None
    return Asked(question, inputs, path), GivenFiles(inputs.paths, inputs.known_as, question.named, late)


async def _answered(
    asked: Asked,
    files: GivenFiles,
    host: Host,
    models: AbstractAsyncContextManager[ModelSet],
    give: Give,
    purse: Purse | None,
) -> Result:
    async with (
        opened(host) as host,
        set_up(host, models) as ready,
        await new_kernel(host, ready.image, files) as running,
        KernelPool(host, ready.image) as kernels,
    ):
        running.environment.run.describe(trace=asked.trace, question=asked.question.text)
        family, ledger = Family(ready.chosen, kernels), ledger_of(host, purse=purse)
        outcome, totals = await answer(
            asked,
            running,
            family,
            ledger,
            lambda outcome, totals: give(Result.of(outcome, totals, asked.trace)),
        )
    return Result.of(outcome, totals, asked.trace)
