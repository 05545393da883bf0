"""The connection to a container, on whatever event loop a program has."""

from __future__ import annotations

import asyncio
from typing import Any

from rlm_kernel.sandbox.dial import Attached


async def test_a_loop_whose_transports_are_none_of_asyncios_by_their_class_can_attach() -> None:
    class Transport:  # as uvloop's are
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.written.append(data)

    transport: Any = Transport()
    assert not isinstance(transport, asyncio.Transport)
    Attached(b"POST /containers/one/attach").connection_made(transport)
    assert transport.written == [b"POST /containers/one/attach"]
