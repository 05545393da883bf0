"""The encoding that a text names itself: pages, XML, stylesheets, source code, mail and translations do."""

from __future__ import annotations

import codecs
import re

_HEAD = 4096
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w:.+-]{2,40})""", re.IGNORECASE)
_DECLARATIONS = (
    re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w:.+-]{2,40})""", re.IGNORECASE),
    _XML,
    re.compile(rb"""\A@charset\s+["']([\w:.+-]{2,40})""", re.IGNORECASE),
    re.compile(
        rb"""\A(?:[^\n]*\n)?[ \t\f]*(?:#|/\*|//|;|--)[^\n]{0,200}?coding[:=][ \t]*([\w.+-]{2,40})""",
        re.IGNORECASE,
    ),
    re.compile(
        rb"""^"?Content-Type:[^\n]{1,200}?charset\s*=\s*["']?([\w:.+-]{2,40})""", re.IGNORECASE | re.MULTILINE
    ),
)
_AS_BROWSERS = {
    "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
    "iso-8859-9": "cp1254", "shift_jis": "cp932", "shift-jis": "cp932", "x-sjis": "cp932",
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030",
    "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "big5": "big5hkscs", "windows-874": "cp874", "tis-620": "cp874",  # noqa: E501
}  # fmt: skip
"""What browsers take some names for."""


def declared_encoding(head: bytes) -> str:
    """The encoding that a text names in its beginning, as a codec that Python knows; "" without one."""
    found = next(filter(None, (pattern.search(head[:_HEAD]) for pattern in _DECLARATIONS)), None)
    if found is None:
        return ""
    name = found[1].decode("ascii", "replace").lower()
    try:
        known = codecs.lookup(_AS_BROWSERS.get(name, name))
    except LookupError:
        return ""
    # A text that can be read so far is not in an encoding of 16 bits, whatever it says.
    wrong = known.name.startswith(("utf-16", "utf-32")) or not getattr(known, "_is_text_encoding", True)
    return "" if wrong else known.name
