"""Formulas of Word files on one line: with signs for fractions, powers and roots, or 10 and -6 were 10-6."""

from __future__ import annotations

import re
from typing import Any

from rlm_runtime.xmlwalk import child_of, name_of, value_of

_DEEP = 60
_ONE = re.compile(r"[-\u2212]?[\w.]+|\S|\w+\([^()]*\)")
"""What needs no brackets around it."""
_PROPERTIES = re.compile(r"[a-zA-Z]+Pr")


def formula(element: Any, depth: int = 0) -> str:
    """The text of a formula, or of a part of one."""
    if depth > _DEEP:
        return ""

    def part(name: str) -> str:
        found = child_of(element, name)
        return formula(found, depth + 1).strip() if found is not None else ""

    match name_of(element):
        case "t":
            return (element.text or "").replace("\N{FUNCTION APPLICATION}", "")
        case "f":
            bar = " over " if _sign(element, "fPr", "type", "bar") == "noBar" else "/"
            return f"{_grouped(part('num'))}{bar}{_grouped(part('den'))}"
        case "sSup" | "sSub" | "sSubSup" | "sPre":
            return _grouped(part("e")) + _scripts(part("sub"), part("sup"))
        case "limLow" | "limUpp" as name:
            limit = part("lim")
            return _grouped(part("e")) + (_scripts(limit, "") if name == "limLow" else _scripts("", limit))
        case "eqArr" | "m":
            return "; ".join(formula(one, depth + 1) for one in element if name_of(one) in ("e", "mr"))
        case "rad":
            degree = part("deg")
            return f"{f'root({degree})' if degree else '√'}({part('e')})"
        case "nary":
            return f"{_sign(element, 'naryPr', 'chr', '∫')}{_scripts(part('sub'), part('sup'))} {part('e')}"
        case "d":
            inner = [formula(one, depth + 1) for one in element if name_of(one) == "e"]
            between = _sign(element, "dPr", "sepChr", "|")
            begin, end = _sign(element, "dPr", "begChr", "("), _sign(element, "dPr", "endChr", ")")
            return f"{begin}{between.join(inner)}{end}"
        case "func":
            return f"{part('fName')} {part('e')}"
        case "mr":
            return ", ".join(formula(one, depth + 1) for one in element)
        case "del" | "moveFrom":
            return ""
    if _PROPERTIES.fullmatch(name_of(element)):
        return ""
    return "".join(formula(one, depth + 1) for one in element)


def _scripts(sub: str, sup: str) -> str:
    return (f"_{_grouped(sub)}" if sub else "") + (f"^{_grouped(sup)}" if sup else "")


def _grouped(text: str) -> str:
    return text if _ONE.fullmatch(text) else f"({text})"


def _sign(element: Any, properties: str, name: str, default: str) -> str:
    found = child_of(element, properties, name)
    return (value_of(found, "val") or "") if found is not None else default
