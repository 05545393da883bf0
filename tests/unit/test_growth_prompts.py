"""What full prompts cost grows with what is in them: ten times the calls or turns, about ten times the time and the
bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

from rlm_kernel.engine.events import CallFinished, CallStarted, TurnReplied
from rlm_kernel.engine.protocols import Completion
from rlm_kernel.trace.prompt_writer import PromptKeeper
from rlm_kernel.trace.prompts import PromptFile, open_beside
from rlm_kernel.trace.writable import Writable
from tests.support.growth import LIMIT, growth
from tests.support.trace import call


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def keeper(folder: Path, numbers: itertools.count[int]) -> PromptKeeper:
    return PromptKeeper(folder / f"{next(numbers)}.ipynb", Writable(()), print)


def write_calls(keep: PromptKeeper, number: int) -> None:
    for one in range(number):
        keep.hear(CallStarted("turn-01-a", f"7-1-{one}", "llm_query", f"{one} " * 100, None, digest(one)))
        keep.hear(CallFinished("turn-01-a", call(one, prompt_digest=digest(one))))
    keep.close()


def test_ten_times_the_calls_are_ten_times_the_work(tmp_path: Path) -> None:
    numbers = itertools.count()

    def work(number: int) -> None:
        write_calls(keeper(tmp_path, numbers), number)

    assert growth(lambda size: size, work, 1_000) < LIMIT


def test_ten_times_the_turns_are_ten_times_the_bytes(tmp_path: Path) -> None:
    sizes = []
    for turns in (40, 400):
        keep, messages = PromptKeeper(tmp_path / f"{turns}.ipynb", Writable(()), print), []
        for turn in range(turns):
            messages += [{"role": "user", "content": f"{digest(turn)} " * 20}]
            keep.hear(TurnReplied(turn, Completion("x", "openai/root"), "x", "", list(messages)))
        keep.close()
        sizes.append((tmp_path / f"{turns}.prompts.zst").stat().st_size)
    assert sizes[1] < 12 * sizes[0]


def test_ten_times_the_calls_are_read_in_ten_times_the_time(tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(number: int) -> tuple[Path, int]:
        keep = keeper(tmp_path, numbers)
        write_calls(keep, number)
        return tmp_path / keep.name, number

    def work(given: tuple[Path, int]) -> None:
        path, number = given
        with PromptFile(open_beside(path, path.name)) as found:
            assert all(found.messages_of_call(digest(one)) for one in range(number))

    assert growth(make, work, 1_000) < LIMIT
