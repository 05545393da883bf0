"""How each server is asked by litellm: the names of its models, the path behind its address, and what else a
call needs.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.gemini_generate import GeminiServer
from tests.support.providers.ollama_chat import OllamaServer
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.openai_likes import AzureServer, DeepSeekServer, VllmServer
from tests.support.providers.openrouter_chat import OpenRouterServer
from tests.support.providers.server import ProviderServer

KEY = "sk-test-0123456789abcdef"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
MARK = {"cache_control": {"type": "ephemeral"}}


@dataclass(frozen=True)
class Road:
    """`model` and `thinker` are litellm's names; `variable` is where litellm looks for the key, `shared` how
    a beginning is cached.
    """

    server: type[ProviderServer]
    model: str
    thinker: str
    path: str = ""
    variable: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seer: str = ""
    """A model that takes pictures, where `model` takes none; "-" where none does."""
    marks: bool = False
    """It caches what is marked."""

    def call(
        self, server: ProviderServer, messages: Sequence[Mapping[str, Any]], **more: Any
    ) -> dict[str, Any]:
        """What `litellm.acompletion` is called with."""
        wanted = {
            "model": self.model,
            "api_base": server.base + self.path,
            "api_key": KEY,
            "num_retries": 0,
            "max_retries": 0,
        }
        return {**wanted, **self.options, "messages": list(messages), **more}

    def system(self, text: str) -> dict[str, Any]:
        """Instructions, marked where that is what caches them."""
        return {"role": "system", "content": [{"type": "text", "text": text, **MARK}] if self.marks else text}


ROADS: dict[str, Road] = {
    "openai": Road(OpenAIServer, "openai/gpt-4o-mini", "openai/gpt-5-mini", "/v1", "OPENAI_API_KEY"),
    "anthropic": Road(
        AnthropicServer,
        "anthropic/claude-sonnet-4-5",
        "anthropic/claude-sonnet-4-5",
        "",
        "ANTHROPIC_API_KEY",
        marks=True,
    ),
    "gemini": Road(
        GeminiServer, "gemini/gemini-2.5-flash", "gemini/gemini-2.5-flash", "/v1beta", "GEMINI_API_KEY"
    ),
    "openrouter": Road(
        OpenRouterServer,
        "openrouter/anthropic/claude-sonnet-4.5",
        "openrouter/anthropic/claude-sonnet-4.5",
        "/api/v1",
        "OPENROUTER_API_KEY",
        marks=True,
    ),
    "ollama": Road(
        OllamaServer, "ollama_chat/llama3.1:8b", "ollama_chat/qwen3:8b", seer="ollama_chat/gemma3:4b"
    ),
    "deepseek": Road(
        DeepSeekServer,
        "deepseek/deepseek-chat",
        "deepseek/deepseek-reasoner",
        "/v1",
        "DEEPSEEK_API_KEY",
        seer="-",
    ),
    "vllm": Road(
        VllmServer, "hosted_vllm/mistral-7b", "hosted_vllm/qwen3-8b", "/v1", "HOSTED_VLLM_API_KEY", seer="-"
    ),
    "azure": Road(
        AzureServer,
        "azure/gpt-4o",
        "azure/gpt-5-mini",
        "",
        "AZURE_API_KEY",
        {"api_version": "2025-04-01-preview"},
    ),
}


def png(width: int = 64, height: int = 48) -> str:
    """A grey PNG as base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x80" * width) * height
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def asks_of_picture(text: str) -> dict[str, Any]:
    """A message with a picture, as litellm takes it for all providers."""
    url = f"data:image/png;base64,{png()}"
    return {
        "role": "user",
        "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}],
    }
