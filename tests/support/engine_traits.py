"""What an engine does of what the sandbox wants, tried with its API alone.

`python -m tests.support.engine_traits` prints a table.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from subprocess import PIPE, Popen
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import find_image
from tests.support.engines import ENGINES
from tests.support.own_engine import OwnEngine, lacks

BYTES = bytes(range(256))
"""All of them: 16 and 17 are the keys with which people leave a container."""
SOON = 5.0
"""Seconds within which a container ends that is to end."""
_STDOUT = 1


class Attached:
    """A raw attach to a container, by a process that carries bytes to the engine over whatever leads there,
    and that may be killed.
    """

    def __init__(self, engine: OwnEngine, container: str) -> None:
        self._carrier = Popen(
            ["docker", "system", "dial-stdio"], stdin=PIPE, stdout=PIPE, env=os.environ | engine.environment
        )
        query = "stream=1&stdin=1&stdout=1&stderr=1&detachKeys="
        head = [
            f"POST /v1.41/containers/{container}/attach?{query} HTTP/1.1",
            "Host: docker",
            "Connection: Upgrade",
            "Upgrade: tcp",
        ]
        assert self._carrier.stdin is not None
        assert self._carrier.stdout is not None
        self._in, self._out = self._carrier.stdin, self._carrier.stdout
        self._in.write("\r\n".join([*head, "", ""]).encode())
        self._in.flush()
        status = self._out.readline()
        assert status.split()[1] in (b"101", b"200"), status + self._out.read(1000)
        while self._out.readline().strip():
            pass
        self._ahead = b""

    def send(self, data: bytes) -> None:
        self._in.write(data)
        self._in.flush()

    def receive(self, size: int) -> bytes:
        """That much of stdout, or less if it ends before."""
        while len(self._ahead) < size and (head := self._out.read(8)):
            piece = self._out.read(int.from_bytes(head[4:]))
            self._ahead += piece if head[0] == _STDOUT else b""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def say_no_more(self) -> None:
        """End stdin; stdout stays."""
        self._in.close()

    def kill(self) -> None:
        """With SIGKILL."""
        self._carrier.kill()
        self._carrier.wait()
        for stream in (self._in, self._out):
            with suppress(OSError):
                stream.close()


@contextmanager
def container(
    client: docker.DockerClient, image: str, command: list[str], **options: Any
) -> Iterator[Container]:
    """One as the sandbox's: no network, all that is written thrown away, an open stdin."""
    made = client.containers.create(
        image,
        command,
        entrypoint=[],
        stdin_open=True,
        network_mode="none",
        read_only=True,
        log_config=LogConfig(type="none"),
        **options,
    )
    try:
        yield made
    finally:
        made.remove(force=True)


@contextmanager
def echoing(client: docker.DockerClient, image: str, *, once: bool) -> Iterator[Container]:
    """`once`: its stdin ends with the client that is attached first (StdinOnce), which docker-py cannot
    say.
    """
    with client_of_once(client, once), container(client, image, ["cat"]) as made:
        yield made


@contextmanager
def client_of_once(client: docker.DockerClient, once: bool) -> Iterator[None]:
    create = client.api.create_container_from_config

    def with_once(config: Any, *arguments: Any) -> Any:
        return create(config | {"StdinOnce": once, "AttachStdin": once}, *arguments)

    client.api.create_container_from_config = with_once
    try:
        yield
    finally:
        client.api.create_container_from_config = create


def ends(made: Container, within: float = SOON) -> bool:
    """Whether a container ends within seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        made.reload()
        if made.status == "exited":
            return True
        time.sleep(0.02)
    return False


def traits(engine: OwnEngine, image: str) -> dict[str, Any]:
    """By name: whether it does it, or a figure."""
    tries: dict[str, Callable[[docker.DockerClient], Any]] = {
        "echoes all bytes, and 1 MB": lambda client: _echoes(engine, client, image),
        "round trip, ms": lambda client: _round_trip(engine, client, image),
        "output after the end of stdin": lambda client: _half_closed(engine, client, image),
        "StdinOnce: the killed client's container ends": lambda client: _ends_with_client(
            engine, client, image
        ),
        "without it: lives on, and has a second client": lambda client: _lives_on(engine, client, image),
        "sees files of this machine": lambda client: _sees(engine, client, image),
        "a volume is written by archive, and read-only": lambda client: _takes_archive(client, image),
        "a later archive is seen": lambda client: _takes_late_archive(engine, client, image),
    }
    with engine.client() as client:
        return {"version": client.version()["Version"]} | {name: run(client) for name, run in tries.items()}


@contextmanager
def _attached(
    engine: OwnEngine, client: docker.DockerClient, image: str, *, once: bool
) -> Iterator[tuple[Container, Attached]]:
    with echoing(client, image, once=once) as made:
        attached = Attached(engine, made.id)
        try:
            made.start()
            yield made, attached
        finally:
            attached.kill()


def _echoes(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    with _attached(engine, client, image, once=True) as (_, attached):
        for data in (BYTES, os.urandom(60_000), *[os.urandom(1 << 15)] * 32):
            attached.send(data)
            if attached.receive(len(data)) != data:
                return False
    return True


def _round_trip(engine: OwnEngine, client: docker.DockerClient, image: str) -> float:
    took = []
    with _attached(engine, client, image, once=True) as (_, attached):
        for _ in range(50):
            began = time.monotonic()
            attached.send(bytes(100))
            attached.receive(100)
            took.append(time.monotonic() - began)
    return round(sorted(took)[len(took) // 2] * 1000, 2)


def _half_closed(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    with (
        client_of_once(client, True),
        container(client, image, ["sh", "-c", "cat >/dev/null; echo last"]) as made,
    ):
        attached = Attached(engine, made.id)
        try:
            made.start()
            attached.send(b"first")
            attached.say_no_more()
            return ends(made) and attached.receive(5) == b"last\n"
        finally:
            attached.kill()


def _ends_with_client(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    with _attached(engine, client, image, once=True) as (made, attached):
        attached.send(b"on")
        assert attached.receive(2) == b"on"
        attached.kill()
        return ends(made)


def _lives_on(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    with _attached(engine, client, image, once=False) as (made, attached):
        attached.send(b"on")
        assert attached.receive(2) == b"on"
        attached.kill()
        if ends(made, 0.5):
            return False
        second = Attached(engine, made.id)
        try:
            second.send(BYTES)
            return second.receive(len(BYTES)) == BYTES
        finally:
            second.kill()


def _sees(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    """A file of another's, which all may read."""
    path = f"/var/tmp/rlm-seen-{os.getpid()}"
    with open(path, "w") as file:
        file.write(path)
    os.chmod(path, 0o644)
    try:
        return (
            prints(
                engine,
                client,
                image,
                ["cat", "/seen"],
                mounts=[Mount("/seen", path, type="bind", read_only=True)],
            )
            == path
        )
    except docker.errors.APIError:
        return False
    finally:
        os.unlink(path)


def prints(
    engine: OwnEngine, client: docker.DockerClient, image: str, command: list[str], **options: Any
) -> str:
    with client_of_once(client, True), container(client, image, command, **options) as made:
        attached = Attached(engine, made.id)
        try:
            made.start()
            return attached.receive(1 << 20).decode()
        finally:
            attached.kill()


def _archive(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o444
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@contextmanager
def volume(client: docker.DockerClient) -> Iterator[str]:
    made = client.volumes.create(labels={"rlm.test": "1"})
    try:
        yield made.name
    finally:
        made.remove(force=True)


def _takes_archive(client: docker.DockerClient, image: str) -> bool:
    """Written through a container that never starts; read, and not writable, in another."""
    with volume(client) as name:
        with container(client, image, ["true"], mounts=[Mount("/files", name)]) as made:
            made.put_archive("/files", _archive("a.txt", b"sent"))
        look = ["sh", "-c", "! touch /files/b && ! rm -f /files/a.txt && cat /files/a.txt"]
        with container(
            client, image, look, mounts=[Mount("/files", name, read_only=True)], user="0:0"
        ) as made:
            made.start()
            return bool(made.wait(timeout=60)["StatusCode"] == 0)


def _takes_late_archive(engine: OwnEngine, client: docker.DockerClient, image: str) -> bool:
    """Through a container that never starts, into the volume of one that runs."""
    wait = (
        "import os,sys; sys.stdin.readline(); print(sorted(os.listdir('/files')), open('/files/late').read())"
    )
    with volume(client) as name, container(client, image, ["true"], mounts=[Mount("/files", name)]) as writer:
        mounts = [Mount("/files", name, read_only=True)]
        python = ["/opt/rlm/bin/python", "-ISc", wait]
        with client_of_once(client, True), container(client, image, python, mounts=mounts) as made:
            attached = Attached(engine, made.id)
            try:
                made.start()
                writer.put_archive("/files", _archive("late", b"sent"))
                attached.send(b"\n")
                return attached.receive(1 << 20) == b"['late'] sent\n"
            finally:
                attached.kill()


def main(names: list[str]) -> None:
    """A table of engines in markdown, those named or all."""
    client = connect()
    image = find_image(client)
    client.close()
    assert image is not None, "the kernel image is not built: type `make image`"
    found: dict[str, dict[str, Any]] = {}
    for name in names or ENGINES:
        if why := lacks(*ENGINES[name].needs):
            print(f"{name}: {why}", file=sys.stderr)
            continue
        began = time.monotonic()
        engine = ENGINES[name]()
        try:
            engine.start(image.tag)
            up = time.monotonic() - began
            found[name] = {"up with the image, s": round(up, 1)} | traits(engine, image.tag)
        finally:
            began = time.monotonic()
            engine.close()
        found[name]["down, s"] = round(time.monotonic() - began, 1)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    rows = next(iter(found.values()))
    print(f"| | {' | '.join(found)} |", f"|{' --- |' * (len(found) + 1)}", sep="\n")
    for row in rows:
        print(f"| {row} | {' | '.join(str(each[row]) for each in found.values())} |")


if __name__ == "__main__":
    main(sys.argv[1:])
