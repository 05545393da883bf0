"""`rlm batch` before any container: what cannot be asked is told, and what is shown fits."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from rlm_kernel.cli import main
from rlm_kernel.cli._batch_report import Report
from rlm_kernel.session.batch.results import Paid
from rlm_kernel.views.batch import BatchView, Counts
from rlm_kernel.views.terminal import TerminalView


@pytest.fixture
def here(isolated: Path) -> Path:
    folder = Path.cwd()
    (folder / "q.jsonl").write_text('{"question": "Q?"}\n')
    (folder / "t.csv").write_text("name\nanna\n")
    (folder / "bad.jsonl").write_text("no question\n")
    (folder / "docs").mkdir()
    return folder


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("nothing.jsonl", "There is no file nothing.jsonl"),
        ("q.jsnl", "Did you mean q.jsonl?"),
        ("'How many?'", "A question needs --each FILES or --rows TABLE"),
        ("docs", "--each docs"),
        ("q.jsonl --out q.jsonl", "has the questions"),
        ("q.jsonl --out docs", "is a folder"),
        ("q.jsonl --out t.csv", "is not a results file"),
        ("q.jsonl t.csv", "was given 2 words"),
        ("q.jsonl --id name", "--id names a column of --rows"),
        ("Q --each *.csv --rows t.csv", "cannot be used together"),
        ("Q --each *.csv -f glossary.txt", "glossary.txt"),
        ("Q --rows t.csv -f -", "-f cannot take standard input"),
        ("q.jsonl -f -", "-f cannot take standard input"),
        ("q.jsonl -f *.pdf", "Nothing matches"),
        ("q.jsonl --jobs 0", "--jobs"),
        ("q.jsonl --max-cost-all -1", "--max-cost-all"),
    ],
)
def test_a_wrong_command_is_told_before_anything_is_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, told: str
) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
    monkeypatch.setattr("sys.argv", ["rlm", "batch", *words, "-m", "openai/x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize(
    "counts",
    [Counts(), Counts(10_000, 5_000, 4_000, 123, 64, 12.0, 0.5, 90, 400), Counts(None, 7, 7, 1, 2, 0.5)],
)
def test_the_bar_fits_the_terminal(columns: int, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    time = [0.0]
    view = BatchView(lambda: counts, stream=Terminal(), clock=lambda: time[0])
    view.heard()
    time[0] = 100.0
    drawn = view._view
    assert isinstance(drawn, TerminalView)
    lines = drawn._frame.lines(columns, 24)
    text = "\n".join("".join(segment.text for segment in line) for line in lines)
    if counts.total and columns >= 80:
        assert "5,000 of 10,000" in text
        assert "123 failed" in text
        assert "64 questions running: 90 turns, 400 calls so far" in text
        assert "40/s" in text
        assert "$12.5000 of about $27.0000" in text
        assert all(cell_len(line) < columns for line in text.splitlines())


def test_a_pipe_gets_a_line_now_and_then() -> None:
    time, done = [0.0], [0]
    out = io.StringIO()
    view = BatchView(lambda: Counts(100, done[0], done[0], 1, 4, 0.5), stream=out, clock=lambda: time[0])
    for second in range(60):
        time[0], done[0] = float(second), second
        view.heard()
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("50 of 100 done · 1 failed · 4 running · 1/s · $0.5000 of about")


def test_what_every_question_meets_is_said_once() -> None:
    out = io.StringIO()
    view = BatchView(Counts, stream=out)
    for seconds in range(50):
        view.say(f"waiting for its turn, since {seconds} s.")
    assert out.getvalue() == "waiting for its turn, since 0 s.\n"


def test_the_summary_says_what_failed_and_what_to_type_next(tmp_path: Path) -> None:
    report = Report(tmp_path / "r.jsonl", "rlm batch q.jsonl --retry-failed")
    tally = report.tally
    tally.answered, tally.failed, tally.no_answer, tally.bad, tally.begun = 7, 2, 1, 3, 10
    tally.kinds.update({"ModelError": 2, "turns": 1})
    tally.before.update({"answered": 5})
    tally.paid = Paid(1.5, 1_000, 0)
    told = "\n".join(report.lines(next_=True))
    assert (
        "15 questions: 12 answered, 1 without an answer, 2 failed, 3 lines skipped (ModelError 2, turns 1)"
        in told
    )
    assert "5 in the results before" in told
    assert "next:" not in told  # they will fail again
    tally.passing = 1
    assert "next: rlm batch q.jsonl --retry-failed" in "\n".join(report.lines(next_=True))
    assert "to continue:\nrlm batch" in report.so_far()
    assert report.as_json()["failed"] == 2
    assert not tally.whole
