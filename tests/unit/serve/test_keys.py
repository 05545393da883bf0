"""Keys: who may ask, how much, and what is written down."""

from __future__ import annotations

import json
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


def test_what_was_used_counts_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"ann": {"key": "k" * 20, "cost": 2.0, "tokens": 100}}))
    keys = Keys(path)
    key = keys.find(f"Bearer {'k' * 20}")
    keys.spend(key, 1.5, 40)
    assert Keys(path).rest(key) == (0.5, 60)
    keys.spend(key, 0.5, 0)
    with pytest.raises(Refused) as refused:
        Keys(path).rest(key)
    assert refused.value.code == "insufficient_quota"


def test_a_day_that_is_spent_says_when_to_come_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"ann": {"key": "k" * 20, "cost_per_day": 1.0}}))
    keys = Keys(path)
    key = keys.find(f"Bearer {'k' * 20}")
    keys.spend(key, 1.0, 0)
    with pytest.raises(Refused) as refused:
        keys.rest(key)
    assert 0 < (refused.value.retry_after or 0) <= 86_400


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
