from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_kernel.errors import UsageError
from rlm_kernel.session import questions as questions_module
from rlm_kernel.session.questions import extract_paths, missing_paths, refuse_missing

NAMES = (
    "report.pdf",
    "data/x.log",
    "data",
    "My Files/a b.txt",
    "a(1).txt",
    "it's.txt",
    "no-ending",
    "v1.2",
    "späße.txt",
)


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
    return [str(path.relative_to(place)) for path in extract_paths(message.format(here=place), place)]


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
        (
            "file://{here}/My%20Files/a%20b.txt and file://localhost{here}/data/x.log",
            ["My Files/a b.txt", "data/x.log"],
        ),
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
    assert extract_paths("Load ~/report.pdf, ~nobody-of-that-name/x", Path("/")) == [place / "report.pdf"]


def test_no_more_than_a_number_of_paths_and_of_looks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "MAX_PATHS", 2)
    assert len(named("report.pdf data/x.log ./data v1.2", place)) == 2
    looks: list[str] = []
    monkeypatch.setattr(questions_module, "_existing", lambda word, _: looks.append(word))
    assert extract_paths(" ".join(f"a/{number}" for number in range(20_000)), place) == []
    assert len(looks) == questions_module.MAX_LOOKS


@given(st.text(st.characters(codec=None), max_size=200))
@example("/" + "." * 100_000)
@example("'" * 10_001)
@example("a/" * 100_000)
@example("\\" * 100_000)
@example("file://[::1")
@example("~\0/x \ud800/y")
def test_any_message_is_no_error_and_gives_nothing_that_is_not_in_it(message: str) -> None:
    for path in extract_paths(message, Path("/nowhere/at/all")):
        assert path.exists()
        assert path.name in message.replace("\\", "")


@given(
    st.text(max_size=50),
    st.text(max_size=50),
    st.sampled_from(NAMES),
    st.sampled_from(["{} ", "({})", "{}, ", "`{}`", '"{}"', "'{}'"]),
)
def test_a_planted_path_is_found(place: Path, before: str, after: str, name: str, form: str) -> None:
    if (" " in name and form[0] not in "`\"'") or ("'" in name and form[0] == "'"):
        return
    # A quotation mark before it could make something else of the quoted one.
    before = "".join(char for char in before if char not in "'\"`\\")
    message = f"{before} {form.format(place / name)} {after}"
    assert place / name in extract_paths(message, place)


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("missing")
    for name in ("log/syslog.1", "log/auth.log", "report.txt", "Größe.csv", "src/main.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


def missing(message: str, place: Path) -> list[str]:
    found = missing_paths(message.format(here=place), place)
    return [
        f"{one.word.removeprefix(f'{place}/')} {one.near.relative_to(place) if one.near else '-'}"
        for one in found
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("How many lines has {here}/log/syslgo.1?", ["log/syslgo.1 log/syslog.1"]),
        ("How many lines has {here}/lgo/syslog.1?", ["lgo/syslog.1 log/syslog.1"]),
        ("What is in ./log/nothing-like-it?", ["./log/nothing-like-it -"]),
        ("What is in 'report.txr', please", ["report.txr report.txt"]),
        ("What does Report.TXT say?", ["Report.TXT report.txt"]),
        (
            "What does gro\u0308sse.csv say, or Gro\u0308ße.csv?",
            ["gro\u0308sse.csv Größe.csv", "Gro\u0308ße.csv Größe.csv"],
        ),
        ("Compare src/mian.py with report.txt.", ["src/mian.py src/main.py"]),
        ("How many lines has {here}/log/syslog.1?", []),
        ("What does ./report.txt say? And report.txt?", []),
        ("How often is GET /index.html requested, POST {here}/log/x.php or PUT {here}/upload/file.txt?", []),
        ("Which of /v1/chat, /api/users/1 and /health is slow?", []),
        ("See https://example.org/log/syslgo.1 and http://x/y.html", []),
        ("Is it 1/2 and/or 3/4, i.e. 0.5, e.g. in v1.2.3 of U.S. law, a.k.a. node.js?", []),
        ("Lines that match {here}/log/sysl.* or ^/log/[a-z]+$", []),
        ("He said 'and so on etc/etc' and left", []),
        (r"C:\logs\app.log and \\server\share", []),
        ("/ ~ . .. ... /x //", []),
        ("", []),
    ],
)
def test_paths_that_are_not_there_are_told_from_other_words(
    message: str, expected: list[str], etc: Path
) -> None:
    assert missing(message, etc) == expected


@given(st.text(st.characters(codec=None), max_size=200))
@example("/tmp/" + "a" * 5000)
@example("~nobody-there/x.txt ./\ud800/x")
def test_no_message_makes_an_error_of_it(message: str) -> None:
    for one in missing_paths(message, Path("/nowhere/at/all")):
        assert one.word in message


def test_a_question_about_nothing_else_than_a_missing_file_is_refused_with_the_nearest(etc: Path) -> None:
    with pytest.raises(UsageError, match=r"syslgo\.1, which is not there") as caught:
        refuse_missing(missing_paths(f"How long is {etc}/log/syslgo.1?", etc))
    assert caught.value.hint == f"Did you mean {etc}/log/syslog.1?"
    refuse_missing([])
