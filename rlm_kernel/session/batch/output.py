"""What a batch leaves: its file of results, the folder of its traces, and the index of these."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.errors import UsageError
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.batch.engine import Engine
from rlm_kernel.session.batch.questions import Common, Drafts, Entries, entries
from rlm_kernel.session.batch.results import Paid, Results
from rlm_kernel.session.batch.run import Batch, How
from rlm_kernel.session.batch.traces import Traces, refuse_other_page, write_index
from rlm_kernel.session.inputs import check_readable, expand, inherited_pipe

RESULTS, TRACES = ".results.jsonl", ".traces"
"""Endings of the file of results beside the questions, and of the folder of traces beside the results."""
_NO_MATTER = {
    "api_base",
    "api_key_env",
    "caching",
    "concurrency",
    "extra",
    "input_price",
    "output_price",
    "retries",
    "service_tier",
    "stream",
    "timeout",
    "window",
}
"""Settings of a model that make no other answer of the same question."""


@contextlib.asynccontextmanager
async def opened(out: Path, traces: Path | None = None) -> AsyncIterator[tuple[Results, Traces]]:
    """The file of results and the place of the traces, by default beside it; the index is there from the
    beginning, and has all in the end.

    Raises UsageError, TraceNotWritten.
    """
    out = Path(os.path.abspath(out))  # noqa: ASYNC240  # it looks at no file
    folder = Path(os.path.abspath(traces or out.with_name(out.name.removesuffix(".jsonl") + TRACES)))  # noqa: ASYNC240
    await asyncio.to_thread(refuse_other_page, folder)
    results = await asyncio.to_thread(Results.open, out)

    def index() -> None:
        if results.lines:
            write_index(folder, results.path)

    try:
        await results.take_up()
        await asyncio.to_thread(index)
        try:
            yield results, Traces(folder, results.lines)
        finally:
            await to_its_end(asyncio.to_thread(index))
    finally:
        results.close()


EngineOf = Callable[[Paid], Engine]
"""Makes the engine of a batch; it is told what earlier runs of the batch have used."""


@dataclass(frozen=True)
class Places:
    """Where a batch leaves what came of it. Without `out` there are traces alone; by default these are
    beside it.
    """

    out: Path | None = None
    traces: Path | None = None


@dataclass(frozen=True)
class Ready:
    """A batch, its questions, and the places that it has open."""

    batch: Batch
    entries: Entries
    traces: Path
    results: Results | None = None


def files_of_all(files: Sequence[Path | str] | None) -> list[Path]:
    """The files of every question, as a user gives them. Blocking. Raises UsageError."""
    given = [Path(one) for one in files or ()]
    if Path("-") in given:
        raise UsageError(
            "-f cannot take standard input here: every question would have to read it.",
            hint="Save it in a file first.",
        )
    for one in given:
        if inherited_pipe(one):
            raise UsageError(
                f"-f cannot take the output of a command here: {one}. Every question would have to read it.",
                hint="Save it in a file first.",
            )
    return [one.expanduser().absolute() for one in expand(given, Path())]


@contextlib.asynccontextmanager
async def ready(
    drafts: Drafts,
    engine_of: EngineOf,
    places: Places,
    how: How,
    made_by: str,
    files: Sequence[Path] = (),
) -> AsyncIterator[Ready]:
    """A batch with its engine at work. `made_by`: as `by` gives it; `files`: of every question. Raises what
    `opened` and the engine raise, and FileRefused where a file of all cannot be read.
    """
    await asyncio.to_thread(check_readable, files)
    common = Common(files, None if how.answer_type is None else how.answer_type.schema)
    async with contextlib.AsyncExitStack() as stack:
        results, traces = None, Traces(places.traces or Path("rlm-traces"))
        if places.out is not None:
            results, traces = await stack.enter_async_context(opened(places.out, places.traces))
        asked = entries(drafts, made_by, compared=results is not None, common=common)
        engine = engine_of(Paid() if results is None else results.paid)
        await stack.enter_async_context(engine)
        yield Ready(Batch(engine, traces, results, how), asked, traces.folder, results)


def by(settings: Settings, names: Mapping[str, str] | None = None) -> str:
    """What makes an answer another one beside what is asked: the models and the prompt. `names`: those of
    models that are given by a program.
    """
    told: dict[str, Any] = {"prompt": settings.prompt.model_dump(mode="json")}
    if names is not None:
        told["names"] = dict(names)
    else:
        models = {"root": settings.root_llm, "sub": settings.sub_llm, **settings.models}
        told["models"] = {
            name: one.model_dump(mode="json", exclude=_NO_MATTER) for name, one in models.items()
        }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
