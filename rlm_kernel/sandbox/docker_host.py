"""The Docker engine that is meant: reach it, or say why not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.errors import DockerError, ImageError
from rlm_kernel.sandbox import engine_address
from rlm_kernel.sandbox.engine_address import Address
from rlm_kernel.sandbox.isolation import is_rootless

if TYPE_CHECKING:
    from docker import DockerClient

ANSWER_SECONDS = 15
"""An engine that does not tell its version for this long counts as not answering."""


def connect() -> DockerClient:
    """A client of the engine that is meant (`engine_address`). Blocking: call it in a thread.

    Raises:
        DockerError: no engine, no permission on its socket, or no answer within ANSWER_SECONDS.
    """
    from docker.constants import DEFAULT_TIMEOUT_SECONDS

    address = engine_address.find()
    with docker_errors():
        client = _client(address)
        try:
            # Of the engine's version, whatever it is.
            client.api._version = client.api.version(api_version=False)["ApiVersion"]
        except BaseException:
            client.close()
            raise
    client.api.timeout = DEFAULT_TIMEOUT_SECONDS
    return client


def _client(address: Address) -> DockerClient:
    """One that has not asked for anything yet. Each way to an engine has an adapter of its own: `dial` attaches by the same one."""
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    def made(base_url: str) -> DockerClient:
        try:
            client = docker.DockerClient(base_url=base_url, version=DEFAULT_DOCKER_API_VERSION, timeout=ANSWER_SECONDS)
        except ValueError as error:  # an address that is none
            raise docker.errors.DockerException(str(error)) from error
        # An engine's certificates and ways are its own: requests would take REQUESTS_CA_BUNDLE, HTTP_PROXY and .netrc instead.
        client.api.trust_env = False
        return client

    if address.scheme == "ssh":
        from rlm_kernel.sandbox.engine_ssh import Ssh, SshAdapter

        client = made(engine_address.USUAL)  # no connection is made yet
        client.api.mount(client.api.base_url, SshAdapter(Ssh(address.url), ANSWER_SECONDS))
    elif address.scheme in ("unix", "npipe"):
        client = made(address.url)
    else:
        client = made(address.base_url)
        if address.tls is not None:
            from rlm_kernel.sandbox.engine_tls import TlsAdapter

            client.api.mount("https://", TlsAdapter(address.tls.context()))
            client.api.verify = (str(address.tls.ca) if address.tls.ca else True) if address.tls.verify else False
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
        raise _refused(str(error.explanation or error)) from error
    except (docker.errors.DockerException, OSError) as error:
        raise _explained(error) from error


_REFUSALS = (
    ("HTTP request to an HTTPS server", "Set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH: that engine speaks TLS."),
    ("seccomp profile", "podman reads the profile on its own machine. With RLM_SANDBOX__SECCOMP=engine it takes its own one."),
)
"""What is in an engine's refusal, and what to do then."""


def hint_for(said: str) -> str:
    """What to do where an engine refuses in these words; "" if that is not known."""
    return next((hint for sign, hint in _REFUSALS if sign in said), "")


def _refused(said: str) -> DockerError:
    return DockerError(f"The Docker engine refused: {said}", hint=hint_for(said) or "See `rlm doctor`.")


def is_podman(client: DockerClient) -> bool:
    """Whether the engine is podman, which takes some options otherwise. Blocking."""
    return any("podman" in str(part.get("Name")).lower() for part in client.version().get("Components") or [])


def engine_traits(client: DockerClient) -> dict[str, Any]:
    """What `container_options` has to know of an engine. Blocking. Raises what docker-py raises."""
    facts = client.info()
    return {"rootless": is_rootless(facts), "podman": is_podman(client), "cpus": facts.get("NCPU") or None}


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
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(told := getattr(cause, "told", None), DockerError):  # ssh says more
            return told
    address = engine_address.find()
    if any(isinstance(cause, PermissionError) for cause in causes):
        return DockerError(
            f"No permission to use Docker at {address}.",
            hint=system.engine_access(),
        )
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return DockerError(f"There is no Docker engine at {address}.", hint=start_hint())
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes):
        return DockerError(f"The Docker engine at {address} did not answer within {ANSWER_SECONDS} s.", hint=_hanging_hint(address))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return DockerError(
            f"The Docker engine at {address} and this program do not trust each other: {_told(causes, ssl.SSLError)}.",
            hint="The certificates in DOCKER_CERT_PATH, or of the docker context, have to be made for that engine's name.",
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return DockerError(f"The machine of the Docker engine at {address} is not known.", hint=start_hint())
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) for cause in causes):
        return DockerError(f"The machine of the Docker engine at {address} cannot be reached.", hint=_hanging_hint(address))
    if any(isinstance(cause, ConnectionError) for cause in causes):
        return DockerError(f"Nothing answers as a Docker engine at {address}.", hint=start_hint())
    return DockerError(f"Docker at {address} cannot be used: {error}", hint=start_hint())


def _told(causes: list[BaseException], kind: type[BaseException]) -> str:
    """The words of the innermost of a kind."""
    return [str(cause) for cause in causes if isinstance(cause, kind)][-1].rstrip(".")


def _hanging_hint(address: Address) -> str:
    if address.scheme == "ssh":
        return "See whether the machine can be reached (`rlm doctor`), and whether `docker version` answers over there."
    if address.scheme in ("unix", "npipe"):
        return f"{system.engine_restart()} Then type `rlm doctor`."
    return "See whether the machine can be reached, and whether its engine runs; then type `rlm doctor`."


def start_hint() -> str:
    """What to do where no engine answers."""
    if other := next(engine_address.others(), None):
        return f"This one may be meant: `export DOCKER_HOST={other}`."
    if os.environ.get("DOCKER_HOST"):
        return "Correct or unset DOCKER_HOST, or start the engine that it names; then type `rlm doctor`."
    if engine_address.find().source != engine_address.USUAL_SOURCE:
        return "Start the engine of that docker context, or choose another (`docker context ls`); then type `rlm doctor`."
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
