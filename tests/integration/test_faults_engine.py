"""The Docker engine fails a run: it stops, is killed, is gone, is another, has lost the image, or may not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from rlm_kernel.sandbox.image import ImageInfo
from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, CALLS, MODELS, TEXT, Script, answered, sound, understood
from tests.support.own_engine import OwnEngine, why_not

# docker-py leaves a socket open when it cannot connect.
pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(scope="module")
def own_engine(kernel_image: ImageInfo) -> Iterator[OwnEngine]:
    if why := why_not():
        pytest.skip(f"an engine of the test's own {why}")
    engine = OwnEngine()
    try:
        engine.start()
        engine.load(kernel_image.tag)
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
    return rlm("ask", "RUN1 How long is it?", "-f", "in.txt", *MODELS, "--trace", "t.ipynb", "--json", *more)


def on_start(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Any]) -> None:
    """What to do when the first container is made and not yet started."""
    real = Container.start

    def start(container: Container, **options: Any) -> None:
        monkeypatch.setattr(Container, "start", real)
        fault()
        real(container, **options)

    monkeypatch.setattr(Container, "start", start)


@pytest.mark.hostile
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
        script.faults[{"cell": ("sub", 9), "child": ("sub", 10), "turn": ("root", 2), "answer": ("root", 5)}[moment]] = end
    done = ask(rlm)
    if done.returncode == 0:
        assert (how, answered(done.stdout)) == ("kill", ANSWER), "the container had outlived its engine, and the answer was near"
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
    again = Counter((one.role, one.level) for one in script.asked) - CALLS
    assert sum(count for (_, level), count in again.items() if level == 0) <= 1, "what was answered is not asked again"
    assert engine.containers() == []
