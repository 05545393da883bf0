"""What an MCP server answers to a call, as a value and files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.bounded import shallow
from rlm_kernel.errors import RLMError
from rlm_kernel.printable import printable
from rlm_kernel.secrets import REDACTED, redact
from rlm_kernel.tools.tool import ToolResult

MAX_FILES = 256 << 20
"""Bytes of all files that the servers of a run give."""
MAX_BLOCKS = 200
"""Parts of one answer."""
MAX_TOLD = 2_000
"""Characters of an error that a server tells."""
MISSING = "not-loaded.txt"
"""The file that says which links of an answer could not be loaded, where its value is no text."""
_NAME = re.compile(r"[^\w.-]+")
Read = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Asks the server for a resource by its address."""


class Folder:
    """Where the files of one run's servers are kept. Belongs to one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_FILES
        self._count = 0
        self._secrets: set[bytes] = set()

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these in every file from now on."""
        self._secrets.update(secret.encode() for secret in secrets)

    async def write(self, name: str, kind: str | None, data: bytes) -> Path:
        """Keep a file under about this name. `kind`: its MIME type. Raises RLMError when there is no room."""
        if len(data) > self._left:
            raise RLMError(
                f"The MCP servers of this run have given more than {MAX_FILES >> 20} MiB of files."
            )
        for secret in self._secrets:
            data = data.replace(secret, REDACTED.encode())
        self._left -= len(data)
        self._count += 1
        plain = _NAME.sub("_", name.replace("\\", "/").rstrip("/").rpartition("/")[2]).strip("._")[-80:]
        ending = mimetypes.guess_extension((kind or "").partition(";")[0].strip()) or ""
        plain = plain or "file"
        path = self._path / f"{self._count:03d}" / (plain if "." in plain else plain + ending)

        def put() -> None:
            path.parent.mkdir(parents=True)
            path.write_bytes(data)

        await asyncio.to_thread(put)
        return path


async def result_of(raw: Mapping[str, Any], folder: Folder, read: Read, *, unwrap: bool) -> ToolResult:
    """The value and the files of an answer to `tools/call`.

    `unwrap`: structured content is one value under `result`. Raises RLMError where the server says that the
    call failed, or its answer makes no sense.
    """
    blocks = raw.get("content")
    blocks = blocks[:MAX_BLOCKS] if isinstance(blocks, list) else []
    texts = [one["text"] for one in blocks if _is(one, "text") and isinstance(one.get("text"), str)]
    if raw.get("isError"):
        said = told("\n".join(texts))
        raise RLMError(said or "The tool failed, and did not say why.")
    files, missing = [], []
    for block in blocks:
        if _is(block, "resource_link") and isinstance(uri := block.get("uri"), str):
            try:
                # The server itself is asked, whatever the address: this host opens none that a server names.
                files += await files_of(await read(uri), folder)
            except RLMError as error:  # of many links one may lead nowhere: the others are there
                missing.append(
                    f"[{told(block.get('uri'), 200)} could not be loaded: {told(error.message, 300)}]"
                )
        elif isinstance(block, Mapping):
            files += await _files(block, folder)
    value = raw.get("structuredContent")
    if value is None:
        texts += missing
        return ToolResult("\n".join(texts) if texts or not files else None, files)
    if missing:
        files.append(await folder.write(MISSING, "text/plain", "\n".join(missing).encode()))
    if not shallow(value):
        raise RLMError("The answer is nested too deep.")
    return ToolResult(
        value["result"] if unwrap and isinstance(value, dict) and "result" in value else value, files
    )


async def _files(block: Mapping[str, Any], folder: Folder) -> list[Path]:
    kind = block.get("mimeType")
    kind = kind if isinstance(kind, str) else None
    if _is(block, "image") or _is(block, "audio"):
        name = str(block["type"])
        return [await folder.write(name, kind, decoded(block.get("data")))]
    if _is(block, "resource") and isinstance(block.get("resource"), Mapping):
        return await files_of({"contents": [block["resource"]]}, folder)
    return []


async def files_of(raw: Mapping[str, Any], folder: Folder) -> list[Path]:
    """The files of an answer to `resources/read`. Raises RLMError."""
    contents = raw.get("contents")
    found = []
    for one in contents[:MAX_BLOCKS] if isinstance(contents, list) else []:
        if not isinstance(one, Mapping):
            continue
        uri, kind = str(one.get("uri") or "resource"), one.get("mimeType")
        kind = kind if isinstance(kind, str) else None
        if isinstance(text := one.get("text"), str):
            found.append(await folder.write(uri, kind or "text/plain", text.encode("utf-8", "replace")))
        elif isinstance(one.get("blob"), str):
            found.append(await folder.write(uri, kind, decoded(one["blob"])))
    if not found:
        raise RLMError("The server gave nothing for this resource.")
    return found


def decoded(data: object) -> bytes:
    """The bytes of base64. Raises RLMError."""
    try:
        return base64.b64decode(data if isinstance(data, str) else "", validate=False)
    except (binascii.Error, ValueError):
        raise RLMError("The server's answer has a part that is no base64.") from None


def told(text: object, most: int = MAX_TOLD) -> str:
    """What a server says, for people and models: short, without control characters."""
    text = printable(text[: 4 * most]).strip() if isinstance(text, str) else ""
    return text if len(text) <= most else f"{text[:most]} …"


def without(value: Any, secrets: list[str]) -> Any:
    """The value of JSON with secrets in its texts replaced."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {without(name, secrets): without(inner, secrets) for name, inner in value.items()}
    return [without(one, secrets) for one in value] if isinstance(value, list) else value


def _is(block: object, kind: str) -> bool:
    return isinstance(block, Mapping) and block.get("type") == kind
