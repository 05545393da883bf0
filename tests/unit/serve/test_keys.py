"""Keys: who may ask, how much, and what is written down."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.errors import ConfigError
from rlm_kernel.serve.keys import Key, Keys, new_key
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


def limited(path: Path, **limits: float) -> tuple[Keys, Key]:
    path.write_text(json.dumps({"ann": {"key": "k" * 20, **limits}}))
    keys = Keys(path)
    return keys, keys.find(f"Bearer {'k' * 20}")


@given(
    st.sampled_from([None, 1, 2, 3, 50]),
    st.integers(1, 6),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=40),
)
def test_no_order_of_questions_that_begin_and_end_passes_a_keys_limits(
    at_once: int | None, places: int, steps: list[tuple[bool, float]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        more = {} if at_once is None else {"at_once": at_once}
        keys, key = limited(Path(folder) / "keys.json", cost=2.0, tokens=1_000, **more)
        running: list[tuple[contextlib.ExitStack, float, int]] = []
        for begins, part in [*steps, *[(False, 1.0)] * places]:
            if begins and len(running) < min(places, at_once or places):
                with contextlib.ExitStack() as stack, contextlib.suppress(Refused):
                    cost, tokens = stack.enter_context(keys.holding(key, places))
                    running.append((stack.pop_all(), (cost or 0) * part, int((tokens or 0) * part)))
            elif not begins and running:
                held, spent, used = running.pop(int(part * (len(running) - 1)))
                keys.spend(key, spent, used)
                held.close()
        assert keys.used(key).cost <= 2.0 + 1e-9
        assert keys.used(key).tokens <= 1_000


def test_questions_at_one_time_have_equal_shares_of_what_is_left(tmp_path: Path) -> None:
    keys, key = limited(tmp_path / "keys.json", cost=2.0, tokens=100)
    with keys.holding(key, 4) as first, keys.holding(key, 4) as second:
        assert first == second == (0.5, 25)
    alone, one = limited(tmp_path / "alone.json", cost=2.0, at_once=1)
    with alone.holding(one, 4) as all_of_it:
        assert all_of_it == (2.0, None)


def test_what_is_held_back_is_free_again_when_its_question_ends(tmp_path: Path) -> None:
    keys, key = limited(tmp_path / "keys.json", tokens=1, at_once=3)
    with keys.holding(key, 1), pytest.raises(Refused) as refused, keys.holding(key, 1):
        pass
    assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
    with keys.holding(key, 1) as again:
        assert again == (None, 1)


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
