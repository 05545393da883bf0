"""What crashes, killed commands and earlier versions left on this machine, found and removed.

Only what is this user's, and what nobody uses any more: a session whose lease nobody holds (a kept one only
when its idle time is long over too), parts of image builds that did not end, and, if asked for, kernel images
of other versions.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel import scratch, system
from rlm_kernel.sandbox import containers as engine_containers
from rlm_kernel.sandbox import image, volumes
from rlm_kernel.sandbox.containers import remove_container
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.image_base import wheels_dir
from rlm_kernel.sandbox.rundir import (
    JUST_MADE,
    RunDir,
    is_session_folder,
    left_alone,
    noted_in,
    remove_folder,
    session_folders,
)

if TYPE_CHECKING:
    from docker import DockerClient

IDLE_MARGIN = 300.0
"""Seconds beyond a kept session's idle time, within which its container ends by itself."""
BUILD_HOURS = 24.0
"""No build takes so long: what is older is left over."""
_MAX_TOLD = 1 << 20
_PARTS = re.compile(
    r"lease|depot|copies|handed|host|[rk]\d*|(connection|session|about|seccomp)\.json(\.new)?"
)
"""What lies in a session's folder: another program's may be called like one, rlm-20240131 say."""


@dataclass(frozen=True)
class Leftover:
    """Something that nobody uses any more.

    `size` in bytes; of an image with the layers that it shares with others.
    """

    kind: Literal["container", "folder", "image", "files", "notebook"]
    name: str
    size: int


@dataclass(frozen=True)
class _Container:
    id: str
    name: str
    folder: Path
    ours: bool
    running: bool
    created: float
    size: int


def collect(
    client: DockerClient, *, dry_run: bool = False, images: Collection[str] | None = None
) -> Iterator[Leftover]:
    """Each leftover, once it is removed; with `dry_run`, nothing is. Blocking.

    `images`: tags of kernel images to keep; all others that no container uses are left over, too. None:
    images of other versions stay. Raises DockerError.
    """
    with docker_errors():
        yield from _sessions(client, dry_run)
        yield from _sent(client, dry_run)
        yield from _builds(dry_run)
        yield from _scratch(dry_run)
        yield from _images(client, dry_run, images)


def _sessions(client: DockerClient, dry_run: bool) -> Iterator[Leftover]:
    containers = list(_containers(client))
    # A container may tell of a folder where this process would make none: the environment was another.
    for folder in dict.fromkeys([*session_folders(), *(container.folder for container in containers)]):
        mine = [container for container in containers if container.folder == folder]
        if _is_missing(folder):
            # While one runs, its owner may live, whoever took the folder away; without an owner it ends by
            # itself.
            idle = [
                one for one in mine if not one.running and time.time() - one.created > JUST_MADE and one.ours
            ]
            yield from _removed(idle, client, dry_run)
        elif is_session_folder(folder) and _is_over(folder, any(container.running for container in mine)):
            with contextlib.ExitStack() as stack:
                # Nobody takes the session up meanwhile. A folder that was never complete cannot be had, and
                # nobody else can have it.
                if not dry_run and (run := RunDir.adopt(folder)):
                    stack.callback(run.leave)
                size = _size(folder)
                yield from _removed(mine, client, dry_run)
                if not dry_run:
                    remove_folder(folder)
                yield Leftover("folder", str(folder), size)


def _containers(client: DockerClient) -> Iterator[_Container]:
    """Those of sessions, whoever's they are."""
    label = f"{engine_containers.LABEL}.session"
    for found in client.api.containers(all=True, size=True, filters={"label": label}):
        container = _container(found)
        if container.folder.name == f"rlm-{found['Labels'][label]}":
            yield container


def _container(found: Mapping[str, Any]) -> _Container:
    labels = found["Labels"]
    return _Container(
        found["Id"],
        found["Names"][0].lstrip("/"),
        folder=Path(labels.get(f"{engine_containers.LABEL}.folder", "")),
        ours=labels.get(engine_containers.USER) == engine_containers.user(),
        running=found["State"] not in ("created", "exited", "dead"),
        created=found["Created"],
        size=found.get("SizeRw") or 0,
    )


def _is_missing(folder: Path) -> bool:
    try:
        folder.lstat()
    except FileNotFoundError:
        return True
    except OSError:  # another user's
        pass
    return False


def _is_over(folder: Path, running: bool) -> bool:
    """Whether a session's folder has no owner and will have none again."""
    try:
        if not (folder / "lease").exists():
            if not all(map(_PARTS.fullmatch, os.listdir(folder))):
                return False
            # Its making was cut off; or somebody deleted the file, which its owner may still hold.
            return not running and time.time() - folder.lstat().st_mtime > JUST_MADE
        return left_alone(folder) and time.time() > _idle_until(folder)
    except OSError:  # it is gone, or not to be read
        return False


def _idle_until(folder: Path) -> float:
    """When the container of a kept session has ended, by the traces of its last use; 0 for other sessions."""
    try:
        idle = float(noted_in(folder).get("idle", 0))
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError):
        return 0.0
    if not idle:
        return 0.0
    used = [folder / "about.json", folder / "lease"]
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError),
        (folder / "about.json").open(encoding="utf-8") as file,
    ):
        used.append(Path(json.loads(file.read(_MAX_TOLD))["trace"]))
    return max(_changed(path) for path in used) + idle + IDLE_MARGIN


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _removed(containers: Iterable[_Container], client: DockerClient, dry_run: bool) -> Iterator[Leftover]:
    for container in containers:
        if not dry_run:
            remove_container(client.containers.get(container.id))
        yield Leftover("container", container.name, container.size)


def _sent(client: DockerClient, dry_run: bool) -> Iterator[Leftover]:
    """Files that were sent to the engine, and that no container uses; and what was to send them."""
    for found in client.api.containers(all=True, filters={"label": f"{volumes.SENT}=helper"}):
        helper = _container(found)
        if helper.ours and volumes.is_over(found["Labels"], found["Created"]):
            yield from _removed([helper], client, dry_run)
    for kept in volumes.kept(client):
        if not kept.in_use and (dry_run or kept.remove(client)):
            yield Leftover("files", kept.what, kept.size)


def _builds(dry_run: bool) -> Iterator[Leftover]:
    """Folders of builds of the base and of the wheels that were cut off."""
    # What every build of a base has from its beginning: anything may be called rlm-base-something.
    bases = [sources.parent for sources in Path(tempfile.gettempdir()).glob("rlm-base-*/sources.list")]
    for folder in [*bases, *wheels_dir().glob("*-*")]:
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and system.is_own(status) and _is_old(status.st_mtime):
                size = _size(folder)
                if not dry_run:
                    shutil.rmtree(folder)
                yield Leftover("folder", str(folder), size)


def _scratch(dry_run: bool) -> Iterator[Leftover]:
    """Folders for temporary files of processes that were killed."""
    for folder in scratch.left_over():
        size = _size(folder)
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
        yield Leftover("folder", str(folder), size)


def _is_old(made: float) -> bool:
    return time.time() - made > BUILD_HOURS * 3600


def _images(client: DockerClient, dry_run: bool, keep: Collection[str] | None) -> Iterator[Leftover]:
    """Parts of builds, but for the newest, from which the next build is quicker; and the images whose tags
    are not to be kept.
    """
    list_, whole = client.api.images, {"label": image.DIGEST_LABEL}
    parts = sorted(
        list_(filters={"dangling": True, "label": image.STAGE_LABEL}), key=lambda part: part["Created"]
    )
    over = [(part["Id"], part) for part in parts[:-1] if _is_old(part["Created"])]
    over += [(found["Id"], found) for found in list_(filters={"dangling": True} | whole)]
    if keep is not None:
        over += [
            (tag, found)
            for found in list_(image.REPOSITORY, filters=whole)
            for tag in found["RepoTags"] or ()
            if tag not in keep
        ]
    used = {container["ImageID"] for container in client.api.containers(all=True)}
    for name, found in over:
        if found["Id"] not in used and (dry_run or _remove_image(client, name)):
            yield Leftover("image", name, found["Size"])


def _remove_image(client: DockerClient, name: str) -> bool:
    from docker.errors import APIError

    try:
        client.images.remove(name)
    except APIError as error:
        if error.status_code in (404, 409):  # gone, or in use since
            return False
        raise
    return True


def _size(folder: Path) -> int:
    """Bytes of the files in it."""
    total, folders = 0, [str(folder)]
    while folders:
        # What cannot be read, or lies too deep, is not counted.
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
