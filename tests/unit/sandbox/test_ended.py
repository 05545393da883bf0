"""How a container has ended: by whose word, and what that means to a model and to who starts a kernel."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound
from rlm_contract import EXIT_LEASE, EXIT_OOM

from rlm_kernel.errors import DockerError, KernelError
from rlm_kernel.sandbox.ended import Ended


def api_error(status: int, said: str = "", kind: type[APIError] = APIError) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind("failed", response, said)


@pytest.mark.parametrize(
    ("reply", "end"),
    [
        ({"StatusCode": 3, "Error": None}, Ended(3)),
        ({"StatusCode": EXIT_LEASE, "Error": None}, Ended(EXIT_LEASE, lost=True)),
        (api_error(404, kind=NotFound), Ended()),
        (api_error(500, "containerd is gone."), Ended(lost=True, words="containerd is gone.")),
        ({"StatusCode": 125, "Error": {"Message": "cannot exec"}}, Ended(lost=True, words="cannot exec")),
        (requests.exceptions.ConnectionError(), Ended(lost=True)),
        (requests.exceptions.ReadTimeout(), Ended(lost=True)),
        ({}, Ended(lost=True)),
        ([1], Ended(lost=True)),
        ({"StatusCode": "many"}, Ended(lost=True)),
    ],
)
def test_an_engine_says_how_a_container_ended_or_is_lost_itself(reply: Any, end: Ended) -> None:
    def wait(**_: Any) -> Any:
        if isinstance(reply, Exception):
            raise reply
        return reply

    container: Any = SimpleNamespace(wait=wait)
    assert Ended.asked(container) == end


@pytest.mark.parametrize(
    "said",
    [b"", b"[" * 60_000, b"null", b"{}", b'{"status": 1}', b'{"status": -1, "words": ""}', b'{"status": 1, '
                                                                                           b'"words": 5}', b"\xff",
     b'{"status": 1e999, "words": ""}', b'{"status": true, "words": ""}', b"9" * 60_000],
)  # fmt: skip
def test_a_first_process_that_talks_nonsense_has_ended_and_nobody_knows_how(said: bytes) -> None:
    assert Ended.told(said) == Ended()


def test_a_first_process_says_how_its_kernel_ended() -> None:
    assert Ended.told(json.dumps({"status": EXIT_OOM, "words": "last"}).encode()) == Ended(
        EXIT_OOM, words="last"
    )
    assert len(Ended.told(json.dumps({"status": 1, "words": "x" * 60_000}).encode()).words) == 8_000


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (Ended(EXIT_OOM), "out of memory (its limit is 2 GiB)"),
        (Ended(128 + 11), "killed by signal 11 (compiled code broke, or a recursion had no end)."),
        (Ended(128 + 9), "killed by signal 9."),
        (Ended(3), "ended with status 3"),
        (Ended(), "its container is gone, and the Docker engine does not know why"),
        (
            Ended(lost=True),
            "The Docker engine failed, and the kernel was lost with it: the connection to its container "
            "broke.",
        ),
        (Ended(lost=True, words=" no space left.\n"), "lost with it: no space left."),
        (Ended(EXIT_LEASE, lost=True), "lost with it: the connection to its container broke."),
        (Ended(EXIT_LEASE), "ended with status 98"),
    ],
)
def test_a_model_is_told_why_its_kernel_died(end: Ended, told: str) -> None:
    assert told in end.why(2 << 30)


@pytest.mark.parametrize("status", [EXIT_OOM, 128 + 9])
def test_a_start_that_ends_for_memory_says_what_to_set(status: int) -> None:
    error = Ended(status).as_it_started(100 << 20)
    assert isinstance(error, KernelError)
    assert "with 100 MiB of memory (sandbox.memory)" in error.message
    assert "RLM_SANDBOX__MEMORY=2g" in str(error.hint)


def test_a_start_that_comes_to_nothing_says_the_containers_last_words_or_the_engines() -> None:
    assert (
        Ended(1, words="No module").as_it_started(1).message
        == "The kernel's container ended as it started (status 1).\nNo module"
    )
    assert (
        "(status 98).\nTraceback" in Ended(EXIT_LEASE, lost=True, words="Traceback").as_it_started(1).message
    )
    assert "perhaps its memory is too small" in Ended().as_it_started(1).message
    lost = Ended(lost=True, words="broken pipe").as_it_started(1)
    assert isinstance(lost, DockerError)
    assert lost.message.endswith("started the kernel's container: broken pipe.")
