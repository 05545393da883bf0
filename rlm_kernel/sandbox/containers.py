"""Containers at the engine: made under a name of ours, so that none is left whatever becomes of the request;
and removed.

A request may reach the engine although its reply never comes: the connection breaks, times out, or is given
up. The engine then makes the container all the same, perhaps a little later. So who fails looks for the name,
and removes what has it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import engine_address
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.engine_errors import docker_errors

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LABEL = "rlm-kernel"
USER = f"{LABEL}.user"
_MARK = f"{LABEL}.made"
"""Tells one making of a container from another."""
_LATE_SECONDS = 5.0
"""In which an engine makes a container whose request was given up."""
_LOOK_SECONDS = 0.2
_MOST_FAILURES = 3
"""Looks in a row that fail: the engine is gone."""


def owner_labels() -> dict[str, str]:
    """Whose a container or a volume is: this process, its machine and its user.

    By these it is found if this process ends too early.
    """
    return {f"{LABEL}.owner": str(os.getpid()), f"{LABEL}.host": socket.gethostname(), USER: user()}


def user() -> str:
    """Tells users of one engine apart, wherever they are."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # the system has no name for the user
        name = str(system.ids()[0])
    return f"{name}@{socket.gethostname()}"


def is_left(labels: Mapping[str, str]) -> bool:
    """Whether what has these labels was made by a process of this machine that has ended."""
    return labels.get(f"{LABEL}.host") == socket.gethostname() and is_gone(labels.get(f"{LABEL}.owner", ""))


def is_gone(pid: str) -> bool:
    """Whether a process of this machine has ended."""
    try:
        return system.is_gone(int(pid))
    except (ValueError, OverflowError):  # none of ours
        return False


def create(client: DockerClient, name: str, *, labels: dict[str, str], **options: Any) -> Container:
    """Make a container, of which no more is known then than its name and id.

    If that fails, by an interrupt too, none of that name is left. Blocking. Raises what docker-py raises.
    """
    from docker.models.containers import ContainerCollection

    all_of_them: Any = ContainerCollection(client)
    # docker-py would ask the engine about the new one, and kernels are many.
    all_of_them.get = lambda id: all_of_them.prepare_model({"Id": id, "Name": f"/{name}"})
    mark = secrets.token_hex(8)
    try:
        made: Container = all_of_them.create(name=name, labels=labels | {_MARK: mark}, **options)
        return made
    except BaseException as error:
        remove_late(client, name, mark=mark, seconds=_late(error))
        raise


@contextlib.contextmanager
def made(client: DockerClient, name: str, *, labels: dict[str, str], **options: Any) -> Iterator[Container]:
    """A container that is gone afterwards, whatever happens. Blocking. Raises what docker-py raises."""
    mark, seconds = secrets.token_hex(8), _LATE_SECONDS
    try:
        try:
            container = client.containers.create(name=name, labels=labels | {_MARK: mark}, **options)
        except BaseException as error:
            seconds = _late(error)
            raise
        yield container
    finally:
        remove_late(client, name, mark=mark, seconds=seconds)


def remove_late(
    client: DockerClient, name: str, *, mark: str | None = None, seconds: float | None = None
) -> None:
    """Remove a container that the engine may still be making: it is looked for once, and again for so many
    `seconds` (5). Blocking.

    With a `mark`, only one that was made with it: what has the name may be another's.
    """
    from docker.errors import DockerException, NotFound

    deadline, failures, was_there = (
        time.monotonic() + (_LATE_SECONDS if seconds is None else seconds),
        0,
        False,
    )
    while True:
        try:
            found = client.containers.get(name)
            if mark is not None and found.labels.get(_MARK) != mark:
                return
            if not was_there:
                was_there, deadline = True, time.monotonic() + _LATE_SECONDS
            remove_container(found)  # which may be lost, too: look again
        except NotFound:
            if was_there:
                return
        except (DockerException, OSError):  # requests' errors are OSErrors
            failures += 1
        if failures >= _MOST_FAILURES or time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_SECONDS)


def _late(error: BaseException) -> float:
    """Seconds in which the engine may make a container although the request failed so.

    None if it refused, but its word may be about what it was asked after it had made one.
    """
    return 0.0 if _refused(error) else _LATE_SECONDS


def _refused(error: BaseException) -> bool:
    """Whether the engine itself refused."""
    from docker.errors import APIError

    return isinstance(error, APIError) and error.is_client_error()


def remove_container(container: Container) -> None:
    """End and remove it; it is gone then, unless the engine is. Blocking."""
    from docker.errors import APIError
    from requests.exceptions import RequestException

    with contextlib.suppress(APIError, RequestException):
        container.remove(force=True)
    # The engine may be removing it already, by itself: wait for that, so that nothing is left when we say so.
    with contextlib.suppress(APIError, RequestException):
        container.wait(timeout=10, condition="removed")


def is_gone_soon(container: Container, seconds: float) -> bool:
    """Whether one that ends, and is then removed by the engine, is gone within so many seconds. Blocking."""
    from docker.errors import DockerException, NotFound

    try:
        container.wait(timeout=seconds, condition="removed")
    except NotFound:
        return True
    except (DockerException, OSError):  # requests' errors are OSErrors
        return False
    return True


def find(name: str, place: str) -> Container | None:
    """A container that was made by the engine at `place`; the caller closes its client.

    None if it is gone. Blocking.

    Raises DockerError, and so if another engine is meant now: the container is not lost.
    """
    from docker.errors import NotFound

    with docker_errors(), contextlib.ExitStack() as failing:
        client = connect()
        failing.callback(client.close)
        with contextlib.suppress(NotFound):
            container = client.containers.get(name)
            failing.pop_all()
            return container
    check_engine(place)
    return None


def check_engine(place: str) -> None:
    """Raise DockerError if another engine is meant now than the one at `place`."""
    here = engine_address.find().place
    if place and place != here:
        raise DockerError(
            f"The session's kernel is on the Docker engine at {place}, but the current engine is {here}.",
            hint=f"Type `export DOCKER_HOST={place}`, or end the session with `rlm stop`.",
        )


def remove_containers(session_id: str) -> None:
    """Remove the containers of a session whose owner is gone, and the volumes that were for them alone.

    Blocking. Raises DockerError.
    """
    from docker.errors import APIError

    with docker_errors():
        client = connect()
        try:
            for container in client.containers.list(
                ignore_removed=True, all=True, filters={"label": f"{LABEL}.session={session_id}"}
            ):
                remove_container(container)
            for volume in (
                client.api.volumes(filters={"label": f"{LABEL}.session={session_id}"})["Volumes"] or []
            ):
                with contextlib.suppress(APIError):  # it went with its container
                    client.api.remove_volume(volume["Name"])
        finally:
            client.close()


def remove_unstarted(owners: Collection[int]) -> None:
    """Remove what these processes of this machine, which have ended, made and had not started yet: nothing
    else would end it soon.

    Blocking. Raises DockerError.
    """
    if not owners:
        return
    with docker_errors():
        client = connect()
        try:
            about = {"label": f"{LABEL}.host={socket.gethostname()}", "status": "created"}
            for one in client.api.containers(all=True, filters=about):
                if one["Labels"].get(f"{LABEL}.owner", "") in map(str, owners) and is_left(one["Labels"]):
                    remove_late(client, one["Id"], seconds=0)
        finally:
            client.close()
