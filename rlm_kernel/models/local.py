"""The embedded local model behind `--model local`: the server process that runs its weights
(`weights.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rlm_kernel.errors import LocalModelError
from rlm_kernel.models.weights import LocalModel, find_model, is_right, prefixes_dir, weights_path

DEFAULT_CONTEXT = 8192
"""Tokens in a slot of the server.

The key-value cache takes 28 KiB a token in the 1.5B, 12 KiB in the 0.5B.
"""

_CLOSE_SECONDS = 1.0


class LocalServer:
    """A running model server, in a process of its own on loopback, that ends with this process at the latest.

    `api_base` and `model_name` are what litellm takes; any API key will do. Requests beyond `slots` at a time
    queue in the server, so a client's time-out must cover its whole queue. Bound to no event loop.
    """

    def __init__(
        self, model: LocalModel, process: subprocess.Popen[bytes], log: IO[bytes], context: int
    ) -> None:
        self.model = model
        self.model_name = f"openai/{model.name}"
        self.context = context
        self.api_base = ""
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        name: str = "local",
        *,
        slots: int = 1,
        context: int = DEFAULT_CONTEXT,
        port: int = 0,
        on_progress: Callable[[str], None] | None = None,
    ) -> LocalServer:
        """Start a server for a pulled model and wait until it answers (2 to 10 s).

        Args:
            name: of the model, as `rlm models` lists them.
            slots: requests answered at once; each holds `context` tokens of prompt and reply.
            context: tokens of prompt and reply together, for each request.
            port: 0 takes a free one.
            on_progress: called with a line of text at once and then every second.

        Raises:
            LocalModelError: no xllamacpp, no weights, wrong weights, or the process died (with its last
                words).
        """
        model, path = find_model(name), weights_path(name)
        await asyncio.to_thread(_require, model, path)
        process, log = await asyncio.to_thread(_spawn, model, path, slots, context, port)
        server = cls(model, process, log, context)
        try:
            await server._wait_until_ready(on_progress or (lambda _line: None))
        except BaseException:
            await asyncio.shield(server.aclose())
            raise
        return server

    async def _wait_until_ready(self, on_progress: Callable[[str], None]) -> None:
        started = time.monotonic()
        line = asyncio.ensure_future(asyncio.to_thread(self._ready_line))
        while not line.done():
            on_progress(
                f"loading local model ({self.model.size / 1e9:.1f} GB)… {time.monotonic() - started:.0f} s"
            )
            await asyncio.wait([line], timeout=1)
        if not line.result():
            await self.wait()
            raise LocalModelError(
                f"The local model's server could not start (exit status {self._process.returncode}):\n"
                f"{self.last_words()}",
                hint="`rlm models` shows the weights; `rlm models pull` checks them.",
            )
        self.api_base = f"{json.loads(line.result())['address']}/v1"

    def _ready_line(self) -> bytes:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            return stdout.readline()

    def last_words(self) -> str:
        """The last ten lines of the server's log, until it is closed."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-10:])

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the server's end, and return its exit status."""
        return await asyncio.to_thread(self._process.wait)

    async def aclose(self) -> None:
        """End the server, within about a second. Idempotent."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            # While weights load, the process does not look at its stdin.
            self._process.kill()
            self._process.wait()
        self._log.close()


def _require(model: LocalModel, path: Path) -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError(
            "The local model needs the package xllamacpp.", hint='pip install "rlm-kernel[local]"'
        )
    if not path.exists():
        raise LocalModelError(
            f"The local model's weights are missing ({path}).",
            hint=f"Download them once ({model.size / 1e9:.1f} GB): rlm models pull {model.name}",
        )
    if not is_right(model, path):
        raise LocalModelError(
            f"The local model's weights are damaged ({path}).",
            hint=f"Download them again: rlm models pull {model.name}",
        )


def _spawn(
    model: LocalModel, path: Path, slots: int, context: int, port: int
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    command = [
        sys.executable,
        "-m",
        "rlm_kernel.models.local_server",
        f"--weights={path}",
        f"--name={model.name}",
    ]
    command += [f"--slots={slots}", f"--context={context}", f"--port={port}"]
    with contextlib.suppress(OSError):  # it is for speed alone
        command.append(f"--prefixes={prefixes_dir()}{os.sep}")
    # A file, since a pipe that nobody reads would block the server once it is full. Kept open for the
    # server's last words.
    log = tempfile.TemporaryFile()  # noqa: SIM115
    # A session of its own: Ctrl-C in the terminal is for us, who close the server in order.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, bufsize=0
    )
    return process, log
