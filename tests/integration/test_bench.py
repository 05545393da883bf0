"""`rlm bench` with models that know the answers, over real HTTP and in real containers: what is not right is
the machinery's fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_kernel.bench.trec import read_pool
from tests.integration.conftest import Rlm
from tests.support import oracle
from tests.support.model_server import ModelServer


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.label"
    path.write_text(oracle.small_pool(), "latin-1")
    return path


@pytest.fixture
def knowing(questions: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server with the oracle's two models."""
    pool = read_pool(questions)
    with ModelServer(root=oracle.root(pool), sub=oracle.sub(pool)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        yield server


MODELS = ("--model", "openai/root", "--sub-model", "openai/sub")


def test_models_that_know_score_everything_and_a_second_run_does_nothing(
    rlm: Rlm, knowing: ModelServer, questions: Path, tmp_path: Path
) -> None:
    command = (
        "bench",
        "oolong",
        "pairs",
        "niah",
        "copy",
        "--length",
        "4K",
        "--count",
        "2",
        "--jobs",
        "4",
        "--trec",
        str(questions),
        "--strategy",
        "rlm",
    )
    done = rlm(*command, *MODELS, "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(group["suite"], group["score"], group["tasks"]) for group in report["groups"]] == [
        ("oolong", 1, 2),
        ("pairs", 1, 2),
        ("niah", 1, 2),
        ("copy", 1, 2),
    ]
    for row in report["rows"]:
        assert (tmp_path / "out" / row["trace"]).exists()
        assert row["calls"] == (2 if row["suite"] in ("oolong", "pairs") else 0)
    asked = len(knowing.requests)
    again = rlm(*command, *MODELS, "--out", str(tmp_path / "out"))
    assert again.returncode == 0
    assert "100.0%" in again.stdout
    assert len(knowing.requests) == asked


def test_strategies_stand_side_by_side(
    rlm: Rlm, knowing: ModelServer, questions: Path, tmp_path: Path
) -> None:
    command = (
        "bench",
        "oolong",
        "--strategy",
        "rlm,rlm-flat,bare,retrieval",
        "--max-turns",
        "2",
        "--length",
        "4K",
        "--count",
        "1",
        "--trec",
        str(questions),
    )
    done = rlm(*command, *MODELS, "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    groups = {group["strategy"]: group for group in json.loads(done.stdout)["groups"]}
    assert groups["rlm"]["score"] == 1
    assert (groups["rlm-flat"]["score"], groups["rlm-flat"]["calls"]) == (0, 0)
    assert (groups["bare"]["turns"], groups["retrieval"]["turns"]) == (1, 1)
    assert (tmp_path / "out" / "report.json").exists()


def test_tasks_of_the_users_own_are_run(rlm: Rlm, knowing: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "hay.txt").write_text("Straw. One of the special magic numbers for red-fox is: 77. Straw.")
    task = {
        "question": "What is the special magic number for red-fox mentioned here?",
        "files": ["hay.txt"],
        "expected": "77",
    }
    (tmp_path / "own.jsonl").write_text(json.dumps(task))
    done = rlm("bench", f"jsonl:{tmp_path / 'own.jsonl'}", *MODELS, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout
    assert "own" in done.stdout
