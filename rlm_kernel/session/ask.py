"""One question, from the command line or from Python: everything is put together here, and taken apart again whatever happens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import ROLES, Models, Outcome, StopReason, Totals, Usage
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.session.answering import Asked, answer
from rlm_kernel.session.children import Children, Family
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.inputs import Context, check_readable, gather
from rlm_kernel.session.named import missing_paths, named_paths, refuse_missing
from rlm_kernel.session.players import model_names, profile_for
from rlm_kernel.session.stage import Say, kernel_of, limits_of, models_ready, stage
from rlm_kernel.session.warm import WarmKernels

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent


@dataclass(frozen=True)
class Result:
    """What came of a question. `answer` is None if there is none; `value` is its JSON data where the code delivered more than text.

    `forced`: a limit (`stop_reason`) was reached and the model was asked for what it had. `cost` in US dollars, None where unknown.
    """

    answer: str | None
    value: Any
    trace: Path
    stop_reason: StopReason
    forced: bool
    detail: str
    totals: Totals

    @classmethod
    def of(cls, outcome: Outcome, totals: Totals, trace: Path) -> Result:
        answer, value = (outcome.answer.text, outcome.answer.value) if outcome.answer else (None, None)
        return cls(answer, value, trace, outcome.stop_reason, outcome.forced, outcome.detail, totals)

    @property
    def usage(self) -> Usage:
        """Tokens of root and sub models together."""
        return self.totals.usage

    @property
    def cost(self) -> float | None:
        return self.totals.cost

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm ask --json` prints."""
        return {
            "answer": self.answer if self.value is None else self.value,
            "trace": str(self.trace),
            **self.totals.as_json(),
            "stop_reason": self.stop_reason,
            "forced": self.forced,
        }


def free_path(path: Path) -> Path:
    """The path, or the first with a number behind its stem that nothing has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def trace_path(settings: Settings, question: str, chosen: Path | None) -> Path:
    """Where the trace goes: the chosen place, or a name of its own in the settings' folder. Raises UsageError."""
    if chosen is None:
        words = "-".join(re.findall(r"[a-z0-9]+", question.lower())[:6])[:50] or "question"
        chosen = free_path(settings.trace.dir / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{words}.ipynb")
    if not system.is_possible_name(chosen.name):
        raise UsageError(f"No file can be called {chosen.name!r} on Windows.", hint="Give --trace another name, without a colon.")
    if chosen.is_dir():
        raise UsageError(f"{chosen} is a folder.", hint="Give --trace the name of a file that ends in .ipynb.")
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
    say: Say = lambda _text: None,
    consent: Consent | None = None,
    schema: Mapping[str, Any] | None = None,
    answered: Give = lambda _result: None,
) -> Result:
    """Answer a question over a context, in a container of its own, with a trace.

    Parameters
    ----------
    models: instead of those of the settings, as scripted ones. The caller closes them.
    view: hears the run's events beside the trace.
    say: hears what is being set up, a line at a time.
    consent: asked where the code wants a file that neither the context nor the question names. Default: it is refused.
    schema: a JSON schema that the answer must fit.
    answered: hears the answer as soon as it is there, before the container is removed.

    Raises RLMError (see `rlm_kernel.errors`); a run that ends without an answer is a Result, with `answer` None. Cancelling it stops the
    running cell, closes the trace and removes the container; once there is an answer, that is the result all the same.
    """

    async def work(give: Give) -> Result:
        return await _ask(question, context, settings, trace, models, view, say, consent, schema, give)

    return await answer_first(work, answered, say)


async def _ask(
    question: str,
    context: Context,
    settings: Settings,
    trace: Path | None,
    models: Models | None,
    view: Listener | None,
    say: Say,
    consent: Consent | None,
    schema: Mapping[str, Any] | None,
    give: Give,
) -> Result:
    if not question.strip():
        raise UsageError("The question is empty.", hint='Ask something: rlm ask "How many …?" -f FILE')
    path = trace_path(settings, question, trace)
    named = await asyncio.to_thread(named_paths, question, Path.cwd())
    # With nothing else to look at, the files that the question names are what it is about.
    given = context if context is not None else [file for file in named if file.is_file()] or None
    missing = await asyncio.to_thread(missing_paths, question, Path.cwd())
    if given is None and not named:
        refuse_missing(missing)
    for one in missing:
        say(f"The question names a path, but {one}.")
    inputs = await asyncio.to_thread(gather, given, path)
    await asyncio.to_thread(check_readable, inputs.paths)
    async with (
        models_ready(settings, models, say) as players,
        stage(inputs.paths, settings, say, named=named, consent=consent, models=players) as on,
    ):
        playing = await players
        asked = Asked(
            question,
            inputs,
            path,
            settings,
            playing,
            model_names(settings, playing) if models is None else {role: playing.name(role) for role in ROLES},
            profile_for(settings, playing),
            Ledger(limits_of(settings)),
            view,
            [str(file) for file in named],
            schema,
            absent=[str(one) for one in missing],
        )
        on.run.describe(trace=path, question=question)
        async with WarmKernels(settings, on.image, say) as kernels:
            children = Children(on, path, Family(settings, playing, asked.names, asked.profile, kernels), view)
            outcome, totals = await answer(
                asked,
                on,
                children,
                lambda calls, heard: kernel_of(on, settings, calls, heard, cell_timeout=settings.limits.cell_timeout),
                lambda outcome, totals: give(Result.of(outcome, totals, path)),
            )
    return Result.of(outcome, totals, path)
