"""Dollar signs in the Markdown of a notebook. Programs that show notebooks take what stands between two of
them for a formula: "from $5 to $10" loses its words, and a table of prices its rows.

JupyterLab looks for formulas in the Markdown, and again in the page that it makes of it. So neither a
backslash nor an entity alone keeps a price; but no program finds a formula across tags.
"""

from __future__ import annotations

import re

from rlm_kernel.trace.headings import FENCE, closes

SIGN = "<span>&#36;</span>"
"""A dollar sign that begins and ends no formula."""
_BLOCK_END = re.compile(r"(\n[ \t]*\n)")
_INDENTED = re.compile(r" {4}| {0,3}\t")
_TOKEN = re.compile(
    r"(?P<kept>(?<!`)(`+)(?!`)[^\n]{1,2000}?(?<!`)\2(?!`)"  # code
    r"|\]\([^()\s]*+\)|https?://[^\s<>]++"  # where links lead
    r"|(?<![^\s>])\$\$(?!\$)[^$]+\$\$(?!\$)"  # formulas, by the rules of Pandoc, but for prices
    # and units: "Price ($), cost ($)", "$/kg", "in $M and US$"
    r"|(?<![A-Za-z0-9$\\])\$(?![\s$)\"'*,;:/.]|(?<=\[\$)\])(?!\d[^$\n]*\s\(?[A-Za-z]{2})[^$\n]*"
    r"(?<![\s\\])(?<![\s(](?:US|AU|CA|NZ|HK))\$(?![A-Za-z0-9$])"
    r"|\\\\)"
    r"|\\?\$"
)


def shown(markdown: str) -> str:
    """The Markdown with its dollar signs as `SIGN`, but for formulas, code and links; a lone one stays."""
    if markdown.count("$") < 2:
        return markdown
    done: list[str] = []
    prose: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        opened = None if fence else FENCE.match(line)
        if fence or opened:
            done += _paragraphs(prose)
            done.append(line)
            prose = []
            fence = opened[1] if opened else "" if closes(line, fence) else fence
        else:
            prose.append(line)
    return "\n".join([*done, *_paragraphs(prose)])


def without(markdown: str) -> str:
    """The Markdown with its dollar signs as texts have them, and without backslashes before them."""
    return markdown.replace(SIGN, "$").replace("&#36;", "$").replace("\\$", "$")


def _paragraphs(lines: list[str]) -> list[str]:
    """Lines outside of fences; nothing where there are none."""
    if not lines:
        return []
    parts = _BLOCK_END.split("\n".join(lines))
    for place in range(0, len(parts), 2):
        code = place > 0 and _INDENTED.match(parts[place])
        if parts[place].count("$") > 1 and not code:
            parts[place] = _TOKEN.sub(lambda found: found[0] if found["kept"] else SIGN, parts[place])
    return ["".join(parts)]
