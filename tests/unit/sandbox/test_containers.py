"""Containers at the engine: whatever becomes of a request, none is left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from docker.errors import APIError, ImageNotFound, NotFound

from rlm_kernel.sandbox import containers

BROKEN = requests.exceptions.ConnectionError("Connection aborted")
LATE = requests.exceptions.ReadTimeout("Read timed out")


def api_error(status: int, text: str = "no", kind: type[APIError] = APIError) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind(text, response=response, explanation=text)


class Engine:
    """Makes a container, and raises `failure` in place of its reply.

    It tells of it only after `looks` looks; removals fail `removals` times. `asked` counts looks.
    """

    def __init__(
        self, failure: BaseException | None, *, makes: bool = True, looks: int = 0, removals: int = 0
    ) -> None:
        self.failure, self.makes, self.looks, self.removals = failure, makes, looks, removals
        self.there: dict[str, dict[str, str]] = {}
        self.asked = 0
        self.containers = self
        self.api = SimpleNamespace(_version="1.41", create_container=self._create_container)

    def _create_container(self, **options: Any) -> dict[str, str]:
        self.create(**options)
        return {"Id": "1"}

    def create(self, *, name: str, labels: dict[str, str], **_: Any) -> Any:
        if self.makes:
            self.there[name] = labels
        if self.failure:
            raise self.failure
        return SimpleNamespace(name=name)

    def get(self, name: str) -> Any:
        self.asked += 1
        if name not in self.there or self.asked <= self.looks:
            raise api_error(404, kind=NotFound)
        return SimpleNamespace(
            name=name, labels=self.there[name], remove=lambda force: self._remove(name), wait=lambda **_: None
        )

    def _remove(self, name: str) -> None:
        if self.removals:
            self.removals -= 1
            raise BROKEN
        self.there.pop(name, None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(containers, "_LATE_SECONDS", 1.0)


@pytest.mark.parametrize(
    "failure", [BROKEN, LATE, api_error(500), api_error(503), KeyboardInterrupt(), ValueError("no JSON")]
)
@pytest.mark.parametrize("more", [{}, {"looks": 5}, {"removals": 2}, {"looks": 3, "removals": 1}])
@pytest.mark.parametrize("way", ["create", "made"])
def test_a_container_that_was_made_without_a_reply_is_removed(
    failure: BaseException, more: dict[str, int], way: str
) -> None:
    engine: Any = Engine(failure, **more)
    with pytest.raises(type(failure)):
        containers.create(engine, "name", labels={}, image="x") if way == "create" else containers.made(
            engine, "name", labels={}
        ).__enter__()
    assert engine.there == {}


REFUSALS = [api_error(404, kind=ImageNotFound), api_error(400), api_error(409)]


@pytest.mark.parametrize("failure", [*REFUSALS, BROKEN, api_error(500)])
def test_what_another_made_under_the_name_stays(failure: Exception) -> None:
    engine: Any = Engine(failure, makes=False)
    engine.there["name"] = {}
    with pytest.raises(type(failure)):
        containers.create(engine, "name", labels={}, image="x")
    assert (engine.asked, list(engine.there)) == (1, ["name"])


@pytest.mark.parametrize("failure", REFUSALS)
def test_a_refusal_is_waited_for_no_longer_and_leaves_nothing_even_if_it_came_after_the_making(
    failure: Exception,
) -> None:
    engine: Any = Engine(failure, makes=False)
    with pytest.raises(APIError):
        containers.create(engine, "name", labels={}, image="x")
    assert engine.asked == 1
    engine = Engine(failure)
    with pytest.raises(APIError):
        containers.create(engine, "name", labels={}, image="x")
    assert engine.there == {}


def test_an_engine_that_is_gone_is_not_asked_for_long() -> None:
    engine: Any = Engine(BROKEN)
    engine.get = _raising(engine, BROKEN)
    with pytest.raises(requests.exceptions.ConnectionError):
        containers.create(engine, "name", labels={}, image="x")
    assert engine.asked == 3


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError(), GeneratorExit()])
def test_what_was_made_for_a_while_is_gone_whatever_ends_it(failure: BaseException) -> None:
    engine: Any = Engine(None)
    made = containers.made(engine, "name", labels={})
    assert made.__enter__().name == "name"
    assert list(engine.there) == ["name"]
    with contextlib.suppress(type(failure)):
        made.__exit__(type(failure), failure, None)
    assert engine.there == {}


def _raising(engine: Any, failure: Exception) -> Callable[[str], Any]:
    def get(_: str) -> Any:
        engine.asked += 1
        raise failure

    return get
