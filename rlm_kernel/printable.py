"""Text from models and files, made safe for a terminal."""

from __future__ import annotations

import re

_JOINED = "\\u0620-\\u06dc\\u06de-\\u070e\\u0710-\\u088f\\u0892-\\u08e1\\u08e3-\\u0dff\\u0f00-\\u109f\\u1780-\\u18af\\ufb50-\\ufdff\\ufe70-\\ufefc"  # noqa: E501
"""Of scripts that are spelt with joiners: Persian and the scripts of India have no word without them."""
_EMOJI = "\\u2190-\\u21ff\\u2600-\\u27bf\\u2b00-\\u2bff\\ufe0f\\U0001f000-\\U0001faff"
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b\\u200e\\u200f\\u202a-\\u202e\\u2060-\\u206f"
    "\\ud800-\\uf8ff\\ufeff\\ufff9-\\ufffb\\U000110bd\\U000110cd\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e007f\\U000f0000-\\U0010ffff]"
    f"|(?<![{_JOINED}])(?:\\u200c|(?<![{_EMOJI}])\\u200d|\\u200d(?![{_EMOJI}]))|[\\u200c\\u200d](?=[\\u200c\\u200d])"
)
"""Unicode's control, format, surrogate and private characters but tab and newline: all of categories Cc, Cf,
Cs and Co. A joiner stays where spelling has it: once after a letter of such a script, and between emoji.
"""
_MARK = "[\\u0300-\\u036f\\u0483-\\u0489\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\ufe00-\\ufe0f\\ufe20-\\ufe2f\\U000e0100-\\U000e01ef]"  # noqa: E501
_PILED = re.compile(f"({_MARK}{{8}}){_MARK}++")
"""More marks on one character than any writing has: they cover the lines around, or hide what nobody is to
see.
"""


def printable(text: str) -> str:
    """Without what moves the cursor, changes the terminal, reorders what is read or hides in it."""
    return _PILED.sub("\\1\N{REPLACEMENT CHARACTER}", _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text))
