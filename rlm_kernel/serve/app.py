"""The endpoint's web application: who asks is checked before anything is read, which is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rlm_kernel.config import parse_size
from rlm_kernel.serve import wire
from rlm_kernel.serve.answering import Exchange
from rlm_kernel.serve.chat import read_chat
from rlm_kernel.serve.keys import Key
from rlm_kernel.serve.refusals import Refused, refusal_of
from rlm_kernel.serve.retries import attempt_of
from rlm_kernel.serve.service import Service

BODY_SECONDS = 120.0
"""For the whole body of a request."""


def app_of(service: Service) -> Starlette:
    """The application of a service."""
    endpoint = Endpoint(service)
    origins = service.settings.serve.origins
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # OpenAI's library sends a dozen of its own
        expose_headers=["x-rlm-trace", "retry-after"],
    )
    return Starlette(
        routes=[
            Route("/healthz", endpoint.health, methods=["GET"]),
            Route("/v1/models", endpoint.models, methods=["GET"]),
            Route("/v1/models/{name:path}", endpoint.model, methods=["GET"]),
            Route("/v1/chat/completions", Completions(service, endpoint), methods=["POST"]),
        ],
        middleware=[Middleware(_PlainPaths), *([cors] if origins else [])],
        exception_handlers={Refused: _refused, HTTPException: _not_found, Exception: _failed},
    )


class _PlainPaths:
    """Takes slashes that programs put at the end of an address, or twice, where a base URL ends with one: a
    redirect would leave the proxy, and not all programs follow it with their request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = "/" + "/".join(filter(None, scope["path"].split("/")))
        await self._app(scope, receive, send)


class Endpoint:
    """What is answered at once, and who may ask."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _request: Request) -> Response:
        turns = self._service.turns
        return JSONResponse({"status": "ok", "answering": turns.taken, "requests": turns.inside})

    async def models(self, request: Request) -> Response:
        self.client(request)
        return JSONResponse(wire.models(self._service.names, self._service.created))

    async def model(self, request: Request) -> Response:
        self.client(request)
        name = request.path_params["name"]
        self._service.check_model(name)
        return JSONResponse(wire.model(name, self._service.created))

    def client(self, request: Request) -> Key:
        """Who asks. Raises Refused.

        Web pages of others cannot ask through the browser of somebody who may: neither by a request of their
        own, nor by a name of theirs that leads to this machine.
        """
        keys, origins = self._service.keys, self._service.settings.serve.origins
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins and "*" not in origins:
            raise Refused(403, "Web pages of this origin may not ask (serve.origins).", code="origin_refused")
        if not keys.needed and not _is_local(_host(request.headers.get("host", ""))):
            raise Refused(
                403,
                "This server has no keys, so it answers only its own machine, as localhost or 127.0.0.1.",
                code="host_refused",
            )
        return keys.find(request.headers.get("authorization"))


class Completions:
    """`POST /v1/chat/completions`, as an ASGI application."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self._service = service
        self._endpoint = endpoint
        self._most = parse_size(service.settings.serve.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            try:
                key = self._endpoint.client(request)
                if (
                    request.headers.get("content-type", "").partition(";")[0].strip().lower()
                    != "application/json"
                ):
                    raise Refused(415, "The content type must be application/json.")
                if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
                    raise Refused(415, "Send the body as it is: this server reads no compressed ones.")
                turns, retries = self._service.turns, self._service.retries
                place = await stack.enter_async_context(turns.entered(key.name, retries.held(key.name)))
                body = await self._body(request)
                chat = await asyncio.to_thread(read_chat, body)
                attempt = await asyncio.to_thread(attempt_of, key.name, request.headers, body, began)
                exchange = retries.take(attempt)
                if exchange is not None:  # it is paid for, by what the key had then
                    turns.keep(place)
                elif place.lent:
                    raise turns.busy()
                else:
                    self._service.accounts.of(key).left()
                    exchange = Exchange(self._service, chat, key, attempt)
            except Refused as refused:
                await _response(refused)(scope, receive, send)
                return
            await exchange(scope, receive, send)

    async def _body(self, request: Request) -> bytes:
        """Raises Refused."""
        told = request.headers.get("content-length", "0")
        body = bytearray()
        too_large = Refused(
            413, f"A request can have at most {self._most:,} bytes (serve.body).", code="request_too_large"
        )
        if told.isdigit() and int(told[:20]) > self._most:
            raise too_large
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "The request ended too early.")
                    body += message.get("body", b"")
                    if len(body) > self._most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, f"The request did not arrive within {BODY_SECONDS:.0f} s.") from None


def _host(header: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(f"//{header}").hostname or ""
    return ""


def _is_local(host: str) -> bool:
    """Whether it names this machine, and no name server can say otherwise."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost"


def _response(refused: Refused) -> Response:
    return JSONResponse(refused.body(), refused.status, refused.headers())


async def _refused(_request: Request, error: Exception) -> Response:
    return _response(refusal_of(error))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return _response(Refused(405, f"{request.method[:20]} is not supported here."))
    return _response(
        Refused(
            404,
            "There is nothing at this address. The base URL ends with /v1; the server has "
            "/v1/chat/completions and /v1/models.",
            code="not_found",
        )
    )


async def _failed(_request: Request, error: Exception) -> Response:
    return _response(refusal_of(error))
