"""What is sent to an engine: once, whole or not at all, and no more of it than may be kept."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from requests import Response

from rlm_kernel.errors import DockerError, FileRefused
from rlm_kernel.sandbox import containers, volumes
from rlm_kernel.sandbox.volumes import Kept, Parcel, Sender, kept, make_room, volume_of
from rlm_kernel.session.digests import sha256_of

GONE = str(2**22 + 1)
"""The number of no process."""


def refusal(status: int, said: str) -> docker.errors.APIError:
    response = Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind(said, response, said)


class Engine:
    """As much of docker-py's client, with its engine, as sending needs.

    `given` are the archives by volume; `broken` is raised half-way.
    """

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}
        self.given: dict[str, dict[str, bytes]] = {}
        self.mounted: set[str] = set()
        self.helpers: list[Any] = []
        self.broken: Exception | None = None
        self.meanwhile: Any = lambda: None
        self.api = self
        self.timeout = 60

    def __getattr__(self, name: str) -> Any:
        assert name == "containers"
        engine = self

        class Containers:
            def __call__(self, **_: Any) -> list[dict[str, Any]]:
                return [{"Mounts": [{"Name": name} for name in engine.mounted]}]

            def create(self, *, name: str, mounts: Any, labels: dict[str, str], **_: Any) -> Any:
                volume = mounts[0]["Source"]
                engine.known.setdefault(volume, {})
                helper = SimpleNamespace(name=name, labels=labels, volume=volume)
                helper.put_archive = lambda _path, pieces: engine.unpack(volume, pieces)
                helper.remove = lambda force: engine.helpers.remove(helper)
                helper.wait = lambda **_: None
                engine.helpers.append(helper)
                return helper

            def get(self, name: str) -> Any:
                for helper in engine.helpers:
                    if helper.name == name:
                        return helper
                raise refusal(404, "No such container")

        return Containers()

    def unpack(self, volume: str, pieces: Iterator[bytes]) -> None:
        arrived = b""
        for piece in pieces:
            arrived += piece
            if self.broken:
                raise self.broken
        with tarfile.open(fileobj=io.BytesIO(arrived)) as tar:
            self.given[volume] = {one.name: file.read() for one in tar if (file := tar.extractfile(one))}
        self.meanwhile()

    def create_volume(self, name: str, labels: dict[str, str]) -> dict[str, Any]:
        return {"Name": name, "Labels": self.known.setdefault(name, labels)}

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.known:
            raise refusal(404, "no such volume")
        return {"Name": name, "Labels": self.known[name] or None}

    def remove_volume(self, name: str) -> None:
        if name in self.mounted:
            raise refusal(409, "volume is in use")
        if self.known.pop(name, None) is None:
            raise refusal(404, "no such volume")

    def volumes(self, filters: dict[str, list[str]]) -> dict[str, Any]:
        def fits(labels: dict[str, str]) -> bool:
            return all(
                labels.get(name, "") == (value or labels.get(name))
                for name, _, value in (one.partition("=") for one in filters["label"])
            )

        found = [{"Name": name, "Labels": labels} for name, labels in self.known.items() if fits(labels)]
        return {"Volumes": [{**one, "CreatedAt": "2020-01-01T00:00:00Z"} for one in found] or None}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(volumes, "_uses", lambda: tmp_path / "uses")
    return Engine()


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    (tmp_path / "a.txt").write_text("some text")
    sources = (("content", tmp_path / "a.txt"),)
    return Parcel(sources, volumes.digest_of(sources, Sender(sha256_of), threading.Event()))


def send(engine: Any, parcel: Parcel, *, stop: bool = False, **options: Any) -> str:
    stopped = threading.Event()
    if stop:
        stopped.set()
    return volume_of(engine, "image", parcel, Sender(sha256_of, **options), stopped)


def test_what_was_sent_once_is_found_again(engine: Engine, parcel: Parcel) -> None:
    first = send(engine, parcel)
    assert engine.given == {first: {"content": b"some text"}}
    assert send(engine, parcel) == first
    assert len(engine.given) == 1
    assert engine.helpers == []
    assert [one.size for one in kept(engine)] == [9]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken", [ConnectionResetError(), docker.errors.DockerException("?"), KeyboardInterrupt()]
)
def test_what_was_sent_in_part_is_gone_and_passes_for_nothing(
    engine: Engine, parcel: Parcel, broken: Any
) -> None:
    engine.broken = broken
    with pytest.raises((DockerError, KeyboardInterrupt)):
        send(engine, parcel)
    assert engine.known == {}
    assert engine.helpers == []
    engine.broken = None
    assert engine.given.keys() == {send(engine, parcel)}


def test_what_is_stopped_leaves_nothing(engine: Engine, parcel: Parcel) -> None:
    with pytest.raises(FileRefused, match="was stopped"):
        send(engine, parcel, stop=True)
    assert (engine.known, engine.helpers) == ({}, [])


def test_what_a_killed_one_left_passes_for_nothing_and_goes(engine: Engine, parcel: Parcel) -> None:
    labels = {volumes.SENT: "content", f"{containers.LABEL}.size": "5"}
    engine.create_volume("half", labels | containers.owner_labels() | {f"{containers.LABEL}.owner": GONE})
    engine.create_volume("going on", labels | containers.owner_labels())
    engine.known["going on"][f"{containers.LABEL}.owner"] = str(os.getpid())
    engine.volumes = lambda filters: {  # type: ignore[method-assign]
        "Volumes": [
            {"Name": name, "Labels": told, "CreatedAt": "2999-01-01T00:00:00Z"}
            for name, told in engine.known.items()
        ]
    }
    sent = send(engine, parcel)
    assert "half" not in engine.known
    assert "going on" in engine.known
    assert sent in engine.known


def test_a_full_disk_over_there_is_told_with_what_to_do(engine: Engine, parcel: Parcel) -> None:
    engine.broken = refusal(500, "write /content: no space left on device")
    with pytest.raises(DockerError, match=r"has no room for a\.txt, 0\.0 MB: .*no space left") as caught:
        send(engine, parcel)
    assert "rlm gc" in caught.value.hint
    assert engine.known == {}


def test_of_two_who_send_the_same_at_once_the_first_counts(engine: Engine, parcel: Parcel) -> None:
    def other() -> None:
        engine.meanwhile = lambda: None
        firsts.append(send(engine, parcel))

    firsts: list[str] = []
    engine.meanwhile = other
    assert send(engine, parcel) == firsts[0]
    assert [one.names[-1] for one in kept(engine)] == firsts  # type: ignore[arg-type]


def test_what_is_changed_while_it_is_sent_is_told_and_not_known_by_its_digest(
    engine: Engine, parcel: Parcel, tmp_path: Path
) -> None:
    said: list[str] = []
    engine.meanwhile = lambda: (tmp_path / "a.txt").write_text("other text")
    send(engine, parcel, say=said.append)
    assert said == [
        "a.txt was changed while rlm sent it to the engine: the kernel has the version that rlm read."
    ]
    engine.meanwhile = lambda: None
    (tmp_path / "a.txt").write_text("some text")
    send(engine, parcel)
    assert len(engine.given) == 2


def test_an_index_of_what_is_gone_is_made_anew(engine: Engine, parcel: Parcel) -> None:
    first = send(engine, parcel)
    del engine.known[first]
    assert send(engine, parcel) != first
    engine.known[
        next(iter(engine.given))
    ] = {}  # an engine makes an empty one of any name that a container wants
    assert volumes.is_there(engine, next(iter(engine.given))) is False  # type: ignore[arg-type]


def test_what_was_not_used_for_longest_goes_first_and_never_what_is_in_use(
    engine: Engine, tmp_path: Path
) -> None:
    def sent(name: str, used: int) -> str:
        (tmp_path / name).write_text(name * 10)
        sources = (("content", tmp_path / name),)
        parcel = Parcel(sources, volumes.digest_of(sources, Sender(sha256_of), threading.Event()))
        volume = send(engine, parcel, limit=1000)
        index = next(one.names[0] for one in kept(engine) if one.names[-1] == volume)  # type: ignore[arg-type]
        os.utime(tmp_path / "uses" / index, (used, used))
        return volume

    oldest, used, young = sent("a", 1), sent("b", 2), sent("c", 3)
    engine.mounted = {oldest}
    make_room(engine, 20)  # type: ignore[arg-type]
    assert oldest in engine.known
    assert used not in engine.known
    assert young in engine.known
    make_room(engine, -100)  # type: ignore[arg-type]
    assert [one.in_use for one in kept(engine)] == [True]  # type: ignore[arg-type]


def test_what_another_user_sent_is_used_and_left_alone(
    engine: Engine, parcel: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(containers, "user", lambda: "another@somewhere")
        theirs = send(engine, parcel)
    assert send(engine, parcel) == theirs
    assert kept(engine) == []  # type: ignore[arg-type]
    make_room(engine, -100)  # type: ignore[arg-type]
    assert theirs in engine.known


def test_a_volume_that_somebody_uses_since_is_not_gone(engine: Engine, parcel: Parcel) -> None:
    send(engine, parcel)
    engine.mounted = {*engine.known}
    assert not Kept("", tuple(engine.known), 1, 1.0, False).remove(engine)  # type: ignore[arg-type]
