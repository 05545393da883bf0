"""What is mounted where it lies, what is sent, and where code finds each."""

from __future__ import annotations

import threading
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.sandbox import shares as shares_module
from rlm_kernel.sandbox.shares import LATE, SMALL, Share, Shares
from rlm_kernel.sandbox.volumes import Parcel, Sender
from rlm_kernel.session.digests import sha256_of

FILES = PurePosixPath("/rlm/files")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Parcel]:
    """What is sent; the volume of each has its number."""
    parcels: list[Parcel] = []
    monkeypatch.setattr(shares_module, "_unseen", set())
    monkeypatch.setattr(shares_module, "connect", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(
        shares_module.volumes,
        "volume_of",
        lambda _client, _image, parcel, *_: parcels.append(parcel) or f"volume-{len(parcels)}",
    )
    return parcels


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name in ("a.txt", "b.txt", "folder/closed.txt"):
        (tmp_path / name).write_text(name)
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(SMALL + 1)
    return tmp_path


@pytest.fixture
def shares(tree: Path) -> Shares:
    named = [tree / "a.txt", tree / "b.txt", tree / "large.txt", tree / "folder"]
    listed = [Share(path, FILES / str(number), path.is_dir()) for number, path in enumerate(named)]
    cover = Share(tree / "a.txt", FILES / "3" / "closed.txt", False)
    return Shares([*listed, cover, Share(tree / "depot", LATE, True)])


def prepared(shares: Shares) -> dict[str, str]:
    shares.prepare("image", Sender(sha256_of), threading.Event())
    return {
        mount["Target"]: f"{mount['Type']} {Path(mount['Source']).name}"
        for mount in shares.mounts("rlm-1", {})
        if mount["ReadOnly"]
    }


def test_where_the_engine_sees_them_all_are_mounted_where_they_lie(
    shares: Shares, sent: list[Parcel], tree: Path
) -> None:
    assert prepared(shares) == {
        "/rlm/files/0": "bind a.txt",
        "/rlm/files/1": "bind b.txt",
        "/rlm/files/2": "bind large.txt",
        "/rlm/files/3": "bind folder",
        "/rlm/depot": "bind depot",
        "/rlm/files/3/closed.txt": "bind a.txt",
    }
    assert sent == []
    assert shares.inside(FILES / "2") == FILES / "2"


def test_an_engine_that_refuses_a_path_is_sent_all_below_the_same_top(
    shares: Shares, sent: list[Parcel], tree: Path
) -> None:
    said = (
        'The Docker engine refused: invalid mount config for type "bind": bind source path does not '
        f"exist: {tree}/b.txt"
    )
    assert shares.refused(said)
    assert prepared(shares) == {
        "/rlm/files/2": "volume volume-1",
        "/rlm/files/3": "volume volume-2",
        "/rlm/files/sent": "volume volume-3",
        "/rlm/depot": "volume rlm-1-late",
    }
    assert [parcel.what for parcel in sent] == ["large.txt", "folder", "2 files"]
    assert shares.inside(FILES / "0") == FILES / "sent" / (sha256_of(tree / "a.txt", threading.Event()) or "")
    assert shares.inside(FILES / "2") == FILES / "2" / "content"
    assert shares.inside(FILES / "3" / "closed.txt") == FILES / "3" / "closed.txt"
    assert not shares.refused(said)


def test_what_one_session_found_the_next_one_knows(shares: Shares, sent: list[Parcel], tree: Path) -> None:
    other = Shares(
        [Share(tree / "a.txt", FILES / "0", False), Share(Path("/etc/hostname"), FILES / "1", False)]
    )
    assert shares.refused(
        f"Mounts denied: The path {tree}/folder is not shared from the host and is not known to Docker."
    )
    assert prepared(other) == {"/rlm/files/1": "bind hostname", "/rlm/files/sent": "volume volume-1"}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("No such image: {tree}/a.txt", False),
        ("Unknown runtime specified other", False),
        ("statfs {tree}/a.txt: no such file or directory", True),
        ('error while creating mount source path "/host_mnt{tree}/a.txt": operation not permitted', True),
        ("Mounts denied: approving the shared folder failed", True),
    ],
)
def test_no_other_refusal_has_files_sent(
    shares: Shares, sent: list[Parcel], tree: Path, said: str, found: bool
) -> None:
    assert shares.refused(said.format(tree=tree)) is found


def test_what_the_container_sees_is_compared(shares: Shares, sent: list[Parcel], tree: Path) -> None:
    (tree / "depot").mkdir()
    expected = shares.expected()
    seen: dict[str, Any] = {place: [changed, None] for place, changed in expected["files"].items()}
    assert set(seen) == {"/rlm/files/0", "/rlm/files/1", "/rlm/files/2", "/rlm/files/3", "/rlm/depot"}
    assert shares.agrees(expected, {"seen": seen})
    assert shares.agrees(expected, {})  # an image of another version does not say
    assert not shares.agrees(expected, {"seen": {**seen, "/rlm/files/0": [1, [2, 3, 1]]}})
    assert prepared(shares)["/rlm/depot"] == "volume rlm-1-late"


def test_what_is_being_changed_is_sent_for_this_session_alone(
    shares: Shares, sent: list[Parcel], tree: Path
) -> None:
    shares.refused(f"statfs {tree}: no such file")
    shares.prepare(
        "image",
        Sender(lambda path, stop: None if path.name == "b.txt" else sha256_of(path, stop)),
        threading.Event(),
    )
    assert [parcel.digest is None for parcel in sent] == [False, False, True]
    assert shares.inside(FILES / "1") == FILES / "sent" / "1"


def test_many_files_are_compared_by_folders(
    tree: Path, sent: list[Parcel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares_module, "MOST_COMPARED", 2)
    listed = [
        Share(tree / name, FILES / str(number), False)
        for number, name in enumerate(["a.txt", "b.txt", "folder/closed.txt"])
    ]
    assert list(Shares(listed).expected()["files"]) == ["/rlm/files/2", "/rlm/files/0"]
