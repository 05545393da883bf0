"""Real containers. Without Docker or the image these tests fail, and say what to type."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.cli import main
from rlm_kernel.errors import LocalModelError
from rlm_kernel.models import litellm_models, weights
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import ImageInfo, find_image
from tests.support.engines import ENGINES
from tests.support.faults import Script
from tests.support.made import remove_made_by
from tests.support.model_layer import Make, build_models
from tests.support.model_server import ModelServer
from tests.support.own_engine import OwnEngine, lacks
from tests.support.sandbox import Sandbox, until

# Found before the tests' environment is isolated: a gigabyte is not fetched for every run.
REAL_MODELS_DIR = weights.models_dir()
IDLE = 600
"""Seconds."""
Rlm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def ends_what_it_began(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No container that the tests made outlives them, however they end."""
    yield
    remove_made_by(os.getpid(), tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def soon_idle(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of kept sessions end soon, so that those of tests that were killed do."""
    monkeypatch.setenv("RLM_SESSION__IDLE", str(IDLE))


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """What clients of other people's libraries leave open is collected here, and is no matter of other
    files.
    """
    yield
    gc.collect()


@pytest.fixture(scope="session")
def kernel_image() -> ImageInfo:
    client = connect()
    try:
        image = find_image(client)
    finally:
        client.close()
    assert image is not None, "the kernel image is not built: type `make image`"
    return image


@pytest.fixture
def docker_client() -> Iterator[Any]:
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="session")
def engines(kernel_image: ImageInfo) -> Iterator[Callable[[str], OwnEngine]]:
    """Gives other engines by name, with the kernel image. Each is started once, and ends with the tests."""
    with ExitStack() as made:

        @cache
        def start(name: str) -> OwnEngine:
            if why := lacks(*ENGINES[name].needs):
                pytest.skip(f"the engine {name} of the tests' own {why}")
            engine = ENGINES[name]()
            made.callback(engine.close)
            engine.start(kernel_image.tag)
            return engine

        yield start


@pytest.fixture
def engine(
    request: pytest.FixtureRequest,
    engines: Callable[[str], OwnEngine],
    monkeypatch: pytest.MonkeyPatch,
    isolated: Path,
) -> Iterator[OwnEngine]:
    """What `tests.support.engines.EACH` names: the engine of this test's whole environment, left without
    containers and volumes.
    """
    engine = engines(request.param)
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    yield engine
    engine.clear()


@pytest_asyncio.fixture
async def sandbox(kernel_image: ImageInfo) -> AsyncIterator[Callable[..., Any]]:
    """Makes sandboxes; they are gone after the test."""
    made: list[Sandbox] = []

    async def make(**options: Any) -> Sandbox:
        box = Sandbox(kernel_image, **options)
        made.append(box)
        await box.start()
        return box

    yield make
    for box in made:
        await box.stop()


@pytest.fixture
def script(openai_env: ModelServer) -> Script:
    """What the models root and sub say in runs that meet faults."""
    script = Script()
    script.play(openai_env)
    return script


@pytest.fixture
def said() -> list[str]:
    """What the models of `make` tell."""
    return []


@pytest.fixture(params=["direct", "litellm"])
async def make(
    openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, said: list[str]
) -> AsyncIterator[Make]:
    """Builds models on the test server from dotted settings, on either road; retries are quick, and all is
    closed at the end.
    """
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 0.001)
    if request.param == "litellm":
        monkeypatch.setattr(litellm_models, "can_go_direct", lambda *_: False)
    made: list[litellm_models.LitellmModels] = []

    def build(**settings: Any) -> litellm_models.LitellmModels:
        made.append(build_models(said, **settings))
        return made[-1]

    yield build
    for models in made:
        await models.aclose()


@pytest.fixture(scope="session")
def pulled() -> Iterator[None]:
    """The real weights, fetched if they are not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLM_MODELS_DIR", str(REAL_MODELS_DIR))
        try:
            weights.pull("local")
        except LocalModelError as error:
            pytest.skip(f"no source has the local model's weights: {error.message}")


@pytest.fixture
def models_dir(pulled: None, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the real weights, in a test's own environment."""
    monkeypatch.setenv("RLM_MODELS_DIR", str(REAL_MODELS_DIR))
    return REAL_MODELS_DIR


@pytest.fixture
def rlm(kernel_image: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rlm:
    """Run `rlm` in this process, which spares each test the seconds of litellm's import."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["rlm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def up_to(openai_env: ModelServer) -> Callable[[int], None]:
    """Has the sub model answer so many calls; those behind them have no reply until there are more."""
    most = begun = 0

    async def sub(prompt: str) -> str:
        nonlocal begun
        begun += 1
        number = begun
        await until(lambda: number <= most, 60)
        return f"echo: {prompt}"

    def allow(number: int) -> None:
        nonlocal most
        most = number

    openai_env.sub = sub
    return allow
