"""What tests of the sandbox have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlm_kernel.sandbox.rundir import RunDir


@pytest.fixture
def run() -> Iterator[RunDir]:
    made = RunDir.create(max_request=1000, window=4)
    yield made
    made.remove()
