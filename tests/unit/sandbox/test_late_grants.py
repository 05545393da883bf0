"""Files that are asked for while the container runs: named later, or asked about, or refused."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.grants import MAX_QUESTIONS, MAX_RULES, FileGrants, rules_above
from rlm_kernel.sandbox.late_mounts import LateMounts
from rlm_kernel.sandbox.rundir import RunDir


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """a.txt, b.txt, folder/{c.txt, d.txt}; all may be read by anybody."""
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "folder/c.txt", "folder/d.txt"):
        (root / name).write_text(name)
    for parent, _, names in os.walk(root):
        Path(parent).chmod(0o755)
        for name in names:
            Path(parent, name).chmod(0o644)
    return root


Make = Callable[..., FileGrants]


@pytest.fixture
def make(run: RunDir, tmp_path: Path) -> Make:
    return lambda *paths, **options: FileGrants(paths, run, **{"depot": tmp_path / "depot", **options})


class User:
    """Answers questions; `asked` are the paths."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked: list[Path] = []
        self.at_once = 0

    async def __call__(self, path: Path) -> bool:
        self.asked.append(path)
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.answer


async def test_what_a_question_names_is_there_when_it_is_asked_for_and_not_before(
    make: Make, tree: Path
) -> None:
    grants = make(tree / "a.txt", named=[tree / "b.txt", tree / "folder", tree / "missing.txt"])
    assert grants.paths == [tree / "a.txt"]
    assert [host for host, _ in grants.shares.binds()][:3] == [
        str(tree / "a.txt"),
        str(tree / "b.txt"),
        str(tree / "folder"),
    ]
    assert str((await grants.obtain(str(tree / "b.txt"))).inside) == "/rlm/files/1"
    assert str((await grants.obtain(str(tree / "folder" / "c.txt"))).inside) == "/rlm/files/2/c.txt"
    assert grants.paths == [tree / "a.txt", tree / "b.txt", tree / "folder"]
    assert grants.places() == {path: path for path in grants.paths}


async def test_what_is_named_later_goes_into_the_depot_once(make: Make, tree: Path, tmp_path: Path) -> None:
    grants = make(tree / "a.txt")
    assert grants.shares.binds()[-1] == (str(tmp_path / "depot"), "/rlm/depot")
    with pytest.raises(FileRefused, match="was not named by the user"):
        await grants.obtain(str(tree / "b.txt"))
    (tree / "link").symlink_to("b.txt")
    assert grants.allow([tree / "link", tree / "b.txt", tree / "none"]) == [tree / "b.txt"]
    found = await grants.obtain(str(tree / "link"))
    assert (found.path, str(found.inside)) == (tree / "b.txt", "/rlm/depot/1")
    assert found.source.samefile(tree / "b.txt")
    assert await grants.obtain(str(tree / "b.txt")) == found
    assert await grants.add(tree / "b.txt") == found
    assert grants.paths == [tree / "a.txt", tree / "b.txt"]


async def test_what_lies_in_a_folder_that_is_named_later_can_be_had_and_links_out_of_it_cannot(
    make: Make, tree: Path
) -> None:
    grants = make()
    grants.allow([tree / "folder"])
    (tree / "folder" / "out").symlink_to("../a.txt")
    assert (await grants.obtain(str(tree / "folder" / "c.txt"))).source.read_text() == "folder/c.txt"
    for asked in (tree / "folder" / "out", tree / "folder" / ".." / "a.txt", tree):
        with pytest.raises(FileRefused, match="was not named by the user"):
            await grants.obtain(str(asked))


async def test_a_folder_in_the_depot_gives_what_is_in_it(make: Make, tree: Path) -> None:
    grants = make()
    folder = await grants.add(tree / "folder")
    assert (str(folder.inside), folder.directory) == ("/rlm/depot/1", True)
    assert str((await grants.obtain(str(tree / "folder" / "c.txt"))).inside) == "/rlm/depot/1/c.txt"


async def test_without_a_depot_what_is_named_later_is_refused(make: Make, tree: Path) -> None:
    grants = make(depot=None)
    with pytest.raises(FileRefused, match="already running") as caught:
        await grants.add(tree / "a.txt")
    assert "-f" in caught.value.hint


async def test_the_next_command_has_the_same_grants(
    make: Make, tree: Path, run: RunDir, tmp_path: Path
) -> None:
    grants = make(tree / "a.txt", known_as=[Path("/then/a.txt")], named=[tree / "b.txt"])
    await grants.add(tree / "folder")
    dump = grants.dump()
    restored = FileGrants.restored(json.loads(json.dumps(dump)), run, tmp_path / "depot")
    assert restored.dump() == dump
    assert restored.paths == grants.paths == [Path("/then/a.txt"), tree / "folder"]
    assert restored.locate("/then/a.txt") == grants.locate("/then/a.txt")
    with pytest.raises(FileRefused):
        restored.locate(str(tree / "a.txt"))


async def test_a_yes_gives_the_file_and_a_no_is_remembered(make: Make, tree: Path) -> None:
    grants, yes, no = make(), User(True), User(False)
    assert (await grants.obtain(str(tree / "a.txt"), yes)).source.read_text() == "a.txt"
    await grants.obtain(str(tree / "a.txt"), no)
    for _ in range(3):
        with pytest.raises(FileRefused, match="was not named by the user"):
            await grants.obtain(str(tree / "b.txt"), no)
    assert (yes.asked, no.asked) == ([tree / "a.txt"], [tree / "b.txt"])


async def test_one_question_at_a_time_and_one_for_a_path(make: Make, tree: Path) -> None:
    user = User(True)
    asked = [str(tree / name) for name in ("a.txt", "b.txt", "a.txt", "b.txt")]
    grants = make()
    found = await asyncio.gather(*(grants.obtain(path, user) for path in asked))
    assert sorted(user.asked) == [tree / "a.txt", tree / "b.txt"]
    assert [grant.path for grant in found] == [Path(path) for path in asked]
    assert len(grants.paths) == 2


async def test_a_link_is_asked_about_by_what_it_leads_to(make: Make, tree: Path) -> None:
    user = User(False)
    (tree / "innocent.txt").symlink_to("b.txt")
    with pytest.raises(FileRefused):
        await make().obtain(str(tree / "innocent.txt"), user)
    assert user.asked == [tree / "b.txt"]


async def test_a_flood_of_paths_ends_the_questions(make: Make, tree: Path) -> None:
    grants, user = make(), User(False)
    for number in range(MAX_QUESTIONS + 5):
        (tree / f"{number}.txt").write_text("")
        with pytest.raises(FileRefused):
            await grants.obtain(str(tree / f"{number}.txt"), user)
    assert len(user.asked) == MAX_QUESTIONS


async def test_nobody_is_asked_for_what_cannot_be_given(make: Make, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    user = User(True)
    for asked in (
        str(tree / "missing"),
        str(tree / "pipe"),
        "/dev/zero",
        "root/a.txt",
        "",
        "a\0b",
        "/" + "x" * 5000,
        "/\ud800",
    ):
        with pytest.raises(FileRefused):
            await make().obtain(asked, user)
    assert user.asked == []


async def test_a_copy_that_is_called_off_leaves_nothing_and_holds_nobody_up(
    make: Make, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    copy = LateMounts._file

    def endless(self: LateMounts, source: Path, target: Path, stop: Callable[[], bool]) -> None:
        target.write_text("half")
        begun.set()
        while not stop():
            threading.Event().wait(0.001)
        raise FileRefused("stopped")

    monkeypatch.setattr(LateMounts, "_file", endless)
    grants = make()
    giving = asyncio.create_task(grants.add(tree / "a.txt"))
    await asyncio.to_thread(begun.wait)
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving
    assert list((tmp_path / "depot").iterdir()) == []
    monkeypatch.setattr(LateMounts, "_file", copy)
    assert (await grants.add(tree / "a.txt")).source.read_text() == "a.txt"


class TestRulesAbove:
    """.gitignore files that hold for a folder in a repository."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        deep = tmp_path / "repository" / "a" / "b"
        deep.mkdir(parents=True)
        (tmp_path / "repository" / ".git").mkdir()
        for place in (tmp_path, tmp_path / "repository", deep.parent, deep):
            (place / ".gitignore").write_text(f"{place.name}.log\n")
        return deep

    def test_from_the_repositorys_root_inwards_and_no_further(self, folder: Path) -> None:
        assert rules_above(folder) == [("a/b", "repository.log\n"), ("b", "a.log\n")]

    def test_none_outside_a_repository_and_at_its_root(self, folder: Path) -> None:
        assert rules_above(folder.parent.parent) == []
        (folder.parent.parent / ".git").rmdir()
        assert rules_above(folder) == []

    def test_links_pipes_and_what_cannot_be_read_are_passed_over(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("a key")
        for place, make in (
            (folder.parent, lambda path: path.symlink_to(tmp_path / "secret")),
            (folder.parent.parent, os.mkfifo),
        ):
            (place / ".gitignore").unlink()
            make(place / ".gitignore")
        assert rules_above(folder) == []

    def test_they_are_bounded_and_any_bytes_are_read(self, folder: Path) -> None:
        (folder.parent / ".gitignore").write_bytes(b"\xff" * (MAX_RULES + 100))
        assert len(rules_above(folder)[1][1]) == MAX_RULES
