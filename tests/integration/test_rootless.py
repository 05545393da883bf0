"""Rootless engines: uid 0 of their containers is the user who runs them.

Without their programs, which `make test-hostile` installs, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.probe import sandbox_problem
from tests.integration.test_lease import MOST, OWNER
from tests.support.attacks import ATTACKS, HOLD_THE_GIL
from tests.support.faults import MODELS, answered
from tests.support.model_server import ModelServer
from tests.support.rootless import Rootless, RootlessPodman

# The image is loaded into each engine, which takes a minute where disk and processors are busy.
pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.hostile, pytest.mark.timeout(300)]
LOOK = """
def look():
    import os
    told = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    status = {"CapAmb": "", "NoNewPrivs": ""} | told  # gVisor does not tell these
    caps = {status[name].strip("\\t0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    can = []
    for path in ("/", "/opt/rlm", "/etc/passwd", "/proc/sys/kernel/core_pattern"):
        try:
            os.close(os.open(path if os.path.isfile(path) else path + "/new", os.O_WRONLY | os.O_CREAT))
            can.append(path)
        except OSError:
            pass
    return [os.getuid(), *sorted(caps), status["NoNewPrivs"].strip(), status["Seccomp"].strip(), can, sorted(os.listdir("/sys/class/net"))]
"""
ATTACK = "".join(
    ATTACKS[name]
    for name in (
        "signals to the first process",
        "ptrace and memory of the first process",
        "the descriptors of the first process",
    )
)


@pytest.fixture(params=["rootless", "rootless-podman"])
def engine(request: pytest.FixtureRequest, engines: Callable[[str], Rootless]) -> Iterator[Rootless]:
    engine = engines(request.param)
    yield engine
    engine.clear()


@pytest.fixture
def client(engine: Rootless) -> Iterator[Any]:
    client = docker.DockerClient(base_url=engine.address)
    yield client
    client.close()


def test_a_question_is_answered_behind_all_locks(engine: Rootless, openai_env: ModelServer) -> None:
    openai_env.root = [f"```repl\n{LOOK}\nFINAL(look() + [len(context), llm_query('a')])\n```"]
    (engine.home / "in.txt").write_text("hello " * 100)
    (engine.home / "in.txt").chmod(0o600)
    os.chown(engine.home / "in.txt", engine.user.uid, -1)
    reach = {name: os.environ[name] for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE")}
    ran = engine.rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--json", **reach)
    assert ran.returncode == 0, ran.stderr
    assert answered(ran.stdout) == [0, "", "1", "2", [], ["lo"], 600, "echo: a"]
    assert engine.containers() == []


def test_a_container_is_its_users_and_ends_with_its_owner(engine: Rootless, client: Any) -> None:
    command = engine.command("-c", OWNER, f"{ATTACK}\n{HOLD_THE_GIL}", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            _, name = owner.stdout.readline().split()
            assert owner.stdout.readline() == "on\n"
            first = client.containers.get(name).attrs["State"]["Pid"]
            assert f"Uid:\t{engine.user.uid}\t" in engine.files(f"/proc/{first}/status").read_text()
        finally:
            owner.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while engine.containers():
        assert time.monotonic() - killed < MOST
        time.sleep(0.1)


def test_doctor_says_what_the_engine_gives(engine: Rootless) -> None:
    checks = {check["name"]: check for check in json.loads(engine.rlm("doctor", "--json").stdout)["checks"]}
    assert checks["sandbox"]["ok"], checks["sandbox"]
    assert ", rootless, " in checks["docker"]["detail"]
    if "cgroup v1" in checks["docker"]["detail"]:
        assert checks["isolation"]["detail"] == "D: no limit of memory, no limit of CPU, no limit of pids"
        assert not checks["limits"]["ok"]
    else:
        assert checks["isolation"]["detail"].startswith("B: ")


def test_another_users_engine_is_as_good(engine: Rootless, client: Any, kernel_image: ImageInfo) -> None:
    problem = sandbox_problem(client, kernel_image.tag)
    if isinstance(engine, RootlessPodman):  # reads the file of the profile itself, which is private
        assert "opening seccomp profile failed" in str(problem)
    else:
        assert problem is None
    assert engine.containers() == []
