"""The tasks: their answers are right by another reckoning, they are as long as asked for, and a seed makes
the same again.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.bench import copying, niah, oolong, pairs, small, suites, trec, user_tasks
from rlm_kernel.bench.scorers import SCORERS, score
from rlm_kernel.bench.task import CHARS_PER_TOKEN, Task
from rlm_kernel.errors import UsageError
from tests.support import oracle, oracle_program


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trec") / "questions.label"
    path.write_text(oracle.small_pool(), "latin-1")
    return path


def reckoned(task: Task, pool: trec.Pool) -> str:
    """The answer that the oracle's program finds in the text."""
    sub = oracle.sub(pool)

    def ask_all(prompts: list[str], schema: Any) -> list[Any]:
        return [json.loads(sub(prompt)) for prompt in prompts]

    return oracle_program.answer(task.question, oracle_program.read(task.texts["questions.txt"], ask_all))


def test_an_oracle_that_sees_the_whole_input_answers_at_once(questions: Path) -> None:
    root = oracle.root(trec.read_pool(questions))
    made = suites.tasks(["oolong", "pairs", "niah", "copy"], [1_000], suites.Choice(1_000, 2, 0, questions))
    for task in made:
        bare = root([{"role": "user", "content": task.prompt()}])
        assert score(task.scorer, task.expected, bare) == 1, task


def test_every_form_of_oolong_has_the_answer_that_the_text_gives(questions: Path) -> None:
    pool = trec.read_pool(questions)
    made = list(oolong.tasks(8_000, 75, 3, questions))
    assert {task.kind for task in made} == set(oolong.FORMS)
    for task in made:
        assert score(task.scorer, task.expected, reckoned(task, pool)) == 1, task


def test_tasks_over_the_same_texts_write_them_at_the_same_time(tmp_path: Path) -> None:
    texts = {f"{number}.txt": "x" * 1_000_000 for number in range(10)}
    tasks = [Task(f"{number}", "own", "", "Q", 1, "number", texts) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda task: task.files(tmp_path), tasks))
    assert all(path.read_text() == texts[path.name] for path in made[0])
    assert made == [made[0]] * 8
    assert len(list(made[0][0].parent.iterdir())) == len(texts), "nothing else is left"


def test_every_query_of_pairs_has_the_answer_that_the_text_gives(questions: Path) -> None:
    pool = trec.read_pool(questions)
    made = list(pairs.tasks(16_000, pairs.QUERIES, 3, questions))
    assert len(made) == 20
    assert sum(bool(task.expected) for task in made) > 12
    for task in made:
        assert score(task.scorer, task.expected, reckoned(task, pool)) == 1, task.question


def test_pairs_are_lower_id_first_and_once(questions: Path) -> None:
    for task in pairs.tasks(8_000, pairs.QUERIES, 5, questions):
        assert all(a < b for a, b in task.expected)
        assert len({tuple(pair) for pair in task.expected}) == len(task.expected)


def test_a_window_is_as_long_as_asked_for_and_most_lines_are_of_few_users(questions: Path) -> None:
    made = trec.window(trec.read_pool(questions), 50_000, 0, 0)
    assert 0.85 < len(made.text) / (50_000 * CHARS_PER_TOKEN) <= 0.96
    users = Counter(line.user for line in made.lines)
    common = sum(number for _, number in users.most_common(len(made.lines) // 10))
    assert 0.7 < common / len(made.lines) < 0.9
    assert all(trec.FIRST <= line.day <= trec.LAST for line in made.lines)
    assert not any(label in line.question for line in made.lines for label in trec.LABELS.values())


def test_a_question_with_two_labels_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "q"
    path.write_text(oracle.small_pool() + "LOC:other Who is it ?\nHUM:ind Who is it ?\n", "latin-1")
    assert "Who is it ?" not in [
        question for questions in trec.read_pool(path).values() for question in questions
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "not part of rlm_kernel"),
        ("", "no question of the kind"),
        ("LOC:city Where ?\n", "abbreviation or"),
    ],
)
def test_questions_that_are_missing_are_said(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "q"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=why):
        trec.read_pool(path if text is not None else None)
    with pytest.raises(UsageError, match="cannot be read"):
        trec.read_pool(tmp_path / "nowhere")


@pytest.mark.parametrize("length", [1_000, 30_000])
def test_a_needle_is_there_once_at_all_depths(length: int) -> None:
    depths = []
    for task in niah.tasks(length, niah.DEPTHS, 1):
        text = task.texts["haystack.txt"]
        assert text.count(str(task.expected)) == 1
        assert 0.97 < len(text) / (length * CHARS_PER_TOKEN) <= 1
        depths.append(text.index("One of the special") / len(text))
    assert min(depths) == 0
    assert max(depths) > 0.9
    assert len({round(depth, 2) for depth in depths}) > 20


def test_needles_lie_in_a_text_of_the_users_too(tmp_path: Path) -> None:
    filler = tmp_path / "essay.txt"
    filler.write_text("The sea is wide. Ships are small. ")
    (task,) = niah.tasks(2_000, 1, 0, filler)
    assert "Ships are small. " in task.texts["haystack.txt"]
    filler.write_text("")
    with pytest.raises(UsageError, match="is empty"):
        next(niah.tasks(2_000, 1, 0, filler))


def test_the_passage_to_copy_stands_in_the_text() -> None:
    for task in copying.tasks(20_000, 8, 0):
        text = task.texts["book.txt"]
        assert text.count(task.expected) == 1
        assert score("copy", task.expected, task.expected) == 1


def test_120_easy_tasks_are_ten_kinds_of_twelve_forms() -> None:
    made = list(small.tasks(120, 1))
    assert Counter(task.kind for task in made) == dict.fromkeys(small.KINDS, small.FORMS)
    assert len({task.question for task in made}) == 120
    for task in made:
        if task.scorer == "exact" and task.kind != "classify":
            assert any(
                str(task.expected).casefold() in text.casefold()
                for text in (*task.texts, *task.texts.values())
            ), task


@pytest.mark.parametrize("name", suites.SUITES)
def test_a_seed_makes_the_same_tasks_again_and_another_seed_others(name: str, questions: Path) -> None:
    def made(seed: int) -> list[Task]:
        return list(suites.tasks([name], [2_000], suites.Choice(2_000, 3, seed, questions)))

    assert made(1) == made(1)
    assert [task.texts for task in made(1)] != [task.texts for task in made(2)]
    assert len({task.id for task in made(1)}) == 3
    assert all(task.scorer in SCORERS for task in made(1))


def test_lengths_are_for_suites_that_have_them(questions: Path) -> None:
    made = list(suites.tasks(["niah", "small"], [1_000, 2_000], suites.Choice(1_000, 2, 0, questions)))
    assert [(task.suite, task.length) for task in made] == [("niah", 1000)] * 2 + [("niah", 2000)] * 2 + [
        ("small", 0)
    ] * 2


def test_an_unknown_suite_is_said() -> None:
    with pytest.raises(UsageError, match="no suite 'nia'"):
        suites.tasks(["nia"], [1_000], suites.Choice(1_000, 1))


# The user's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("hello")
    return tmp_path / "own.jsonl"


def test_tasks_of_the_users_own(own: Path) -> None:
    own.write_text(
        '{"question": "What?", "files": ["a.txt"], "expected": "hello"}\n\n'
        '{"question": "How many?", "files": ["a.txt"], "expected": 1, "scorer": "number", "id": "n", '
        '"kind": "count"}\n'
    )
    first, second = suites.tasks([f"jsonl:{own}"], [1_000], suites.Choice(1_000, 1))
    assert (first.id, first.suite, first.scorer, first.files(own.parent)) == (
        "own-001",
        "own",
        "contains",
        [own.parent / "a.txt"],
    )
    assert (second.id, second.kind, second.expected) == ("n", "count", 1)
    assert first.prompt() == "hello\n\nWhat?"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "has no task"),
        ("nonsense", "line 1: Invalid JSON"),
        ("[]", "line 1"),
        ('{"question": "q", "files": ["a.txt"]}', "line 1: expected: Field required"),
        ('{"question": "q", "files": [], "expected": 1}', "files: List should have at least 1"),
        ('{"question": "q", "files": ["b.txt"], "expected": 1}', "no file .*b.txt"),
        ('{"question": "q", "files": ["a.txt"], "expected": 1, "scorer": "guess"}', "no scorer 'guess'"),
        (
            '{"question": "q", "files": ["a.txt"], "expected": "x", "scorer": "number"}',
            "cannot use what is expected",
        ),
        ('{"question": "q", "files": ["a.txt"], "expected": 1, "colour": 1}', "colour"),
        ('{"question": "q", "files": ["a.txt"], "expected": 1, "id": "../x"}', "id: "),
        (
            '{"question": "q", "files": ["a.txt"], "expected": 1, "id": "x"}\n' * 2,
            "more than one task with the id x",
        ),
    ],
)
def test_a_file_that_holds_no_tasks_is_refused_in_words(own: Path, line: str, why: str) -> None:
    own.write_text(line)
    with pytest.raises(UsageError, match=why):
        user_tasks.tasks(own)
