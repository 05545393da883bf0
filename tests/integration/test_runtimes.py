"""Other runtimes than the engine's own (`sandbox.runtime`), and what a container that does not start
leaves.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from rlm_kernel.config import SandboxSettings
from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import probe
from rlm_kernel.sandbox.image import ImageInfo
from rlm_kernel.sandbox.probe import sandbox_problem
from rlm_kernel.session.state import SessionFolder
from tests.integration.conftest import Rlm
from tests.support.faults import MODELS, answered
from tests.support.model_server import ModelServer
from tests.support.own_engine import OwnEngine, Remapped, lacks
from tests.support.sandbox import until

RUNC = shutil.which("runc")


async def test_a_runtime_that_the_engine_does_not_have_is_told(
    sandbox: Any, kernel_image: ImageInfo, docker_client: Any
) -> None:
    with pytest.raises(DockerError, match="no-such-runtime"):
        await sandbox(runtime="no-such-runtime")
    wanted = SandboxSettings(runtime="no-such-runtime")
    assert "no-such-runtime" in str(
        await asyncio.to_thread(sandbox_problem, docker_client, kernel_image.id, wanted)
    )


async def test_a_container_that_does_not_start_is_removed(
    sandbox: Any, kernel_image: ImageInfo, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def refuse(container: Container, **_: Any) -> None:
        made.append(container.id)
        raise docker.errors.APIError("not today")

    monkeypatch.setattr(Container, "start", refuse)
    with pytest.raises(DockerError, match="not today"):
        await sandbox()
    assert "not today" in str(await asyncio.to_thread(sandbox_problem, docker_client, kernel_image.id))
    assert len(made) == 2
    await until(lambda: not {found["Id"] for found in docker_client.api.containers(all=True)} & set(made))


def test_a_first_process_that_is_not_heard_is_told(
    kernel_image: ImageInfo, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sandbox_problem(docker_client, kernel_image.id) is None
    usual = probe.container_options
    for code, told in (
        ("raise SystemExit('something is missing')", "something is missing"),
        ("import time; time.sleep(99)", "nothing within 3 s"),
    ):
        instead = {"command": ["/opt/rlm/bin/python", "-c", code]}
        monkeypatch.setattr(
            probe, "container_options", lambda *given, _more=instead, **named: usual(*given, **named) | _more
        )
        monkeypatch.setattr(probe, "_SECONDS", 3)
        assert told in str(sandbox_problem(docker_client, kernel_image.id))


@pytest.mark.parametrize("command", ["ask", "run", "chat", "resume", "fork", "replay"])
def test_each_command_that_starts_kernels_has_the_option(rlm: Rlm, command: str) -> None:
    assert "--runtime" in rlm(command, "--help").stdout


def test_the_option_is_the_setting_and_stays_with_a_session(rlm: Rlm) -> None:
    refused = rlm("init", "--runtime", "no-such-runtime")
    assert refused.returncode == 3
    assert "no-such-runtime" in refused.stderr
    assert rlm("init", "--runtime", "runc").returncode == 0
    try:
        state = SessionFolder(Path(".rlm_state").absolute()).read()
        assert state is not None
        assert state.options == {"sandbox.runtime": "runc"}
    finally:
        rlm("stop")


@contextmanager
def started(make: Callable[[], OwnEngine], image: ImageInfo) -> Iterator[OwnEngine]:
    engine = make()
    try:
        engine.start(image.tag)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(kernel_image: ImageInfo, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    """With runc by another name."""
    if why := lacks("runc"):
        pytest.skip(f"an engine of the test's own {why}")
    with started(lambda: OwnEngine(f"--add-runtime=other={RUNC}"), kernel_image) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        yield engine


@pytest.mark.xdist_group("faults")
@pytest.mark.hostile
async def test_the_runtime_that_is_set_runs_the_kernel(engine: OwnEngine, sandbox: Any) -> None:
    box = await sandbox(runtime="other")
    assert await box.text("print(6 * 7)") == "42"
    assert (
        engine.docker("inspect", "--format", "{{.HostConfig.Runtime}}", box.container).stdout.strip()
        == "other"
    )


@pytest.mark.xdist_group("faults")
@pytest.mark.hostile
def test_an_engine_that_maps_users_answers_as_any_other(
    kernel_image: ImageInfo, rlm: Rlm, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := lacks(*Remapped.needs):
        pytest.skip(f"an engine of the test's own that maps users {why}")
    openai_env.root = ["```repl\nFINAL([6 * 7, llm_query('a')])\n```"]
    with started(Remapped, kernel_image) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        done = rlm("ask", "What?", *MODELS, "--json")
        assert (done.returncode, answered(done.stdout)) == (0, [42, "echo: a"]), done.stderr
        assert engine.containers() == []
