"""Files that an engine does not see, in volumes of ours: sent once, known by their digest, and read-only to
code.

What belongs together is sent into a volume of a random name. Only when all of it is there, a second, empty
volume is made, whose name is the digest and whose labels say where the content is: so what was sent in part
never passes for whole, and two who send the same at once do not meet. Volumes stay for the next question, up
to a size; what was not used for longest goes first, and never what a container uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.tarstream import Entry, archive, entries

if TYPE_CHECKING:
    from docker import DockerClient

SENT = f"{containers.LABEL}.sent"
"""The label of our volumes: "content", "index", or "late"."""
_CONTENT, _SIZE, _WHAT = f"{containers.LABEL}.content", f"{containers.LABEL}.size", f"{containers.LABEL}.what"
LIMIT = 20 << 30
"""Bytes of all volumes at an engine."""
_ENGINE_SECONDS = 600
"""In which the engine takes a piece, or writes what it has."""
_TELL_SECONDS = 0.2
_PLACE = "/rlm/given"
_OLD_HOURS = 24
_MAX_WHAT = 100
Say = Callable[[str], None]
Digest = Callable[[Path, threading.Event], str | None]


@dataclass(frozen=True)
class Parcel:
    """What is in one volume: sources, each with its name there.

    A folder of the name "" is the volume itself.
    """

    sources: tuple[tuple[str, Path], ...]
    digest: str | None
    """Of all of it; None if it is not known: then it is sent for one session alone."""

    @property
    def what(self) -> str:
        """For people."""
        first = self.sources[0][1].name or str(self.sources[0][1])
        return first if len(self.sources) == 1 else f"{len(self.sources)} files"

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(entry.size for entry in self.entries())

    def entries(self) -> Iterator[Entry]:
        for name, source in self.sources:
            yield from entries(source, name)


@dataclass(frozen=True)
class Sender:
    """How a session sends.

    `digest` gives the sha256 of a file, or of a folder's files; None where that is not to be had, because it
    is being changed, say, or because the event came first. `limit`: bytes of all volumes.
    """

    digest: Digest = lambda _path, _stop: None
    say: Say = lambda _text: None
    limit: int = LIMIT


def digest_of(sources: Sequence[tuple[str, Path]], sender: Sender, stop: threading.Event) -> str | None:
    """Of files and folders with their names, modes and links. Blocking."""
    total = hashlib.sha256()
    for name, source in sources:
        if (content := sender.digest(source, stop)) is None:
            return None
        total.update(f"{content}\n".encode())
        for entry in entries(source, name):
            total.update(json.dumps(entry.about).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def volume_of(client: DockerClient, image: str, parcel: Parcel, sender: Sender, stop: threading.Event) -> str:
    """The volume that has it, sent if there is none.

    Blocking. Raises DockerError, FileRefused, also where `stop` says so.
    """
    with docker_errors():
        if parcel.digest is not None and (found := _found(client, parcel.digest)):
            return found
        size = parcel.size
        make_room(client, sender.limit - size)
        return _sent(client, image, parcel, size, sender, stop)


def put(
    client: DockerClient, image: str, volume: str, parcel: Parcel, say: Say, stop: threading.Event
) -> None:
    """Send files into a volume. Blocking.

    Raises DockerError, FileRefused and what docker-py raises, and leaves what arrived until then.
    """
    from docker.types import Mount

    options: dict[str, Any] = {
        "image": image,
        "command": ["true"],  # it is never started: the engine itself unpacks
        "entrypoint": [],
        "network_mode": "none",
        "mounts": [Mount(_PLACE, volume, type="volume", no_copy=True)],
        "labels": {SENT: "helper", **containers.owner_labels()},
        "use_config_proxy": False,
    }
    size, told, done = parcel.size, time.monotonic(), 0

    def sent(more: int) -> None:
        nonlocal told, done
        done += more
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            say(f"sending {parcel.what} to the engine … {_of(done, size)}")

    patience, client.api.timeout = client.api.timeout, _ENGINE_SECONDS
    try:
        with containers.made(client, f"rlm-sending-{secrets.token_hex(8)}", **options) as helper:
            helper.put_archive(_PLACE, archive(parcel.entries(), stop.is_set, sent))
    finally:
        client.api.timeout = patience


def _of(done: int, size: int) -> str:
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{done / unit:,.1f} of {size / unit:,.1f} {name}"


def _sent(
    client: DockerClient, image: str, parcel: Parcel, size: int, sender: Sender, stop: threading.Event
) -> str:
    from docker.errors import APIError

    content = f"rlm-content-{secrets.token_hex(12)}"
    what = parcel.what.encode("utf-8", "replace").decode()[:_MAX_WHAT]
    about = {_SIZE: str(size), _WHAT: what}
    labels = about | containers.owner_labels()
    try:
        client.api.create_volume(content, labels=labels | {SENT: "content"})
        put(client, image, content, parcel, sender.say, stop)
        if parcel.digest is None:
            return content
        if digest_of(parcel.sources, sender, stop) != parcel.digest:
            sender.say(
                f"{parcel.what} was changed while rlm sent it to the engine: the kernel has the version "
                "that rlm read."
            )
            return content
        # If another has sent the same meanwhile, the engine keeps theirs.
        made = client.api.create_volume(
            _index(parcel.digest), labels=labels | {SENT: "index", _CONTENT: content}
        )
        _used(parcel.digest)
        first = str((made.get("Labels") or {}).get(_CONTENT) or content)
        if first != content:
            remove(client, content)
        return first
    except BaseException as error:
        with contextlib.suppress(Exception):
            remove(client, content)
        if isinstance(error, APIError) and "no space left" in str(error).lower():
            raise DockerError(
                f"The Docker engine has no room for {what}, {_of(size, size).partition(' of ')[2]}: "
                f"{error.explanation or error}",
                hint="Free some space on the engine's machine (`docker system df` shows what uses it). `rlm "
                "gc` removes files that were sent earlier.",
            ) from error
        raise


def late(container: str) -> str:
    """The name of the volume for what is given to a container that runs."""
    return f"{container}-late"


def _index(digest: str) -> str:
    return f"rlm-sent-{digest[:40]}"


def _found(client: DockerClient, digest: str) -> str | None:
    from docker.errors import NotFound

    try:
        content = (client.api.inspect_volume(_index(digest)).get("Labels") or {}).get(_CONTENT)
    except NotFound:
        return None
    if content and is_there(client, content):
        _used(digest)
        return str(content)
    remove(client, _index(digest))
    return None


def is_there(client: DockerClient, volume: str) -> bool:
    """Whether it is one that something was sent into: an engine makes an empty one of any name that a
    container asks for. Blocking.
    """
    from docker.errors import NotFound

    try:
        return bool(((client.api.inspect_volume(volume).get("Labels") or {}).get(SENT)) == "content")
    except NotFound:
        return False


def remove(client: DockerClient, volume: str) -> bool:
    """Whether it is gone. Not if a container uses it. Blocking."""
    from docker.errors import APIError

    try:
        client.api.remove_volume(volume)
    except APIError as error:
        if error.status_code != 404:
            return False
    return True


@dataclass(frozen=True)
class Kept:
    """Something that was sent.

    `names` of its volumes, in the order in which they are to go; `size` in bytes; `used`: seconds since the
    epoch, 0 if nobody can use it any more; `in_use`: by a container.
    """

    what: str
    names: tuple[str, ...]
    size: int
    used: float
    in_use: bool

    def remove(self, client: DockerClient) -> bool:
        """Whether it is gone. Blocking."""
        for name in self.names:
            if not remove(client, name):
                return False
            with contextlib.suppress(OSError):
                (_uses() / name).unlink(missing_ok=True)
        return True


def kept(client: DockerClient) -> list[Kept]:
    """All that this user sent and is there, last used first; nothing that is just being sent.

    Blocking. Raises what docker-py raises.
    """
    listed = (
        client.api.volumes(filters={"label": [SENT, f"{containers.USER}={containers.user()}"]})["Volumes"]
        or []
    )
    found = {volume["Name"]: volume for volume in listed}
    mounted = {
        mount.get("Name")
        for container in client.api.containers(all=True)
        for mount in container.get("Mounts") or []
    }
    known, indexed = [], set()
    for name, volume in found.items():
        if volume["Labels"][SENT] == "index":
            content = volume["Labels"].get(_CONTENT, "")
            indexed.add(content)
            names = (name, content) if content in found else (name,)
            known.append(_kept(volume, names, _last_use(name, volume), content in mounted))
    for name, volume in found.items():
        if (
            volume["Labels"][SENT] != "index"
            and name not in indexed
            and (name in mounted or is_over(volume["Labels"], _created(volume)))
        ):
            known.append(_kept(volume, (name,), 0.0, name in mounted))
    return sorted(known, key=lambda one: one.used, reverse=True)


def _kept(volume: Mapping[str, Any], names: tuple[str, ...], used: float, in_use: bool) -> Kept:
    size = str(volume["Labels"].get(_SIZE, ""))
    return Kept(volume["Labels"].get(_WHAT, ""), names, int(size) if size.isdigit() else 0, used, in_use)


def make_room(client: DockerClient, limit: int) -> None:
    """Remove what nobody can use, and what was not used for longest, until the rest has so many bytes.

    Blocking.
    """
    there = kept(client)
    size = sum(one.size for one in there)
    for one in reversed(there):
        if not one.in_use and (size > limit or not one.used) and one.remove(client):
            size -= one.size


def is_over(labels: Mapping[str, str], created: float) -> bool:
    """Whether nobody sends any more what has these labels (`containers.owner_labels`), nor uses it for a
    session.
    """
    return containers.is_left(labels) or time.time() - created > _OLD_HOURS * 3600


def _created(found: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(found["CreatedAt"])).timestamp()
    except (KeyError, ValueError):
        return 0.0


def _uses() -> Path:
    """A file for each digest, whose time is that of its last use by this user."""
    return system.cache_dir() / "sent"


def _used(digest: str) -> None:
    with contextlib.suppress(OSError):
        _uses().mkdir(parents=True, exist_ok=True, mode=0o700)
        (_uses() / _index(digest)).touch(mode=0o600)
        os.utime(_uses() / _index(digest))


def _last_use(index: str, found: Mapping[str, Any]) -> float:
    try:
        return (_uses() / index).stat().st_mtime
    except OSError:
        return max(_created(found), 1.0)
