"""What a kernel hands over to child RLMs: the same on the other side, and nothing that the kernel may not
have.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rlm_runtime import files, wire
from rlm_runtime.formats import read_file
from rlm_runtime.handover import Handover

from rlm_kernel.errors import FileRefused, TextWanted, TraceError, UsageError
from rlm_kernel.sandbox import child_input
from rlm_kernel.sandbox.child_input import ChildInput, Spool, take
from rlm_kernel.sandbox.grants import FileGrants
from rlm_kernel.sandbox.rundir import RunDir

TEXTS = st.text(st.characters(codec=None), max_size=50)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
DATA = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)
SOME_MORE_TIME = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
NAME = "7-1"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """A session's folder, into which goes what a kernel hands over."""
    made = RunDir.create(max_request=1000, window=4)
    spool = Spool(made.spool)
    monkeypatch.setattr(wire, "hand", spool.add)
    monkeypatch.setattr(wire, "unhand", spool.drop)
    yield made
    made.remove()


@pytest.fixture
def nothing(run: RunDir) -> FileGrants:
    return FileGrants([], run)


def spooled(form: str = "text", name: str = NAME) -> dict[str, Any]:
    return {"handed": name, "form": form}


def arrives(taken: ChildInput, at: Path) -> Any:
    """What a child's set-up cell makes of it."""
    at.unlink(missing_ok=True)
    taken.copy_to(at)
    return read_file(at, at.name, room=1 << 30).text if taken.form == "text" else json.loads(at.read_bytes())


@SOME_MORE_TIME
@given(context=DATA.filter(lambda value: value is not None))
@example(context="")
@example(context="\ufeffmark")
@example(context="a\0b")
@example(context="lone \ud800 surrogate")
@example(context="\r\n\r\x1a\x0b\x85\u2028")
@example(context="\x80\xff\xfe")
@example(context="%PDF-1.7 PK\x03\x04 \x1f\x8b")
@example(context={"b": 1, "a": [None, {"": ""}], "": 0})
def test_any_data_arrives_as_it_was_with_its_order(
    run: RunDir, nothing: FileGrants, tmp_path: Path, context: Any
) -> None:
    sent = Handover(context)
    taken = take(sent.given, run, nothing)
    found = arrives(taken, tmp_path / "copy.context.txt")
    assert (type(found), json.dumps(found)) == (type(context), json.dumps(context))
    again = Handover(context)
    assert sent.same == again.same
    assert taken.digest == take(again.given, run, nothing).digest
    for one in (sent, again):
        one.remove()
        one.remove()
    assert list(run.spool.iterdir()) == []


def test_a_text_and_data_that_look_alike_are_told_apart(run: RunDir, nothing: FileGrants) -> None:
    text, data = Handover('"a\\u0000"'), Handover("a\0")
    assert (run.spool / text.given["handed"]).read_bytes() == (run.spool / data.given["handed"]).read_bytes()  # type: ignore[index]
    assert text.same != data.same
    assert take(text.given, run, nothing).digest != take(data.given, run, nothing).digest


def test_nothing_is_handed_over(run: RunDir, nothing: FileGrants) -> None:
    assert Handover(None).given is None
    assert take(None, run, nothing) == ChildInput()


@pytest.mark.parametrize("context", [{1, 2}, b"bytes", object(), ("a", {2}), [[b""]]])
def test_what_is_no_data_is_refused_in_the_cell_and_leaves_nothing(run: RunDir, context: Any) -> None:
    with pytest.raises(
        TypeError, match="a context is a text, a loaded file, or lists and dicts of texts and numbers"
    ):
        Handover(context)
    assert not run.spool.exists()


def test_a_tuple_arrives_as_a_list(run: RunDir, nothing: FileGrants, tmp_path: Path) -> None:
    assert arrives(take(Handover(("a", 1)).given, run, nothing), tmp_path / "c") == ["a", 1]


@pytest.fixture
def loaded(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileGrants:
    """The kernel's files a.txt and b.txt, and a folder with one."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    paths = [folder / "a.txt", folder / "b.txt", folder / "sub" / "c.txt"]
    for path in paths:
        path.write_text(f"text of {path.name}")
    texts = {path.name: path.read_text() for path in paths}
    monkeypatch.setattr(files, "files", texts)
    monkeypatch.setattr(
        files, "_loaded", {path.name: files.Loaded(str(path), "utf-8", False, "") for path in paths}
    )
    return FileGrants([paths[0], paths[1], folder / "sub"], run)


def test_loaded_files_are_handed_over_by_name_without_a_copy(
    run: RunDir, loaded: FileGrants, tmp_path: Path
) -> None:
    texts = files.files
    for context, names in [
        (texts["a.txt"], ["a.txt"]),
        (dict(texts), ["a.txt", "b.txt", "sub/c.txt"]),
        (texts["c.txt"], ["sub/c.txt"]),
    ]:
        sent = Handover(context)
        taken = take(sent.given, run, loaded)
        assert [grant.source for grant in taken.grants] == [tmp_path / "in" / name for name in names]
        assert taken.size == 0
    assert not run.spool.exists()


def test_a_part_of_a_file_or_a_dict_of_one_is_no_file(
    run: RunDir, loaded: FileGrants, tmp_path: Path
) -> None:
    texts = files.files
    for context in (
        texts["a.txt"][:4],
        {"a.txt": texts["a.txt"]},
        {"a.txt": texts["b.txt"], "b.txt": texts["a.txt"]},
    ):
        taken = take(Handover(context).given, run, loaded)
        assert taken.grants == ()
        assert arrives(taken, tmp_path / "c.txt") == context
    taken = take(Handover(texts["a.txt"], by_name=False).given, run, loaded)
    assert arrives(taken, tmp_path / "c.txt") == "text of a.txt"


@pytest.mark.parametrize(
    "names",
    [
        ["/etc/passwd"],
        ["{in}/sub"],
        ["{in}/a.txt", "{in}/other.txt"],
        ["{in}/sub/../../secret"],
        ["{in}/sub/out"],
        ["a.txt"],
        ["/x\0"],
    ],
)
def test_files_that_the_session_does_not_have_are_refused(
    run: RunDir, loaded: FileGrants, tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in" / "sub" / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(FileRefused):
        take({"files": [name.format(**{"in": tmp_path / "in"}) for name in names]}, run, loaded)


def test_a_link_out_of_a_renamed_folder_leads_nowhere(run: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "a.txt").write_text("a")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "within").symlink_to("a.txt")
    grants = FileGrants([folder], run, [Path("/recorded")])
    assert [
        grant.source for grant in take({"files": ["/recorded/a.txt", "/recorded/within"]}, run, grants).grants
    ] == [
        folder / "a.txt",
        folder / "within",
    ]
    with pytest.raises(FileRefused):
        take({"files": ["/recorded/out"]}, run, grants)


@pytest.mark.parametrize(
    "given",
    [
        "7-1", 7, [], {}, {"handed": NAME}, {"files": []}, {"files": ["/a"] * 21}, {"files": [1]}, {"files": "/etc/passwd"},
        {"files": ["/a"], "handed": NAME}, spooled() | {"more": 1}, spooled("pickle"), spooled(name="../host/session.json"),
        spooled(name="/etc/passwd"), spooled(name="7-1/x"), spooled(name="7-1\n"), spooled(name="7-1\0"), spooled(name="7-"),
        spooled(name="7-12345678901"), spooled(name="k-1"), spooled(name=""),
    ],
)  # fmt: skip
def test_forged_hand_overs_are_refused(run: RunDir, nothing: FileGrants, given: Any) -> None:
    with pytest.raises(UsageError):
        take(given, run, nothing)


def test_what_is_handed_over_is_bounded_in_size_and_number(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_input, "MAX_HANDED", 100)
    monkeypatch.setattr(child_input, "MAX_SPOOLED", 250)
    monkeypatch.setattr(child_input, "MAX_SPOOLS", 5)
    spool = Spool(run.spool)
    assert not spool.add("0-0", b"not begun")
    sizes = {f"1-{number}": [0, 60, size] for number, size in enumerate((40, 41, 40, 40, 40))}
    taken = {name: [spool.add(name, b"x" * size) for size in parts] for name, parts in sizes.items()}
    assert [name for name, parts in taken.items() if all(parts)] == ["1-0", "1-2"]
    assert sorted(path.name for path in run.spool.iterdir()) == ["1-0", "1-2"]
    spool.drop("1-0")
    for number in range(10):
        spool.add(f"2-{number}", b"")
    assert len(list(run.spool.iterdir())) <= 5
    spool.clear()
    assert list(run.spool.iterdir()) == []


def test_what_would_fill_the_disk_is_not_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(run.spool)
    spool.add("1-1", b"")
    usage = shutil.disk_usage(run.path)
    monkeypatch.setattr(child_input.shutil, "disk_usage", lambda _path: usage._replace(free=spool._least - 1))
    assert not spool.add("1-1", b"x")
    with pytest.raises(UsageError, match="is not there"):
        take(spooled(name="1-1"), run, FileGrants([], run))


def put(run: RunDir, text: str) -> None:
    spool = Spool(run.spool)
    spool.add(NAME, b"")
    spool.add(NAME, text.encode())


def test_what_is_gone_meanwhile_is_not_handed_over(run: RunDir, nothing: FileGrants, tmp_path: Path) -> None:
    put(run, "good")
    taken = take(spooled(), run, nothing)
    (run.spool / NAME).unlink()
    with pytest.raises(UsageError, match="is not there"):
        taken.copy_to(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_copy_that_cannot_be_written_is_an_error_that_says_so(
    run: RunDir, nothing: FileGrants, tmp_path: Path
) -> None:
    put(run, "good")
    taken = take(spooled(), run, nothing)
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="cannot be written"):
        taken.copy_to(tmp_path / "file" / "kept")
    there = tmp_path / "there"
    there.write_text("mine")
    with pytest.raises(TraceError):
        taken.copy_to(there)
    assert there.read_text() == "mine"


def test_of_a_copy_for_which_the_disk_has_no_room_nothing_is_left(
    run: RunDir, nothing: FileGrants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, "good")
    taken = take(spooled(), run, nothing)

    def full(_source: Any, copy: Any, _length: int) -> None:
        copy.write(b"go")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(child_input.shutil, "copyfileobj", full)
    with pytest.raises(TraceError, match="No space left"):
        taken.copy_to(tmp_path / "kept" / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


async def test_at_the_depth_limit_the_text_is_had_as_far_as_it_fits(run: RunDir, loaded: FileGrants) -> None:
    def give(context: Any) -> ChildInput:
        return take(Handover(context).given, run, loaded)

    assert await ChildInput().text(5) == ""
    assert await give("äöüß").text(4) == "äöüß"
    assert await give("😀" * 10).text(10) == "😀" * 10
    assert await give(["a", 1]).text(20) == '["a", 1]'
    for context, limit in (("äöüß", 3), ("x" * 1000, 10), ("\ud800" * 3, 5)):
        with pytest.raises(
            UsageError, match=f"reads at most {limit} characters, and the context has more: .* Hand over less"
        ):
            await give(context).text(limit)
    with pytest.raises(TextWanted, match=r"^77$"):
        await give(files.files["a.txt"]).text(77)
