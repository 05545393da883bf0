"""How long it takes to find where prompts come from: a large file, and many long prompts made of it.

    python benchmarks/sources.py [--file MB] [--prompts N] [--chars N]

Prints seconds of CPU, memory, and precision and recall by bytes; with `--table` those of the built cases
instead, by how code has changed the passages.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rlm_kernel.proof import plaintext
from rlm_kernel.proof.chains import runs
from rlm_kernel.proof.matching import Matcher, batches
from tests.support.passages import CHANGES, KINDS, Span, case, log, prose, score


def claims(prompts: list[str], places: dict[str, Path]) -> list[list[Span]]:
    return [
        one
        for numbers in batches(prompts)
        for one in claims_of(prompts[numbers.start : numbers.stop], places)
    ]


def claims_of(prompts: list[str], places: dict[str, Path]) -> list[list[Span]]:
    names = list(places)
    matcher = Matcher(prompts)
    for number, name in enumerate(names):
        matcher.scan(number, plaintext.parts(places[name], lambda: matcher.words))
    return [
        [
            (names[place.source], place.low, place.high)
            for run in runs(matches, prompt.encode())
            for place in run.places
        ]
        for matches, prompt in zip(matcher.matches, prompts, strict=True)
    ]


def table() -> None:
    print(f"| the passage was | {' | '.join(KINDS)} |\n| --- |{' --- |' * len(KINDS)}")
    for change, how in CHANGES.items():
        row = []
        for kind in KINDS:
            made = case(kind, how, random.Random(f"{change} {kind}"))
            with tempfile.TemporaryDirectory() as folder:
                precision, recall = score(claims(made.prompts, made.write(Path(folder))), made.truth)
            row.append(f"{100 * precision:.1f} / {100 * recall:.1f}")
        print(f"| {change} | {' | '.join(row)} |", flush=True)


def large(megabytes: int, count: int, characters: int) -> None:
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        path, size = Path(folder, "a.txt"), 0
        with path.open("wb") as file:
            while size < megabytes * 1_000_000:
                piece = (prose if chance.random() < 0.7 else log)(chance, 2_000_000).encode()
                file.write(piece)
                size += len(piece)
        prompts: list[str] = []
        truth: list[list[Span]] = []
        with path.open("rb") as file:
            for _ in range(count):
                start = chance.randrange(size - characters)
                file.seek(start)
                text = file.read(characters).decode()
                change = chance.choice(list(CHANGES.values()))
                prompts.append("Summarise this:\n" + change(text, chance))
                truth.append([("a.txt", start, start + characters)])
        before = time.process_time()  # the machine may have other work
        claimed = claims(prompts, {"a.txt": path})
        took = time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    precision, recall = score(claimed, truth)
    print(f"{megabytes:,} MB, {count:,} prompts of {characters:,} characters")
    print(f"{took:.1f} s of CPU, {memory:.2f} GB of memory")
    print(f"precision {precision:.4f}, recall {recall:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=int, default=1_000)
    parser.add_argument("--prompts", type=int, default=1_000)
    parser.add_argument("--chars", type=int, default=100_000)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    table() if given.table else large(given.file, given.prompts, given.chars)


if __name__ == "__main__":
    main()
