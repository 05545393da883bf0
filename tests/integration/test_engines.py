"""What other engines do of what a sandbox wants, asked of the engines alone, and that nothing is left of
them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from docker.types import Mount

from rlm_kernel.sandbox.image import ImageInfo
from tests.support import fuse
from tests.support.cable import cable
from tests.support.certificates import make_certificates
from tests.support.engine_traits import prints, traits
from tests.support.engines import EACH, REMOTE, parameters
from tests.support.own_engine import ROOT, OwnEngine, lacks

USED_AND_KILLED = """
import sys
from tests.support.own_engine import OwnEngine
engine = OwnEngine()
engine.start(sys.argv[1])
run = ("run", "--detach", "--network=none", "--entrypoint=sleep", sys.argv[1], "1000")
assert not engine.docker(*run).returncode
print(engine.folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("engine", EACH, indirect=True)
def test_what_an_engine_does(engine: OwnEngine, kernel_image: ImageInfo) -> None:
    found = traits(engine, kernel_image.tag)
    assert found.pop("version")
    assert found.pop("round trip, ms") > 0
    assert found == {
        "echoes all bytes, and 1 MB": True,
        "output after the end of stdin": True,
        "StdinOnce: the killed client's container ends": True,
        "without it: lives on, and has a second client": engine.keeps_stdin,
        "sees files of this machine": not engine.far,
        "a volume is written by archive, and read-only": True,
        "a later archive is seen": True,
    }


@pytest.mark.parametrize("engine", REMOTE, indirect=True)
def test_what_a_far_engine_has_at_a_path_is_another_file(
    engine: OwnEngine, kernel_image: ImageInfo, tmp_path: Path
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("here")
    far = engine.files(str(path))
    far.parent.mkdir(parents=True)
    far.write_text("there")
    with engine.client() as client:
        mount = Mount("/in.txt", str(path), type="bind", read_only=True)
        assert (
            prints(engine, client, kernel_image.tag, ["cat", "/in.txt"], mounts=[mount], user="0:0")
            == "there"
        )


@pytest.mark.parametrize("engine", parameters(["tls"]), indirect=True)
def test_who_has_no_certificate_for_the_engine_is_refused(engine: OwnEngine, tmp_path: Path) -> None:
    make_certificates(tmp_path / "server", tmp_path / "client")
    others = os.environ | {"DOCKER_CERT_PATH": str(tmp_path / "client")}
    assert subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
    assert subprocess.run(["docker", "version"], capture_output=True, env=others, check=False).returncode
    (tmp_path / "client/ca.pem").write_bytes(Path(os.environ["DOCKER_CERT_PATH"], "ca.pem").read_bytes())
    assert subprocess.run(["docker", "version"], capture_output=True, env=others, check=False).returncode


@pytest.mark.parametrize("engine", parameters(["tls", "ssh"]), indirect=True)
def test_the_way_to_a_far_engine_goes_silent_and_is_mended(
    engine: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            ran = subprocess.run(["docker", "version"], capture_output=True, timeout=seconds, check=False)
            return ran.returncode == 0
        return False

    with cable(engine.address) as way:
        monkeypatch.setenv("DOCKER_HOST", way.address)
        assert answers(30)
        way.silence()
        assert not answers(1)
        way.mend()
        assert answers(30)


@pytest.mark.parametrize("engine", parameters(["desktop"]), indirect=True)
def test_what_is_shared_with_a_far_engine_is_seen_there(engine: OwnEngine, kernel_image: ImageInfo) -> None:
    (engine.shared / "in.txt").write_text("shared")
    (engine.shared / "in.txt").chmod(0o644)
    with engine.client() as client, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(engine.shared / "s"))
        listener.listen()
        (engine.shared / "s").chmod(0o666)
        mount = Mount("/shared", str(engine.shared), type="bind", read_only=True)
        connect = (
            "import socket; print(open('/shared/in.txt').read(), "
            "socket.socket(socket.AF_UNIX).connect_ex('/shared/s') != 0)"
        )
        command = ["/opt/rlm/bin/python", "-ISc", connect]
        assert prints(engine, client, kernel_image.tag, command, mounts=[mount]) == "shared True\n"


@pytest.mark.hostile
@pytest.mark.skipif(bool(fuse.why_not()), reason=f"a folder seen through FUSE {fuse.why_not()}")
def test_a_folder_seen_through_fuse_has_files_and_no_sockets(tmp_path: Path) -> None:
    folder, at = tmp_path / "folder", tmp_path / "at"
    folder.mkdir()
    at.mkdir()
    with (
        fuse.seen_through_fuse(folder, at),
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        (at / "in.txt").write_text("seen")
        assert (folder / "in.txt").read_text() == "seen"
        listener.bind(str(folder / "s"))
        listener.listen()
        with pytest.raises(ConnectionRefusedError):
            client.connect(str(at / "s"))
    assert not list(at.iterdir())


@pytest.mark.skipif(bool(lacks()), reason=f"an engine of the test's own {lacks()}")
def test_nothing_is_left_of_an_engine_whose_test_was_killed(kernel_image: ImageInfo) -> None:
    network = sorted(os.listdir("/sys/class/net"))
    command = [sys.executable, "-c", USED_AND_KILLED, kernel_image.tag]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as used:
        assert used.stdout is not None
        folder = Path(used.stdout.readline().strip())
        assert sorted(os.listdir("/sys/class/net")) == network
        assert _processes(folder)
        used.send_signal(signal.SIGKILL)
    assert _soon(lambda: not _processes(folder))
    assert folder.name not in Path("/proc/self/mounts").read_text()
    assert _soon(lambda: _cleared_by_the_next(folder))
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{folder.name}"))


def _cleared_by_the_next(folder: Path) -> bool:
    OwnEngine().close()
    return not folder.exists()


def _soon(condition: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return holds


def _processes(folder: Path) -> list[str]:
    """Those whose command names the folder: its engine, and the parents of its containers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        found += [entry.parent.name] if folder.name.encode() in command else []
    return found
