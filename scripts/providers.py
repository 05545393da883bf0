"""Writes `rlm_kernel/models/providers.json`: the providers of OpenAI's wire that litellm knows, by asking
litellm itself.

Each is asked through litellm, at a server of this process. One whose requests are those of OpenAI's wire gets
a row: its address, the variables of address and key, and which parameters it is not sent. Others are left to
litellm. `--check` says whether the file is what would be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
FILE = Path(__file__).parent.parent / "rlm_kernel" / "models" / "providers.json"
KEY = "sk-0123456789"
SIGN_IN = {"github_copilot", "chatgpt", "ragflow", "azure_ai", "clarifai"}
"""They need more than a key."""
MORE: dict[str, dict[str, Any]] = {
    "mistral": {"base_env": ["MISTRAL_API_BASE"]},
    "openai": {
        "base": "https://api.openai.com/v1",
        "base_env": ["OPENAI_BASE_URL", "OPENAI_API_BASE"],
    },
    "openrouter": {
        "base": "https://openrouter.ai/api/v1",
        "base_env": ["OPENROUTER_API_BASE"],
        "key_env": ["OPENROUTER_API_KEY", "OR_API_KEY"],
    },
}
"""Of OpenAI's wire, though not in litellm's list, and what it looks up elsewhere."""
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
PARAMETERS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 7,
    "stop": ["END"],
    "max_tokens": 100,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {}}},
    },
}
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Server(ThreadingHTTPServer):
    """Keeps the requests that come."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Server)
        self.server.seen.append(
            (self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body))
        )
        reply = json.dumps(REPLY).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def variables_read() -> Iterator[list[str]]:
    """The names of the environment variables that are looked up meanwhile, none of which is set."""
    names: list[str] = []

    class Recording(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            names.append(name)
            return default

        def __getitem__(self, name: str) -> str:
            names.append(name)
            raise KeyError(name)

        def __contains__(self, name: object) -> bool:
            names.append(str(name))
            return False

    usual, getenv = os.environ, os.getenv
    os.environ, os.getenv = Recording(), lambda name, default=None: os.environ.get(name, default)  # type: ignore[assignment]
    try:
        yield names
    finally:
        os.environ, os.getenv = usual, getenv


async def row_of(litellm: Any, provider: str, server: Server) -> dict[str, Any] | None:
    """What the file has of a provider; None for one that is left to litellm."""
    with variables_read() as names:
        name, found, _, base = litellm.get_llm_provider(f"{provider}/some-model")
    if found != provider or name != "some-model":
        return None
    keys = [n for n in names if n.endswith(("KEY", "TOKEN"))]
    bases = [n for n in names if n.endswith(("_BASE", "_URL", "_HOST"))]
    with variables_read():
        missing = litellm.validate_environment(f"{provider}/some-model")["missing_keys"]
    local = f"http://127.0.0.1:{server.server_port}/v1"
    common = {
        "model": f"{provider}/some-model",
        "api_base": local,
        "api_key": KEY,
        "num_retries": 0,
        "max_retries": 0,
    }

    async def sent(**more: Any) -> Any:
        server.seen.clear()
        try:
            await litellm.acompletion(messages=MESSAGES, drop_params=True, **common, **more)
        except Exception as error:
            print(provider, repr(error)[:150], file=sys.stderr)
        return server.seen[0] if server.seen else (None, {}, {})

    path, headers, body = await sent()
    if path != "/v1/chat/completions" or headers.get("authorization") != f"Bearer {KEY}":
        print(provider, "left:", path, headers.get("authorization"), file=sys.stderr)
        return None
    if body["messages"] != MESSAGES or not body["model"].endswith("some-model"):
        print(provider, "left:", body, file=sys.stderr)
        return None
    prefix = body["model"].removesuffix("some-model")
    also = {n: v for n, v in body.items() if n not in ("stream", "model", "messages")}
    drops, renames = [], {}
    for parameter, value in PARAMETERS.items():
        _, _, body = await sent(**{parameter: value})
        more = {n: v for n, v in body.items() if n not in ("stream", "model", "messages", *also)}
        if not more:
            drops.append(parameter)
        elif more != {parameter: value}:
            if list(more.values()) == [value] and parameter != "response_format":
                renames[parameter] = next(iter(more))
            else:
                print(provider, parameter, more, file=sys.stderr)
                drops.append(parameter)
    row = {
        "base": base,
        "base_env": list(dict.fromkeys(bases)),
        "key_env": list(dict.fromkeys([*keys, *[n for n in missing if n.endswith("KEY")]])),
        "drops": drops,
        "renames": renames,
        "prefix": prefix,
        "also": also,
    }
    return {n: v for n, v in row.items() if v} | MORE.get(provider, {})


async def table() -> dict[str, Any]:
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    server = Server()
    rows = {}
    for provider in sorted({*litellm.openai_compatible_providers, *MORE} - SIGN_IN):
        try:
            if (row := await row_of(litellm, provider, server)) is not None:
                rows[provider] = row
        except litellm.BadRequestError as error:
            print(provider, "left:", str(error)[:80], file=sys.stderr)
    server.shutdown()
    return rows


def main() -> None:
    text = json.dumps(asyncio.run(table()), indent=1) + "\n"
    if "--check" in sys.argv:
        sys.exit(FILE.read_text("utf-8") != text)
    FILE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
