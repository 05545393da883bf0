"""One task of a benchmark: a question over texts, with the answer that is right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

CHARS_PER_TOKEN = 4
"""A task of so many tokens has so many times as many characters: about what English prose has with today's
models.
"""


@dataclass(frozen=True)
class Task:
    """What is asked, over what, and what is right.

    `texts`: file name to text. `paths`: files of the user's instead. `scorer`: a name of
    `bench.scorers.SCORERS`. `length` in tokens; 0 where nobody chose it. `kind` groups the tasks of a suite.
    """

    id: str
    suite: str
    kind: str
    question: str
    expected: Any
    scorer: str
    texts: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    length: int = 0

    def files(self, folder: Path) -> list[Path]:
        """Its texts as files, in a folder that tasks over the same texts share. Raises OSError."""
        if self.paths:
            return list(self.paths)
        digest = hashlib.sha256()
        for name, text in self.texts.items():
            digest.update(f"{name}\0{len(text)}\0".encode() + text.encode())
        made = []
        for name, text in self.texts.items():
            path = folder / digest.hexdigest()[:16] / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                # Tasks over the same texts may write them at the same time: each has a name of its own until
                # the file is whole.
                partial = path.with_name(f"{name}.{uuid4().hex}.part")
                partial.write_text(text, "utf-8")
                partial.replace(path)
            made.append(path)
        return made

    def prompt(self) -> str:
        """The whole input and the question, as one prompt. Raises OSError, UnicodeDecodeError."""
        texts = self.texts or {path.name: path.read_text("utf-8") for path in self.paths}
        parts = (
            list(texts.values())
            if len(texts) == 1
            else [f"=== {name} ===\n{text}" for name, text in texts.items()]
        )
        return "\n\n".join([*parts, self.question])
