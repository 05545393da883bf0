"""Each way in which an engine, or the way to it, can fail: how that shows, what it means to people, and what
to type next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rlm_kernel import system
from rlm_kernel.errors import DockerError, ImageError
from rlm_kernel.sandbox import engine_address
from rlm_kernel.sandbox.engine_address import Address

ANSWER_SECONDS = 15
"""An engine that does not tell its version for this long counts as not answering."""


class Sign(NamedTuple):
    """Any of `parts` in the words of an engine, or of ssh in lower case."""

    parts: tuple[str, ...]
    what: str
    hint: str


REFUSALS = (
    Sign(
        ("HTTP request to an HTTPS server",),
        "",
        "That engine uses TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH.",
    ),
    Sign(
        ("seccomp profile",),
        "",
        "podman looks for the profile on its own machine. With RLM_SANDBOX__SECCOMP=engine it uses its own "
        "profile.",
    ),
)
"""Of an engine that refuses, whose own words say what."""
SSH = (
    Sign(
        ("identification has changed",),
        "ssh does not trust",
        "If that machine was set up anew, type `ssh-keygen -R {host}`, then `{ssh}` and compare the "
        "fingerprint.",
    ),
    Sign(("host key",), "ssh does not know", "Type `{ssh}` once, compare the fingerprint and accept it."),
    Sign(
        ("permission denied (", "too many authentication failures", "no supported authentication"),
        "ssh was refused by",
        "`{ssh}` must log in without a password prompt: install a key (`ssh-copy-id`), and unlock it "
        "(`ssh-add`).",
    ),
    Sign(
        ("not a docker command", "dial-stdio", "unknown command"),
        "Docker is too old on",
        "Install Docker 18.09 or later on that machine.",
    ),
    Sign(
        ("not found", "not recognized", "no such file or directory: docker"),
        "There is no `docker` command on",
        "Install it on that machine, so that `{ssh} docker version` finds it.",
    ),
    Sign(
        ("permission denied while trying to connect", "connect: permission denied"),
        "The user may not use Docker on",
        "On that machine, as root: `usermod -aG docker USER`.",
    ),
    Sign(
        ("cannot connect to the docker daemon", "dial unix", "failed to connect to the docker api"),
        "No Docker engine answers on",
        "Start it on that machine: `systemctl start docker`.",
    ),
    Sign(
        (
            "could not resolve",
            "connection refused",
            "timed out",
            "no route to host",
            "unreachable",
            "not responding",
            "connection closed",
            "kex_exchange",
        ),
        "ssh cannot reach",
        "Check the address (DOCKER_HOST, or the docker context), and that `{ssh}` works.",
    ),
)
"""The machine's name is put behind `what`, and in the place of {host} and {ssh}. The first that fits."""


class _Cause(NamedTuple):
    """An exception below one of docker-py's. {address} is the engine's, {said} what the exception says."""

    shows: Callable[[BaseException], bool]
    what: str
    hint: Callable[[Address], str]


def _is(*kinds: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda cause: isinstance(cause, kinds)


def _hanging(address: Address) -> str:
    if address.scheme == "ssh":
        return (
            "Check whether this machine reaches it (`rlm doctor`), and whether `docker version` works on "
            "that machine."
        )
    if address.scheme in ("unix", "npipe"):
        return f"{system.engine_restart()} Then type `rlm doctor`."
    return "Check whether this machine reaches it, and whether its engine runs. Then type `rlm doctor`."


def start_hint(_address: Address | None = None) -> str:
    """What to do where no engine answers."""
    if other := next(engine_address.others(), None):
        return f"There is another engine, which may be the right one: `export DOCKER_HOST={other}`."
    if os.environ.get("DOCKER_HOST"):
        return "Correct or unset DOCKER_HOST, or start the engine that it names; then type `rlm doctor`."
    if engine_address.find().source != engine_address.USUAL_SOURCE:
        return (
            "Start the engine of that docker context, or choose another (`docker context ls`); then type "
            "`rlm doctor`."
        )
    return system.engine_here()


def _is_unreachable(cause: BaseException) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def _is_late(cause: BaseException) -> bool:
    return isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__


_CERTIFICATES = (
    "The certificates in DOCKER_CERT_PATH or in the docker context must be valid for that engine's name."
)
_CAUSES = (
    _Cause(
        _is(PermissionError), "No permission to use Docker at {address}.", lambda _: system.engine_access()
    ),
    _Cause(_is(FileNotFoundError), "There is no Docker engine at {address}.", start_hint),
    _Cause(_is_late, "The Docker engine at {address} did not answer within {seconds} s.", _hanging),
    _Cause(
        _is(ssl.SSLError),
        "The Docker engine at {address} and this program do not trust each other: {said}.",
        lambda _: _CERTIFICATES,
    ),
    _Cause(
        _is(socket.gaierror),
        "The host name of the Docker engine at {address} cannot be resolved.",
        start_hint,
    ),
    _Cause(_is_unreachable, "The machine of the Docker engine at {address} cannot be reached.", _hanging),
    _Cause(_is(ConnectionError), "No Docker engine answers at {address}.", start_hint),
    _Cause(_is(BaseException), "Docker at {address} cannot be used: {error}", start_hint),
)
"""The first that fits anything that led to an error."""


@contextlib.contextmanager
def docker_errors() -> Iterator[None]:
    """Whatever docker-py raises inside comes out as a DockerError that says what to do; as an ImageError
    where an image is missing.
    """
    import docker

    try:
        yield
    except docker.errors.ImageNotFound as error:
        hint = "Was it deleted? Type `rlm image build`, or check sandbox.image if it is set."
        raise ImageError(
            f"The Docker engine does not have the image: {error.explanation or error}.", hint=hint
        ) from error
    except docker.errors.APIError as error:
        raise refused(str(error.explanation or error)) from error
    except (docker.errors.DockerException, OSError) as error:
        raise explained(error) from error


def hint_for(said: str) -> str:
    """What to do where an engine refuses in these words; "" if that is not known."""
    return next((sign.hint for sign in REFUSALS if any(part in said for part in sign.parts)), "")


def refused(said: str) -> DockerError:
    """Of an engine that refuses in these words."""
    return DockerError(f"The Docker engine refused: {said}", hint=hint_for(said) or "See `rlm doctor`.")


def explained(error: BaseException) -> DockerError:
    """Of an engine that cannot be spoken to."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(told := getattr(cause, "told", None), DockerError):  # ssh says more
            return told
    address = engine_address.find()
    found = next(known for known in _CAUSES if any(map(known.shows, causes)))
    said = [str(cause) for cause in causes if found.shows(cause)][-1].rstrip(".")  # of the innermost
    return DockerError(
        found.what.format(address=address, said=said, seconds=ANSWER_SECONDS, error=error),
        hint=found.hint(address),
    )


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
