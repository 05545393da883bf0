"""How a container gets the user's files: mounted where they lie if the engine sees them there, else sent into
volumes of ours.

Nobody guesses which it is. An engine refuses a mount of what it does not see; and where it sees something at
that path, the container's first process tells what that looks like (`glance`), and the host compares: it may
be a file of the engine's own machine. What is not ours is sent, with all else below the same folder at the
top, and the container is made anew. An engine that sees the files has nothing more to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlm_contract import DEPOT, FILES, glance

from rlm_kernel.sandbox import containers, volumes
from rlm_kernel.sandbox.docker_host import connect, in_daemon
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.volumes import Parcel, Sender

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

SMALL = 16 << 20
"""Bytes of a file up to which it shares a volume with others."""
MOST_COMPARED = 200
_STOP_SECONDS = 10.0
"""In which what is being sent ends once it is given up."""
_TOGETHER = PurePosixPath(FILES, "sent")
"""Where the small files are that were sent."""
LATE = PurePosixPath(DEPOT)
_CONTENT = "content"
_ABOUT_MOUNTS = re.compile(r"mount|\bbind\b|statfs|not shared", re.IGNORECASE)
_unseen: set[tuple[str, str]] = set()
"""Engines, and folders at the top that they do not see, as far as this process knows."""


@dataclass(frozen=True)
class Share:
    """A path of this host, and where a container has it, read-only."""

    source: Path
    inside: PurePosixPath
    directory: bool

    @property
    def top(self) -> str:
        return os.path.join(*self.source.parts[:2])


class Shares:
    """The files of a session's containers, and how these have them.

    Its methods block, but for `send`; one thread at a time.
    """

    def __init__(
        self, shares: Sequence[Share] = (), late: Callable[[], Sequence[tuple[str, Path]]] = tuple
    ) -> None:
        """`late`: what was given to a container that runs, with its names in the depot: another container
        gets it again.
        """
        folders = {share.inside: share for share in shares if share.directory}
        self._covers = {
            share: folders[place] for share in shares for place in share.inside.parents if place in folders
        }
        """What lies over a part of a folder, and that folder."""
        self._shares = [share for share in shares if share not in self._covers]
        self._late = late
        self._tops: set[str] = set()
        """Folders at the top that the engine does not see."""
        self._places: dict[PurePosixPath, tuple[str, PurePosixPath, str]] = {}
        """Of what is sent: the volume, where that is mounted, and what it is called there."""
        self._depot = ""
        """The volume for what is given later, where the engine does not see the host's folder for it."""
        self._image = ""

    @property
    def sent(self) -> bool:
        """Whether what is given later has to be sent."""
        return bool(self._depot)

    @property
    def unseen(self) -> list[Path]:
        """What the engine does not see, as far as is known by now."""
        return [share.source for share in self._shares if self._unseen(share)]

    def inside(self, place: PurePosixPath) -> PurePosixPath:
        """Where the container has what a mount would have at `place`."""
        for known in (place, *place.parents):
            if known in self._places:
                _, mounted, name = self._places[known]
                return mounted / name / place.relative_to(known)
        return place

    # Before the container is made.

    async def send(self, image: str, sender: Sender) -> None:
        """As `prepare`, without blocking. Given up, it ends soon, and leaves nothing behind."""
        if not self._wanted(image):
            return
        stop = threading.Event()
        sending = asyncio.create_task(in_daemon(self.prepare, image, sender, stop))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([sending], timeout=_STOP_SECONDS)
            raise

    def prepare(self, image: str, sender: Sender, stop: threading.Event) -> None:
        """Send what the engine is known not to see. Raises DockerError, FileRefused."""
        if not (wanted := self._wanted(image)):
            return
        with contextlib.closing(connect()) as client:
            for parcel, mounted, places in _parcels(wanted, sender, stop):
                volume = volumes.volume_of(client, image, parcel, sender, stop)
                self._places |= {inside: (volume, mounted, name) for inside, name in places.items()}

    def _wanted(self, image: str) -> list[Share]:
        """What is to be sent before a container of an image is made."""
        self._image, self._places, engine = image, {}, _engine()
        self._tops |= {share.top for share in self._shares if (engine, share.top) in _unseen}
        return [share for share in self._shares if self._unseen(share) and share.inside != LATE]

    def binds(self) -> list[tuple[str, str]]:
        """What is mounted where it lies: its path on this host, and in the container."""
        seen = [
            share
            for share in (*self._shares, *self._covers)
            if not self._unseen(self._covers.get(share, share))
        ]
        return [(str(share.source), str(share.inside)) for share in seen]

    def mounts(self, container: str, labels: Mapping[str, str]) -> list[Any]:
        """For docker-py, of a container of that name. `labels`: of a volume that is made for it."""
        from docker.types import Mount

        mounts = [Mount(inside, source, type="bind", read_only=True) for source, inside in self.binds()]
        sent = {mounted: volume for volume, mounted, _ in self._places.values()}
        mounts += [
            Mount(str(place), volume, type="volume", read_only=True, no_copy=True)
            for place, volume in sent.items()
        ]
        if self._sends_late():
            # An engine makes none without a name for reading alone.
            told = {volumes.SENT: "late", **labels, **containers.owner_labels()}
            mounts.append(
                Mount(
                    DEPOT, volumes.late(container), type="volume", read_only=True, no_copy=True, labels=told
                )
            )
        return mounts

    def _sends_late(self) -> bool:
        """Whether what is given later is sent, to a volume of the container's own."""
        return any(share.inside == LATE and self._unseen(share) for share in self._shares)

    def refused(self, said: str) -> bool:
        """Whether an engine that refused a container, in these words, does so because it does not see some of
        the files.
        """
        if not _ABOUT_MOUNTS.search(said):
            return False
        all_ = [*self._shares, *self._covers]
        named = [
            share for share in all_ if re.search(rf"{re.escape(str(share.source))}(?![^\s:\"',.)])", said)
        ]
        return self._mark(self._covers.get(share, share) for share in named or all_)

    def _unseen(self, share: Share) -> bool:
        return share.top in self._tops

    def _mark(self, unseen: Iterable[Share]) -> bool:
        """Whether anything is new among what the engine does not see."""
        marked = {share.top for share in unseen} - self._tops
        self._tops |= marked
        _unseen.update((_engine(), top) for top in marked)
        return bool(marked)

    # When it is made.

    @property
    def sends(self) -> bool:
        """Whether anything goes to volumes, so that `made` has something to do."""
        return bool(self._places) or self._sends_late()

    def made(self, container: Container, sender: Sender) -> bool:
        """Fill it, before it starts.

        False if a volume has gone meanwhile. Raises DockerError, FileRefused.
        """
        client: DockerClient = container.client
        with docker_errors():
            if not all(volumes.is_there(client, volume) for volume, _, _ in set(self._places.values())):
                return False
            if self._sends_late():
                self._depot = volumes.late(container.name)
                for name, source in self._late():
                    self._put(client, name, source, sender.say, threading.Event())
        return True

    def joined(self, container: Container) -> None:
        """A container that may run: find the volume for what is given later."""
        self._image = container.attrs["Image"]
        volume = [mount for mount in container.attrs.get("Mounts") or [] if mount.get("Destination") == DEPOT]
        self._depot = next((mount.get("Name", "") for mount in volume if mount.get("Type") == "volume"), "")

    def ended(self, client: DockerClient) -> None:
        """The container is gone: what was for it alone goes, too."""
        volume, self._depot = self._depot, ""
        if volume:
            volumes.remove(client, volume)

    def give(self, name: str, source: Path, say: volumes.Say, stop: threading.Event) -> None:
        """Send a file or folder to the container that runs. Raises DockerError, FileRefused."""
        with contextlib.closing(connect()) as client, docker_errors():
            self._put(client, name, source, say, stop)

    def _put(
        self, client: DockerClient, name: str, source: Path, say: volumes.Say, stop: threading.Event
    ) -> None:
        volumes.put(client, self._image, self._depot, Parcel(((name, source),), None), say, stop)

    # When its first process tells.

    def expected(self) -> dict[str, Any]:
        """What the first process is told, to compare."""
        compared = [share for share in self._shares if not self._unseen(share)]
        # Of many the first of each folder, as its mount says the most about the others.
        by_folder = {share.source.parent: share for share in reversed(compared)}
        compared = compared if len(compared) <= MOST_COMPARED else list(by_folder.values())[:MOST_COMPARED]
        return {
            "boot": glance.boot(),
            "files": {str(share.inside): glance.changed(str(share.source)) for share in compared},
        }

    def agrees(self, expected: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
        """Whether the container sees what the host does. An image of another version does not say."""
        seen = told.get("seen")
        if not isinstance(seen, dict):
            return True
        by_place = {str(share.inside): share for share in self._shares}
        compared = [(by_place[place], before, seen.get(place)) for place, before in expected["files"].items()]
        other = [share for share, before, there in compared if not _same(str(share.source), before, there)]
        if told.get("mapped") is True:
            # What is in them is seen, and closed to whom code is on the engine's machine.
            other += [
                share for share, _, _ in compared if share.directory and glance.is_closed(str(share.source))
            ]
        return not self._mark(other)


def _engine() -> str:
    return "\0".join(os.environ.get(name, "") for name in ("DOCKER_HOST", "DOCKER_CONTEXT"))


def _parcels(
    shares: Sequence[Share], sender: Sender, stop: threading.Event
) -> Iterator[tuple[Parcel, PurePosixPath, dict[PurePosixPath, str]]]:
    """What is sent together, where its volume is mounted, and the name of each share there."""
    small: dict[PurePosixPath, tuple[str, Path]] = {}
    known = True
    for share in shares:
        name = "" if share.directory else _CONTENT
        if share.directory or share.source.stat().st_size > SMALL:
            alone = ((name, share.source),)
            sender.say(f"reading {share.source.name} …")
            yield Parcel(alone, volumes.digest_of(alone, sender, stop)), share.inside, {share.inside: name}
        else:
            digest = sender.digest(share.source, stop)
            known = known and digest is not None
            small[share.inside] = (digest or share.inside.name, share.source)
    if small:
        sources = tuple(sorted(dict(small.values()).items()))
        digest = volumes.digest_of(sources, sender, stop) if known else None
        yield Parcel(sources, digest), _TOGETHER, {inside: name for inside, (name, _) in small.items()}


def _same(source: str, before: int | None, told: Any) -> bool:
    """Whether what was told is of the host's own path, which had the time of change `before` and may change
    all the time.
    """
    match told:
        case [int() as changed, outline]:
            pass
        case _:
            return before is None  # neither may read it
    after = glance.changed(source)
    in_time = before is not None and after is not None and before <= changed <= after
    # What is written to just now looks different each time, and no other has changed at the same moment.
    if in_time and (outline is None or before != after):
        return True
    ours = glance.outline(source)
    return bool(outline == ours and (in_time or ours[2]))
