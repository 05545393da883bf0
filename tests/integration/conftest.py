"""Real containers. Without Docker or the image these tests fail, and say what to type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import ImageInfo, find_image
from tests.support.sandbox import Sandbox


@pytest.fixture(scope="session")
def kernel_image() -> ImageInfo:
    client = connect()
    try:
        image = find_image(client)
    finally:
        client.close()
    assert image is not None, "the kernel image is not built: type `make image`"
    return image


@pytest.fixture
def docker_client() -> Iterator[Any]:
    client = connect()
    yield client
    client.close()


@pytest_asyncio.fixture
async def sandbox(kernel_image: ImageInfo) -> AsyncIterator[Callable[..., Any]]:
    """Makes sandboxes; they are gone after the test."""
    made: list[Sandbox] = []

    async def make(**options: Any) -> Sandbox:
        box = Sandbox(kernel_image, **options)
        made.append(box)
        await box.start()
        return box

    yield make
    for box in made:
        await box.stop()
