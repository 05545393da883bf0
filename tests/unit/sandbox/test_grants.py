from __future__ import annotations

import json
import os
import socket
from pathlib import Path, PurePosixPath

import pytest

from rlm_kernel.errors import FileRefused, SetupError
from rlm_kernel.sandbox import grants as grants_module
from rlm_kernel.sandbox import late_mounts
from rlm_kernel.sandbox.grants import FileGrants, resolve
from rlm_kernel.sandbox.late_mounts import LateMounts
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.trace.schema import FileMeta


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """named.txt, other.txt, folder/{a.txt, sub/b.txt}; all may be read by anybody."""
    root = tmp_path / "root"
    (root / "folder" / "sub").mkdir(parents=True)
    for name in ("named.txt", "other.txt", "folder/a.txt", "folder/sub/b.txt"):
        (root / name).write_text(name)
    for parent, _, names in os.walk(root):
        Path(parent).chmod(0o755)
        for name in names:
            Path(parent, name).chmod(0o644)
    return root


def test_a_named_file_is_found(run: RunDir, tree: Path) -> None:
    grants = FileGrants([tree / "other.txt", tree / "named.txt"], run)
    found = grants.locate(str(tree / "named.txt"))
    assert (found.path, found.inside, found.directory) == (
        tree / "named.txt",
        PurePosixPath("/rlm/files/1"),
        False,
    )
    assert grants.paths == [tree / "other.txt", tree / "named.txt"]
    assert grants.shares.binds() == [
        (str(tree / "other.txt"), "/rlm/files/0"),
        (str(tree / "named.txt"), "/rlm/files/1"),
    ]


@pytest.mark.parametrize(
    ("name", "inside", "directory"),
    [
        ("folder", "/rlm/files/0", True),
        ("folder/a.txt", "/rlm/files/0/a.txt", False),
        ("folder/sub", "/rlm/files/0/sub", True),
        ("folder/sub/b.txt", "/rlm/files/0/sub/b.txt", False),
        ("folder/sub/../a.txt", "/rlm/files/0/a.txt", False),
        ("folder//sub/./b.txt", "/rlm/files/0/sub/b.txt", False),
    ],
)
def test_what_lies_in_a_named_folder_is_found(
    run: RunDir, tree: Path, name: str, inside: str, directory: bool
) -> None:
    found = FileGrants([tree / "folder"], run).locate(f"{tree}/{name}")
    assert (str(found.inside), found.directory) == (inside, directory)
    assert found.source == found.path


def test_a_file_is_found_by_a_link_to_it_and_by_a_relative_path(
    run: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "link").symlink_to("named.txt")
    by_link = FileGrants([tree / "link"], run)
    assert by_link.paths == [tree / "named.txt"]
    monkeypatch.chdir(tree)
    for name in ("named.txt", "link", "./folder/../named.txt", str(tree / "link")):
        assert by_link.locate(name).inside == PurePosixPath("/rlm/files/0")


@pytest.mark.parametrize(
    "asked",
    [
        "{tree}/other.txt",
        "{tree}",
        "/etc/passwd",
        "/",
        "",
        "{tree}/folder/../other.txt",
        "{tree}/folder/../../../../etc/passwd",
        "{tree}/folder2",
        "{tree}/named.txt/../other.txt",
        "{tree}/named.txt.bak",
        "~/named.txt",
        "{tree}/folder/" + "n" * 300 + "/../../other.txt",
    ],
)
def test_other_paths_are_refused_by_the_rule(run: RunDir, tree: Path, asked: str) -> None:
    grants = FileGrants([tree / "named.txt", tree / "folder"], run)
    with pytest.raises(FileRefused, match="was not named by the user") as caught:
        grants.locate(asked.format(tree=tree))
    assert str(tree / "named.txt") in caught.value.message


def test_links_in_a_folder_are_followed_before_they_are_judged(run: RunDir, tree: Path) -> None:
    (tree / "folder" / "out").symlink_to("/etc/passwd")
    (tree / "folder" / "up").symlink_to("..")
    (tree / "folder" / "in").symlink_to("sub/b.txt")
    (tree / "folder" / "loop").symlink_to("loop")
    grants = FileGrants([tree / "folder"], run)
    assert grants.locate(f"{tree}/folder/in").inside == PurePosixPath("/rlm/files/0/sub/b.txt")
    for asked in ("out", "up/other.txt", "up"):
        with pytest.raises(FileRefused, match="was not named by the user"):
            grants.locate(f"{tree}/folder/{asked}")
    assert grants.locate(f"{tree}/folder/loop").directory is False


@pytest.mark.parametrize("asked", ["a\0b", "/x\0", "x" * 5000, "\ud800", "/tmp/\ud800/x"])
def test_what_is_no_path_is_refused(run: RunDir, tree: Path, asked: str) -> None:
    with pytest.raises(FileRefused, match="not a path"):
        FileGrants([tree / "folder"], run).locate(asked)


def test_without_grants_nothing_is_found(run: RunDir, tree: Path) -> None:
    with pytest.raises(FileRefused, match="Files that can: none"):
        FileGrants([], run).locate(str(tree / "named.txt"))


def test_a_refusal_names_no_more_than_some_of_the_files(run: RunDir, tree: Path) -> None:
    with pytest.raises(FileRefused) as caught:
        FileGrants([tree / "named.txt"] * 100, run).locate("/etc/passwd")
    assert caught.value.message.count("named.txt") == 20


def test_what_the_user_names_must_be_a_file_or_folder_that_can_be_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "loop").symlink_to("loop")
    with pytest.raises(FileRefused, match=r"missing\.txt cannot be read: No such file") as caught:
        resolve(tree / "missing.txt")
    assert caught.value.hint
    for path in (tree / "pipe", Path("/dev/zero")):
        with pytest.raises(FileRefused, match="neither a file nor a folder"):
            resolve(path)
    with pytest.raises(FileRefused, match="cannot be read"):
        resolve(tree / "loop")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileRefused, match="permission denied"):
        resolve(tree / "named.txt")


def test_a_home_path_is_the_users_own(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    assert resolve(Path("~/named.txt")) == tree / "named.txt"


class TestCopies:
    """Files that the container's user could not read are copied for it, into the session's own folder."""

    @pytest.fixture(autouse=True)
    def unreadable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (grants_module, late_mounts):
            monkeypatch.setattr(module, "readable_inside", lambda _status: False)

    def test_a_file(self, run: RunDir, tree: Path) -> None:
        found = FileGrants([tree / "named.txt"], run).locate(str(tree / "named.txt"))
        assert found.path == tree / "named.txt"
        assert found.source == run.path / "copies" / "1"
        assert found.source.read_text() == "named.txt"
        assert found.source.stat().st_mode & 0o777 == 0o400

    def test_a_folder_without_what_may_never_end_and_with_links_as_links(
        self, run: RunDir, tree: Path
    ) -> None:
        os.mkfifo(tree / "folder" / "pipe")
        (tree / "folder" / "out").symlink_to("/etc/passwd")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(tree / "folder" / "socket"))
            grants = FileGrants([tree / "folder"], run)
        copy = run.path / "copies" / "1"
        assert sorted(path.name for path in copy.rglob("*")) == [
            "a.txt",
            "b.txt",
            "out",
            "pipe",
            "socket",
            "sub",
        ]
        assert all(
            (copy / name).is_file() and not (copy / name).stat().st_mode & 0o777
            for name in ("pipe", "socket")
        )
        assert (copy / "out").is_symlink()
        assert grants.locate(f"{tree}/folder/sub/b.txt").source == copy / "sub" / "b.txt"

    def test_a_copy_that_fails_is_a_clear_error(
        self, run: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(LateMounts, "_file", full)
        for path in (tree / "named.txt", tree / "folder"):
            with pytest.raises(FileRefused, match="No space left on device") as caught:
                FileGrants([path], run)
            assert caught.value.hint


def test_what_the_user_may_read_and_the_container_may_not_is_copied_over_its_place(
    run: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "folder" / "private").mkdir(mode=0o700)
    (tree / "folder" / "private" / "c.txt").write_text("c")
    (tree / "folder" / "auth.log").write_text("secret")
    (tree / "folder" / "auth.log").chmod(0o600)
    (tree / "folder" / "gone").symlink_to("nowhere")
    monkeypatch.setattr(grants_module, "container_ids", lambda: (61234, 61234))
    monkeypatch.setattr("rlm_kernel.sandbox.late_mounts.container_ids", lambda: (61234, 61234))
    grants = FileGrants([tree / "folder"], run)
    mounts = {inside: Path(source) for source, inside in grants.shares.binds()}
    assert set(mounts) == {"/rlm/files/0", "/rlm/files/0/auth.log", "/rlm/files/0/private"}
    assert mounts["/rlm/files/0/auth.log"].read_text() == "secret"
    assert [path.name for path in mounts["/rlm/files/0/private"].iterdir()] == ["c.txt"]
    assert grants.paths == [tree / "folder"]
    assert (tree / "folder" / "auth.log").stat().st_mode & 0o777 == 0o600
    again = FileGrants.restored(grants.dump(), run, run.path / "depot")
    assert set(again.shares.binds()) > set(grants.shares.binds())


def test_what_is_made_when_it_is_read_is_read_on_the_host(run: RunDir, tree: Path) -> None:
    (tree / "empty.txt").touch(mode=0o644)
    grants = FileGrants([Path("/proc/cpuinfo"), Path("/proc/version"), tree / "empty.txt"], run)
    assert "processor" in Path(grants.shares.binds()[0][0]).read_text()
    assert Path(grants.shares.binds()[1][0]).read_bytes() == Path("/proc/version").read_bytes()
    assert grants.shares.binds()[2][0] == str(tree / "empty.txt")


def test_a_name_that_is_not_utf_8_is_mounted_under_another(run: RunDir, tree: Path) -> None:
    path = tree / os.fsdecode(b"caf\xe9.txt")
    path.write_text("coffee")
    path.chmod(0o644)
    grants = FileGrants([path], run)
    source, inside = grants.shares.binds()[0]
    assert Path(source.encode().decode()).read_text() == "coffee"
    assert inside == "/rlm/files/0"
    assert grants.locate(str(path)).path == path
    kept = json.loads(json.dumps(grants.dump(), ensure_ascii=False).encode())
    assert FileGrants.restored(kept, run, run.path / "depot").locate(str(path)).path == path
    meta = FileMeta(path=str(path), size=6)
    assert FileMeta.model_validate_json(meta.model_dump_json()) == meta


def test_a_path_that_is_not_there_offers_the_nearest_one(tree: Path) -> None:
    for wrong in ("namde.txt", "NAMED.txt", "named.tx"):
        with pytest.raises(FileRefused) as caught:
            resolve(tree / wrong)
        assert caught.value.hint == f"Did you mean {tree / 'named.txt'}?"


class TestRunDir:
    def test_its_folder_is_the_owners_alone_and_goes_with_it(self) -> None:
        run = RunDir.create(max_request=1000, window=4)
        assert run.path.stat().st_mode & 0o777 == 0o700
        assert len(f"{run.address}-5") < 104
        assert run.token not in repr(run)
        run.remove()
        run.remove()
        assert not run.path.exists()

    def test_each_launch_has_a_name_of_its_own_and_who_takes_up_knows_the_last(self, run: RunDir) -> None:
        run.new_launch()
        first = run.container_name
        run.new_launch()
        run.leave()
        adopted = RunDir.adopt(run.path)
        assert adopted is not None
        assert first != run.container_name == adopted.container_name
        assert (adopted.token, adopted.idle) == (run.token, run.idle)
        adopted.leave()

    def test_no_place_for_the_folder_is_a_clear_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rlm_kernel.sandbox.rundir._bases", lambda: iter([Path("/proc/none")]))
        with pytest.raises(SetupError, match="cannot be created") as caught:
            RunDir.create(max_request=1, window=1)
        assert "XDG_RUNTIME_DIR" in caught.value.hint
