"""Names of traces that are made up are of one run each."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.places import give_back, take_path


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
