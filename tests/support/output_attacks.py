"""Cells that flood, break or lie with what they print, show, raise and answer; and a session that runs
them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.session.result import Result
from tests.support.trace import cell, load

_PAGE = 4096


@dataclass(frozen=True)
class Attack:
    """`status`: one of those its cell may end with, parted by spaces.

    `capped`: it is to be marked as truncated; None where that depends on when it ends. `seen`: in its outputs.
    """

    code: str
    status: str = "ok"
    capped: bool | None = False
    seen: str = ""


_ENDLESS = "\n        while True: pass"
_RAW = "publish = get_ipython().display_pub.publish\n"

QUICK = {
    "stdout": Attack(
        "b = 'x' * (1 << 20)\nfor _ in range(300): print(b)\nprint('END')", capped=True, seen="END"
    ),
    "file descriptor 1": Attack("import os\nfor _ in range(10): os.write(1, b'x' * (1 << 20))", capped=True),
    "processes": Attack(
        "import subprocess\nsubprocess.run('head -c 10000000 /dev/zero | tr \"\\\\0\" z', shell=True)",
        capped=True,
    ),
    "C's printf": Attack(
        "import ctypes\nc = ctypes.CDLL(None)\nfor _ in range(10_000): c.printf(b'%s\\n', b'y' * 1000)\nx = "
        "c.fflush(None)",
        capped=True,
    ),
    "displays": Attack("for i in range(100_000): display(i)", capped=True, seen="the rest is left out"),
    "updates": Attack("h = display('a', display_id=True)\nfor i in range(100_000): h.update(i)", capped=True),
    "a picture": Attack(
        "from IPython.display import Image\nImage(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100_000_000))",
        capped=True,
        seen="Image object",
    ),
    "a long repr": Attack("class A:\n    def __repr__(self): return 'x' * 300_000_000\nA()", capped=True),
    "no UTF-8": Attack(
        "import os\nprint('\\ud800\\x00\\x1b[2Jlone'); x = os.write(1, b'\\xff\\xfe\\x00bytes\\n'); "
        "display('\\udfff')\n"
        "raise type('E\\ud800', (Exception,), {})('m\\udfff')",
        "error",
        seen="lone",
    ),
    "a traceback": Attack(
        "raise ValueError('begin' + 'q' * 100_000_000 + 'end')", "error", capped=True, seen="end"
    ),
    "a deep traceback": Attack(
        "import sys\nsys.setrecursionlimit(10**6)\n"
        "def f(n):\n    if n: f(n - 1)\n    else: raise ValueError('deep')\ntry: f(10_000)\nfinally: "
        "sys.setrecursionlimit(1_000)",
        "error",
        capped=True,
    ),
    "an error without a message": Attack(
        "class E(Exception):\n    def __str__(self): return 5\nraise E",
        "error",
        capped=True,
        seen="its message cannot be had",
    ),
    "variables without a length": Attack(
        f"class L:\n    def __len__(self):{_ENDLESS}\nmany = L(); globals()[5] = globals()['n' * 10**6] = 1"
    ),
    "a long answer": Attack("FINAL('x' * 200_000_000)", "error", seen="can be delivered"),
    "a deep answer": Attack(
        "x = []\nfor _ in range(100_000): x = [x]\nFINAL(x)", "error", seen="nested too deep"
    ),
    "an answer that is no text": Attack(
        "class A:\n    def __str__(self): return 5\nFINAL(A())", "error", seen="TypeError"
    ),
    "a long answer at the end": Attack(
        "answer.update(content='x' * 200_000_000, ready=True)", "error", seen="can be delivered"
    ),
}
SLOW = {
    "10 GB to stdout": Attack(
        "b = 'x' * (1 << 20)\nfor _ in range(10_000): print(b)", "ok timeout", capped=True
    ),
    "10 GB in lines": Attack("for i in range(10**9): print('line', i)", "timeout", capped=True),
    "10 GB to file descriptor 1": Attack(
        "import os\nb = b'x' * (1 << 20)\nfor _ in range(10_000): os.write(1, b)", "ok timeout", capped=True
    ),
    "10 GB by a process": Attack("!head -c 10000000000 /dev/zero | tr '\\0' z", "ok timeout", capped=True),
    "10 GB by C's printf": Attack(
        "import ctypes\nc = ctypes.CDLL(None)\nwhile True: c.printf(b'%s\\n', b'y' * 100_000)",
        "timeout",
        capped=True,
    ),
    "10 GB to both by threads": Attack(
        "import sys, threading\ndef flood(stream):\n    while True: stream.write('x' * 100_000)\n"
        "ts = [threading.Thread(target=flood, args=(s,)) for s in (sys.stdout, sys.stderr) for _ in "
        "range(4)]\n"
        "for t in ts: t.daemon = True; t.start()\nfor t in ts: t.join()",
        "timeout died",
        capped=None,
    ),
    "a million displays": Attack("for i in range(1_000_000): display(i)", capped=True),
    "a million updates": Attack(
        "h = display('a', display_id=True)\nfor i in range(1_000_000): h.update(i)", capped=True
    ),
    "a million displays past the caps": Attack(
        _RAW + "for i in range(10**6): publish({'text/plain': 'x' * 1000})", "ok timeout", capped=True
    ),
    "a million updates past the caps": Attack(
        _RAW + "publish({'text/plain': 'a'}, transient={'display_id': 'a'})\n"
        "for i in range(10**6): publish({'text/plain': 'x' * 1000}, transient={'display_id': 'a'}, "
        "update=True)",
        "ok timeout",
    ),
    "a picture of 500 MB": Attack(
        "from IPython.display import Image\nImage(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(375_000_000), "
        "format='png')",
        capped=True,
    ),
    "pictures past the caps": Attack(
        _RAW + "for _ in range(100): publish({'image/png': 'A' * 10_000_000, 'text/plain': 'x'})", capped=True
    ),
    "pictures that outrun their reader": Attack(
        _RAW + "for _ in range(200): publish({'image/png': 'A' * 7_900_000, 'text/plain': 'x'})",
        "ok timeout",
        capped=True,
    ),
    "outputs past all caps of the kernel": Attack(
        "k = get_ipython().kernel\n"
        "for _ in range(200): k.session.send(k.iopub_socket, 'display_data', {'data': {'image/png': 'A' * "
        "9_000_000}, 'metadata': {}},"
        " parent=k.get_parent())",
        "ok timeout",
        capped=True,
    ),
    "a repr of 1 GB": Attack(
        "class A:\n    def __repr__(self): return 'x' * 1_000_000_000\nA()", capped=True
    ),
    "a repr without end": Attack(f"class A:\n    def __repr__(self):{_ENDLESS}\nA()", "timeout"),
    "an error's message without end": Attack(
        f"class E(Exception):\n    def __str__(self):{_ENDLESS}\nraise E",
        "timeout",
        capped=True,
        seen="its message cannot be had",
    ),
    "an answer without end": Attack(f"class A:\n    def __str__(self):{_ENDLESS}\nFINAL(A())", "timeout"),
    "an answer at the end without end": Attack(
        f"class A:\n    def __str__(self):{_ENDLESS}\nanswer.update(content=A(), ready=True)", "timeout"
    ),
    "an answer of a list of 200 MB": Attack("FINAL(['abc'] * 30_000_000)", "error", seen="can be delivered"),
    "a picture in each of many cells": Attack("", seen=""),
    "a cell of 10 MB": Attack(f"x = '''{''.join(map(str, range(1_600_000)))}'''"),
}
del SLOW["a picture in each of many cells"]


class HostMemory:
    """How much larger this process has become, at most, inside the `with`: `grown`, in bytes; looked at 100
    times a second.
    """

    def __enter__(self) -> HostMemory:
        self._start = self._peak = self._now()
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._looking.join()
        self.grown = self._peak - self._start

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._peak = max(self._peak, self._now())

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def session(path: Path, codes: Sequence[str], **options: Any) -> Result:
    """A session that runs these cells, one a turn, and then answers `reached`."""
    # One to spare, for the summary that a very long cell calls for.
    replies = [f"```repl\n{code}\n```" for code in [*codes, "FINAL('reached')", "FINAL('reached')"]]
    settings = {
        "limits.cell_timeout": 15.0,
        "limits.turns": len(replies) + 5,
        "sandbox.memory": "2g",
        **options,
    }
    return await RLM(models=ScriptedModels(replies), options=settings).aask("Q", trace=path)


def checked(path: Path, attacks: Sequence[Attack]) -> None:
    """The trace is valid, of bounded size, and says of each of these cells how it went."""
    notebook = load(path)
    assert path.stat().st_size < 100_000_000
    for number, attack in enumerate(attacks, 1):
        ran = cell(notebook, f"turn-{number:02}-a")
        shown = json.dumps(ran.outputs, ensure_ascii=False)
        assert ran.metadata.rlm.status in attack.status.split(), (
            attack.code[:200],
            ran.metadata.rlm.status,
            shown[-3000:],
        )
        truncated = ran.metadata.rlm.get("truncated", False)
        assert attack.capped in (None, truncated), (attack.code[:200], shown[-1000:])
        assert attack.seen in shown, (attack.code[:200], shown[-3000:])
