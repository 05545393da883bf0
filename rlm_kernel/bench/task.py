from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    id: str
    suite: str
    kind: str
    question: str
    texts: Mapping[str, str]
    expected: Any
    scorer: str
