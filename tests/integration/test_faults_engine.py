"""The Docker engine fails a run: it stops, is killed, is gone, is another, has lost the image, or may not be
used.
"""

from __future__ import annotations

import gc
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound
from docker.models.containers import Container, ContainerCollection
from docker.models.images import Image

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import docker_host, engine_errors
from rlm_kernel.sandbox.image import ImageInfo
from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, CALLS, MODELS, PLAIN, TEXT, Script, answered, sound, understood
from tests.support.own_engine import OwnEngine, lacks
from tests.support.tree import short_folder

NOBODY = 65534
pytestmark = [
    pytest.mark.xdist_group("faults"),
    pytest.mark.hostile,
    # docker-py leaves the socket open with which it could not connect.
    pytest.mark.filterwarnings(
        r"ignore:unclosed <socket.socket fd=\d+, family=1, type=1, proto=0>:ResourceWarning"
    ),
]


@pytest.fixture(autouse=True)
def sockets_collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What docker-py left open is collected here, and not in another test."""
    yield
    caplog.get_records("call").clear()  # they hold tracebacks
    gc.collect()


@pytest.fixture(scope="module")
def own_engine(kernel_image: ImageInfo) -> Iterator[OwnEngine]:
    if why := lacks():
        pytest.skip(f"an engine of the test's own {why}")
    engine = OwnEngine()
    try:
        engine.start(kernel_image.tag)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> OwnEngine:
    monkeypatch.setenv("DOCKER_HOST", own_engine.address)
    own_engine.revive()
    return own_engine


def ask(rlm: Rlm, *more: str) -> Any:
    Path("in.txt").write_text(TEXT)
    return rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", "t.ipynb", "--json", *more)


def on_start(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Any]) -> None:
    """What to do when the first container is made and not yet started."""
    real = Container.start

    def start(container: Container, **options: Any) -> None:
        monkeypatch.setattr(Container, "start", real)
        fault()
        real(container, **options)

    monkeypatch.setattr(Container, "start", start)


def before_create(monkeypatch: pytest.MonkeyPatch, nth: int, fault: Callable[[], Any]) -> None:
    """What to do when the engine is about to be asked for the nth container."""
    real, number = ContainerCollection.create, itertools.count(1)

    def create(self: Any, **options: Any) -> Any:
        if next(number) == nth:
            fault()
        return real(self, **options)

    monkeypatch.setattr(ContainerCollection, "create", create)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("moment", ["container", "cell", "child", "turn", "answer"])
def test_the_engine_stops_and_comes_back(
    rlm: Rlm, script: Script, engine: OwnEngine, monkeypatch: pytest.MonkeyPatch, moment: str, how: str
) -> None:
    end = getattr(engine, how)
    if moment == "container":
        on_start(monkeypatch, end)
    else:
        script.faults[
            {"cell": ("sub", 9), "child": ("sub", 10), "turn": ("root", 2), "answer": ("root", 5)}[moment]
        ] = end
    done = ask(rlm)
    if done.returncode == 0:
        assert (how, answered(done.stdout)) == ("kill", ANSWER), (
            "the container had outlived its engine, and the answer was near"
        )
        engine.start()
        return
    assert done.returncode == 3
    understood(done.stderr, "Docker")
    before = sound(Path("t.ipynb"))
    assert (before.meta.status, before.meta.stop_reason) == ("finished", "error")
    engine.start()
    assert engine.containers() == []
    resumed = rlm("resume", "t.ipynb", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert answered(resumed.stdout) == ANSWER
    sound(Path("t.ipynb"))
    again = script.asked - CALLS
    assert sum(count for (_, level), count in again.items() if level == 0) <= 1, (
        "what was answered is not asked again"
    )
    assert engine.containers() == []


# The image


@pytest.fixture
def copied_image(
    kernel_image: ImageInfo, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Image]:
    """A copy of the kernel image with a name and an id of its own, to be deleted; sandbox.image names it."""
    tag = f"rlm-test:{os.getpid()}"
    made = f"FROM {kernel_image.tag}\nLABEL of-a-test={os.getpid()}\n".encode()
    image, _ = docker_client.images.build(fileobj=BytesIO(made), tag=tag, rm=True)
    monkeypatch.setenv("RLM_SANDBOX__IMAGE", tag)
    yield image
    with suppress(ImageNotFound):
        docker_client.images.remove(image.id, force=True)


@pytest.mark.parametrize("gone", ["its name", "all of it"])
def test_the_image_is_deleted_between_runs_and_during_one(
    rlm: Rlm,
    script: Script,
    copied_image: Image,
    docker_client: Any,
    kernel_image: ImageInfo,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
) -> None:
    script.turns = (PLAIN[0], "import os\nos._exit(1)", *PLAIN)
    name = copied_image.tags[0]
    if gone == "its name":
        # With -f an image that a container uses loses its name, and is there as long as anything needs it.
        script.faults["root", 2] = lambda: docker_client.images.remove(name, force=True)
    else:
        before_create(monkeypatch, 2, lambda: docker_client.images.remove(copied_image.id, force=True))
    done = ask(rlm)
    assert done.returncode == (0 if gone == "its name" else 3)
    sound(Path("t.ipynb"))
    again = rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", "u.ipynb")
    assert again.returncode == 3
    understood(again.stderr, f"The image {name} (sandbox.image) does not exist", "Unset sandbox.image")
    if gone == "its name":
        assert answered(done.stdout) == ANSWER
        return
    understood(done.stderr, "The Docker engine does not have the image", "rlm image build")
    monkeypatch.setenv("RLM_SANDBOX__IMAGE", kernel_image.tag)
    resumed = rlm("resume", "t.ipynb", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert answered(resumed.stdout) == ANSWER


# The way to the engine


class Listener:
    """Something else than an engine, on a unix socket: it takes connections, and replies with `says` to what
    comes, or with nothing.
    """

    def __init__(self, path: Path, says: bytes | None) -> None:
        self.address = f"unix://{path}"
        self._says = says
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._socket.accept()
                self._taken.append(taken)
                if self._says is not None:
                    taken.recv(65536)
                    taken.sendall(self._says)
                    taken.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        for taken in (self._socket, *self._taken):
            taken.close()


REPLIES = {
    "hangs": None,
    "closes": b"",
    "rubbish": b"\x00\x01rubbish\xff\xfe" * 20,
    "another server": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n"
    b"<html>hi</html"[:-1]
    + b"l",
    "an error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
    "no version": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("reply", REPLIES)
def test_what_answers_is_no_engine(
    rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    monkeypatch.setattr(engine_errors, "ANSWER_SECONDS", 1)
    with short_folder() as folder:
        listener = Listener(Path(folder, "sock"), REPLIES[reply])
        try:
            monkeypatch.setenv("DOCKER_HOST", listener.address)
            done = ask(rlm)
        finally:
            listener.close()
    assert done.returncode == 3
    understood(done.stderr, listener.address)
    assert not Path("t.ipynb").exists()


@pytest.mark.parametrize(
    "address",
    [
        "unix:///nonexistent/sock",
        "tcp://127.0.0.1:1",
        "nonsense",
        "http://",
        "ssh://nobody@127.0.0.1:1",
        "tcp://256.1.1.1:x",
        "/etc",
    ],
)
def test_an_address_that_is_none(
    rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    done = ask(rlm)
    assert done.returncode == 3
    understood(done.stderr)


def test_no_permission_on_the_engines_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"{folder}/sock")
        taken.listen()
        os.chmod(folder, 0o755)
        os.chmod(f"{folder}/sock", 0)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/sock")
        if root := os.geteuid() == 0:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(DockerError, match="No permission to use Docker") as told:
                docker_host.connect()
        finally:
            if root:
                os.seteuid(0)
    assert "docker group" in told.value.hint
