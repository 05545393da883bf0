from __future__ import annotations

from pathlib import Path

import pytest
from rlm_runtime.formats import read_file
from rlm_runtime.readers import Read

from tests.support.reading import Reader


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def of(name: str, data: bytes, room: int | None = None) -> Read:
        path = tmp_path / name
        path.write_bytes(data)
        return read_file(path, name, room=room)

    return of
