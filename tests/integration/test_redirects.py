"""No key and no prompt leaves for another origin than the one that is set, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests

from rlm_kernel.models import _http, _litellm, _litellm_http
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.model_layer import HELLO, Make, build_models, failing
from tests.support.raw_server import RawServer, response

KEY = "sk-redirected-0123456789"
OK = response(
    200,
    json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": "a stranger's"}}]}).encode(),
    "Connection: close",
)
MODELS = [
    "openai/m",
    "aiohttp_openai/m",
    "anthropic/claude-3-5-haiku-20241022",
    "gemini/gemini-2.0-flash",
    "azure/gpt-4o",
    "mistral/mistral-small-latest",
    "groq/llama-3.1-8b-instant",
    "deepseek/deepseek-chat",
    "openrouter/x/y",
    "ollama/llama3",
    "cohere/command-r",
]


@pytest.fixture
def other() -> Iterator[RawServer]:
    """The server to which redirects lead; nobody may ask it."""
    with RawServer(lambda _head: OK) as server:
        yield server


def to(location: str, status: int = 307) -> bytes:
    return response(status, b"", f"Location: {location}", "Connection: close")


async def ask(models: LitellmModels) -> Any:
    try:
        return await failing(models.complete(HELLO, role="sub"))
    finally:
        await models.aclose()


@pytest.mark.filterwarnings("ignore")  # those of litellm, as it loads a provider
@pytest.mark.parametrize("model", MODELS)
async def test_no_redirect_leads_a_key_or_a_prompt_to_another_origin(
    isolated: Any, monkeypatch: pytest.MonkeyPatch, other: RawServer, model: str
) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2024-06-01")
    for status in (301, 302, 303, 307, 308):
        with RawServer(
            lambda _head, status=status: to(f"{other.url}/v1/elsewhere?secret=1", status)
        ) as server:  # type: ignore[misc]
            settings = {
                f"{role}_llm__{name}": value
                for role in ("root", "sub")
                for name, value in (("model", model), ("api_key", KEY))
            }
            error = await ask(build_models([], sub_llm__api_base=server.url, **settings))
            assert (len(server.requests), error.fault) == (1, "connection"), f"{status}: {error}"
            assert KEY.encode() in server.requests[0]
        assert f"a redirect to {other.url}/v1/elsewhere, which was not followed" in error.message
        assert "If you trust the other address, set sub_llm.api_base to" in error.hint
        assert "secret=1" not in f"{error.message}{error.hint}"
    assert other.requests == []


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("http://localhost:{port}/x", "a redirect to http://localhost:"),
        ("http://[::1]:{port}/x", "a redirect to http://[::1]:"),
        ("https://127.0.0.1:{port}/x", "a redirect to https://127.0.0.1:"),
        ("http://user:word@127.0.0.1:{port}/x", "a redirect to http://127.0.0.1:"),
        ("//127.0.0.1:{other}/x", "a redirect to http://127.0.0.1:"),
        ("http://127.0.0.1:{other}\\@127.0.0.1:{port}/", "redirect"),
        ("HTTP://127.0.0.1:{other}/x", "a redirect to http://127.0.0.1:"),
        ("http://127.0.0.1:{port}@127.0.0.1:{other}/x", "a redirect to http://127.0.0.1:"),
        ("http://127.0.0.1.:{port}/x", "redirect"),
        ("ws://127.0.0.1:{port}/x", "redirect"),
        ("http://[::1", "to no address"),
        ("http://127.0.0.1:99999999/", "redirect"),
        ("javascript:alert(1)", "to no address"),
        ("http://" + "a" * 60_000, "redirect"),
        ("", "to nowhere"),
    ],
)
async def test_a_redirect_to_anything_but_the_same_origin_is_an_error_that_names_it(
    make: Make, other: RawServer, location: str, told: str
) -> None:
    with RawServer(
        lambda _head: to(location.replace("{port}", str(server.port)).replace("{other}", str(other.port)))
    ) as server:
        error = await ask(make(sub_llm__api_base=server.url))
        assert len(server.requests) == 1
    assert told in error.message
    assert "word" not in error.message
    assert len(error.message) < 700
    assert other.requests == []


async def test_a_redirect_within_the_origin_is_followed_with_the_same_request(
    make: Make, other: RawServer
) -> None:
    def answer(head: bytes) -> bytes:
        return OK if b" /new?a=1 " in head else to("/new?a=1", 308)

    with RawServer(answer) as server:
        models = make(sub_llm__api_base=server.url)
        assert (await models.complete(HELLO, role="sub")).text == "a stranger's"
        first, second = server.requests
        assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2] != b""


async def test_redirects_that_go_round_or_away_in_the_end_are_errors(make: Make, other: RawServer) -> None:
    with RawServer(lambda _head: to("/again")) as server:
        error = await ask(make(sub_llm__api_base=server.url))
        assert "redirects to itself more than 5 times" in error.message
        assert len(server.requests) == 6
    with RawServer(lambda head: to(f"{other.url}/x") if b" /again " in head else to("/again")) as server:
        error = await ask(make(sub_llm__api_base=server.url))
        assert "which was not followed" in error.message
    assert other.requests == []


async def test_litellms_other_clients_follow_none_either_in_a_call_of_ours(
    isolated: Any, other: RawServer
) -> None:
    litellm = _litellm.load()

    def by_all(url: str) -> list[int]:
        with httpx.Client(follow_redirects=True) as client, requests.Session() as session:
            found = [
                session.post(url, data="prompt", timeout=10).status_code,
                client.post(url, content="prompt").status_code,
            ]
        with pytest.raises(httpx.HTTPStatusError) as caught:
            litellm.module_level_client.post(url, data="prompt")
        return [*found, caught.value.response.status_code]

    class Provider:
        async def acompletion(self, url: str) -> list[int]:
            async with httpx.AsyncClient(follow_redirects=True) as client:
                status = (await client.post(url, content="prompt")).status_code
            return [status, *await asyncio.to_thread(by_all, url)]

    with RawServer(lambda _head: to(f"{other.url}/x")) as server:
        assert await _litellm_http.by_litellm(_http.Http(), Provider(), {"url": server.url}) == (
            [307] * 4,
            None,
        )
        assert (len(server.requests), other.requests) == (4, [])
        async with httpx.AsyncClient(follow_redirects=True) as client:
            assert (await client.get(server.url)).status_code == 200  # as ever beside our calls
