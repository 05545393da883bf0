"""How well what is asked is told from a file that was pasted with it: `python benchmarks/pasted.py FOLDER…`.

Each text file of the folders, of every ending as many, is pasted with a question before or behind it, with a
blank line between or not. No model is asked.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rlm_kernel.serve.pasted import outside_of, pasted

QUESTIONS = (
    "How many lines are there?",
    "What is this about?",
    "Summarize this in three sentences.",
    "Please list all names in it.",
    "Count the errors and tell me when the first came",
    "Question: who wrote this?",
)
LONG = 4_000
EACH = 15
"""Files of one ending."""


def texts(folders: list[Path], most: int) -> Iterator[str]:
    """Files of text that are long and not too long, as many of each ending."""
    found = defaultdict[str, list[Path]](list)
    for path in itertools.chain.from_iterable(folder.rglob("*.*") for folder in folders):
        if path.is_file() and not path.is_symlink() and 3 * LONG < path.stat().st_size < 1_000_000:
            found[path.suffix].append(path)
    chosen = random.Random(0)
    lists = [chosen.sample(sorted(paths), min(EACH, len(paths))) for _, paths in sorted(found.items())]
    count = 0
    for path in filter(None, itertools.chain.from_iterable(itertools.zip_longest(*lists))):
        try:
            text = path.read_text("utf-8").strip()
        except UnicodeDecodeError:
            continue
        if count < most and "\0" not in text and len(text) > 2 * LONG:
            count += 1
            yield text


def told(text: str, asked: str, *, before: bool, blank: bool) -> str:
    """`exact`, `uncertain`, or which of both is not whole."""
    between = "\n\n" if blank else "\n"
    message = f"{asked}{between}{text}" if before else f"{text}{between}{asked}"
    spans = pasted(message, [message], LONG)
    if not spans:
        return "uncertain"
    outside = " ".join(outside_of(message, spans)).split()
    if outside == asked.split():
        return "exact"
    return "more is asked" if asked in " ".join(outside) else "the question is in the file"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--files", type=int, default=360)
    given = parser.parse_args()
    counts, files = Counter[str](), 0
    for text in texts(given.folders, given.files):
        files += 1
        for number, (before, blank) in enumerate(itertools.product((True, False), repeat=2)):
            counts[told(text, QUESTIONS[(files + number) % len(QUESTIONS)], before=before, blank=blank)] += 1
    print(f"{files} files, {counts.total()} messages")
    for what, count in counts.most_common():
        print(f"{100 * count / counts.total():5.1f} % {what}")


if __name__ == "__main__":
    main()
