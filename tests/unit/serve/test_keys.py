"""Keys: who may ask."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.serve.keys import Keys, new_key
from rlm_kernel.serve.refusals import Refused


def test_a_key_that_was_made_is_known_and_its_file_has_not_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = new_key(path, "ann")
    assert made not in path.read_text()
    assert Keys(path).find(f"Bearer {made}").name == "ann"
    if sys.platform != "win32":
        assert os.stat(path).st_mode & 0o077 == 0
    with pytest.raises(ConfigError):
        new_key(path, "ann")
    assert new_key(path, "bob") != made
    assert Keys(path).find(f"bearer {made}").name == "ann"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer \udcff"]
)
def test_what_is_no_known_key_is_refused(tmp_path: Path, header: str | None) -> None:
    new_key(tmp_path / "keys.json", "ann")
    with pytest.raises(Refused) as refused:
        Keys(tmp_path / "keys.json").find(header)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"a b": {"key": "kkkkkkkkkkkkkkkkkkkk"}}',
        '{"ann": {"key": "short"}}',
        '{"ann": "kkkkkkkkkkkkkkkkkkkk"}',
        '{"ann": {"key": "kkkkkkkkkkkkkkkkkkkk", "at_once": 0}}',
        '{"ann": {"key": "kkkkkkkkkkkkkkkkkkkk", "limit": 1}}',
        '{"ann": {"key": "kkkkkkkkkkkkkkkkkkkk"}, "bob": {"key": "kkkkkkkkkkkkkkkkkkkk"}}',
    ],
)
def test_a_file_that_is_none_of_keys_is_told_without_its_keys(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ConfigError) as told:
        Keys(tmp_path / "keys.json")
    assert "kkkk" not in str(told.value)
