"""The view of a run in a notebook: one display that is updated in place, of HTML without scripts and widgets.

It draws `views.state`. All programs that show notebooks know such displays: JupyterLab, VS Code, Colab,
nbclient.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from rlm_kernel.engine.totals import counted
from rlm_kernel.printable import printable
from rlm_kernel.sanitize import NO_MATH, link, text
from rlm_kernel.views.outputs import last_lines
from rlm_kernel.views.state import Branch, Told

EVERY = 0.25
"""Seconds between two updates at least."""
_CODE, _OUTPUTS, _TREE, _NOTES = 12, 8, 12, 6
"""Lines at most."""
_WORDS = 600
"""Characters at the end of the root model's words."""
_LINE = 160
"""Characters of a line."""
_FRAME = (
    "border-left:3px solid var(--jp-brand-color1,#1976d2);padding:2px 0 2px 10px;line-height:1.4;"
    "font-size:var(--jp-ui-font-size1,13px)"
)
_PRE = (
    "margin:4px 0;padding:4px 8px;background:rgba(128,128,128,.12);white-space:pre-wrap;"
    "overflow-wrap:anywhere"
)
_QUIET = "opacity:.75"
_BAR = "height:6px;width:100%;max-width:480px;background:rgba(128,128,128,.25);margin:3px 0"
_DONE = "height:6px;background:var(--jp-brand-color1,#1976d2);width:{:.1f}%"
Publish = Callable[..., None]
"""As `publish` of IPython's display publisher."""


def publisher() -> Publish | None:
    """How the notebook that this code runs in is told what to show; None outside notebooks.

    IPython in a terminal has a publisher, too, which prints.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    display = getattr(shell, "display_pub", None)
    if display is None or type(shell).__name__ == "TerminalInteractiveShell":
        return None
    publish: Publish = display.publish
    return publish


class NotebookView(Branch):
    """A listener (`engine.events`) that shows a run in a notebook: while it is entered, as it goes on, and
    from then on in one line.

    A thread draws, as it can: events only change the state, so a notebook that is slow to take displays
    slows no run, and is never behind.
    """

    def __init__(self, publish: Publish, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._hear, clock=clock)
        self._publish = publish
        self._id = f"rlm-{uuid.uuid4().hex}"
        self._notes: list[str] = []
        self._shown = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NotebookView:
        self.begin()
        self._notes, self._shown = [], ""
        self._over.clear()
        self.draw()
        # In this context: the kernel tells by it which cell the display belongs to.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._draw_on,), name="rlm-progress", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def say(self, what: str) -> None:
        """Something about the set-up; a whole sentence is told."""
        if what.endswith("."):
            self.tell(what)
            return
        going_on = what.split("…")[0] == self.doing.split("…")[0]
        self.do(what, since=self.since if going_on else None)

    def tell(self, what: str) -> None:
        """Something that the user should know."""
        self._notes = [*self._notes, what][-_NOTES:]

    def finish(self, what: str, trace: Path | None = None) -> None:
        """What became of it, in the one line that stays; to be called when it is not entered any more."""
        used = self._used()
        there = [trace] if trace is not None and trace.exists() else []
        parts = [f"<b>{_line(what)}</b>", *map(text, used), *(f"trace: {link(path)}" for path in there)]
        notes = "".join(map(_quiet, self._notes))
        plain = " · ".join([what, *used, *(f"trace: {path}" for path in there)])
        self._show(f"<div {NO_MATH}>{' · '.join(parts)}{notes}</div>", plain)

    def _used(self) -> list[str]:
        totals = self.ended[1] if self.ended else self.totals()
        turns = totals.turns or self.turn
        used = [counted(turns, "turn"), totals.spending()] if turns or not totals.nothing else []
        seconds = [f"{totals.seconds:,.1f} s"] if totals.seconds else []
        return [*used, *seconds]

    def _hear(self, told: Told) -> None:
        if told.kind in ("known", "error"):
            self.tell(told.text)

    def _draw_on(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(Exception):  # the next one shows it, or the last
                self.draw()

    def draw(self) -> None:
        """Show how far it is, if that has changed."""
        self._show(self._html(), " · ".join([self.status(), *self.details()]))

    def _show(self, html: str, plain: str) -> None:
        if html == self._shown:
            return
        data = {"text/html": html, "text/plain": printable(plain)}
        update, self._shown = bool(self._shown), html
        self._publish(data, {}, transient={"display_id": self._id}, update=update)

    def _html(self) -> str:
        turn = [f"turn {self.turn}"] if self.turn else []
        return "".join(
            [
                f'<div {NO_MATH} style="{_FRAME}">',
                f"<div>{_line(' · '.join([*turn, self.activity()]))}</div>",
                self._words_html(),
                _pre(_first_lines(self.code)) if self.code else "",
                _pre(last_lines(self.outputs, _OUTPUTS)),
                self._batch_html(),
                self._tree_html(),
                *map(_quiet, self._notes),
                _quiet(self._footer()),
                "</div>",
            ]
        )

    def _words_html(self) -> str:
        words = " ".join(self.words[-_WORDS:].split())
        if not words:
            return ""
        return f'<div style="{_QUIET};overflow-wrap:anywhere"><i>{text(printable(words))}</i></div>'

    def _batch_html(self) -> str:
        progress = self.batch.progress()
        money = progress.money if progress else ""
        batch = " · ".join(filter(None, [self.batch.line(), money]))
        lines = [_quiet(line) for line in (batch, self.waiting.line()) if line]
        if progress is None or not progress.total:
            return "".join(lines)
        done = _DONE.format(100 * progress.done / progress.total)
        return f'<div style="{_BAR}"><div style="{done}"></div></div>{"".join(lines)}'

    def _tree_html(self) -> str:
        tree = list(self.tree())
        lines = [f"{'  ' * depth}{child.name} {child.status()}" for depth, child in tree[:_TREE]]
        more = [f"… and {len(tree) - _TREE:,} more"] if len(tree) > _TREE else []
        return _pre([*lines, *more])

    def _footer(self) -> str:
        used, left = self.account(), self.left()
        seconds = f"{self.totals().seconds:.0f} s in all" if used else ""
        return " · ".join(filter(None, [used, seconds, f"left: {', '.join(left)}" if left else ""]))


def _line(shown: str) -> str:
    line = " ".join(printable(shown[: 4 * _LINE]).split())
    return text(line if len(line) <= _LINE else f"{line[: _LINE - 1]}…")


def _quiet(shown: str) -> str:
    return f'<div style="{_QUIET}">{_line(shown)}</div>' if shown else ""


def _first_lines(code: str) -> list[str]:
    lines = code.strip("\n").split("\n", _CODE)
    return lines if len(lines) <= _CODE else [*lines[:_CODE], "…"]


def _pre(lines: Iterable[str]) -> str:
    shown = "\n".join(line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in lines)
    return f'<pre style="{_PRE}">{text(printable(shown))}</pre>' if shown else ""
