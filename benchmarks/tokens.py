"""The estimate of tokens beside real tokenizers: `python benchmarks/tokens.py [FILE...]`.

The texts are those of tests/support/token_texts.py. Two tokenizers come with litellm: cl100k, of GPT-4, and
that of Claude 2. `FILE`: more of them, as `tokenizer.json` of Hugging Face's library. Nothing is fetched.
For each text it prints what each counts and the estimate's ratio to their geometric mean, and at the end how
long an estimate takes.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rlm_contract.tokens import tokens

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.token_texts import TEXTS

Count = Callable[[str], int]


def from_file(path: Path) -> Count:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def packaged() -> dict[str, Count]:
    found = importlib.util.find_spec("litellm")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    return {
        "cl100k": lambda text: len(encoding.encode(text, disallowed_special=())),
        "Claude 2": from_file(folder / "anthropic_tokenizer.json"),
    }


def main() -> None:
    counts = packaged() | {
        Path(name).parent.parent.name or name: from_file(Path(name)) for name in sys.argv[1:]
    }
    print("text", *counts, "estimate, of their geometric mean", sep="; ")
    for name, text in TEXTS.items():
        found = [count(text) for count in counts.values()]
        mean = math.exp(sum(map(math.log, found)) / len(found))
        print(name, *found, f"{tokens(text):.0f}, {tokens(text) / mean:.2f}", sep="; ")
    for name in ("English", "Japanese"):
        text = TEXTS[name] * (1_000_000 // len(TEXTS[name]))
        began = time.perf_counter()
        for _ in range(200):
            tokens(text)
        print(f"1,000,000 characters of {name}: {(time.perf_counter() - began) * 5:.2f} ms")


if __name__ == "__main__":
    main()
