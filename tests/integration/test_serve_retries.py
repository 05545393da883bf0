"""Clients that wait no longer and ask again, with the official library: one run, paid for once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from rlm_kernel.serve import retries
from tests.support.sandbox import until
from tests.support.serving import Served, served

pytestmark = [
    pytest.mark.usefixtures("kernel_image", "in_folder"),
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FOR_EVER = "run: import time; time.sleep(600)"


@pytest.fixture
def in_folder(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mine(docker_client: Any) -> Callable[[], int]:
    """How many containers this test has now."""
    label = {"label": f"rlm-kernel.owner={os.getpid()}"}

    def there() -> set[str]:
        return {one["Id"] for one in docker_client.api.containers(all=True, filters=label)}

    others = there()
    return lambda: len(there() - others)


async def ask(server: Served, text: str, *, timeout: float, tries: int = 1, **options: Any) -> Any:
    async with AsyncOpenAI(
        base_url=server.url, api_key="none", timeout=timeout, max_retries=tries - 1
    ) as client:
        made: Any = client.chat.completions.create
        reply = await made(model="rlm", messages=[{"role": "user", "content": text}], **options)
        return [one async for one in reply] if options.get("stream") else reply


def traces() -> list[Path]:
    return sorted(Path("rlm-traces").glob("*.ipynb"))


async def test_who_asks_again_after_a_time_out_is_given_the_run_that_was_begun() -> None:
    async with served() as server:
        answer = await ask(server, "run: import time; time.sleep(6); FINAL('late')", timeout=5, tries=4)
    assert answer.choices[0].message.content == "late"
    assert "time.sleep" in answer.choices[0].message.reasoning_content
    assert len(traces()) == 1
    assert not server.said


async def test_a_run_whose_client_does_not_ask_again_ends_and_the_server_says_why(
    mine: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "HELD_SECONDS", 0.2)
    async with served() as server:
        with pytest.raises(openai.APITimeoutError):
            await ask(server, FOR_EVER, timeout=2)
        await until(lambda: mine() == 0 and server.service.turns.inside == 0, 75)
        assert "time-out of 2 s" in "".join(server.said)
        assert (await ask(server, "run: FINAL(1)", timeout=120)).choices[0].message.content == "1"


async def test_a_client_that_is_stopped_within_its_time_out_ends_its_run_at_once(
    mine: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "HELD_SECONDS", 600)
    async with served() as server:
        asking = asyncio.create_task(ask(server, FOR_EVER, timeout=600, tries=3))
        await until(lambda: mine() == 1)
        asking.cancel()
        await until(lambda: mine() == 0 and server.service.turns.inside == 0, 75)


async def test_the_end_of_the_server_does_not_wait_for_clients_that_may_ask_again(
    mine: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "HELD_SECONDS", 600)
    async with served() as server:
        with pytest.raises(openai.APITimeoutError):
            await ask(server, FOR_EVER, timeout=2)
        assert server.service.turns.inside == 1
    assert mine() == 0


async def test_a_stream_whose_run_says_nothing_does_not_end_with_its_clients_time_out() -> None:
    async with served() as server:
        pieces = await ask(server, "run: import time; time.sleep(5); FINAL('late')", timeout=3, stream=True)
    assert "late" in [one.choices[0].delta.content for one in pieces]


async def test_a_request_with_a_name_is_found_again_whyever_its_client_left(
    mine: Callable[[], int],
) -> None:
    text = "run: import time; time.sleep(3); FINAL('named')"
    body = {"model": "rlm", "messages": [{"role": "user", "content": text}]}

    async with served() as server, httpx.AsyncClient(timeout=60) as http:

        def post(name: str) -> Any:
            address = f"{server.url}/chat/completions"
            return asyncio.create_task(http.post(address, json=body, headers={"idempotency-key": name}))

        first = post("a")
        await until(lambda: mine() == 1)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        other, again = await asyncio.gather(post("b"), post("a"))
    answered = {one.json()["rlm"]["trace"] for one in (other, again)}
    assert answered == {path.name for path in traces()}
    assert len(answered) == 2
