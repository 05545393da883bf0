"""The colours of what is shown in terminals: of the terminal's own sixteen those that can be read on light
and on dark. Nothing depends on them.
"""

from __future__ import annotations

import os

from rich.style import Style

BOLD, ITALIC = Style(bold=True), Style(italic=True)
MARK, DONE, FAILED = Style(color="cyan"), Style(color="green"), Style(color="red")
PYTHON = {
    "Comment": ITALIC,
    "Keyword": Style(color="magenta"),
    "Operator.Word": Style(color="magenta"),
    "Literal.String": Style(color="green"),
    "Literal.Number": Style(color="cyan"),
    "Name.Builtin": Style(color="cyan"),
    "Name.Function": BOLD,
    "Name.Class": BOLD,
}
"""Of code, by Pygments' types of tokens."""
MARKDOWN = {
    "markdown.code": "cyan",
    "markdown.code_block": "",
    "markdown.block_quote": "italic",
    "markdown.h1.border": "",
    "markdown.h2": "bold",
    "markdown.h3": "bold",
    "markdown.h4": "italic",
    "markdown.h7": "italic",
    "markdown.hr": "",
    "markdown.list": "",
    "markdown.item.bullet": "bold",
    "markdown.item.number": "bold",
    "markdown.link": "underline",
    "markdown.link_url": "underline",
    "markdown.table.border": "",
    "markdown.table.header": "bold",
}
"""Of answers, by rich's names."""


def wanted() -> bool:
    """Whether the user wants colours (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")
