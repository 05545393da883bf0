"""S-NIAH, a needle in a haystack, as RULER has it: one sentence with a magic number, somewhere in a long
text.

Source: Hsieh et al., RULER (arXiv 2404.06654), task `niah_single`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from uuid import UUID

from rlm_kernel.bench.small_texts import words
from rlm_kernel.bench.task import CHARS_PER_TOKEN, Task
from rlm_kernel.errors import UsageError

DEPTHS = 40
_FILLER = "The wind moved the grass, and the grass lay still again. "
_ADJECTIVES = words(
    "amber brisk calm dusty eager faint gentle hollow ivory jolly keen lunar mellow noble oval plain quiet "
    "rustic silver tidy"
)
_NOUNS = words(
    "anvil bridge canyon dagger ember falcon goblet harbor island jigsaw kernel lantern meadow nutmeg "
    "orchard pebble quiver ridge"
)


def tasks(length: int, count: int, seed: int, filler: Path | None = None) -> Iterator[Task]:
    """Each with a needle at another of 40 depths; every second one hides a UUID instead of seven digits.

    `length` in tokens. `filler`: a text of the user's, repeated as often as it takes. Raises UsageError.
    """
    sentences = _sentences(filler)
    for place in range(count):
        random = Random(f"niah {seed} {length} {place}")
        key = f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}"
        kind = ("number", "uuid")[place % 2]
        value = (
            str(random.randint(1_000_000, 9_999_999))
            if kind == "number"
            else str(UUID(int=random.getrandbits(128), version=4))
        )
        needle = f"One of the special magic numbers for {key} is: {value}. "
        depth = (place * 17 + seed) % DEPTHS
        text = _hide(needle, sentences, length * CHARS_PER_TOKEN, depth)
        question = f"What is the special magic number for {key} mentioned in the provided text?"
        yield Task(
            f"niah-{seed}-{length}-{place:03d}",
            "niah",
            kind,
            question,
            value,
            "contains",
            {"haystack.txt": text},
            length=length,
        )


def _sentences(filler: Path | None) -> list[str]:
    if filler is None:
        return [_FILLER]
    try:
        text = filler.read_text("utf-8", "replace")
    except OSError as error:
        raise UsageError(
            f"The filler {filler} cannot be read: {error.strerror}.", hint="Give --filler a text file."
        ) from error
    found = [f"{sentence.strip()}. " for sentence in text.split(". ") if sentence.strip()]
    if not found:
        raise UsageError(
            f"The filler {filler} is empty.", hint="Give --filler a text file with sentences in it."
        )
    return found


def _hide(needle: str, sentences: list[str], chars: int, depth: int) -> str:
    """The filler with the needle at a sentence's end, `depth` of 39 parts into it."""
    hay: list[str] = []
    size = len(needle)
    for sentence in cycle(sentences):
        if size + len(sentence) > chars:
            break
        hay.append(sentence)
        size += len(sentence)
    hay.insert(len(hay) * depth // (DEPTHS - 1), needle)
    return "".join(hay)
