"""The tests' OpenAI-compatible server, at its leanest and in a process of its own, for the benchmarks of
sub-calls.

    with Stub(latency=1.0) as stub:
        stub.url, stub.counts()

A prompt comes back as `echo: PROMPT`. `faults` is the share of requests that fail: with 429 (with and without
Retry-After), 500, a cut connection, an empty body. What fails is decided by the seed, the prompt and how
often it was asked, so that every run meets the same.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.model_server import ModelServer
from tests.support.openai_wire import Fault, Request, faulty

FAULTS = {
    "429": Fault("rate_limit"),
    "429, Retry-After 0": Fault("rate_limit", retry_after="0"),
    "429, Retry-After 0.2": Fault("rate_limit", retry_after="0.2"),
    "500": Fault("server_error"),
    "cut connection": Fault("cut"),
    "empty body": Fault("empty_body"),
}


class _Server(ModelServer):
    """Keeps counts, and not the requests."""

    def __init__(self, latency: float, faults: float, seed: int) -> None:
        super().__init__(delay=latency, fault_rate=faults, seed=seed)
        self.met: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    async def _answer(self, request: Request) -> bytes | None:
        with self._meters[""]:
            name = self._fault(request.prompt) if self.fault_rate else None
            self.met[name or "answered"] += 1
            if self.delay:
                await asyncio.sleep(self.delay)
            return await self._reply(request) if name is None else faulty(FAULTS[name], request)

    def _fault(self, prompt: str) -> str | None:
        self._asked[prompt] += 1
        chance = random.Random(f"{self.seed}/{self._asked[prompt]}/{prompt}")
        return chance.choice(list(FAULTS)) if chance.random() < self.fault_rate else None


class Stub:
    """The server in a process of its own; a context manager. `latency` in seconds."""

    def __init__(self, *, latency: float = 0.0, faults: float = 0.0, seed: int = 5) -> None:
        self._command = [sys.executable, __file__, str(latency), str(faults), str(seed)]

    def __enter__(self) -> Stub:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url: str = self._told()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def counts(self) -> dict[str, int]:
        """Of all requests so far, by what became of them, and `peak`: how many there were at one time at
        most.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, int] = self._told()
        return found

    def _told(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    latency, faults, seed = sys.argv[1:]
    server = _Server(float(latency), float(faults), int(seed))
    with server:
        print(json.dumps(server.url), flush=True)
        # It ends with who started it: the pipe is closed then.
        for _ in sys.stdin:
            print(json.dumps({"peak": server.peak(), **server.met}), flush=True)


if __name__ == "__main__":
    main()
