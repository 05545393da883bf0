"""The Docker engine that is meant: reach it, or say why not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.sandbox import engine_address, engine_errors
from rlm_kernel.sandbox.engine_address import Address
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.isolation import is_rootless

if TYPE_CHECKING:
    from docker import DockerClient

FACTS_SECONDS = 60.0
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}")


def connect(*, known: bool = False) -> DockerClient:
    """A client of the engine that is meant (`engine_address`). Blocking: call it in a thread.

    `known`: one that has answered within FACTS_SECONDS is not asked whether it is there. Whoever makes many
    containers is told by the next request.

    Raises:
        DockerError: no engine, no permission on its socket, or no answer within ANSWER_SECONDS.
    """
    from docker.constants import DEFAULT_TIMEOUT_SECONDS
    from docker.errors import APIError

    address = engine_address.find()
    with docker_errors():
        client = _client(address)
        try:
            version = _lately(str(address)) if known else ""
            if not version:
                version = _version(client)
                _answered[str(address)] = time.monotonic(), version
            client.api._version = version
        except BaseException as error:
            client.close()
            if isinstance(error, APIError):  # it may be no engine at all: say where it is
                raise engine_errors.refused(f"{error.explanation or error} ({address})") from error
            raise
    client.api.timeout = DEFAULT_TIMEOUT_SECONDS
    client.api._place = str(address)
    return client


_answered: dict[str, tuple[float, str]] = {}
"""When each engine was last asked for its version, and the version."""


def _lately(place: str) -> str:
    """The version of an engine that has told it within FACTS_SECONDS, else ""."""
    asked, version = _answered.get(place, (-FACTS_SECONDS, ""))
    return version if time.monotonic() - asked < FACTS_SECONDS else ""


def _version(client: DockerClient) -> str:
    """Of its interface. Most engines tell it with the least answer there is; for the long one they start
    other programs.
    """
    pinged = client.api._get(client.api._url("/_ping", versioned_api=False))
    if pinged.ok and (version := _VERSION.fullmatch(pinged.headers.get("Api-Version", ""))):
        return version[0]
    told = client.api.version(api_version=False)
    if not isinstance(told, dict) or "ApiVersion" not in told:
        raise ConnectionError("it does not tell its version")
    return str(told["ApiVersion"])


def _client(address: Address) -> DockerClient:
    """One that has not asked for anything yet.

    Each way to an engine has an adapter of its own: `dial` attaches by the same one.
    """
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    def made(base_url: str) -> DockerClient:
        try:
            client = docker.DockerClient(
                base_url=base_url, version=DEFAULT_DOCKER_API_VERSION, timeout=engine_errors.ANSWER_SECONDS
            )
        except ValueError as error:  # an address that is none
            raise docker.errors.DockerException(str(error)) from error
        # An engine's certificates and ways are its own: requests would take REQUESTS_CA_BUNDLE, HTTP_PROXY
        # and .netrc instead.
        client.api.trust_env = False
        return client

    if address.scheme == "ssh":
        from rlm_kernel.sandbox.engine_ssh import Ssh, SshAdapter

        client = made(engine_address.USUAL)  # no connection is made yet
        client.api.mount(client.api.base_url, SshAdapter(Ssh(address.url), engine_errors.ANSWER_SECONDS))
    elif address.scheme in ("unix", "npipe"):
        client = made(address.url)
    else:
        client = made(address.base_url)
        if address.tls is not None:
            from rlm_kernel.sandbox.engine_tls import TlsAdapter

            client.api.mount("https://", TlsAdapter(address.tls.context()))
            client.api.verify = (
                (str(address.tls.ca) if address.tls.ca else True) if address.tls.verify else False
            )
    return client


@dataclass(frozen=True)
class Facts:
    """What an engine tells of itself and its machine. `memory`: bytes, 0 where it does not say; `cpus`: None
    where it does not say; `podman`: it is one, which takes some options otherwise; `here`: it is on this
    machine, as far as one can tell.
    """

    rootless: bool
    podman: bool
    cpus: float | None
    memory: int
    here: bool


_facts: dict[str, tuple[float, Facts]] = {}
"""Of each engine that was asked, and when."""


def engine_facts(client: DockerClient) -> Facts:
    """What its engine is, by its word of at most FACTS_SECONDS ago: for each answer it starts programs.

    Blocking. Raises what docker-py raises.
    """
    place, now = getattr(client.api, "_place", None), time.monotonic()
    if place in _facts and now - _facts[place][0] < FACTS_SECONDS:
        return _facts[place][1]
    told, parts = client.info(), client.version().get("Components") or []
    podman = any("podman" in str(part.get("Name")).lower() for part in parts)
    memory = int(told.get("MemTotal") or 0)
    here = not podman and memory == (system.memory() or (-1, 0))[0]  # no other has the same to the byte
    facts = Facts(is_rootless(told), podman, told.get("NCPU") or None, memory, here)
    if place is not None:
        _facts[place] = now, facts
    return facts


def engine_traits(client: DockerClient) -> dict[str, Any]:
    """What `container_options` has to know of an engine. Blocking. Raises what docker-py raises."""
    facts = engine_facts(client)
    return {
        "rootless": facts.rootless,
        "podman": facts.podman,
        "cpus": facts.cpus,
        "here": facts.here,
    }


def is_elsewhere(client: DockerClient) -> None:
    """Its engine does not see this machine's files: from now on it does not count as being here."""
    place = getattr(client.api, "_place", "")
    _facts[place] = float("inf"), replace(engine_facts(client), here=False)


def has_image(client: DockerClient, name: str) -> bool:
    """Whether the engine has the image. Blocking. Raises DockerError."""
    import docker

    with docker_errors():
        try:
            client.images.get(name)
        except docker.errors.ImageNotFound:
            return False
    return True


async def in_daemon(function: Callable[..., Any], *args: Any) -> Any:
    """What a blocking function gives, by a thread that neither the loop nor the program waits for: the engine
    may never answer.
    """
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
