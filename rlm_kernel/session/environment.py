"""What a kernel runs in: the session's folder, the files in it, the image, and those who run it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.approval import Approval, Approve
from rlm_kernel.engine.ledger import Ledger, Limits, ModelLimits
from rlm_kernel.engine.protocols import PauseTimer, Totals
from rlm_kernel.engine.purse import Purse
from rlm_kernel.engine.records import Keep
from rlm_kernel.errors import ImageError

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent, FileGrants
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.rundir import RunDir
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource

MAX_IN_FLIGHT = 128
"""Host calls of one batch under way at once, where the models' own concurrency is lower."""
Say = Callable[[str], None]


def silent(_text: str) -> None:
    """Tells nobody what is being done."""


@dataclass(frozen=True)
class Host:
    """Who runs a kernel.

    `say` hears what is being done, a line at a time; `consent` is asked for files that the user did not name,
    which are refused without it; `approve` before code spends much, which it may without it. `tools`: what
    code in the kernel may call here; `allow_call` is asked for those that ask, which are refused without it.
    """

    settings: Settings
    say: Say = silent
    consent: Consent | None = None
    approve: Approve | None = None
    tools: Sequence[Tool | ToolSource] = ()
    allow_call: AllowCall | None = None

    def asked(self, cite: bool | None, approve: Approve | None) -> Host:
        """The host of one question; None is as it is."""
        settings = self.settings
        if cite is not None:
            prompt = settings.prompt.model_copy(update={"cite": cite})
            settings = settings.model_copy(update={"prompt": prompt})
        return replace(self, settings=settings, approve=self.approve if approve is None else approve)


@dataclass(frozen=True)
class Environment:
    """The session's folder, the files that the kernel gets, and the image of its container."""

    host: Host
    run: RunDir
    grants: FileGrants
    image: ImageInfo

    async def locate(self, asked: str, asking: PauseTimer) -> Mapping[str, Any]:
        """Where the kernel finds a host path; `asking` is entered while the user is asked.

        Raises FileRefused.
        """
        from rlm_kernel.sandbox.grants import rules_above

        found = await self.grants.obtain(asked, _entering(asking, self.host.consent), self.host.say)
        place = {"inside": str(found.inside), "path": str(found.path), "directory": found.directory}
        return (
            place | {"ignore": await asyncio.to_thread(rules_above, found.path)} if found.directory else place
        )


def _entering(asking: PauseTimer, consent: Consent | None) -> Consent | None:
    """The consent, which enters `asking` while the user thinks."""
    if consent is None:
        return None

    async def ask(path: Path) -> bool:
        with asking():
            return await consent(path)

    return ask


def new_folder(settings: Settings, *, replayed: bool = False, idle: float = 0.0) -> RunDir:
    """A session's folder.

    `replayed`: host calls may be answered from a recording; `idle`: seconds that the container outlives its
    owner.

    Raises SetupError.
    """
    from rlm_kernel.sandbox.broker import MAX_REQUEST
    from rlm_kernel.sandbox.rundir import RunDir

    return RunDir.create(
        max_request=MAX_REQUEST, window=max_in_flight(settings), replayed=replayed, idle=idle
    )


def max_in_flight(settings: Settings) -> int:
    """How many calls of a batch are under way at once: enough to keep the busiest model busy."""
    from rlm_kernel.sandbox import broker

    most = max(llm.concurrency for llm in (settings.sub_llm, *settings.models.values()))
    return min(broker.MAX_IN_FLIGHT, max(MAX_IN_FLIGHT, 2 * most))


async def image_for(host: Host, *first: Awaitable[Any]) -> ImageInfo:
    """The image of the settings, or ours.

    Building that takes minutes, so what may fail is awaited `first`: a missing key is told at once.

    Raises DockerError, ImageError, and what is raised by what is awaited.
    """
    try:
        return await asyncio.to_thread(find_or_build_image, host.settings, host.say, build=False)
    except ImageError:
        if host.settings.sandbox.image is not None:
            raise
    for one in first:
        await one
    return await asyncio.to_thread(find_or_build_image, host.settings, host.say)


def find_or_build_image(settings: Settings, say: Say, *, build: bool = True) -> ImageInfo:
    """The image of the settings, or ours; `build` that if it is not there.

    Blocking. Raises DockerError, ImageError.
    """
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import ensure_image, find_image, image_tag, inspect_image

    client = connect()
    try:
        if settings.sandbox.image is None and not build:
            ours = find_image(client, settings.sandbox.base)
            if ours is None:
                raise ImageError(
                    f"The kernel image {image_tag(settings.sandbox.base)} is not built.",
                    hint="Type `rlm image build`.",
                )
            return ours
        if settings.sandbox.image is None:
            return ensure_image(client, base=settings.sandbox.base, progress=say)
        found = inspect_image(client, settings.sandbox.image)
        if found is None:
            raise ImageError(
                f"The image {settings.sandbox.image} (sandbox.image) does not exist.",
                hint="Unset sandbox.image to use the image of rlm_kernel, or build or pull the one you set.",
            )
        return found
    finally:
        client.close()


def keep_of(settings: Settings) -> Keep:
    """How much of the host calls is recorded."""
    return Keep(parse_size(settings.trace.answers), parse_size(settings.trace.records))


def ledger_of(host: Host, spent: Totals | None = None, purse: Purse | None = None) -> Ledger:
    """The account of a run; `spent`, `purse`: as of the ledger."""
    limits = host.settings.limits
    asks = limits.cost is None and limits.ask is not None
    approval = Approval(host.approve, limits.ask or 0.0) if asks else Approval()
    allowed = limits_of(host.settings)
    if host.tools:
        allowed = replace(allowed, tool_calls=limits.tool_calls)
    return Ledger(allowed, spent=spent, approval=approval, purse=purse)


def limits_of(settings: Settings) -> Limits:
    """The limits of a run, as the ledger takes them."""
    limits = settings.limits
    own = {
        name: ModelLimits(llm.calls, llm.cost)
        for name, llm in settings.models.items()
        if llm.calls is not None or llm.cost is not None
    }
    return Limits(limits.turns, limits.calls, limits.cost, limits.tokens, limits.seconds, limits.depth, own)
