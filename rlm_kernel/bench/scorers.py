from __future__ import annotations

import re
from typing import Any


def score(scorer: str, expected: Any, answer: str) -> float:
    text = answer.strip().strip("\"'`.").strip()
    if scorer == "number":
        found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
        return float(len(found) == 1 and abs(float(found[0].replace(",", "")) - float(expected)) < 1e-6)
    return float(" ".join(text.lower().split()) == " ".join(str(expected).lower().split()))
