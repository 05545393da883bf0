"""Sockets of this host for one kernel, as they open and close."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import loops
from rlm_kernel.sandbox.endpoints import Doors, Endpoints


@pytest.mark.parametrize("steps", range(8))
async def test_what_is_closed_while_it_opens_leaves_no_socket(tmp_path: Path, steps: int) -> None:
    doors = Doors(str(tmp_path / "k"))
    stream: Any = None  # nobody connects
    endpoints = Endpoints(stream, doors)
    opening = asyncio.create_task(endpoints.open())
    for _ in range(steps):
        await asyncio.sleep(0)
    await endpoints.close()
    (failed,) = await asyncio.gather(opening, return_exceptions=True)
    assert failed is None or isinstance(failed, OSError)
    assert not any(server.is_serving() for server in endpoints._servers)
    for number in range(1, 6):
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await loops.connect_unix(asyncio.Protocol, str(tmp_path / f"k-{number}"))
