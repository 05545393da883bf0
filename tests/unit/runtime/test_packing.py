"""Several files in pieces, what is seen of them at first, and what a name means."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import files, forms, labels, look, packing, wire
from rlm_runtime.labels import Wanted, told_apart

from tests.support.filekinds import sheet_rows, workbook
from tests.support.growth import LIMIT, growth

_LINE = re.compile(r"=== (.*?)(?: \(part (\d+) of (\d+)\))? ===\n")
NAMES = st.lists(st.text("ab/.", min_size=1, max_size=6), unique=True, min_size=2, max_size=8)
BODY = st.text("xyz\n", max_size=120)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Loads paths into a kernel that has nothing, and gives its files."""
    for name, empty in (("files", {}), ("_loaded", {}), ("_whole", {}), ("_folders", {}), ("_left_out", {})):
        monkeypatch.setattr(files, name, empty)
    monkeypatch.setattr(files, "_active", [None])
    monkeypatch.setattr(
        wire,
        "call",
        lambda _kind, body: {
            "inside": body["path"],
            "path": body["path"],
            "directory": Path(body["path"]).is_dir(),
            "ignore": [],
        },
    )

    def load(*paths: Path) -> dict[str, Any]:
        files.load_files([str(path) for path in paths])
        return files.files

    return load


def tree(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@given(NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, BODY))), st.integers(1, 200))
def test_every_character_of_several_files_is_in_one_piece_in_order_and_no_piece_is_too_long(
    texts: dict[str, str], size: int
) -> None:
    pieces = list(packing.pieces(texts, size, 0))
    assert all(0 < len(piece) <= size for piece in pieces)
    letters = re.sub(r"[^xyz]", "", "".join(_LINE.sub("", piece) for piece in pieces))
    assert letters == re.sub(r"[^xyz]", "", "".join(texts.values()))


@given(
    st.lists(st.text("xyz", max_size=300), min_size=2, max_size=6), st.integers(120, 400), st.integers(0, 50)
)
def test_each_file_stands_under_its_name_and_each_part_of_a_large_one_names_itself(
    bodies: list[str], size: int, overlap: int
) -> None:
    texts = {f"{place}.txt": body for place, body in enumerate(bodies)}
    found: dict[str, list[tuple[str, str, str]]] = {}
    for piece in packing.pieces(texts, size, overlap):
        assert len(piece) <= size
        _, *parts = _LINE.split(piece)
        for name, number, of, body in zip(*(parts[at::4] for at in range(4)), strict=True):
            found.setdefault(name, []).append((number, of, body.removesuffix("\n")))
    assert list(found) == list(texts)
    for name, parts in found.items():
        whole = "".join(body[overlap if place else 0 :] for place, (_, _, body) in enumerate(parts))
        assert whole == texts[name]
        if len(parts) > 1:
            assert [(int(number), int(of)) for number, of, _ in parts] == [
                (place + 1, len(parts)) for place in range(len(parts))
            ]


def test_three_hundred_notes_that_fit_a_prompt_are_one_piece_and_a_look_shows_a_few(
    loading: Any, tmp_path: Path
) -> None:
    for number in range(300):
        (tmp_path / f"note{number:03}.txt").write_text(f"note {number}: " + "words " * 40)
    loading(tmp_path)
    assert len(list(files.chunks(100_000))) == 1
    seen = files.peek()
    assert len(seen) < 2_000
    assert seen.count("===\n") == 5
    assert "and 295 more" in seen
    assert len(files.peek(0, 10**9)) < 21_000


@given(st.text(max_size=200), st.integers(1, 50), st.integers(0, 20))
def test_one_text_is_cut_as_it_is(text: str, size: int, overlap: int) -> None:
    pieces = list(packing.pieces({"a": text}, size + overlap, overlap))
    assert "".join([*pieces[:1], *(piece[overlap:] for piece in pieces[1:])]) == text


def test_names_with_line_breaks_and_lines_of_names_stand_on_one_line() -> None:
    (piece,) = packing.pieces({"a\n=== b ===": "x", "c": "y"}, 200, 0)
    assert piece == "=== 'a\\n=== b ===' ===\nx\n=== c ===\ny"


def test_several_folders_keep_their_names_and_those_of_one_name_are_told_apart(
    loading: Any, tmp_path: Path
) -> None:
    tree(tmp_path, notes__a_txt="1", mails__b_eml="2", old__notes__a_txt="3", old__x_txt="4", x_txt="5")
    found = loading(
        tmp_path / "notes",
        tmp_path / "mails",
        tmp_path / "old/notes",
        tmp_path / "old/x.txt",
        tmp_path / "x.txt",
    )
    above = tmp_path.name
    assert dict(found) == {
        f"{above}/notes/a.txt": "1",
        "mails/b.eml": "2",
        "old/notes/a.txt": "3",
        "old/x.txt": "4",
        f"{above}/x.txt": "5",
    }
    told = [*found, *files.list_files(), *(hit.file for hit in files.grep(".")), str(files.describe())]
    assert not any(str(tmp_path) in text for text in told)


def test_one_folder_keeps_the_names_in_it_and_a_file_named_twice_is_there_once(
    loading: Any, tmp_path: Path
) -> None:
    tree(tmp_path, notes__a_txt="1", notes__b__a_txt="2")
    assert list(loading(tmp_path / "notes", tmp_path / "notes/a.txt")) == ["a.txt", "b/a.txt"]
    tree(tmp_path, mails__a_txt="3")
    assert list(loading(tmp_path / "mails")) == ["a.txt", "b/a.txt", "mails/a.txt"]


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True, max_size=9)
)
def test_names_are_tails_that_tell_files_apart_and_never_absolute(paths: list[str]) -> None:
    wanted = [Wanted(PurePosixPath("/", path)) for path in paths]
    names = told_apart(wanted, {"a"})
    assert len({*names, "a"}) == len(names) + 1
    for path, name in zip(paths, names, strict=True):
        assert f"/{path}".endswith(f"/{name}") or name == f"{path} (2)"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("notes/a.txt", ["notes/a.txt"]),
        ("*.eml", ["mails/b.eml", "mails/old/c.eml"]),
        ("notes/*", ["notes/a.txt"]),
        ("mails", ["mails/b.eml", "mails/old/c.eml"]),
        ("x[1].txt", ["x[1].txt"]),
        ("book.xlsx", ["book.xlsx/A", "book.xlsx/B"]),
        ("*.xlsx", ["book.xlsx/A", "book.xlsx/B"]),
        ("*/A", ["book.xlsx/A"]),
    ],
)
def test_a_name_may_be_a_pattern_or_a_folder_in_all_helpers(
    name: str, meant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        *("notes/a.txt", "mails/b.eml", "mails/old/c.eml", "x[1].txt"),
        *("book.xlsx/A", "book.xlsx/B"),
    )
    texts = {one: f"in {one}" for one in names}
    monkeypatch.setattr(files, "files", texts)
    assert list(labels.meant(name, texts)) == meant
    assert [hit.file for hit in files.grep("in", name)] == meant
    assert all(f"in {one}" in files.peek(name=name) for one in meant)
    assert all(f"in {one}" in next(files.chunks(1000, name=name)) for one in meant)
    if len(meant) == 1:
        assert files.records(name)[0]["text"] == f"in {meant[0]}"  # type: ignore[index]
    else:
        with pytest.raises(TypeError, match=f"{meant[0]}, {meant[1]}. Name one: records\\('{meant[0]}'\\)"):
            files.records(name)


@pytest.mark.parametrize(
    ("name", "near"), [("a.txt", "notes/a.txt"), ("notes/a.tx", "notes/a.txt"), ("B.EML", "mails/b.eml")]
)
def test_a_wrong_name_tells_those_that_are_nearly_the_same(
    name: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "files", {"notes/a.txt": "1", "mails/b.eml": "2"})
    calls: list[Callable[[], Any]] = [
        lambda: files.grep("x", name),
        lambda: files.peek(name=name),
        lambda: files.chunks(5, name=name),
        lambda: files.records(name),
        lambda: files.switch_to(name),
    ]
    for call in calls:
        with pytest.raises(KeyError, match=f"did you mean: {near}"):
            call()


def test_the_first_look_tells_kinds_beginnings_and_forms(loading: Any, tmp_path: Path) -> None:
    for number in range(22):
        (tmp_path / f"{number}.txt").write_text(f"Note {number}, in words.")
    (tmp_path / "app.log.1").write_text("plain words\n")
    (tmp_path / "sales.csv").write_text("day,item,price\n1,tea,20\n2,rye,30\n3,oil,40\n")
    loading(tmp_path)
    told = files.describe()
    assert told["kinds"] == [[".txt", 22], [".log", 1], [".csv", 1]]
    assert [name for name, _ in told["heads"]] == ["0.txt", "app.log.1"]
    ((name, form),) = told["forms"]
    assert name == "sales.csv"
    assert "rows = records('sales.csv'); rows[0] is {'day': 1" in form


def test_the_first_look_counts_files_and_not_their_tables_and_finds_a_form_behind_an_empty_one(
    loading: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.xlsx").write_bytes(
        workbook(
            {"Empty": sheet_rows([["x"]]), "Sales": sheet_rows([["day", "item"], [1, "tea"], [2, "rye"]])}
        )
    )
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.csv").write_text("day,price\n1,20\n2,30\n3,40\n")
    loading(tmp_path)
    told = files.describe()
    assert told["kinds"] == [[".csv", 2], [".xlsx", 1]]
    assert [name for name, _ in told["forms"]] == ["b.csv", "a.xlsx/Sales"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("app.db/users", ".db"),
        ("mails/a.eml/list.v2.csv", ".eml"),
        ("a/B.TXT", ".txt"),
        ("log.3.gz", ".gz"),
        ("x.log.3.gz", ".log.gz"),
        ("x.log.12", ".log"),
        (".env", ""),
        ("a.b\n", ""),
    ],
)
def test_kinds_are_endings(name: str, kind: str) -> None:
    assert look.kind_of(name) == kind


@pytest.mark.parametrize("value", [["中文", {"a": 1}], {"x": "中文", "y": [1]}])
def test_objects_are_searched_as_they_are_written(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_active", [value])
    monkeypatch.setattr(files, "files", {})
    assert len(files.grep("中文")) == 1
    assert "more" not in files.peek()
    assert files.describe()["item_count"] == 2


def test_what_is_shown_whole_has_no_more_than_was_asked_for() -> None:
    texts = {"a.txt": "x" * 50, "b.txt": "y" * 50}
    assert look.whole(texts, 26, from_files=True) == [["a.txt", "x" * 50], ["b.txt", "y" * 50]]
    assert look.whole(texts, 25, from_files=True) is None
    assert look.whole([1, "é"], 100, from_files=False) == [["context", '[1, "é"]']]
    assert look.whole({str(number): "" for number in range(501)}, 100, from_files=True) is None
    assert look.whole("\0" * 60_000, 96_000, from_files=False) is None


def test_naming_many_files_takes_time_with_their_number() -> None:
    def made(count: int) -> list[Wanted]:
        return [Wanted(PurePosixPath(f"/data/{number % 50}/{number // 50}/a.txt")) for number in range(count)]

    assert growth(made, lambda wanted: told_apart(wanted, set()), 500) < LIMIT


def test_a_file_is_unloaded_and_read_again_with_all_of_its_parts(
    loading: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path, other = tmp_path / "book.xlsx", tmp_path / "a.txt"
    sheets = {name: sheet_rows([["n"], [number]]) for number, name in enumerate("ABC")}
    path.write_bytes(workbook(sheets))
    other.write_text("text")
    assert list(loading(path, other)) == ["book.xlsx/A", "book.xlsx/B", "book.xlsx/C", "a.txt"]
    path.write_bytes(workbook({name: sheets[name] for name in "AB"}))
    assert set(loading(path)) == {"book.xlsx/A", "book.xlsx/B", "a.txt"}
    files.remove_file("book.xlsx/A")
    assert set(files.files) == {"book.xlsx/B", "a.txt"}
    files.remove_file("book.xlsx")
    assert files.active() == "text"
    assert set(loading(path)) == {"book.xlsx/A", "book.xlsx/B", "a.txt"}
    path.write_bytes(workbook({"A": sheets["A"]}))
    assert files.load_file(str(path)) == "n\n0\n"
    assert set(files.files) == {"book.xlsx", "a.txt"}
    path.write_bytes(workbook(sheets))
    files.load_file(str(path), replace_all=True)
    assert set(files.files) == set(files._loaded) == {"book.xlsx/A", "book.xlsx/B", "book.xlsx/C"}
    with pytest.raises(KeyError, match=r"no file named 'other\.xlsx'"):
        files.remove_file("other.xlsx")


def test_a_text_whose_form_cannot_be_told_costs_its_form_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> str:
        raise AttributeError("a mistake")

    monkeypatch.setattr(forms, "form", fails)
    assert look.describe("text", "a.log", from_files=True)["form"] == ""
    several = look.describe({"a.log": "text", "b.csv": "a,b"}, "", from_files=True)
    assert (several["forms"], len(several["heads"])) == ([], 2)
