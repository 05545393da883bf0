"""Which request is another attempt at an earlier one."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rlm_kernel.config import load_settings
from rlm_kernel.serve import retries
from rlm_kernel.serve.accounts import Accounts
from rlm_kernel.serve.app import app_of
from rlm_kernel.serve.keys import Keys
from rlm_kernel.serve.refusals import Refused
from rlm_kernel.serve.retries import Retries, attempt_of, patience_of
from rlm_kernel.serve.service import Service


def attempt(key: str = "ann", body: bytes = b"{}", **headers: str) -> retries.Attempt:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return attempt_of(key, named, body, time.monotonic())


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"x-stainless-read-timeout": "60"}, 60),
        ({"x-stainless-read-timeout": "0.5"}, 0.5),
        ({"x-stainless-timeout": "600"}, 600),
        ({}, None),
        ({"x-stainless-read-timeout": ""}, None),
        ({"x-stainless-read-timeout": "None"}, None),
        ({"x-stainless-read-timeout": "inf"}, None),
        ({"x-stainless-read-timeout": "nan"}, None),
        ({"x-stainless-read-timeout": "-1"}, None),
        ({"x-stainless-timeout": "0"}, None),
        ({"x-stainless-read-timeout": "9" * 10_000}, 1e20),
        ({"x-stainless-read-timeout": "1e999"}, None),
    ],
)
def test_a_time_out_is_what_the_client_tells_where_that_is_one(
    told: dict[str, str], seconds: float | None
) -> None:
    assert patience_of(told) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_client_has_waited_for_as_long_as_it_told() -> None:
    soon = attempt_of("", {"x-stainless-read-timeout": "5"}, b"", time.monotonic())
    late = attempt_of("", {"x-stainless-read-timeout": "5"}, b"", time.monotonic() - 5)
    assert (soon.waited_out, late.waited_out) == (False, True)
    assert not attempt_of("", {}, b"", time.monotonic() - 1e6).waited_out


def test_a_client_may_ask_again_if_it_says_so_or_its_library_does_so_and_tells_no_time_out() -> None:
    assert not attempt().asks_again
    assert attempt(idempotency_key="1").asks_again
    assert attempt(x_stainless_retry_count="0").asks_again
    assert not attempt(x_stainless_retry_count="0", x_stainless_timeout="60").asks_again


async def test_only_the_same_request_of_the_same_key_is_given_what_is_held_and_once() -> None:
    held, exchange = Retries(), Exchange()
    waiting = asyncio.create_task(held.hold(attempt(), exchange))
    await asyncio.sleep(0)
    assert held.take(attempt("bob")) is None
    assert held.take(attempt(body=b"{ }")) is None
    assert held.take(attempt(idempotency_key="1")) is None
    again = attempt()
    assert held.take(again) is exchange
    assert exchange.attempt is again
    assert held.take(attempt()) is None
    assert await waiting


async def test_what_nobody_takes_is_not_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "HELD_SECONDS", 0.01)
    held = Retries()
    assert not await held.hold(attempt(), Exchange())
    assert held.take(attempt()) is None


async def test_at_the_end_nothing_is_held() -> None:
    held = Retries()
    waiting = asyncio.create_task(held.hold(attempt(), Exchange()))
    await asyncio.sleep(0)
    held.close()
    assert not await waiting


async def test_who_leaves_while_the_server_ends_is_not_waited_for() -> None:
    held = Retries()
    held.close()
    async with asyncio.timeout(5):
        assert not await held.hold(attempt(), Exchange())


async def test_what_is_taken_at_the_last_moment_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "HELD_SECONDS", 0.05)
    held, exchange = Retries(), Exchange()
    waiting = asyncio.create_task(held.hold(attempt(), exchange))
    await asyncio.sleep(0)
    found: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(time.sleep, 0.1)  # a round of the loop later there are both, this attempt and the time-out
    loop.call_soon(loop.call_soon, lambda: found.append(held.take(attempt())))
    assert await waiting
    assert found == [exchange]


async def test_of_requests_that_are_the_same_each_finds_a_run() -> None:
    held, exchanges = Retries(), [Exchange() for _ in range(3)]
    waiting = [asyncio.create_task(held.hold(attempt(), one)) for one in exchanges]
    await asyncio.sleep(0)
    assert [held.take(attempt()) for _ in range(4)] == [*exchanges, None]
    assert all(await asyncio.gather(*waiting))


async def test_a_run_that_used_the_last_of_its_key_is_given_to_its_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(load_settings(None), SimpleNamespace(models=None), Keys(), Accounts(), 1)  # type: ignore[arg-type]
    key, body = service.keys.find(None), b'{"model": "rlm", "messages": [{"role": "user", "content": "Hi?"}]}'

    def nothing_left() -> None:
        raise Refused(429, "It has used all.")

    monkeypatch.setattr(service.accounts.of(key), "left", nothing_left)
    began = attempt(key.name, body, idempotency_key="1")
    waiting = asyncio.create_task(service.retries.hold(began, Exchange()))
    transport = httpx.ASGITransport(app_of(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:

        async def post(name: str) -> int:
            headers = {"content-type": "application/json", "idempotency-key": name}
            return (await http.post("/v1/chat/completions", content=body, headers=headers)).status_code

        assert [await post("2"), await post("1"), await post("1")] == [429, 200, 429]
    assert await waiting


async def test_a_full_server_gives_a_run_to_its_next_attempt_and_refuses_all_others() -> None:
    settings = load_settings(None, {"serve.waiting": 0})
    service = Service(settings, SimpleNamespace(models=None), Keys(), Accounts(), 1)  # type: ignore[arg-type]
    key, body = service.keys.find(None), b'{"model": "rlm", "messages": [{"role": "user", "content": "Hi?"}]}'
    transport = httpx.ASGITransport(app_of(service))
    async with (
        service.turns.entered(key.name),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        began = attempt(key.name, body, idempotency_key="1")
        waiting = asyncio.create_task(service.retries.hold(began, Exchange()))
        await asyncio.sleep(0)

        async def post(name: str) -> int:
            headers = {"content-type": "application/json", "idempotency-key": name}
            return (await http.post("/v1/chat/completions", content=body, headers=headers)).status_code

        assert [await post("2"), await post("1"), await post("1")] == [429, 200, 429]
        assert service.turns.inside == 1
    assert await waiting


async def test_a_page_of_an_origin_that_may_ask_may_send_what_the_library_sends() -> None:
    class Service:
        settings = load_settings(None, {"serve.origins": ["https://chat.example.org"]})

    asked = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-stainless-timeout"
    service: Any = Service()
    transport = httpx.ASGITransport(app_of(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.options(
            "/v1/chat/completions",
            headers={
                "origin": "https://chat.example.org",
                "access-control-request-method": "POST",
                "access-control-request-headers": asked,
            },
        )
    assert answer.status_code == 200
    assert "x-stainless-timeout" in answer.headers["access-control-allow-headers"]


class Exchange:
    attempt: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)
