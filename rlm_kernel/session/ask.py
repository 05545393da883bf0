"""One question, from the command line or from Python: everything is put together here, and taken apart again whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.prompts import Profile, load_profile
from rlm_kernel.engine.protocols import CellResult, Models, Outcome, StopReason, Totals, Trace, Usage
from rlm_kernel.errors import ImageError, RLMError, UsageError
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.inputs import Context, file_meta, gather
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.players import open_models, profile_for
from rlm_kernel.trace.schema import FileMeta, NotebookMeta
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import FileGrants
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.provisioner import SandboxSpec
    from rlm_kernel.sandbox.rundir import RunDir

WINDOW = 128
"""Host calls of one batch under way at once; the models' own concurrency is lower."""
Say = Callable[[str], None]


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

    @property
    def usage(self) -> Usage:
        """Tokens of root and sub models together."""
        return self.totals.root_usage + self.totals.sub_usage

    @property
    def cost(self) -> float | None:
        return self.totals.cost

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm ask --json` prints."""
        totals, usage = self.totals, self.usage
        return {
            "answer": self.answer if self.value is None else self.value,
            "trace": str(self.trace),
            "turns": totals.turns,
            "calls": totals.calls,
            "tokens": {"prompt": usage.prompt, "completion": usage.completion, "cached": usage.cached},
            "cost": self.cost,
            "seconds": round(totals.seconds, 3),
            "stop_reason": self.stop_reason,
            "forced": self.forced,
        }


def trace_path(settings: Settings, question: str, chosen: Path | None) -> Path:
    """Where the trace goes: the chosen place, or a name of its own in the settings' folder. Raises UsageError."""
    if chosen is None:
        words = "-".join(re.findall(r"[a-z0-9]+", question.lower())[:6])[:50] or "question"
        chosen = settings.trace.dir / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{words}.ipynb"
        number = 1
        while chosen.exists():
            number += 1
            chosen = chosen.with_stem(f"{chosen.stem}-{number}")
    if chosen.is_dir():
        raise UsageError(f"{chosen} is a folder.", hint="Give --trace the name of a file that ends in .ipynb.")
    return chosen.absolute()


async def ask(
    question: str,
    context: Context = None,
    *,
    settings: Settings,
    trace: Path | None = None,
    models: Models | None = None,
    view: Trace | None = None,
    say: Say = lambda _text: None,
) -> Result:
    """Answer a question over a context, in a container of its own, with a trace.

    Parameters
    ----------
    models: instead of those of the settings, as scripted ones. The caller closes them.
    view: hears the run's events beside the trace.
    say: hears what is being set up, a line at a time.

    Raises RLMError (see `rlm_kernel.errors`); a run that ends without an answer is a Result, with `answer` None. Cancelling it stops the
    running cell, closes the trace and removes the container.
    """
    if not question.strip():
        raise UsageError("The question is empty.", hint='Ask something: rlm ask "How many …?" -f FILE')
    path = trace_path(settings, question, trace)
    inputs = gather(context, path)
    async with contextlib.AsyncExitStack() as stack:
        from rlm_kernel.sandbox.broker import MAX_REQUEST
        from rlm_kernel.sandbox.grants import FileGrants
        from rlm_kernel.sandbox.rundir import RunDir

        run = RunDir.create(max_request=MAX_REQUEST, window=WINDOW)
        stack.callback(run.remove)
        grants = await asyncio.to_thread(FileGrants, inputs.paths, run)
        image, models = await _image_and_models(stack, settings, models, say)
        profile = load_profile(profile_for(settings))
        meta = _meta(run, question, settings, models, profile, image)
        files = await asyncio.to_thread(lambda: [file_meta(path) for path in grants.paths])
        writer = NotebookWriter(path, meta.model_copy(update={"files": files}), known_secrets(os.environ))
        listeners = everyone(writer, view) if view else writer
        ledger = Ledger(_limits(settings))
        calls = HostCalls(models, ledger, listeners, _locator(grants))
        digests = stack.enter_context(_digests(grants.paths))
        async with _closing_trace(listeners, ledger):
            async with _kernel(run, settings, image, grants.mounts(), calls, listeners) as kernel:
                loop = Loop(kernel, models, calls, ledger, listeners, profile, settings.limits.output_chars)
                for cell_id, code in inputs.cells(question, grants.paths):
                    _check_setup(await loop.set_up(cell_id, code), settings)
                outcome = await loop.run(question, await kernel.describe(), from_files=not inputs.made)
            totals = ledger.totals()
            writer.set_files(await digests)
            listeners.finished(outcome, totals)
    answer, value = (outcome.answer.text, outcome.answer.value) if outcome.answer else (None, None)
    return Result(answer, value, path, outcome.stop_reason, outcome.forced, outcome.detail, totals)


def _locator(grants: FileGrants) -> Callable[[str], Mapping[str, Any]]:
    def locate(asked: str) -> Mapping[str, Any]:
        found = grants.locate(asked)
        return {"inside": str(found.inside), "path": str(found.path), "directory": found.directory}

    return locate


@contextlib.contextmanager
def _digests(paths: list[Path]) -> Iterator[asyncio.Future[list[FileMeta]]]:
    """The files with their digests, read in a thread beside the run, and no further than the run."""
    over = threading.Event()
    try:
        yield asyncio.ensure_future(asyncio.to_thread(lambda: [file_meta(path, digest_until=over) for path in paths]))
    finally:
        over.set()


@contextlib.asynccontextmanager
async def _closing_trace(listeners: Trace, ledger: Ledger) -> AsyncIterator[None]:
    """A run that is interrupted or fails still closes its trace properly."""
    try:
        yield
    except asyncio.CancelledError:
        listeners.finished(Outcome(None, "interrupted"), ledger.totals())
        raise
    except RLMError as error:
        with contextlib.suppress(RLMError):  # a full disk, say, which is then the error itself
            listeners.finished(Outcome(None, "error", detail=error.message), ledger.totals())
        raise


async def _image_and_models(
    stack: contextlib.AsyncExitStack, settings: Settings, given: Models | None, say: Say
) -> tuple[ImageInfo, Models]:
    """The image is found or built while the models get ready."""
    players = asyncio.create_task(_enter_models(stack, settings, given, say))
    try:
        return await asyncio.to_thread(_image, settings, say), await players
    except BaseException:
        players.cancel()
        await asyncio.wait([players])
        raise


async def _enter_models(stack: contextlib.AsyncExitStack, settings: Settings, given: Models | None, say: Say) -> Models:
    return given if given is not None else await stack.enter_async_context(open_models(settings, say))


def _image(settings: Settings, say: Say) -> ImageInfo:
    """The image of the settings, or ours, built if it is not there. Blocking. Raises DockerError, ImageError."""
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import ensure_image, inspect_image

    client = connect()
    try:
        if settings.sandbox.image is None:
            return ensure_image(client, base=settings.sandbox.base, progress=say)
        found = inspect_image(client, settings.sandbox.image)
        if found is None:
            raise ImageError(
                f"The image {settings.sandbox.image} (sandbox.image) is not there.",
                hint="Unset sandbox.image to use rlm_kernel's own, or build or pull that one.",
            )
        return found
    finally:
        client.close()


@contextlib.asynccontextmanager
async def _kernel(
    run: RunDir, settings: Settings, image: ImageInfo, mounts: list[tuple[str, str]], calls: HostCalls, listeners: Trace
) -> AsyncIterator[Any]:
    """A kernel that is up, with its broker; both gone afterwards."""
    from rlm_kernel.sandbox.broker import Broker
    from rlm_kernel.sandbox.kernel import DockerKernel

    broker = Broker(run, calls.handlers())
    spec = _sandbox_spec(run, settings, image, mounts, broker.ready)
    kernel = DockerKernel(spec, broker, cell_timeout=settings.limits.cell_timeout, on_output=listeners.cell_output)
    try:
        await broker.start()
        await kernel.start()
        yield kernel
    finally:
        # Shielded: a second cancellation must not leave a container behind.
        await asyncio.shield(_close(kernel, broker))


async def _close(kernel: Any, broker: Any) -> None:
    try:
        await kernel.stop()
    finally:
        await broker.stop()


def _sandbox_spec(run: RunDir, settings: Settings, image: ImageInfo, mounts: list[tuple[str, str]], ready: asyncio.Event) -> SandboxSpec:
    from rlm_kernel.sandbox.provisioner import SandboxSpec

    sandbox = settings.sandbox
    if sandbox.transport == "tcp":
        raise UsageError("sandbox.transport tcp is not there yet.", hint="Use auto or ipc, with an engine on this machine.")
    return SandboxSpec(
        image=image.id,
        run=run,
        ready=ready,
        memory=parse_size(sandbox.memory),
        cpus=min(sandbox.cpus, float(os.cpu_count() or 1)),
        pids=sandbox.pids,
        tmp=parse_size(sandbox.tmp),
        network=sandbox.network,
        runtime=sandbox.runtime,
        mounts=mounts,
    )


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(limits.turns, limits.calls, limits.cost, limits.tokens, limits.seconds)


def _meta(run: RunDir, question: str, settings: Settings, models: Models, profile: Profile, image: ImageInfo) -> NotebookMeta:
    limits = settings.limits.model_dump()
    return NotebookMeta(
        session=run.session_id,
        created=datetime.now(UTC),
        rlm_version=__version__,
        question=question,
        models={"root": models.name("root"), "sub": models.name("sub")},
        prompt_profile=profile.name,
        prompt_digest=profile.digest,
        image=image.tag,
        image_digest=image.id,
        limits=limits,
        sandbox=settings.sandbox.model_dump(mode="json", exclude_none=True),
    )


def _check_setup(result: CellResult, settings: Settings) -> None:
    """Raise UsageError if the input could not be loaded."""
    if result.status == "ok":
        return
    if result.status == "died":
        raise UsageError(
            f"The input could not be loaded: {' '.join(result.notices)}",
            hint=f"The kernel has {settings.sandbox.memory} of memory; give it more with sandbox.memory (RLM_SANDBOX__MEMORY=8g).",
        )
    errors = [str(output["evalue"]) for output in result.outputs if output["output_type"] == "error"]
    raise UsageError(f"The input could not be loaded: {' '.join(errors or result.notices)}")
