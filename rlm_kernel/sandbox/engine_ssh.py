"""A Docker engine on another machine, reached by this user's own `ssh`, as the `docker` command does: `ssh
HOST docker system dial-stdio`.

Each connection is a process of ssh behind a pair of sockets, so that what is above sees a usual socket, with
time-outs. ssh ends with our end of the pair, however this process ends, and what it has started over there
ends with it.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.client import BadStatusLine
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox.engine_errors import SSH

CONNECT_SECONDS = 15
ALIVE_SECONDS = 15
"""Between two signs of life that ssh asks for; after three without an answer it ends."""
_OPTIONS = {
    "BatchMode": "yes",  # nobody is there to answer: it would ask in the middle of other things
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": ALIVE_SECONDS,
    "ServerAliveCountMax": 3,
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "PermitLocalCommand": "no",
}
_AT_ONCE = 10
_TAIL = 8_000
_LAST_SECONDS = 2.0
_LEAVE_SECONDS = 10.0


class SshFailed(ConnectionError):
    """ssh, or what it has started over there, failed: `told` says why, and what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.told = DockerError(what, hint=hint)


class Ssh:
    """The way to the engine at ssh://[USER@]HOST[:PORT][/SOCKET]. Raises DockerError for an address that is
    none.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        user, _, host = place.netloc.rpartition("@")
        bare, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            bare, port = host, ""
        self._host = bare.strip("[]")
        if (
            not self._host
            or self._host.startswith("-")
            or ":" in user
            or (port and not port.isdigit())
            or place.query
            or place.fragment
        ):
            raise DockerError(
                "This is not an ssh address (DOCKER_HOST, or the docker context).",
                hint="Use the form ssh://USER@HOST:PORT, without a password.",
            )
        self._user, self._port = unquote(user), port
        engine = unquote(place.path).rstrip("/")
        self._docker = f"docker --host {shlex.quote(f'unix://{engine}')}" if engine else "docker"

    @property
    def by_hand(self) -> str:
        """What a person types to reach the machine."""
        port, user = ["-p", self._port] if self._port else [], f"{self._user}@" if self._user else ""
        return shlex.join(["ssh", *port, f"{user}{self._host}"])

    def dial(self) -> Connection:
        """A new connection to the engine.

        It fails, if it does, when it is used. Raises SshFailed if there is no ssh.
        """
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        user, port = ["-l", self._user] if self._user else [], ["-p", self._port] if self._port else []
        return Connection(
            ["ssh", "-T", *options, *user, *port, "--", self._host, f"{self._docker} system dial-stdio"], self
        )

    def not_docker(self, said: str) -> SshFailed:
        """Something came that is no reply of an engine."""
        return SshFailed(
            f"The reply over ssh from {self._host} is not from Docker: {said[:200]}",
            hint=f"A shell that prints something when it starts causes this: `{self.by_hand} docker "
            "version` must print only docker's output.",
        )

    def failure(self, words: str) -> SshFailed:
        """What ssh said on stderr as it failed, and what to do about it."""
        said = words.lower()
        last = (
            [line.strip() for line in words.splitlines() if line.strip()] or ["the connection was closed"]
        )[-1].rstrip(".")
        for sign in SSH:
            if any(part in said for part in sign.parts):
                return SshFailed(
                    f"{sign.what} {self._host}: {last}.",
                    hint=sign.hint.format(ssh=self.by_hand, host=self._host),
                )
        return SshFailed(
            f"Docker over ssh to {self._host} failed: {last}.",
            hint=f"Type `{self.by_hand} docker version`, and repair what it reports.",
        )


class Connection:
    """One connection: `sock` is ours until `close`."""

    def __init__(self, command: list[str], ssh: Ssh) -> None:
        self._ssh = ssh
        self.sock, theirs = socket.socketpair()
        # No pipe: ssh may leave a process behind that other connections share, and that one would hold it
        # open.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with theirs:
                # In a session of its own: Ctrl-C and Ctrl-Z are not for it.
                number = theirs.fileno()
                self._process = subprocess.Popen(
                    command, stdin=number, stdout=number, stderr=self._errors, start_new_session=True
                )
        except OSError as error:
            self.sock.close()
            self._errors.close()
            raise SshFailed(
                f"ssh cannot be started: {error.strerror}.",
                hint="Install it (openssh-client): DOCKER_HOST needs it.",
            ) from error

    def failure(self) -> SshFailed:
        """Why it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_SECONDS)
        # Its own position, not the one that ssh writes at.
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, 2)
            self._errors.seek(max(0, size - _TAIL))
            return self._ssh.failure(self._errors.read().decode(errors="replace"))
        return self._ssh.failure("")

    def close(self) -> None:
        """Close the socket, by which `ssh` ends. Idempotent."""
        self.sock.close()
        self.let_go()

    def let_go(self) -> None:
        """The socket is somebody else's to close: ssh ends then, and nothing of it stays. Idempotent."""
        self._errors.close()
        if self._process.poll() is None:
            threading.Thread(target=self._await_end, name="rlm-ssh", daemon=True).start()

    def _await_end(self) -> None:
        """It ends as what it has started over there does, which may hang."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_SECONDS)
                return
            if self.sock.fileno() < 0:
                self._process.terminate()


class _Connection(HTTPConnection):
    """For docker-py's requests."""

    def __init__(self, ssh: Ssh, **options: Any) -> None:
        super().__init__("localhost", **options)
        self._ssh = ssh
        self._through: Connection | None = None

    def connect(self) -> None:
        self._through = self._ssh.dial()
        self.sock = self._through.sock
        if isinstance(self.timeout, int | float):
            self.sock.settimeout(self.timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        with self._explained():
            super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        with self._explained():
            return super().getresponse()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        held, self._through = self._through, None  # http.client closes it before it raises
        try:
            yield
        except (BadStatusLine, ConnectionError) as error:
            through = held or self._through
            if isinstance(error, ConnectionError) and not isinstance(error, SshFailed):
                raise (through.failure() if through is not None else self._ssh.failure("")) from error
            if isinstance(error, BadStatusLine):
                raise self._ssh.not_docker(str(error)) from error
            raise
        finally:
            if held is not None and self.sock is not None:
                self._through = held
            elif held is not None:
                held.close()

    def close(self) -> None:
        super().close()
        through, self._through = self._through, None
        if through is not None:
            through.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, ssh: Ssh, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout, maxsize=_AT_ONCE)
        self._ssh = ssh

    def _new_conn(self) -> Any:
        return _Connection(self._ssh, timeout=self.timeout.connect_timeout)


class SshAdapter(HTTPAdapter):
    """Carries docker-py's requests. `ssh`: for connections beside."""

    def __init__(self, ssh: Ssh, timeout: float) -> None:
        super().__init__()
        self.ssh = ssh
        self._pool = _Pool(ssh, timeout)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return request.path_url or "/"

    def close(self) -> None:
        super().close()
        self._pool.close()
