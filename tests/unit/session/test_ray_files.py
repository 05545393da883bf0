"""Files on their way to the nodes of a cluster and home, and errors that travel: without Ray."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel import errors
from rlm_kernel.config import load_settings
from rlm_kernel.errors import BudgetExceeded, FileRefused, InternalError, ModelError, RLMError, TraceError
from rlm_kernel.session.batch import ray_files
from rlm_kernel.session.batch.ray_engine import _variables
from rlm_kernel.session.batch.ray_files import Home, Member, Parcel, Parcels, Store, pieces
from rlm_kernel.session.batch.ray_joining import nodes
from rlm_kernel.session.batch.ray_worker import Plan, Told

RUN = "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(ray_files.tempfile, "tempdir", str(tmp_path))
    return Store("test", most=100)


def _send(store: Store, parcel: Parcel) -> None:
    for batch in pieces(parcel):
        store.put(parcel.digest, parcel.members, batch)
    store.finish(parcel.digest, parcel.members, parcel.directory)


def test_a_folder_comes_as_it_is_with_empty_files_and_odd_names(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    for name, text in (("a b.txt", "one"), ("sub/é.txt", "two"), ("sub/deep/empty", ""), ("big", "x" * 9)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    parcel = Parcels().of(folder)
    assert store.pin(RUN, [parcel.digest]) == [parcel.digest]
    _send(store, parcel)
    assert store.pin(RUN, [parcel.digest]) == []
    there = store.path(parcel.digest)
    assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == {
        p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_large_files_are_sent_in_pieces(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_files, "PIECE", 10)
    (tmp_path / "f").write_bytes(bytes(range(95)))
    parcel = Parcels().of(tmp_path / "f")
    assert max(sum(len(block) for _, _, block in batch) for batch in pieces(parcel)) == 10
    _send(store, parcel)
    assert store.path(parcel.digest).read_bytes() == bytes(range(95))


def test_a_file_that_changes_while_it_is_sent_is_refused(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("before")
    parcel = Parcels().of(file)
    file.write_text("after!")
    with pytest.raises(FileRefused, match="changed while rlm sent it"):
        _send(store, parcel)
    assert store.pin(RUN, [parcel.digest]) == [parcel.digest]


def test_what_no_question_needs_goes_when_there_is_no_room(store: Store, tmp_path: Path) -> None:
    sent = []
    for n in range(3):
        (tmp_path / str(n)).write_text(f"{n}" * 60)
        sent.append(Parcels().of(tmp_path / str(n)))
    runs = [f"{n}" * 32 for n in range(3)]
    for run, parcel in zip(runs, sent, strict=True):
        store.pin(run, [parcel.digest])
        _send(store, parcel)
    assert all(store.path(parcel.digest).exists() for parcel in sent)  # all are needed
    store.drop(runs[0])
    assert [store.path(parcel.digest).exists() for parcel in sent] == [False, True, True]


def test_the_store_of_a_process_that_has_ended_is_removed_by_the_next(tmp_path: Path, store: Store) -> None:
    dead = store.folder.parent / "dead-1"
    dead.mkdir()
    (dead / "lock").write_text("4711")
    odd = store.folder.parent / "odd-1"
    odd.mkdir()
    (odd / "lock").write_text("no number")
    other = Store("other")
    assert other.sweep() == [4711]
    assert not dead.exists()
    assert not odd.exists()
    assert store.folder.exists()
    other.close()
    assert not other.folder.exists()


@given(st.text(max_size=30))
def test_no_name_from_another_machine_leads_out_of_the_folder(name: str) -> None:
    try:
        place = ray_files._below(Path("/home/folder"), name)
    except FileRefused:
        return
    assert os.path.normpath(place).startswith("/home/folder")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "x\0y"])
def test_a_trace_with_such_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with Home(tmp_path / "t.ipynb") as home, pytest.raises(FileRefused):
        home.write(Member(name, 1, ""), 0, b"x")


def test_a_damaged_or_longer_file_replaces_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "t.ipynb"
    member = Member("t.ipynb", 3, "0" * 64)
    with Home(trace) as home:
        home.write(member, 0, b"abc")
        with pytest.raises(TraceError, match="damaged"):
            home.keep([member])
        with pytest.raises(TraceError, match="longer"):
            home.write(member, 3, b"d")
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_comes_home_with_its_children(store: Store, tmp_path: Path) -> None:
    left = store.run(RUN)
    (left / "t.children").mkdir(parents=True)
    (left / "t.ipynb").write_text("notebook")
    (left / "t.children" / "c.ipynb").write_text("child")
    (left / "link").symlink_to("/etc/passwd")
    members = store.left_by(RUN)
    trace = tmp_path / "home" / "t.ipynb"
    with Home(trace) as home:
        for member in members:
            home.write(member, 0, store.read(RUN, member.name, 0))
        home.keep(members)
    assert sorted(p.name for p in trace.parent.rglob("*")) == ["c.ipynb", "t.children", "t.ipynb"]


@pytest.mark.parametrize(
    "error",
    [
        ModelError("m", fault="rate_limit", model="x", hint="h", attempts=3, spent=object()),
        BudgetExceeded("b", limit="batch"),
        *[getattr(errors, name)("text", hint="h") for name in ("SetupError", "WorkerLost", "FileRefused")],
    ],
)
def test_errors_travel_as_they_are(error: RLMError) -> None:
    got = pickle.loads(pickle.dumps(Told.of(error))).error()
    assert type(got) is type(error)
    assert (str(got), got.exit_code) == (str(error), error.exit_code)
    assert {k: v for k, v in vars(error).items() if k != "spent"}.items() <= vars(got).items()


@pytest.mark.parametrize("kind", ["Any", "os", "annotations", "Exception", "nothing", "is_interrupt"])
def test_an_error_that_is_none_of_ours_is_an_internal_one(kind: str) -> None:
    assert type(Told(kind, "text", {}).error()) is InternalError


def test_only_what_the_providers_read_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there")
    monkeypatch.setenv("MY_OWN_KEY", "own-secret")
    monkeypatch.setenv("GITHUB_TOKEN", "other-secret")
    settings = load_settings(None)
    root = settings.root_llm.model_copy(update={"model": "openai/gpt-5", "api_key_env": "MY_OWN_KEY"})
    settings = settings.model_copy(update={"root_llm": root})
    sent = _variables(settings)
    assert sent == {"OPENAI_BASE_URL": "http://there", "MY_OWN_KEY": "own-secret"}
    assert "secret" not in repr(Plan("1", settings, sent))


class _Ray:
    def __init__(self, *resources: dict[str, float]) -> None:
        self._resources = resources

    def nodes(self) -> list[dict[str, object]]:
        return [
            {"NodeID": str(n), "Alive": has.pop("alive", 1), "Resources": has}
            for n, has in enumerate(self._resources)
        ]


def test_nodes_with_the_resource_have_the_workers_else_all_with_a_cpu() -> None:
    assert list(nodes(_Ray({"CPU": 4.0}, {"CPU": 0.0}, {"CPU": 1.0, "alive": 0}))) == ["0"]
    assert list(nodes(_Ray({"CPU": 4.0}, {"rlm": 1.0}))) == ["1"]
    assert nodes(_Ray({})) == {}
