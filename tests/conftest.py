"""Every test has a home, a cache and a current directory of its own, and no key or setting of the user's."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import configuration, settings

from rlm_kernel.secrets import forget_held, is_secret_name
from tests.support.model_server import ModelServer

# No deadlines: how long an example takes tells of the machine's load. Fewer examples than usual, for the time
# that they take.
settings.register_profile("rlm", deadline=None, max_examples=50)
settings.load_profile("rlm")
# What it has read of the code, which takes seconds, and examples that failed: not in a test's current directory.
configuration.set_hypothesis_home_dir(Path(__file__).parents[1] / ".hypothesis")

REAL_HOME = Path(os.path.expanduser("~"))
REAL_CACHE = os.environ.get("RLM_CACHE_DIR")


@pytest.fixture(scope="session")
def next_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes empty folders. pytest finds the number of a new one by a look at all before it, which takes longer
    with each test.
    """
    parent, numbers = tmp_path_factory.mktemp("isolated"), itertools.count()

    def make() -> Path:
        folder = parent / str(next(numbers))
        folder.mkdir(mode=0o700)
        return folder

    return make


@pytest.fixture(autouse=True)
def isolated(next_folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with this test's home, cache and current directory."""
    folder = next_folder()
    for name in ("home", "cache", "cwd"):
        (folder / name).mkdir()
    for name in list(os.environ):
        provider = is_secret_name(name) or name.endswith(("_API_BASE", "_BASE_URL", "_API_VERSION"))
        if provider or name.startswith("RLM_"):
            monkeypatch.delenv(name)
    # Docker's contexts are the machine's, not a test's.
    monkeypatch.setenv("DOCKER_CONFIG", os.environ.get("DOCKER_CONFIG", str(REAL_HOME / ".docker")))
    monkeypatch.setenv("HOME", str(folder / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("RLM_CACHE_DIR", str(folder / "cache" / "rlm"))
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / "home" / name.lower()))
    # No keyring of the machine's, unless a test has one of its own.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.chdir(folder / "cwd")
    forget_held()
    return folder


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command that ran in this process has its signals no longer than the test."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """An OpenAI-compatible server on loopback; `sub` echoes, `root` has no replies until `root` is set."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def openai_env(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """The model server, which wants a key, with its address and key in the environment, as a user would have
    them.
    """
    model_server.api_key = "sk-test-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", model_server.api_key)
    monkeypatch.setenv("OPENAI_BASE_URL", model_server.url)
    monkeypatch.setenv("OPENAI_API_BASE", model_server.url)
    return model_server


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A name for bytes without what is in them: files that are made as tests are collected hold the time, and
    then no two processes have the same tests.
    """
    return f"{argname} of {len(val)} bytes" if isinstance(val, bytes) and len(val) > 30 else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Ten thousand tests, and all that they import, are there to the end: Python's collector of garbage need not
    look at them, neither now nor while they run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
