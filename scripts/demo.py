"""The demonstration behind `make demo`: two questions, asked of the local model by the command that a user
would type, and checked.

1. A count over more than 20 MB of real text, the source of Python and of the packages installed here; grep
   checks it.
2. Which of some hundred short reviews are negative, which no word in them decides; the labels with which
   they were made check it.

Exits 1 if the local model fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

FOLDER = Path("rlm-traces")
CORPUS = FOLDER / "python-library.txt"
AT_LEAST = 25_000_000
NEEDLE = "raise ValueError"
REVIEWS = FOLDER / "reviews.txt"
COUNT = 120
GOOD_ENOUGH = 0.85
"""Share of the reviews that the local model must have judged as they were made."""
_PARTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "positive": (
        (
            "The {} was even better than in the pictures",
            "We could not stop talking about the {}",
            "I slept like a baby, and the {} was a treat",
            "Our children loved the {}",
            "The {} made our holiday",
            "Hats off to whoever looks after the {}",
            "The {} alone is worth the journey",
            "We have never had a nicer {}",
        ),
        ("and we have booked again", "thank you", "ten out of ten", "see you next summer", "what a find"),
    ),
    "negative": (
        (
            "The {} was dirty when we came and dirty when we left",
            "Nobody cared that the {} did not work",
            "We paid extra for the {} and never got it",
            "The {} ruined our holiday",
            "The {} looked nothing like the pictures",
            "I complained twice about the {} in vain",
            "The {} smelled of mould",
            "We left a day early because of the {}",
        ),
        ("never again", "what a waste of money", "stay away", "we want a refund", "shame on them"),
    ),
}
_THINGS = (
    "room",
    "breakfast",
    "pool",
    "sauna",
    "garden",
    "terrace",
    "bathroom",
    "restaurant",
    "beach",
    "bar",
)


def sources() -> Iterator[Path]:
    """Python's own library, then what is installed beside it."""
    for key in ("stdlib", "purelib"):
        yield from sorted(Path(sysconfig.get_path(key)).rglob("*.py"))


def make_corpus() -> None:
    """One text of many files, of at least AT_LEAST bytes."""
    FOLDER.mkdir(exist_ok=True)
    with CORPUS.open("wb") as corpus:
        for path in sources():
            corpus.write(path.read_bytes().replace(b"\0", b"").rstrip(b"\n") + b"\n")
            if corpus.tell() >= AT_LEAST:
                break
    if CORPUS.stat().st_size < 20_000_000:
        sys.exit(f"demo: only {CORPUS.stat().st_size:,} bytes of text were found on this machine.")


def make_reviews() -> list[int]:
    """Write the reviews, a line each; returns the numbers of those that are negative."""
    draw = Random(0)
    kinds = [draw.choice(list(_PARTS)) for _ in range(COUNT)]
    lines = []
    for kind in kinds:
        begin, end = (draw.choice(part) for part in _PARTS[kind])
        lines.append(f"{begin.format(draw.choice(_THINGS))}, {end}.")
    REVIEWS.write_text("\n".join(lines) + "\n", "utf-8")
    return [number for number, kind in enumerate(kinds, 1) if kind == "negative"]


def asked(question: str, file: Path, trace: str) -> tuple[str, float]:
    """Ask the local model; its answer and the seconds it took."""
    command = [str(Path(sys.executable).parent / "rlm"), "ask", question, "-f", str(file), "-m", "local"]
    command += ["--trace", str(FOLDER / trace)]
    print(f"$ {shown(command)}", flush=True)
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout.strip(), flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: the local model gave no answer (exit code {done.returncode}).")
    return done.stdout.strip(), time.monotonic() - started


def first_question() -> float:
    """A count, checked with grep."""
    make_corpus()
    print(f"1. A count over {CORPUS.stat().st_size:,} bytes of source text\n", flush=True)
    answer, seconds = asked(f'How many lines contain "{NEEDLE}"?', CORPUS, "demo-count.ipynb")
    check = ["grep", "-c", NEEDLE, str(CORPUS)]
    counted = subprocess.run(
        check, stdout=subprocess.PIPE, text=True, env=os.environ | {"LC_ALL": "C"}, check=True
    ).stdout.strip()
    print(f"$ {shown(check)}\n{counted}")
    if re.findall(r"\d+", answer.replace(",", "")) != [counted]:
        sys.exit(f"demo: the local model's answer is wrong: {answer!r} instead of {counted}.")
    print("The answer is right.")
    return seconds


def second_question() -> tuple[float, float]:
    """Reading, checked with the labels that the reviews were made with; the score, and the seconds."""
    negative = set(make_reviews())
    print(f"\n2. Reading {COUNT} reviews: no word in them decides\n", flush=True)
    question = f"Which of the {COUNT} reviews are negative? Give their numbers as a list."
    answer, seconds = asked(question, REVIEWS, "demo-reviews.ipynb")
    score = 1 - len(negative.symmetric_difference(map(int, re.findall(r"\d+", answer)))) / COUNT
    print(f"{score:.1%} of the {COUNT} reviews are judged as they were made.")
    if score < GOOD_ENOUGH:
        sys.exit(f"demo: {GOOD_ENOUGH:.0%} were expected.")
    return score, seconds


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    words = [Path(command[0]).name, *command[1:]]
    return " ".join(f"'{word}'" if re.search(r"[^\w./=-]", word) else word for word in words)


def main() -> None:
    counting = first_question()
    score, reading = second_question()
    print(
        f"\nCounting: right, in {counting:.0f} s. Reading: {score:.1%} right, in {reading:.0f} s.\n\n"
        f"To open the notebooks:\n  .venv/bin/pip install -c constraints.txt -e '.[lab]'\n"
        f"  .venv/bin/jupyter lab {FOLDER}/demo-count.ipynb {FOLDER}/demo-reviews.ipynb"
    )


if __name__ == "__main__":
    main()
