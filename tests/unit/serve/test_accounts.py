"""Accounts of keys: what their questions may use together, and what is written down."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.totals import Usage
from rlm_kernel.engine.values import Completion
from rlm_kernel.errors import BudgetExceeded, ConfigError
from rlm_kernel.serve import accounts
from rlm_kernel.serve.accounts import Account, Accounts, Used, alone
from rlm_kernel.serve.keys import Key
from rlm_kernel.serve.refusals import Refused
from tests.support.sandbox import until


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The day, in its last element."""
    days = ["2026-11-29"]
    monkeypatch.setattr(accounts, "_today", lambda: days[-1])
    return days


async def spend(account: Account, cost: float, tokens: int = 0) -> None:
    """One call of a question of its own."""
    async with Ledger(Limits(), purse=account).call("root", 100) as call:
        call.sent()
        call.settle(Completion("a reply", "a/model", Usage(tokens, 0), cost=cost))


async def ask(account: Account, costs: Sequence[float]) -> int:
    """A question of so many calls, one after the other; how many were made."""
    run, made = Ledger(Limits(), purse=account), 0
    for cost in costs:
        try:
            async with run.call("root", 100) as call:
                await asyncio.sleep(0)
                call.settle(Completion("a reply", "a/model", Usage(10, 0), cost=cost))
                made += 1
        except BudgetExceeded:
            break
    return made


async def test_one_of_many_questions_may_use_all_that_is_left() -> None:
    account = Account(Key(name="ann", cost=1.0, at_once=8))
    one, other = await asyncio.gather(ask(account, [0.1] * 8), ask(account, [0.1]))
    assert (one, other) == (8, 1)
    assert account.left()[0] == pytest.approx(0.1)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.05, 0.1]), max_size=8), min_size=1, max_size=12))
def test_no_questions_at_one_time_pass_a_limit_by_more_than_one_call(questions: list[list[float]]) -> None:
    async def all_at_once() -> None:
        account = Account(Key(name="ann", cost=1.0, tokens=300))
        await spend(account, 0.1)  # what a call uses is known then
        made = sum(await asyncio.gather(*(ask(account, costs) for costs in questions)))
        used = account.used
        assert used.cost <= 1.1 + 1e-9
        assert used.tokens == 10 * made <= 310
        wanted = sum(map(len, questions))
        assert made == wanted or used.cost > 0.9 - 1e-9 or used.tokens >= 290, "something was left unused"

    asyncio.run(all_at_once())


async def test_what_is_held_back_for_a_call_that_fails_or_is_left_is_free_again() -> None:
    account = Account(Key(name="ann", cost=1.0))
    await spend(account, 0.4)
    with contextlib.suppress(ConnectionError):
        async with Ledger(Limits(), purse=account).call("root", 100) as call:
            call.sent()
            raise ConnectionError
    assert account.left()[0] == pytest.approx(0.6)
    begun = asyncio.Event()

    async def endless() -> None:
        async with Ledger(Limits(), purse=account).call("root", 100) as call:
            call.sent()
            begun.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(endless())
    await begun.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert account.left()[0] == pytest.approx(0.2), "a call that was left on its way may be billed"
    await spend(account, 0.2)
    with pytest.raises(BudgetExceeded, match=r"The key ann's limit of cost is reached: 1 of 1 US dollars"):
        await spend(account, 0.1)


async def test_a_day_that_is_spent_says_when_to_come_again_and_the_next_day_has_its_own(
    today: list[str],
) -> None:
    account = Account(Key(name="ann", cost_per_day=1.0, cost=1.5))
    await spend(account, 1.0)
    with pytest.raises(Refused, match="today") as refused:
        account.left()
    assert refused.value.code == "insufficient_quota"
    assert 0 < (refused.value.retry_after or 0) <= 86_400
    today.append("2026-11-30")
    assert account.left() == (0.5, None)
    await spend(account, 0.5)
    with pytest.raises(Refused) as refused:
        account.left()
    assert "today" not in refused.value.message
    assert refused.value.retry_after is None


@pytest.mark.parametrize("limit", [{"cost": 1.0}, {"tokens": 100}])
async def test_a_key_that_has_used_its_day_and_its_total_is_not_told_to_come_again_tomorrow(
    today: list[str], limit: dict[str, float]
) -> None:
    account = Account(Key(name="ann", cost_per_day=1.0, **limit))
    await spend(account, 1.0, 100)
    with pytest.raises(Refused, match=r"has used up its limit\.$") as refused:
        account.left()
    assert refused.value.retry_after is None


async def test_what_a_running_question_uses_is_written_down_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, written = tmp_path / "keys.json", asyncio.Event()
    loop, write, times = asyncio.get_running_loop(), accounts.write_whole, []

    def write_and_tell(path: Path, content: object) -> None:
        write(path, content)
        times.append(content)
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(accounts, "KEEP_SECONDS", 0.001)
    monkeypatch.setattr(accounts, "write_whole", write_and_tell)
    known = Accounts(keys)
    keeping = asyncio.create_task(known.keep_up())
    run = Ledger(Limits(), purse=known.of(Key(name="ann")))
    async with run.call("root", 100) as call:
        call.sent()
        call.settle(Completion("a reply", "a/model", Usage(10, 0), cost=0.5))
    while not times or times[-1]["ann"]["cost"] != 0.5:
        await asyncio.wait_for(written.wait(), 10)
        written.clear()
    count = len(times)
    for _ in range(5):
        await asyncio.sleep(0.002)
    assert len(times) == count, "what has not changed is not written again"
    assert Accounts(keys).of(Key(name="ann")).used.cost == 0.5, "as another server reads it after a kill"
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_a_question_that_goes_on_after_midnight_may_use_what_the_new_day_has(today: list[str]) -> None:
    account = Account(Key(name="ann", cost_per_day=1.0))
    run = Ledger(Limits(), purse=account)

    async def call() -> None:
        async with run.call("root", 100) as one:
            one.settle(Completion("a reply", "a/model", Usage(1, 0), cost=1.0))

    await call()
    with pytest.raises(BudgetExceeded):
        await call()
    today.append("2026-11-30")
    await call()
    assert account.used == Used(cost=2.0, tokens=2, day="2026-11-30", cost_of_day=1.0)


async def test_a_call_that_ends_after_midnight_counts_on_the_new_day(today: list[str]) -> None:
    account = Account(Key(name="ann", cost_per_day=1.0))
    await spend(account, 0.2)
    async with Ledger(Limits(), purse=account).call("root", 100) as call:
        today.append("2026-11-30")
        call.settle(Completion("a reply", "a/model", Usage(1, 0), cost=0.6))
    assert account.used.cost == pytest.approx(0.8)
    assert account.used.cost_of_day == pytest.approx(0.6)


async def test_what_was_used_counts_after_a_restart_and_other_keys_stay(
    tmp_path: Path, today: list[str]
) -> None:
    keys, key = tmp_path / "keys.json", Key(name="ann", cost=2.0, cost_per_day=2.0, tokens=100)
    (tmp_path / "keys.json.used").write_text(json.dumps({"bob": {"cost": 3.0, "tokens": 7}}))
    first = Accounts(keys)
    await spend(first.of(key), 1.5, 40)
    await first.keep()
    assert Accounts(keys).of(key).left() == (0.5, 60)
    assert Accounts(keys).of(key).used == Used(cost=1.5, tokens=40, day=today[0], cost_of_day=1.5)
    assert json.loads((tmp_path / "keys.json.used").read_text())["bob"]["cost"] == 3.0
    assert Accounts(keys).of(key.model_copy(update={"cost": 1.6})).left()[0] == pytest.approx(0.1)


async def test_many_that_are_written_down_at_one_time_leave_the_last_state(tmp_path: Path) -> None:
    all_of_them = Accounts(tmp_path / "keys.json")

    async def one(number: int) -> None:
        await spend(all_of_them.of(Key(name=f"key{number % 3}")), 0.5)
        await all_of_them.keep()

    await asyncio.gather(*(one(number) for number in range(30)))
    kept = json.loads((tmp_path / "keys.json.used").read_text())
    assert {name: used["cost"] for name, used in kept.items()} == {"key0": 5.0, "key1": 5.0, "key2": 5.0}


async def test_what_cannot_be_written_down_is_told_and_is_written_the_next_time(tmp_path: Path) -> None:
    keys, key, said = tmp_path / "keys.json", Key(name="ann", cost=2.0), list[str]()
    all_of_them = Accounts(keys, said.append)
    await spend(all_of_them.of(key), 0.5)
    (tmp_path / "keys.json.used").unlink()
    (tmp_path / "keys.json.used").mkdir()
    await all_of_them.keep()
    assert "keys.json.used" in said[0]
    assert all_of_them.of(key).left() == (1.5, None)
    (tmp_path / "keys.json.used").rmdir()
    await all_of_them.keep()
    assert Accounts(keys).of(key).left() == (1.5, None)
    assert len(said) == 1


def test_a_file_of_keys_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    with alone(keys), alone(tmp_path / "others.json"), alone(None), alone(None):
        with pytest.raises(ConfigError, match="Another rlm serve") as refused, alone(keys):
            pass
        assert "its own key file" in refused.value.hint
    with alone(keys):
        pass


@pytest.mark.parametrize("content", ["[]", '{"ann": 3}', '{"ann": {"cost": "much"}}', "{"])
def test_a_file_of_what_was_used_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json.used").write_text(content)
    with pytest.raises(ConfigError):
        Accounts(tmp_path / "keys.json")


async def test_a_read_only_folder_of_keys_is_told_once_and_harms_no_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    told: list[str] = []
    known = Accounts(tmp_path / "keys.json", told.append)
    await spend(known.of(Key(name="ann")), 0.5)
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "open", refuse)
        read_only.setattr(
            Path, "unlink", refuse
        )  # Linux refuses it before it looks whether the file is there
        await known.keep()
        await known.keep()
    assert len(told) == 1
    await known.keep()
    assert Accounts(tmp_path / "keys.json").of(Key(name="ann")).used.cost == 0.5


async def test_what_a_call_may_use_is_on_the_disk_before_it_is_made_and_what_it_used_after(
    tmp_path: Path,
) -> None:
    keys, key = tmp_path / "keys.json", Key(name="ann", cost=1.0)
    known = Accounts(keys)
    await spend(known.of(key), 0.4, 100)

    def after_a_kill() -> Used:
        return Accounts(keys).of(key).used

    async with Ledger(Limits(), purse=known.of(key)).call("root", 100) as call:
        assert (after_a_kill().cost, after_a_kill().tokens) == (0.8, 200)
        assert known.of(key).used.cost == 0.4
        call.sent()
        call.settle(Completion("a reply", "a/model", Usage(10, 0), cost=0.1))
    await known.keep()
    assert (after_a_kill().cost, after_a_kill().tokens) == (0.5, 110)


async def test_calls_that_begin_at_one_time_are_written_down_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, write, times = tmp_path / "keys.json", accounts.write_whole, list[object]()

    def count(path: Path, content: object) -> None:
        times.append(content)
        write(path, content)

    monkeypatch.setattr(accounts, "write_whole", count)
    account, begun, go_on = Accounts(keys).of(Key(name="ann")), list[int](), asyncio.Event()

    async def one(number: int) -> None:
        async with Ledger(Limits(), purse=account).call("root", 1_000, prices=(10.0, 0.0)):
            begun.append(number)
            await go_on.wait()

    calls = [asyncio.create_task(one(number)) for number in range(50)]
    await until(lambda: len(begun) == 50)
    assert len(times) <= 2
    assert Accounts(keys).of(Key(name="ann")).used.cost == pytest.approx(50 * 0.01)
    go_on.set()
    await asyncio.gather(*calls)
