from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_kernel.session import named as named_module
from rlm_kernel.session.named import named_paths

NAMES = ("report.pdf", "data/x.log", "data", "My Files/a b.txt", "a(1).txt", "it's.txt", "no-ending", "v1.2", "späße.txt")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of NAMES."""
    folder = tmp_path_factory.mktemp("named")
    for name in NAMES:
        if name != "data":
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
    return folder


def named(message: str, place: Path) -> list[str]:
    return [str(path.relative_to(place)) for path in named_paths(message.format(here=place), place)]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Load the file at {here}/report.pdf", ["report.pdf"]),
        ("Load {here}/report.pdf.", ["report.pdf"]),
        ("({here}/report.pdf), then <{here}/data/x.log>!", ["report.pdf", "data/x.log"]),
        ("What does report.pdf say?", ["report.pdf"]),
        ("Is data/x.log older than ./report.pdf?", ["data/x.log", "report.pdf"]),
        ("Look into data/ and report.pdf, report.pdf", ["data", "report.pdf"]),
        ("The data are in no-ending", []),
        ("It is in ./no-ending", ["no-ending"]),
        ("Compare 'My Files/a b.txt' with `report.pdf`", ["My Files/a b.txt", "report.pdf"]),
        ('It\'s in "{here}/My Files/a b.txt".', ["My Files/a b.txt"]),
        ("It's about the users' file 'My Files/a b.txt'.", ["My Files/a b.txt"]),
        (r"See My\ Files/a\ b.txt.", ["My Files/a b.txt"]),
        ("See a(1).txt (and {here}/a(1).txt)", ["a(1).txt"]),
        ("See ./it's.txt", ["it's.txt"]),
        ("See “späße.txt”…", ["späße.txt"]),
        ("file://{here}/My%20Files/a%20b.txt and file://localhost{here}/data/x.log", ["My Files/a b.txt", "data/x.log"]),
        ("file://elsewhere{here}/report.pdf file://[x", []),
        ("Version v1.2, that is: v1.2.", ["v1.2"]),
        ("/ // . .. ../ ../.. … and so on, etc. 3/4 or 1.5", []),
        ("Load {here}/My Files/a b.txt", []),
        ("", []),
    ],
)
def test_paths_that_stand_in_the_message_are_found(message: str, expected: list[str], place: Path) -> None:
    assert named(message, place) == expected


def test_a_path_in_the_home_is_the_users_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert named_paths("Load ~/report.pdf, ~nobody-of-that-name/x", Path("/")) == [place / "report.pdf"]


def test_no_more_than_a_number_of_paths_and_of_looks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_module, "MAX_PATHS", 2)
    assert len(named("report.pdf data/x.log ./data v1.2", place)) == 2
    looks: list[str] = []
    monkeypatch.setattr(named_module, "_existing", lambda word, _: looks.append(word))
    assert named_paths(" ".join(f"a/{number}" for number in range(20_000)), place) == []
    assert len(looks) == named_module.MAX_LOOKS


@given(st.text(st.characters(codec=None), max_size=200))
@example("/" + "." * 100_000)
@example("'" * 10_001)
@example("a/" * 100_000)
@example("\\" * 100_000)
@example("file://[::1")
@example("~\0/x \ud800/y")
def test_any_message_is_no_error_and_gives_nothing_that_is_not_in_it(message: str) -> None:
    for path in named_paths(message, Path("/nowhere/at/all")):
        assert path.exists()
        assert path.name in message.replace("\\", "")


@given(st.text(max_size=50), st.text(max_size=50), st.sampled_from(NAMES), st.sampled_from(["{} ", "({})", "{}, ", "`{}`", '"{}"', "'{}'"]))
def test_a_planted_path_is_found(place: Path, before: str, after: str, name: str, form: str) -> None:
    if (" " in name and form[0] not in "`\"'") or ("'" in name and form[0] == "'"):
        return
    # A quotation mark before it could make something else of the quoted one.
    before = "".join(char for char in before if char not in "'\"`\\")
    message = f"{before} {form.format(place / name)} {after}"
    assert place / name in named_paths(message, place)
