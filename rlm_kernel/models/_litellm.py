"""litellm itself: loaded late, made quiet, and its clients closed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from rlm_kernel.engine.protocols import UNWATCHED, Watch
from rlm_kernel.models import _http, _litellm_http
from rlm_kernel.models._streams import Chunks


def load() -> Any:
    """litellm, imported (seconds) and quiet."""
    # Without these, importing litellm fetches a price table from the network and loads a .env from above
    # site-packages.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    litellm: Any = importlib.import_module("litellm")
    # The first call would import this, half a second on the event loop.
    importlib.import_module("openai.resources.chat.completions")
    _litellm_http.install()
    _log_nothing()
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _log_nothing() -> None:
    """Keep our calls out of litellm's log, whose one worker belongs to the event loop that was there first.

    Idempotent.
    """
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    usual = worker.ensure_initialized_and_enqueue
    if getattr(usual, "of_rlm", False):
        return

    def enqueue(async_coroutine: Any) -> None:
        if _litellm_http.in_progress():
            async_coroutine.close()
        else:
            usual(async_coroutine)

    enqueue.of_rlm = True  # type: ignore[attr-defined]
    worker.ensure_initialized_and_enqueue = enqueue


async def ask(
    http: _http.Http, litellm: Any, request: Mapping[str, Any], watch: Watch = UNWATCHED
) -> tuple[Any, _http.Exchange | None]:
    """The completion that litellm makes of the reply, in OpenAI's form, or its exception; and the last
    request that it sent, None for none.

    With `heard` of the watch the reply is streamed.
    """
    heard = watch.heard
    if heard is None:
        response, exchange = await _litellm_http.by_litellm(http, litellm, request, sent=watch.sent)
        return response if isinstance(response, Exception) else response.model_dump(warnings=False), exchange
    chunks = Chunks()

    def chunk(piece: Any) -> bool:
        found = piece.model_dump(warnings=False)
        text, thoughts = chunks.add(found)
        return not (thoughts and not heard(thoughts, True)) and not (text and not heard(text, False))

    error, exchange = await _litellm_http.by_litellm(http, litellm, request, chunk, watch.sent)
    if error is not None:
        return error, exchange
    chunks.ended = True
    return chunks.completion(stopped=exchange is not None and exchange.stopped), exchange


async def close_clients(litellm: Any) -> None:
    """Close the HTTP clients that litellm keeps for this event loop, and the task in which it logs.

    litellm's own clean-up closes those of all loops, and leaves them in its cache, where a new loop with the
    same id finds them.
    """
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    await asyncio.sleep(0)
    with contextlib.suppress(RuntimeError):  # it worked on another loop, which is closed
        await worker.stop()
    cache = litellm.in_memory_llm_clients_cache
    for key in [key for key in cache.cache_dict if str(key).endswith(f"-{id(asyncio.get_running_loop())}")]:
        client = cache.cache_dict.pop(key)
        cache.ttl_dict.pop(key, None)
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        closing = close() if close is not None else None
        if asyncio.iscoroutine(closing):
            await closing
