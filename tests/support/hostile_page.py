"""Traces that a stranger has written: in each field stands what would run, fetch or break out in a page."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

from rlm_kernel.engine.events import RunFinished
from rlm_kernel.engine.protocols import Answer, Evidence, Outcome, Totals, Usage
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell

HIT = "window.rlmHit=1"
PAYLOADS = (
    f"<script>{HIT}</script>",
    f"</script><script>{HIT}</script>",
    f"</style><script>{HIT}</script>",
    f"</title><script>{HIT}</script>",
    f"</textarea></noscript></template><script>{HIT}</script>",
    f"--><script>{HIT}</script><!--",
    f"<img src=x onerror={HIT}>",
    f'"><img src=x onerror={HIT}>',
    f"'><svg onload={HIT}>",
    f"<svg><animate onbegin={HIT} attributeName=x dur=1s>",
    f"<details open ontoggle={HIT}><summary>x</summary></details>",
    f"<input autofocus onfocus={HIT}>",
    f"<body onload={HIT}>",
    f"<iframe srcdoc='<script>parent.{HIT}</script>'></iframe>",
    "<iframe src=https://evil.invalid/frame></iframe>",
    f"<a href=javascript:{HIT}>x</a>",
    f"[x](javascript:{HIT}) [y](&#106;avascript:{HIT}) <javascript:{HIT}>",
    "![x](https://evil.invalid/picture.png)",
    "<img src=https://evil.invalid/img><link rel=stylesheet href=https://evil.invalid/css>",
    "<style>@import url(https://evil.invalid/import); body{background:url(https://evil.invalid/bg)}</style>",
    "<div style='background:url(https://evil.invalid/style)'>x</div>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid/meta'><base href=https://evil.invalid/>",
    "<form action=https://evil.invalid/form><button autofocus>x</button></form>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={HIT}&gt;'>",
    "</pre></section></main></body></html><h1>spoofed</h1>",
    "{{ 7*7 }}{% raw %}${7*7}#{7*7}",
    "\x00\x1b[31m\u202egnp.exe\ud800\u2066",
)
ALL = "\n\n".join(PAYLOADS)
_KEPT = {
    "id", "cell_type", "output_type", "kind", "status", "digest", "media_type", "sha256", "prompt_digest", "created", "started",
    "at", "stop_reason", "unit", "verdict", "encoding", "version", "code_digest", "preview_picture", "error_type", "iopub.execute_input", "iopub.status.busy",
    "iopub.status.idle", "shell.execute_reply", "trace", "seal",
}  # fmt: skip
_SHORT = {"role", "name"}


PASSAGES = (Evidence(1, "/data/a.txt", 0, 3, "one"), Evidence(2, "/data/a.txt", 5, 8, "two"))


def _spoilt(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "models" and all(isinstance(one, str) for one in value.values()):
            return dict.fromkeys(value, ALL)
        return {name: _spoilt(one, name) for name, one in value.items()}
    if isinstance(value, list):
        if key in ("source", "text", "traceback"):
            return [ALL]
        return [_spoilt(one, key) for one in value]
    if not isinstance(value, str) or key in _KEPT:
        return value
    if key == "path":
        return ALL.replace("\0", "").replace("..", "")
    return PAYLOADS[0] if key in _SHORT else ALL


def hostile_trace(path: Path) -> Path:
    """A trace with the payloads in every text that its form does not restrict, of each kind of output and
    call.
    """
    writer = NotebookWriter(path, meta(), ())
    tell(writer, STORY[:-1])
    writer(
        RunFinished(
            Outcome(Answer("x [1]\ny", evidence=PASSAGES), "turns", True, "d"),
            Totals(2, 2, Usage(1, 1, 1), Usage(), 1.0, 9.0),
        )
    )
    notebook = _spoilt(json.loads(path.read_text("utf-8")))
    code = next(cell for cell in notebook["cells"] if cell["id"] == "turn-01-a")
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    shown = [
        {"text/html": ALL},
        {"text/markdown": ALL},
        {"text/latex": ALL},
        {"text/plain": ALL},
        {"application/json": {ALL: [ALL]}},
        {
            "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg' onload='{HIT}'><script>{HIT}</script></svg>"
        },
        {"application/javascript": HIT},
        {"image/png": f'{picture}" onerror="{HIT}'},
        {"image/png": picture},
        {f"text/x{ALL[:40]}": ALL},
    ]
    code["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}} for data in shown]
    code["outputs"].append({"output_type": "stream", "name": "stdout", "text": ALL})
    code["outputs"].append({"output_type": "error", "ename": ALL, "evalue": ALL, "traceback": [ALL]})
    notebook["cells"].append({"cell_type": "markdown", "id": "added", "metadata": {}, "source": ALL})
    path.write_text(json.dumps(notebook), "utf-8")
    return path


_TAGS = (
    "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "details", "div", "dl", "dt", "em", "h1", "h3", "hr",
    "i", "li", "ol", "p", "pre", "q", "s", "small", "span", "strong", "sub", "summary", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "tt", "u", "ul", "section", "main", "object", "template", "select", "option", "svg", "math", "form", "a",
)  # fmt: skip


def tangled(seed: int) -> str:
    """HTML whose elements are opened and closed in any order, with text between them."""
    chance = random.Random(seed)
    parts = []
    for _ in range(chance.randint(1, 40)):
        name = chance.choice(_TAGS)
        parts.append(f"</{name}>" if chance.random() < 0.45 else f"<{name}>")
        if chance.random() < 0.4:
            parts.append("text")
    return "".join(parts)
