"""litellm itself: loaded late, made quiet, and its clients closed."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from rlm_kernel.models import _http


def load() -> Any:
    """litellm, imported (seconds) and quiet."""
    # Without these, importing litellm fetches a price table from the network and loads a .env from above
    # site-packages.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    litellm: Any = importlib.import_module("litellm")
    # The first call would import this, half a second on the event loop.
    importlib.import_module("openai.resources.chat.completions")
    _http.install()
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
        if _http.in_progress():
            async_coroutine.close()
        else:
            usual(async_coroutine)

    enqueue.of_rlm = True  # type: ignore[attr-defined]
    worker.ensure_initialized_and_enqueue = enqueue


def table_entry(litellm: Any, model: str, name: str, provider: str) -> Mapping[str, Any] | None:
    """The model's line in litellm's table.

    Its own look-up is not used: it puts 0 for unknown prices, and asks Ollama servers.
    """
    for key in (model, f"{provider}/{name}", name):
        entry: Mapping[str, Any] | None = litellm.model_cost.get(key)
        if entry is not None and str(entry.get("litellm_provider", "")).startswith(provider):
            return entry
    return None


async def close_clients(litellm: Any) -> None:
    """Close the HTTP clients that litellm keeps for this event loop, and the task in which it logs.

    litellm's own clean-up closes those of all loops, and leaves them in its cache, where a new loop with the
    same id finds them.
    """
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    await asyncio.sleep(0)
    await worker.stop()
    cache = litellm.in_memory_llm_clients_cache
    for key in [key for key in cache.cache_dict if str(key).endswith(f"-{id(asyncio.get_running_loop())}")]:
        client = cache.cache_dict.pop(key)
        cache.ttl_dict.pop(key, None)
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        closing = close() if close is not None else None
        if asyncio.iscoroutine(closing):
            await closing
