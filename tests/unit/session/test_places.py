"""Names of traces that are made up are of one run each."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.errors import RLMError
from rlm_kernel.report.listing import listing
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.manager import open_session
from rlm_kernel.session.places import give_back, left_empty, take_path
from rlm_kernel.trace.heads import notebooks_in


def test_nobody_gets_a_name_twice(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take_path(tmp_path / "new" / "a.ipynb"), range(40)))
    assert len(set(taken)) == 40
    assert {one.name for one in taken} >= {"a.ipynb", "a-2.ipynb", "a-40.ipynb"}


def test_two_runs_of_one_question_in_one_second_have_a_trace_each(tmp_path: Path) -> None:
    settings = load_settings(None, {"trace.dir": str(tmp_path)})
    assert len({trace_path(settings, "Why?", None) for _ in range(20)}) == 20


def test_processes_share_no_name_and_leave_nothing_empty(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from rlm_kernel.session.places import take_path\n"
        "path = take_path(pathlib.Path('a.ipynb')); print(path.name, flush=True); sys.stdin.read()"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    names = [run.stdout.readline().strip() for run in runs if run.stdout]
    assert sorted(names) == ["a-2.ipynb", "a-3.ipynb", "a.ipynb"]
    (tmp_path / "a.ipynb").write_text("written")
    for run in runs:
        run.communicate()
    assert [one.name for one in tmp_path.iterdir()] == ["a.ipynb"]


def test_what_was_written_stays_and_what_was_there_is_nobodys_to_take(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").touch()
    (tmp_path / "a-2.ipynb").symlink_to(tmp_path / "elsewhere")
    taken = take_path(tmp_path / "a.ipynb")
    assert taken == tmp_path / "a-3.ipynb"
    taken.write_text("written")
    give_back(taken)
    give_back(tmp_path / "a.ipynb")
    assert taken.exists()
    assert (tmp_path / "a.ipynb").exists()
    give_back(empty := take_path(tmp_path / "a.ipynb"))
    assert not empty.exists()


def test_a_folder_that_cannot_be_made_is_told_later(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert take_path(tmp_path / "file" / "a.ipynb") == tmp_path / "file" / "a.ipynb"
    assert take_path(tmp_path / "file" / "b" / "a.ipynb") == tmp_path / "file" / "b" / "a.ipynb"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told_later(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert take_path(tmp_path / "a.ipynb") == tmp_path / "a.ipynb"


def test_a_process_that_asks_for_ever_has_one_thing_to_do_at_its_end(tmp_path: Path) -> None:
    code = (
        "import atexit, pathlib; from rlm_kernel.session import places\n"
        "before = atexit._ncallbacks()\n"
        "for _ in range(50): places.give_back(places.take_path(pathlib.Path('a.ipynb')))\n"
        "print(atexit._ncallbacks() - before, len(places._taken))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True, text=True).stdout.split() == ["0", "0"]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no forks")
def test_a_fork_leaves_what_its_parent_took_and_takes_back_its_own(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from rlm_kernel.session.places import take_path\n"
        "take_path(pathlib.Path('parent.ipynb')); child = os.fork()\n"
        "if not child: take_path(pathlib.Path('child.ipynb')); sys.exit()\n"
        "os.waitpid(child, 0); print(*os.listdir())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.split() == ["parent.ipynb"]
    assert not list(tmp_path.iterdir())


async def test_a_session_that_cannot_begin_leaves_no_empty_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RLMError):
        async with open_session(paths=[tmp_path / "missing.txt"], changes={"root_llm.model": "local"}):
            pass
    assert not list((tmp_path / "rlm-traces").glob("*.ipynb"))


def test_the_name_of_a_run_that_is_being_set_up_is_no_damaged_trace_and_no_failing_test(
    tmp_path: Path,
) -> None:
    take_path(tmp_path / "a.ipynb")
    assert listing(tmp_path).damaged == 0
    assert notebooks_in(tmp_path) == []
    (tmp_path / "b.ipynb").write_text("{")
    assert listing(tmp_path).damaged == 1
    os.utime(tmp_path / "a.ipynb", (0, 0))
    assert listing(tmp_path).damaged == 2, "nobody writes to it any more"


def test_a_folder_that_was_made_for_a_trace_goes_with_it_and_no_other(tmp_path: Path) -> None:
    give_back(take_path(tmp_path / "new" / "deep" / "a.ipynb"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    give_back(take_path(tmp_path / "there" / "a.ipynb"))
    one, other = take_path(tmp_path / "new" / "a.ipynb"), take_path(tmp_path / "new" / "a.ipynb")
    give_back(one)
    assert other.exists()
    assert (tmp_path / "there").is_dir()


def test_what_runs_that_were_killed_left_empty_is_known_by_name_size_and_age(tmp_path: Path) -> None:
    left = tmp_path / "20261129-100000-why.ipynb"
    for name in (left.name, "20261129-100000-written.ipynb", "mine.ipynb", "20261129-100000-why.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "20261129-100000-written.ipynb").write_text("{}")
    (tmp_path / "20261129-100000-link.ipynb").symlink_to(left)
    take_path(tmp_path / "20261129-110000-now.ipynb")
    assert list(left_empty(tmp_path)) == [left]
    assert list(left_empty(tmp_path / "none")) == []
