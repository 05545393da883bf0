"""What every conversation with the embedded model begins with: read once, which takes half a minute, and kept
beside the weights.

llama.cpp goes on from what a slot has read already, and can write that to a file (its server's
`/slots/ID?action=save` and `restore`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import json
import urllib.request
from collections.abc import Callable, Sequence

from rlm_kernel.engine.protocols import Message
from rlm_kernel.models.local import LocalServer
from rlm_kernel.models.weights import prefixes_dir

KEPT = 4
"""Files at most; the oldest go first."""
_SECONDS = 600


async def prime(server: LocalServer, messages: Sequence[Message], say: Callable[[str], None]) -> None:
    """Have a server's first slot read the messages that its conversations begin with, or take what was kept
    of that.

    Nothing of a conversation is ever kept. That it does not work costs time alone: then nothing is said.
    """
    with contextlib.suppress(OSError, ValueError):
        await asyncio.to_thread(_prime, server, messages, say)


def _prime(server: LocalServer, messages: Sequence[Message], say: Callable[[str], None]) -> None:
    name = _name(server, messages)
    kept = prefixes_dir() / name
    if kept.exists():
        with contextlib.suppress(OSError):
            _post(server, "/slots/0?action=restore", {"filename": name})
            return
        kept.unlink(missing_ok=True)
    say("the local model reads its instructions (only once) …")
    _post(
        server,
        "/v1/chat/completions",
        {"messages": [*messages, {"role": "user", "content": ""}], "max_tokens": 1, "temperature": 0},
    )
    partial = f"{name}.{server.pid}"
    try:
        _post(server, "/slots/0?action=save", {"filename": partial})
        kept.with_name(partial).replace(kept)
    finally:
        kept.with_name(partial).unlink(missing_ok=True)
    for old in sorted(prefixes_dir().glob("*.slot"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def _name(server: LocalServer, messages: Sequence[Message]) -> str:
    """A file's name: by all that what it holds depends on."""
    facts = [
        server.model.sha256,
        server.context,
        importlib.metadata.version("xllamacpp"),
        [dict(message) for message in messages],
    ]
    return f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.slot"


def _post(server: LocalServer, path: str, body: object) -> None:
    address = server.api_base.removesuffix("/v1")
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
        response.read()
