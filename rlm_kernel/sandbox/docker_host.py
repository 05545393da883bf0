"""The Docker engine on this host: reach it, or say why not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.errors import DockerError, ImageError

if TYPE_CHECKING:
    from docker import DockerClient

ANSWER_SECONDS = 15
"""An engine that does not tell its version for this long counts as not answering."""


def connect() -> DockerClient:
    """A client of the engine that DOCKER_HOST, or else the current docker context, names. Blocking: call it in a thread.

    Raises:
        DockerError: no engine, no permission on its socket, or no answer within ANSWER_SECONDS.
    """
    import docker
    from docker.constants import DEFAULT_TIMEOUT_SECONDS

    with docker_errors():
        try:
            client = docker.DockerClient.from_env(timeout=ANSWER_SECONDS)  # asks for the engine's version
        except ValueError as error:  # of an address that is none; OSErrors of requests may be ValueErrors, too
            raise error if isinstance(error, OSError) else docker.errors.DockerException(str(error)) from error
    client.api.timeout = DEFAULT_TIMEOUT_SECONDS
    return client


@contextlib.contextmanager
def docker_errors() -> Iterator[None]:
    """Whatever docker-py raises inside comes out as a DockerError that says what to do; as an ImageError where an image is missing."""
    import docker

    try:
        yield
    except docker.errors.ImageNotFound as error:
        hint = "Was it deleted? Type `rlm image build`, or check sandbox.image if it is set."
        raise ImageError(f"The Docker engine does not have the image: {error.explanation or error}.", hint=hint) from error
    except docker.errors.APIError as error:
        raise DockerError(f"The Docker engine refused: {error.explanation or error}", hint="See `rlm doctor`.") from error
    except (docker.errors.DockerException, OSError) as error:
        raise _explained(error) from error


def takes_profile_files(client: DockerClient) -> bool:
    """Whether the engine wants the name of a seccomp profile's file, as podman does. Blocking."""
    return any("podman" in str(part.get("Name")).lower() for part in client.version().get("Components") or [])


def has_image(client: DockerClient, name: str) -> bool:
    """Whether the engine has the image. Blocking. Raises DockerError."""
    import docker

    with docker_errors():
        try:
            client.images.get(name)
        except docker.errors.ImageNotFound:
            return False
    return True


def _explained(error: BaseException) -> DockerError:
    where = os.environ.get("DOCKER_HOST", "its default socket")
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return DockerError(
            f"No permission to use Docker at {where}.",
            hint=system.engine_access(),
        )
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return DockerError(f"There is no Docker engine at {where}.", hint=start_hint())
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes):
        return DockerError(
            f"The Docker engine at {where} did not answer within {ANSWER_SECONDS} s.",
            hint=f"{system.engine_restart()} Then type `rlm doctor`.",
        )
    if any(isinstance(cause, ConnectionError) for cause in causes):
        return DockerError(f"Nothing answers as a Docker engine at {where}.", hint=start_hint())
    return DockerError(f"Docker at {where} cannot be used: {error}", hint=start_hint())


def start_hint() -> str:
    """What to do where no engine answers."""
    if os.environ.get("DOCKER_HOST"):
        return "Correct or unset DOCKER_HOST, or start the engine that it names; then type `rlm doctor`."
    return system.engine_here()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that led to it; requests and urllib3 keep some of it in `args` only."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


async def in_daemon(function: Callable[..., Any], *args: Any) -> Any:
    """What a blocking function gives, by a thread that neither the loop nor the program waits for: the engine may never answer."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = function(*args)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=f"rlm-{getattr(function, '__name__', 'engine')}", daemon=True).start()
    return await future
