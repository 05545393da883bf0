"""Which Docker engine is meant, as the `docker` command finds it: DOCKER_HOST, else DOCKER_CONTEXT, else the
current context, else the usual socket.

docker-py reads these too, but takes a context that is not there for the usual socket, and finds none without
a config.json beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rlm_kernel import system
from rlm_kernel.errors import DockerError

USUAL = "npipe:////./pipe/docker_engine" if system.WINDOWS else "unix:///var/run/docker.sock"
USUAL_SOURCE = "the default"
_TLS_PORT = 2376
_PORT = 2375
_MAX_FILE = 1 << 20
_CONTEXTS = "`docker context ls` lists the contexts. Set DOCKER_CONTEXT to one of them, or unset it."


@dataclass(frozen=True)
class Tls:
    """How an engine is checked, and what we show it. Files that are not there are None."""

    ca: Path | None
    certificate: Path | None
    key: Path | None
    verify: bool

    @classmethod
    def found_in(cls, folder: Path, *, verify: bool) -> Tls:
        """The files that Docker keeps in a folder."""
        ca, certificate, key = (
            path if (path := folder / f"{name}.pem").is_file() else None for name in ("ca", "cert", "key")
        )
        return cls(ca, certificate, key, verify)

    def context(self) -> ssl.SSLContext:
        """Raises DockerError."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            # Certificates made by Docker's own instructions lack what this asks for.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not self.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=self._refuse_password)
        except (OSError, ValueError) as error:
            raise DockerError(
                f"The certificates for the Docker engine cannot be used: {error}.",
                hint="Check the files ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH or in the docker "
                "context.",
            ) from error
        return context

    def _refuse_password(self) -> NoReturn:
        raise DockerError(
            f"The key {self.key} for the Docker engine is locked with a password.",
            hint=f"Remove the password: `openssl pkey -in {self.key} -out key.pem`, and keep that file "
            "private.",
        )


@dataclass(frozen=True)
class Address:
    """Where an engine is.

    `source`: what names it, for messages. `tls`: None for an engine that speaks without.
    """

    url: str
    source: str
    tls: Tls | None = None

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def base_url(self) -> str:
        """Of a tcp engine, for an HTTP client."""
        _, _, place = self.url.partition("://")
        host, colon, port = place.partition("/")[0].rpartition(":")
        if not colon or not port.isdigit():
            host, port = place.partition("/")[0], str(_TLS_PORT if self.tls else _PORT)
        return f"{'https' if self.tls else 'http'}://{host}:{port}"

    @property
    def place(self) -> str:
        """The same for the same socket, by whatever path."""
        scheme, _, path = self.url.partition("://")
        return f"unix://{os.path.realpath(path)}" if scheme == "unix" else self.url

    @property
    def is_safe(self) -> bool:
        """Whether nobody else reaches it by the same way."""
        return self.scheme not in ("tcp", "http") or self.tls is not None

    @property
    def way(self) -> str:
        """How it is reached, in words."""
        if self.scheme in ("unix", "npipe"):
            return "through a socket on this machine"
        if self.scheme == "ssh":
            return "by ssh"
        if self.tls is None:
            return "over tcp without TLS: whoever can reach its port is root there"
        return (
            "over tcp with TLS"
            if self.tls.verify
            else "over tcp with TLS, without a check of its certificate"
        )

    def __str__(self) -> str:
        return f"{self.url} ({self.source})"


def find() -> Address:
    """The engine that is meant. Raises DockerError if it is named and cannot be."""
    if host := os.environ.get("DOCKER_HOST"):
        return _address(host.strip(), "DOCKER_HOST", _tls_of_environment())
    named = os.environ.get("DOCKER_CONTEXT")
    name = named or _current_context()
    if name in ("", "default"):
        return Address(USUAL, USUAL_SOURCE)
    source = f"the docker context {name}"
    described = _read(_config() / "contexts" / "meta" / _id(name) / "meta.json", source)
    if described is None:
        raise DockerError(
            f"There is no docker context {name}, which {'DOCKER_CONTEXT' if named else 'docker'} names.",
            hint=_CONTEXTS,
        )
    endpoint = described.get("Endpoints", {}).get("docker", {})
    files = _config() / "contexts" / "tls" / _id(name) / "docker"
    skip = bool(endpoint.get("SkipTLSVerify"))
    tls = Tls.found_in(files, verify=not skip) if files.is_dir() or skip else None
    return _address(str(endpoint.get("Host") or USUAL), source, tls)


def others() -> Iterator[str]:
    """Addresses of engines that this user may have, beside the one that is meant."""
    home, runtime = Path.home(), os.environ.get("XDG_RUNTIME_DIR")
    sockets = [
        home / ".docker/run/docker.sock",
        home / ".docker/desktop/docker.sock",
        home / ".colima/default/docker.sock",
    ]
    sockets += [home / ".orbstack/run/docker.sock", home / ".rd/docker.sock"]
    sockets += [Path(runtime) / name for name in ("docker.sock", "podman/podman.sock") if runtime]
    for path in [*sockets, Path("/run/podman/podman.sock")]:
        if os.access(path, os.W_OK):
            yield f"unix://{path}"


def _address(url: str, source: str, tls: Tls | None) -> Address:
    scheme, colon, place = url.partition("://")
    if not colon:
        scheme, place = ("unix", url) if url.startswith("/") else ("tcp", url)
    if scheme not in ("unix", "tcp", "http", "https", "ssh", "npipe") or not place:
        raise DockerError(
            f"{url!r} is not the address of a Docker engine ({source}).",
            hint="Use an address such as unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST.",
        )
    if scheme == "https" and tls is None:
        tls = Tls(None, None, None, verify=True)
    return Address(f"{scheme}://{place}", source, tls if scheme in ("tcp", "https") else None)


def _tls_of_environment() -> Tls | None:
    verify, folder = bool(os.environ.get("DOCKER_TLS_VERIFY")), os.environ.get("DOCKER_CERT_PATH")
    if not (verify or folder or os.environ.get("DOCKER_TLS")):
        return None
    return Tls.found_in(Path(folder) if folder else _config(), verify=verify)


def _config() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _current_context() -> str:
    told = _read(_config() / "config.json", "docker's configuration")
    return str((told or {}).get("currentContext") or "")


def _id(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()


def _read(path: Path, what: str) -> dict[str, Any] | None:
    """The object in a file; None if there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.read(_MAX_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DockerError(
            f"What {what} says cannot be read: {path}: {error}.", hint="Repair or remove that file."
        ) from error
    if not isinstance(found, dict):
        raise DockerError(
            f"{path} ({what}) does not contain a JSON object.", hint="Repair or remove that file."
        )
    return found
