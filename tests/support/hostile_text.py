"""Texts that try to do more than be read: in a terminal, in Markdown, in HTML."""

from __future__ import annotations

import re
import unicodedata

TERMINAL = {
    "window title": "\x1b]0;OWNED\x07",
    "clipboard": "\x1b]52;c;T1dORUQ=\x1b\\",
    "link": "\x1b]8;;http://evil.example/\x1b\\click\x1b]8;;\x1b\\",
    "cursor": "\x1b[2J\x1b[H\x1b[10A\x1b[999D",
    "alternate screen": "\x1b[?1049h",
    "bracketed paste": "\x1b[?2004h\x1b[200~rm -rf ~\x1b[201~",
    "device control": '\x1bP$q"p\x1b\\\x1bP+q544e\x1b\\',
    "8-bit forms": "\x9b2J\x9d0;OWNED\x9c\x90q\x9c",
    "kitty picture": "\x1b_Gf=100,a=T;AAAA\x1b\\",
    "iterm picture": "\x1b]1337;File=inline=1:AAAA\x07",
    "bells and backspaces": "\x07\x08\x08\x08\x0b\x0c\x7f",
    "bidi": "\u202eevil\u2066\u2069\u200f\u061c",
    "zero width": "a\u200b\u200d\u2060\ufeffb\u00ad",
    "tags": "\U000e0041\U000e0042",
    "marks": "e" + "\u0301" * 1000,
    "private": "\ue000\U000f0000",
    "NUL": "a\x00b",
}
EVIL = " ".join(TERMINAL.values())
_OURS = re.compile(rb"\x1b\[(?:\?(?:25|7|2004|2026)[lh]|[0-9;]*m|[12]?K|[0-9]{0,2}A|B|J)")
"""What the live view itself writes: the cursor, line breaks and drawing off and on, colours, its rows deleted and
written anew.
"""


def strange(seen: bytes | str) -> set[str]:
    """Characters that a terminal must not be given, in what it was given."""
    text = (_OURS.sub(b"", seen).decode(errors="replace") if isinstance(seen, bytes) else seen).replace(
        "\r", ""
    )
    found = {
        char for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co")
    }
    return found | set(re.findall("\u0301{20}", text))


URL = "http://127.0.0.1:{port}/{name}"
MARKDOWN = {
    "picture": "![a]({url})",
    "picture by reference": "![a][r]\n\n[r]: {url}",
    "picture in a link": "[![a]({url})](http://x.example)",
    "html": "<img src={url}>",
    "html over lines": "<img\nsrc='{url}'\n>",
    "html block": "<div>\n<video src='{url}' autoplay></video></div>",
    "style": "<p style=\"background:url('{url}')\">x</p>",
    "iframe": "<iframe src='{url}'></iframe>",
    "svg": "<svg><image href='{url}' /></svg>",
    "in a list": "- a\n\n      <b>\n  - <img src={url}>\n",
    "behind a backslash": "\\<img src={url}>\n\n\\\\<img src={url}>\n\n\\![a]({url})\n\n\\\\![a]({url})",
    "in an open fence": "```\n- ```\n<img src={url}>\n![a]({url})\n",
    "in math": "$ <img src={url}> ![a]({url}) $ and !$x$[a]({url})",
    "math style": "$\\style{{background-image:url({url})}}{{x}}$ $\\href{{{url}}}{{y}}$",
    "diagram": '```mermaid\ngraph TD\n  A["<img src=\'{url}\'>"] --> B@{{ img: "{url}", label: "x" }}\n```',
    "diagram in a quote": '> ~~~ Mermaid\n> graph TD\n>   A@{{ img: "{url}" }}\n> ~~~',
    "entity": "&lt;img src={url}&gt; &#33;[a]({url}) &#60;img src={url}>",
}
HTML = {
    "picture": "<img src='{url}'>",
    "srcset": "<img srcset='{url} 1x'>",
    "style": "<div style='background:url({url})'>x</div>",
    "style sheet": "<style>@import '{url}'; table {{ background: url({url}) }}</style><table "
    "class='dataframe'><tr><td>1</td></tr></table>",
    "script": "<script>fetch('{url}')</script>",
    "handler": "<b onmouseover=\"fetch('{url}')\" autofocus onfocus=\"fetch('{url}')\" tabindex=1>x</b>",
    "frame": "<iframe src='{url}'></iframe><object data='{url}'></object><embed src='{url}'>",
    "media": "<video poster='{url}' src='{url}' autoplay></video><audio src='{url}' autoplay></audio>",
    "svg": "<svg><image href='{url}'/><script>fetch('{url}')</script></svg>",
    "link": "<link rel=stylesheet href='{url}'><base href='{url}'><meta http-equiv=refresh "
    "content='0;url={url}'>",
    "background": "<table background='{url}'><tr><td>1</td></tr></table>",
    "odd tags": "<img/src='{url}'/onerror=fetch('{url}')><<b>img src='{url}'><IMG SRC='{url}'>",
    "form": "<form action='{url}'><input autofocus formaction='{url}' type=image src='{url}'></form>",
}
