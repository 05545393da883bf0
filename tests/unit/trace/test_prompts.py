"""What models were sent in full, beside the notebook: whole at every moment, once each, bounded, and a stranger's
is not believed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import CallFinished, CallStarted, CellFinished, CellStarted, TurnReplied
from rlm_kernel.engine.protocols import Completion
from rlm_kernel.engine.values import Picture
from rlm_kernel.session.traces import new_writer
from rlm_kernel.trace import prompt_writer, prompts, zstd_log
from rlm_kernel.trace.prompt_writer import PromptKeeper
from rlm_kernel.trace.prompts import open_prompts
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.zstd_log import ZstdLog
from tests.support.trace import call, meta, result, tell

Say = list[str]


def digest(number: int) -> str:
    return f"{number:064x}"


def started(number: int, prompt: str, **more: Any) -> CallStarted:
    return CallStarted("turn-01-a", f"7-1-{number}", "llm_query", prompt, None, digest(number), **more)


def replied(turn: int, *texts: str) -> TurnReplied:
    return TurnReplied(turn, Completion("x", "openai/root"), "x", "", MESSAGES(texts))


_made: dict[tuple[int, str], Any] = {}


def MESSAGES(texts: Sequence[str]) -> list[Any]:
    """The same objects for the same texts, as a conversation has them."""
    roles = ("system", "user", "assistant")
    return [
        _made.setdefault((at, text), {"role": roles[min(at, 1 + (at + 1) % 2)], "content": text})
        for at, text in enumerate(texts)
    ]


def writer(path: Path, said: Say | None = None, **more: Any) -> Any:
    settings = Settings(trace={"prompts": more.pop("prompts", "full")})  # type: ignore[arg-type]
    say = (said if said is not None else []).append
    return new_writer(path, more.pop("meta", meta()), settings, say=say, **more)


def lines(path: Path) -> list[Any]:
    """As another program reads it."""
    found = subprocess.run(["zstdcat", str(path)], capture_output=True, check=True).stdout
    return [json.loads(line) for line in found.splitlines()]


def sidecar(notebook: Path) -> Path:
    return notebook.with_name(f"{notebook.stem}.prompts.zst")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "run.ipynb"


def test_what_models_were_sent_is_read_back_in_full(notebook: Path) -> None:
    write = writer(notebook)
    long = "Classify: " + "näher \U0001f40d " * 3_000
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    tell(write, [replied(1, "be an RLM", "How many?"), CellStarted("turn-01-a", 1, "x"), started(1, long)])
    tell(write, [CallStarted("turn-01-a", "7-1-2", "llm_query", "typed", schema, digest(2))])
    tell(write, [CallFinished("turn-01-a", call(1, prompt_digest=digest(1)))])
    tell(write, [replied(2, "be an RLM", "How many?", "x", "output 1")])
    write.close()
    trace = read_trace(notebook)
    assert trace.meta.prompts == "run.prompts.zst"
    with open_prompts(trace) as found:
        assert found.messages_of_call(digest(1)) == [{"role": "user", "content": long}]
        assert found.schema_of_call(digest(1)) is None
        assert found.schema_of_call(digest(2)) == schema
        assert found.messages_of_call(digest(3)) is None
        assert found.messages_of_turn(1) == MESSAGES(["be an RLM", "How many?"])
        assert found.messages_of_turn("turn-02") == MESSAGES(["be an RLM", "How many?", "x", "output 1"])
        assert found.messages_of_turn("turn-02-a") == found.messages_of_turn(2)
        assert found.messages_of_turn(3) is None
        assert not found.trouble


def test_each_thing_is_written_once_and_a_turn_has_what_is_new(notebook: Path) -> None:
    write = writer(notebook)
    said = ["system", "question"]
    for turn in range(1, 60):
        write(replied(turn, *said))
        said += [f"reply {turn}", f"output {turn}"]
        tell(write, [started(turn % 3, f"prompt {turn % 3}")])
    write.close()
    found = lines(sidecar(notebook))
    assert len([one for one in found if "message" in one]) == 2 + 2 * 58
    assert [len(one["messages"]) for one in found if "turn" in one] == [2] * 59
    assert len([one for one in found if "call" in one]) == 3


def test_a_turn_whose_messages_were_summed_up_has_those_that_were_sent(notebook: Path) -> None:
    write = writer(notebook)
    tell(
        write, [replied(1, "s", "q"), replied(2, "s", "q", "r1", "o1"), replied(3, "s", "q", "summary", "o2")]
    )
    tell(write, [replied(4, "s", "q, as it was said"), replied(5, "s", "q", "summary", "o2", "r", "o3")])
    write.close()
    with open_prompts(read_trace(notebook)) as found:
        texts = [[one["content"] for one in found.messages_of_turn(turn) or ()] for turn in range(1, 6)]
    assert texts == [["s", "q"], ["s", "q", "r1", "o1"], ["s", "q", "summary", "o2"],
                     ["s", "q, as it was said"], ["s", "q", "summary", "o2", "r", "o3"]]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=12))
def test_any_turns_come_back_as_they_were(steps: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder, "run.ipynb")
        write, texts, sent = writer(notebook), [], []
        for turn, (keep, new) in enumerate(steps, 1):
            texts = [*texts[:keep], *(f"{turn}-{number}" for number in range(new))]
            sent.append(texts)
            write(replied(turn, *texts))
        write.close()
        with open_prompts(read_trace(notebook)) as found:
            for turn, expected in enumerate(sent, 1):
                assert [one["content"] for one in found.messages_of_turn(turn) or ()] == expected


def test_what_was_heard_is_on_the_disk_after_a_kill_and_is_gone_on_with(notebook: Path) -> None:
    program = f"""
        import os, sys, time, signal
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from pathlib import Path
        from tests.unit.trace.test_prompts import *
        write = writer(Path({str(notebook)!r}))
        write(replied(1, "system", "question"))
        for number in range(500):
            write(started(number, f"prompt {{number}} " * 50))
        while write._prompts._waiting:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len([one for one in lines(sidecar(notebook)) if "call" in one]) == 500
    trace = read_trace(notebook)
    write = writer(notebook, meta=trace.meta, cells=trace.node.cells)
    tell(
        write, [replied(2, "system", "question", "r", "o"), started(1, "prompt 1 " * 50), started(900, "new")]
    )
    write.close()
    found = lines(sidecar(notebook))
    assert len([one for one in found if "call" in one]) == 501
    assert len([one for one in found if "message" in one]) == 4
    with open_prompts(read_trace(notebook)) as again:
        assert again.messages_of_call(digest(499)) is not None
        assert len(again.messages_of_turn(2) or ()) == 4


def test_it_is_whole_after_each_write_and_can_be_gone_on_with_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.zst"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    log, rng = zstd_log.ZstdLog(file), os.urandom(150_000)
    for number in range(5):
        log.write(f"line {number}\n".encode() + (rng.hex().encode() + b"\n" if number == 3 else b""))
        assert (
            len(subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout.splitlines())
            >= number
        )
    os.close(file)
    whole = path.read_bytes()
    cuts = {*range(60), *range(len(whole) - 60, len(whole) + 1), *range(60, len(whole), 9_001)}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        file = os.open(path, os.O_RDWR)
        zstd_log.ZstdLog(file).write(b"\nafter\n")
        os.close(file)
        text = subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout
        assert text.endswith(b"\nafter\n")
        with path.open("rb") as stream:
            kept = list(zstd_log.lines_of(stream, most=1 << 30, longest=1 << 30))
        assert kept[-1] == b"after"
        assert kept[0] in (b"line 0", b"")


def test_a_file_that_was_cut_off_is_read_up_to_its_end(notebook: Path) -> None:
    write = writer(notebook)
    for number in range(50):
        write(started(number, os.urandom(2_000).hex()))
    write.close()
    raw = sidecar(notebook).read_bytes()
    read = []
    for cut in range(0, len(raw), len(raw) // 40):
        sidecar(notebook).write_bytes(raw[:cut])
        with open_prompts(read_trace(notebook)) as found:
            read.append(sum(found.messages_of_call(digest(number)) is not None for number in range(50)))
    assert read == sorted(read)
    assert read[0] == 0


def test_a_fork_has_a_file_of_its_own_with_what_the_trace_had(notebook: Path, tmp_path: Path) -> None:
    write = writer(notebook)
    tell(write, [replied(1, "s", "q"), started(1, "of the trace")])
    write.close()
    (tmp_path / "elsewhere").mkdir()
    for target in (tmp_path / "fork.ipynb", tmp_path / "elsewhere" / "run.ipynb"):
        trace = read_trace(notebook)
        write = writer(target, meta=trace.meta, cells=trace.node.cells, of=trace.path)
        tell(write, [replied(2, "s", "q", "r", "o"), started(2, "of the fork")])
        write.close()
        assert read_trace(target).meta.prompts == f"{target.stem}.prompts.zst"
        with open_prompts(read_trace(target)) as found:
            assert [found.messages_of_call(digest(number)) is not None for number in (1, 2)] == [True, True]
            assert found.messages_of_turn(1)
        assert len([one for one in lines(sidecar(target)) if "message" in one]) == 4
    with open_prompts(read_trace(notebook)) as found:
        assert found.messages_of_call(digest(2)) is None


def test_a_replay_to_another_folder_takes_the_file_along(notebook: Path, tmp_path: Path) -> None:
    write = writer(notebook)
    tell(write, [replied(1, "s", "q"), started(1, "asked")])
    write.close()
    (tmp_path / "out").mkdir()
    trace = read_trace(notebook)
    writer(tmp_path / "out" / "again.ipynb", meta=trace.meta, cells=trace.node.cells, of=trace.path).close()
    with open_prompts(read_trace(tmp_path / "out" / "again.ipynb")) as found:
        assert found.messages_of_call(digest(1))
    sidecar(notebook).unlink()
    writer(tmp_path / "out" / "third.ipynb", meta=trace.meta, cells=trace.node.cells, of=trace.path).close()
    assert read_trace(tmp_path / "out" / "third.ipynb").meta.prompts == ""
    assert not sidecar(tmp_path / "out" / "third.ipynb").exists()


def test_two_writers_at_once_do_not_write_into_one_file(notebook: Path) -> None:
    write = writer(notebook)
    tell(write, [replied(1, "s", "q"), started(1, "first")])
    trace = read_trace(notebook)
    other = writer(notebook, meta=trace.meta, cells=trace.node.cells)
    tell(other, [replied(2, "s", "q", "r", "o"), started(2, "second")])
    other.release()
    write.release()
    for name in ("run.prompts.zst", "run-2.prompts.zst"):
        assert lines(notebook.with_name(name))


def test_with_previews_there_is_no_file(notebook: Path) -> None:
    write = writer(notebook, prompts="preview")
    tell(write, [replied(1, "s", "q"), started(1, "asked")])
    write.close()
    assert os.listdir(notebook.parent) == ["run.ipynb"]
    assert read_trace(notebook).meta.prompts == ""


def test_what_lies_in_its_place_is_left_as_it_is(notebook: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine")
    sidecar(notebook).symlink_to(other)
    write = writer(notebook)
    tell(write, [replied(1, "s", "q")])
    write.close()
    assert other.read_text() == "mine"
    assert read_trace(notebook).meta.prompts == "run-2.prompts.zst"
    assert lines(tmp_path / "run-2.prompts.zst")


def test_a_run_that_replaces_a_notebook_replaces_its_file(notebook: Path) -> None:
    for number in (1, 2):
        write = writer(notebook)
        write(started(number, f"of run {number}"))
        write.close()
    assert sorted(os.listdir(notebook.parent)) == ["run.ipynb", "run.prompts.zst"]
    assert [one["prompt"] for one in lines(sidecar(notebook))] == ["of run 2"]


def test_only_its_owner_can_read_it(notebook: Path) -> None:
    write = writer(notebook)
    write(started(1, "asked"))
    write.close()
    assert sidecar(notebook).stat().st_mode & 0o077 == 0


def test_no_secret_is_in_it(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'sk-"12\n34567890'
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    write = writer(notebook)
    tell(write, [replied(1, "s", f"q {secret}"), started(1, f"asked {secret}")])
    tell(write, [CallStarted("c", "1", "llm_query", "p", {"description": secret}, digest(2))])
    tell(write, [CallFinished("c", call(3, prompt_digest=digest(3)), f"with the context {secret}")])
    write.close()
    text = json.dumps(lines(sidecar(notebook)))
    assert text.count("[redacted]") == 4
    assert "34567890" not in text


def test_what_went_to_a_model_in_another_wording_is_kept(notebook: Path) -> None:
    write = writer(notebook)
    tell(write, [CallStarted("c", "1", "rlm_query", "Who?", None, digest(1))])
    tell(write, [CallFinished("c", call(1, prompt_digest=digest(1)), "Who?\n\nThe context:\nIt was Ada.")])
    write.close()
    with open_prompts(read_trace(notebook)) as found:
        assert found.messages_of_call(digest(1)) == [
            {"role": "user", "content": "Who?\n\nThe context:\nIt was Ada."}
        ]


def test_of_pictures_only_digest_and_size_are_kept(notebook: Path) -> None:
    picture = Picture(b"\x89PNG" + bytes(5_000), "image/png", 30, 20)
    message = {"role": "user", "content": "look", "images": (picture,)}
    write = writer(notebook)
    write(TurnReplied(1, Completion("x", "openai/root"), "x", "", [message]))
    write.close()
    with open_prompts(read_trace(notebook)) as found:
        (sent,) = found.messages_of_turn(1) or ()
    shown = {"digest": picture.digest, "media_type": "image/png", "size": 5_004, "width": 30, "height": 20}
    assert sent == {"role": "user", "content": "look", "images": [shown]}


def test_halves_of_characters_are_replaced(notebook: Path) -> None:
    write = writer(notebook)
    tell(write, [replied(1, "s", "half \ud83d"), started(1, "\udcff bytes")])
    write.close()
    with open_prompts(read_trace(notebook)) as found:
        assert found.messages_of_call(digest(1)) == [{"role": "user", "content": "? bytes"}]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    room, real = [1_000], os.write

    def write(file: int, data: Any) -> int:
        if not os.readlink(f"/proc/self/fd/{file}").endswith(prompts.ENDING):
            return real(file, data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(file, bytes(data)[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    return room


def test_a_full_disk_is_told_once_and_costs_nothing_else(notebook: Path, full_disk: list[int]) -> None:
    said: Say = []
    write = writer(notebook, said)
    write(started(0, "the first"))
    write._prompts.close()
    for number in range(1, 40):
        write(started(number, os.urandom(3_000).hex()))
        write._prompts.close()
    tell(write, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", "x"))])
    write.close()
    assert [bool(re.search("does not keep full prompts.*No space left", line)) for line in said] == [True]
    trace = read_trace(notebook)
    assert [cell.id for cell in trace.code_cells] == ["turn-01-a"]
    full_disk[0] = 1 << 30
    assert [one["prompt"] for one in lines(sidecar(notebook))] == ["the first"]


def test_a_folder_that_may_not_be_written_to_is_told_once(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    said: Say = []
    write = writer(notebook, said)
    monkeypatch.setattr(prompt_writer.system, "open_plain", refuse)
    for number in range(5):
        write(started(number, "asked"))
    write.close()
    assert len(said) == 1


def test_code_that_asks_for_ever_and_is_refused_does_not_fill_the_disk(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_writer, "MAX_UNPAID", 100_000)
    said: Say = []
    write = writer(notebook, said)
    for number in range(2_000):  # refused by the ledger, and not even recorded
        write(started(number, f"{number} " + "x" * 1_000))
    assert len(write._prompts._asked) < 100
    write(CellFinished(1, result("turn-01-a", "x")))
    assert len(said) == 1
    write.close()
    assert sum(len(one["prompt"]) for one in lines(sidecar(notebook))) < 100_000


def test_calls_that_were_made_have_all_the_room(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_writer, "MAX_UNPAID", 100_000)
    said: Say = []
    write = writer(notebook, said)
    for number in range(300):
        write(started(number, f"{number} " + "x" * 1_000))
        write(CallFinished("turn-01-a", call(number, prompt_digest=digest(number))))
    write.close()
    assert not said
    assert len(lines(sidecar(notebook))) == 300


async def test_memory_stays_flat_for_many_calls(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_writer, "MAX_KNOWN", 2_000)
    monkeypatch.setattr(prompt_writer, "MAX_WAITING", 1_000_000)
    write = writer(notebook)
    keeper = write._prompts
    write(started(0, "x"))
    tracemalloc.start()
    try:
        for number in range(20_000):
            await keeper.room()
            keeper.hear(started(number, f"{number:1000}"))
            keeper.hear(CallFinished("turn-01-a", call(number, prompt_digest=digest(number))))
        write.close()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12_000_000
    assert len(lines(sidecar(notebook))) == 20_000


async def test_the_event_loop_goes_on_while_calls_wait_for_room(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_writer, "MAX_WAITING", 1_000)
    goes_on = threading.Event()
    batch = PromptKeeper._batch

    def held(keeper: PromptKeeper) -> Any:
        goes_on.wait(60)
        return batch(keeper)

    monkeypatch.setattr(PromptKeeper, "_batch", held)
    write = writer(notebook)
    passed: list[int] = []

    async def ask(number: int) -> None:
        await write.room()
        write(started(number, f"{number} " + "x" * 2_000))
        passed.append(number)

    await ask(0)
    asking = [asyncio.create_task(ask(number)) for number in range(1, 20)]
    given_up = asyncio.create_task(ask(20))
    for _ in range(100):
        await asyncio.sleep(0)
    assert passed == [0], "the others wait, and the loop did not"
    given_up.cancel()
    goes_on.set()
    await asyncio.gather(*asking)
    write.close()
    assert sorted(passed) == list(range(20))
    assert len(lines(sidecar(notebook))) == 20


async def test_calls_do_not_wait_for_a_disk_that_is_full(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_writer, "MAX_WAITING", 1_000)
    goes_on = threading.Event()

    def full(*_: object) -> None:
        goes_on.wait(60)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ZstdLog, "write", full)
    said: Say = []
    write = writer(notebook, said)
    write(started(0, "x" * 2_000))
    waiting = asyncio.create_task(write.room())
    await asyncio.sleep(0)
    goes_on.set()
    await waiting
    await write.room()
    write.close()
    assert "No space left" in said[0]


def test_it_is_read_while_it_is_written(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_writer, "_PAUSE", 0.0)
    write = writer(notebook)
    write(started(0, "the first"))
    write._prompts.close()
    trace = trace_with(notebook.with_name("other.ipynb"), "run.prompts.zst")
    for number in range(1, 60):
        for part in range(5):
            write(started(100 * number + part, os.urandom(5_000).hex()))
        with open_prompts(trace) as found:
            assert found.messages_of_call(digest(0)) == [{"role": "user", "content": "the first"}]
            assert not found.trouble
    write.close()


# A stranger's


def trace_with(notebook: Path, name: str) -> Any:
    writer(notebook, meta=meta(prompts=name)).close()
    return read_trace(notebook)


@pytest.mark.parametrize(
    "name",
    ["../x.prompts.zst", "/etc/passwd", "a/b.prompts.zst", "..", "a\\b.prompts.zst", ".env", "x" * 400 + ".prompts.zst", "x.prompts.zst/", "C:x.prompts.zst/.."],
)  # fmt: skip
def test_a_trace_that_names_another_place_is_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "x.prompts.zst").write_bytes(
        zstandard.compress(b'{"call":"' + digest(1).encode() + b'","prompt":"no"}\n')
    )
    with open_prompts(trace_with(tmp_path / "deep" / "run.ipynb", name)) as found:
        assert found.messages_of_call(digest(1)) is None
        assert found.trouble


def test_links_folders_and_pipes_are_not_opened(tmp_path: Path) -> None:
    trace = trace_with(tmp_path / "run.ipynb", "run.prompts.zst")
    place = tmp_path / "run.prompts.zst"
    secret = tmp_path / "secret"
    secret.write_bytes(zstandard.compress(b"{}\n"))
    for make in (lambda: place.symlink_to(secret), place.mkdir, lambda: os.mkfifo(place)):
        make()
        with open_prompts(trace) as found:
            assert found.messages_of_turn(1) is None
            assert found.trouble
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


def bomb_of_zeros() -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(bytes(600 << 20))


def bomb_of_lines() -> bytes:
    row = b'{"message":"' + digest(7).encode() + b'","role":"user","content":""}\n'
    return zstandard.compress(row * 4_000_000)


def bomb_of_turns() -> bytes:
    return zstandard.compress(
        b"".join(b'{"turn":%d,"keep":9,"messages":[%s"a"]}\n' % (n, b'"a",' * 5_000) for n in range(1_000))
    )


@pytest.mark.parametrize("bomb", [bomb_of_zeros, bomb_of_lines, bomb_of_turns])
def test_a_file_that_unpacks_without_end_is_bounded(
    tmp_path: Path, bomb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_LINES", 50_000)
    trace = trace_with(tmp_path / "run.ipynb", "run.prompts.zst")
    (tmp_path / "run.prompts.zst").write_bytes(bomb())
    with open_prompts(trace) as found:
        assert found.messages_of_turn(3) is None
        assert re.search("more than|damaged", found.trouble)


@pytest.mark.parametrize(
    "text",
    [b"", b"no json\n", b"[]\n", b'{"turn":1,"keep":"x","messages":[]}\n', b'{"turn":1,"keep":0,"messages":["nope"]}\n',
     b'{"turn":1,"keep":99999999999999999999,"messages":[]}\n', b'{"turn":true,"keep":0,"messages":[]}\n',
     b'{"message":"' + b"0" * 64 + b'","role":1,"content":[]}\n{"turn":1,"keep":0,"messages":["' + b"0" * 64 + b'"]}\n',
     b'{"call":"' + b"0" * 64 + b'","prompt":7}\n', b'{"call":"' + b"0" * 64 + b'","prompt":' + b"[" * 100_000 + b"\n", b"\xff\xfe\n"],
)  # fmt: skip
def test_lines_of_odd_form_are_passed_over(tmp_path: Path, text: bytes) -> None:
    trace = trace_with(tmp_path / "run.ipynb", "run.prompts.zst")
    good = b'{"call":"' + digest(5).encode() + b'","kind":"llm_query","prompt":"good"}\n'
    (tmp_path / "run.prompts.zst").write_bytes(zstandard.compress(text + good))
    with open_prompts(trace) as found:
        assert not found.messages_of_turn(1)
        assert found.messages_of_call("0" * 64) is None
        assert found.messages_of_call(digest(5)) == [{"role": "user", "content": "good"}]


@pytest.mark.parametrize("part", [b"\0\0\0", b"\x50\x2a\x4d\x18\0\0\0\0", zstandard.compress(b"")])
def test_a_file_of_nothing_but_empty_blocks_or_frames_is_given_up_soon(
    tmp_path: Path, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zstd_log, "MAX_BLOCKS", 1_000)
    head = b"\x28\xb5\x2f\xfd\x00\x58" if part == b"\0\0\0" else b""
    path = tmp_path / "x.prompts.zst"
    path.write_bytes(head + part * 50_000)
    file = os.open(path, os.O_RDWR)
    with pytest.raises(ValueError, match="not a zstd file from rlm"):
        zstd_log.mended(file)
    os.close(file)
    assert path.stat().st_size == len(head + part * 50_000)


def test_a_file_that_is_no_zstd_is_not_written_to(notebook: Path) -> None:
    trace = trace_with(notebook, "run.prompts.zst")
    sidecar(notebook).write_text("a stranger's words, and many of them")
    said: Say = []
    write = writer(notebook, said, meta=trace.meta, cells=trace.node.cells)
    tell(write, [replied(1, "s", "q")])
    write.close()
    assert sidecar(notebook).read_text() == "a stranger's words, and many of them"
    assert len(said) == 1
