"""Kept sessions, from the outside: begun, taken up, ended. `session.status` looks at one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings, is_secret, load_settings
from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.session.environment import Host, Say, silent
from rlm_kernel.session.inputs import check_readable
from rlm_kernel.session.listeners import with_spans
from rlm_kernel.session.models import models_of, opening
from rlm_kernel.session.places import give_back, take_path
from rlm_kernel.session.running import discard
from rlm_kernel.session.session import Session
from rlm_kernel.session.setup import at_once, swept_image
from rlm_kernel.session.state import DEFAULT_NAME, SessionFolder, State, none_there
from rlm_kernel.session.toolbox import opened

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource

_KEPT_OPTIONS = ("root_llm.", "sub_llm.", "models.", "limits.", "prompt.", "sandbox.runtime")
"""Settings that a session keeps, as they were given when it was begun, but for keys.

Nothing that guards the machine is among them.
"""


@contextlib.asynccontextmanager
async def open_session(
    name: str = DEFAULT_NAME,
    *,
    paths: Sequence[Path] = (),
    new: bool | None = None,
    command: str = "rlm",
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    models: Models | None = None,
    with_models: bool = True,
    view: Listener | None = None,
    say: Say = silent,
    consent: Consent | None = None,
    approve: Approve | None = None,
    tools: Sequence[Tool | ToolSource] = (),
    allow_call: AllowCall | None = None,
    progress: bool = False,
    trace: Path | None = None,
) -> AsyncIterator[Session]:
    """Have a session to oneself: the one of that name in the working directory, or a new one.

    It stays when the context ends.

    Args:
        name: of the session.
        paths: files to load; into a session that is there already, too.
        new: True to begin one (UsageError if there is one), False to take one up (UsageError if there is
            none); None for either.
        command: what another command is told that finds the session in use.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name; models, limits, profile and runtime are kept with a new session.
        models: instead of those of the settings. The caller closes them.
        with_models: questions will be asked.
        view: hears the events of each question.
        say: hears what is being set up, a line at a time.
        consent: asked where the model wants a file that the user has not named.
        approve: asked before code spends more than `limits.ask`, where there is no limit on the cost.
        tools: what code in the kernel may call on the host.
        allow_call: asked before a call of a tool that asks. Default: it is refused.
        progress: show how far each question is, as `RLM(progress=True)` does.
        trace: where a new session's notebook goes. Default: a name of its own in `trace.dir`.

    Raises:
        UsageError: it is in use, or is there, or is not, against `new`.
        SetupError, FileRefused, TraceError, KernelError: as `ask`.
    """
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    settings = load_settings(config_file, given)
    folder = SessionFolder(settings.session.dir, name)
    async with folder.held(command, settings.session.wait):
        state = folder.read()
        begun = _check_new(folder, state, new)
        if state is None:
            state = folder.begin(
                trace or _trace(settings, name),
                {k: v for k, v in given.items() if k.startswith(_KEPT_OPTIONS) and not is_secret(k, v)},
            )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(give_back, state.trace)
            settings = load_settings(config_file, {**state.options, **given})
            await asyncio.to_thread(check_readable, paths)
            host = Host(settings, say, consent, approve, tools, allow_call)
            if with_models:
                host = await stack.enter_async_context(opened(host))
            session = Session(folder, state, host, await with_spans(view, say))
            session.progress = progress
            if with_models:
                session.models = await stack.enter_async_context(opening(models_of(settings, models, say)))
            try:
                await _set_up(session, paths, begun=begun)
                yield session
            finally:
                await session.leave()


async def _set_up(session: Session, paths: Sequence[Path], *, begun: bool) -> None:
    """Its kernel and, for a new session, its models, at the same time: one for nobody to answer in is of no
    use.
    """
    models = [session.models] if session.models is not None else []

    async def kernel() -> None:
        image = await swept_image(session.host, *models)
        await (session.begin(paths, image) if begun else session.take_up(image))

    async def answering() -> None:
        for ready in models if begun else ():
            await asyncio.shield(ready)

    try:
        await at_once(lambda group: [group.create_task(kernel()), group.create_task(answering())])
    except BaseException:
        if begun:
            await session.stop()
        raise
    if paths and not begun:
        await session.load(paths)


def _check_new(folder: SessionFolder, state: State | None, new: bool | None) -> bool:
    """Whether the session is to be begun. Raises UsageError."""
    if state is not None and new:
        raise UsageError(
            f"There is already a session {folder.name} here.",
            hint="Continue it: rlm run, rlm chat. Or end it: rlm stop. Or start another: --session NAME",
        )
    if state is None and new is False:
        raise none_there(folder)
    return state is None


def _trace(settings: Settings, name: str) -> Path:
    return take_path(settings.trace.dir / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-session-{name}.ipynb")


@backstop
async def stop_session(
    name: str = DEFAULT_NAME,
    *,
    keep: bool = False,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> State:
    """End a session: its container is removed.

    `keep`: it is not forgotten, and the next command rebuilds it. Its trace stays.

    Raises UsageError (in use, too), DockerError.
    """
    settings = load_settings(config_file, changes)
    folder = SessionFolder(settings.session.dir, name)
    if folder.read() is None:
        raise none_there(folder)
    async with folder.held("rlm stop", settings.session.wait):
        state = folder.read()
        if state is None:
            raise none_there(folder)
        await asyncio.to_thread(discard, state.run)
        if not keep:
            folder.remove(state)
        return state
