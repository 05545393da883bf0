"""Which kept sessions this version can join, by what their folder says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.sandbox.rundir import PROTOCOL, RunDir
from rlm_kernel.session.live import other_version

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def folder(tmp_path: Path, text: bytes) -> Path:
    (tmp_path / "host").mkdir(exist_ok=True)
    (tmp_path / "host" / "session.json").write_bytes(text)
    return tmp_path


def test_a_session_of_this_version_can_be_joined() -> None:
    run = RunDir.create(max_request=1, window=1, idle=60)
    try:
        assert not other_version(run.path)
        run.leave()
        adopted = RunDir.adopt(run.path)
        assert adopted is not None
        assert (adopted.token, adopted.idle) == (run.token, 60)
        adopted.leave()
    finally:
        run.remove()


NO_VERSION = [b"", b"[]", b"1", b"null", b"\xff", b"{", b"[" * 100_000, b'{"protocol": "1"}', b'{"protocol": [1]}', b'{"token": "x"}']


@pytest.mark.parametrize("text", NO_VERSION)
def test_what_says_no_version_or_cannot_be_read_is_another_versions(tmp_path: Path, text: bytes) -> None:
    assert other_version(folder(tmp_path, text))
    assert RunDir.adopt(tmp_path) is None


@given(said=JSON)
def test_whatever_it_says_is_no_traceback(said: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = folder(tmp_path_factory.mktemp("s"), json.dumps({"protocol": said}).encode())
    assert other_version(place) == (said != PROTOCOL)


def test_a_folder_that_is_gone_is_no_other_version(tmp_path: Path) -> None:
    assert not other_version(tmp_path / "gone")
