"""What is kept beside traces that are gone is found, and nothing else."""

from __future__ import annotations

from pathlib import Path

from rlm_kernel.session.besides import without_trace


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")


def test_what_has_no_trace_beside_it_is_found_with_its_size(tmp_path: Path) -> None:
    make(tmp_path, "gone.tools/1-a.csv", "gone.tools/2-b.csv", "gone.context.json", "gone.context.csv.gz")
    make(tmp_path, "gone.stdin.txt", "gone.stdin.63.txt", "deep/er.files/a.pdf", "gone.context/a.parquet")
    found = {str(one.path.relative_to(tmp_path)): one.size for one in without_trace(tmp_path)}
    assert found == {
        "gone.tools": 10,
        "gone.context.json": 5,
        "gone.context.csv.gz": 5,
        "gone.context": 5,
        "gone.stdin.txt": 5,
        "gone.stdin.63.txt": 5,
        "deep/er.files": 5,
    }
    assert (tmp_path / "gone.tools/1-a.csv").exists()


def test_what_belongs_to_a_trace_or_to_a_run_that_was_killed_or_to_somebody_else_is_not(
    tmp_path: Path,
) -> None:
    make(tmp_path, "run.ipynb", "run.tools/1-a.csv", "run.tools/inner.tools", "run.context.json")
    make(tmp_path, ".killed.ipynb.log", "killed.tools/1-a.csv", "notes.txt", "tools/a", ".tools", "a.toolset")
    (tmp_path / "link.tools").symlink_to(tmp_path / "tools")
    assert list(without_trace(tmp_path)) == []
    assert list(without_trace(tmp_path / "none")) == []
