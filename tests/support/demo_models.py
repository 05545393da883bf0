"""What the test server plays when it runs as a process: a small RLM root, and a sub model that counts
words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

DEMO_PIECES = 200
DEMO_ROOT = f"""I split the input into {DEMO_PIECES} pieces, have each counted by a sub model, and add the counts.

```repl
size = -(-len(context) // {DEMO_PIECES})
pieces = [context[i * size:(i + 1) * size] for i in range({DEMO_PIECES})]
counts = llm_query_batched(["COUNT the\\n" + piece for piece in pieces])
total = sum(int(count) for count in counts)
print(len(counts), "pieces,", total, "in all")
```"""
DEMO_FINAL = """The pieces are counted; the sum is the answer.

```repl
FINAL(f"The word 'the' occurs {total} times, counted in {len(counts)} pieces.")
```"""


def demo_root(messages: Sequence[Mapping[str, Any]]) -> str:
    """Root of the demonstration: the first reply of a conversation counts, each later one delivers."""
    return DEMO_FINAL if any(message["role"] == "assistant" for message in messages) else DEMO_ROOT


def count_words(prompt: str) -> str:
    """Sub model of the demonstration: `COUNT <word>` and a line break, then the text to count in (whole
    words).
    """
    head, _, text = prompt.partition("\n")
    command, _, word = head.partition(" ")
    if command != "COUNT" or not word:
        return f"{len(prompt)} characters"
    return str(len(re.findall(rf"\b{re.escape(word)}\b", text)))
