"""Verbatim copying: a passage of a long text is to be given back as it is, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from rlm_kernel.bench.small_texts import WORDS
from rlm_kernel.bench.task import CHARS_PER_TOKEN, Task

_SHARES = (0.01, 0.05, 0.25, 0.9)
"""Of the text, in turn."""


def tasks(length: int, count: int, seed: int) -> Iterator[Task]:
    """Chapters of random lines; one is asked for. `length` in tokens."""
    for place in range(count):
        random = Random(f"copy {seed} {length} {place}")
        chars = length * CHARS_PER_TOKEN
        share = _SHARES[place % len(_SHARES)]
        wanted, sizes = _chapters(random, chars, share)
        chapters = [_passage(random, size) for size in sizes]
        text = "".join(f"=== Chapter {number} ===\n{chapter}" for number, chapter in enumerate(chapters, 1))
        question = (
            f"Copy chapter {wanted + 1} verbatim and in full: every line between its heading and the "
            "next heading, without the headings."
        )
        kind = f"{share:.0%} of the text"
        yield Task(
            f"copy-{seed}-{length}-{place:03d}",
            "copy",
            kind,
            question,
            chapters[wanted],
            "copy",
            {"book.txt": text},
            length=length,
        )


def _chapters(random: Random, chars: int, share: float) -> tuple[int, list[int]]:
    """Which chapter is asked for, and the sizes of all."""
    rest = chars - int(chars * share)
    others = min(9, max(1, rest // 500))
    sizes = [rest // others] * others
    wanted = random.randrange(others + 1)
    sizes.insert(wanted, int(chars * share))
    return wanted, sizes


def _passage(random: Random, size: int) -> str:
    lines: list[str] = []
    done = 0
    while done < size or not lines:
        line = " ".join(random.choices(WORDS, k=9)) + f" {random.randint(100, 999)}\n"
        lines.append(line)
        done += len(line)
    return "".join(lines)
