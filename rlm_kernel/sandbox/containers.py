"""Containers at the engine: made under a name of ours, so that none is left whatever becomes of the request, and removed.

A request may reach the engine although its reply never comes: the connection breaks, times out, or is given up. The engine then makes the
container all the same, perhaps a little later. So who fails looks for the name, and removes what has it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LABEL = "rlm-kernel"
_LATE_SECONDS = 5.0
"""In which an engine makes a container whose request was given up."""
_LOOK_SECONDS = 0.2
_MOST_FAILURES = 3
"""Looks in a row that fail: the engine is gone."""


def owner_labels() -> dict[str, str]:
    """Whose a container is: this process and its machine. By these it is found if this process ends before it is started."""
    return {f"{LABEL}.owner": str(os.getpid()), f"{LABEL}.host": socket.gethostname()}


def create(client: DockerClient, name: str, **options: Any) -> Container:
    """Make a container. If that fails, by an interrupt too, none of that name is left. Blocking. Raises what docker-py raises."""
    try:
        return client.containers.create(name=name, **options)
    except BaseException as error:
        if not _refused(error):
            remove_late(client, name)
        raise


@contextlib.contextmanager
def made(client: DockerClient, name: str, **options: Any) -> Iterator[Container]:
    """A container that is gone afterwards, whatever happens. Blocking. Raises what docker-py raises."""
    refused = False
    try:
        try:
            container = client.containers.create(name=name, **options)
        except BaseException as error:
            refused = _refused(error)
            raise
        yield container
    finally:
        if not refused:
            remove_late(client, name)


def remove_late(client: DockerClient, name: str) -> None:
    """Remove a container that the engine may still be making. Blocking, for `_LATE_SECONDS` at most."""
    from docker.errors import DockerException, NotFound

    deadline, failures, was_there = time.monotonic() + _LATE_SECONDS, 0, False
    while failures < _MOST_FAILURES and time.monotonic() < deadline:
        try:
            found = client.containers.get(name)
            if was_there:
                time.sleep(_LOOK_SECONDS)
            was_there = True
            remove_container(found)
            continue  # its removal may have been lost, too
        except NotFound:
            if was_there:
                return
        except (DockerException, OSError):  # requests' errors are OSErrors
            failures += 1
        time.sleep(_LOOK_SECONDS)


def _refused(error: BaseException) -> bool:
    """Whether the engine itself said that it made none."""
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
