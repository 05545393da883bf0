"""`rlm open`: a trace in JupyterLab, or as a web page in the browser."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from rlm_kernel.cli._trace import chosen
from rlm_kernel.cli.options import OUTPUT, TRACE_OR_LAST, SettingsOptions, option, with_options
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

_KEPT = 20
"""Pages that are kept: a browser reads them again when it is told to."""


@with_options
def open_(
    trace: TRACE_OR_LAST = None,
    html: Annotated[
        bool, option(OUTPUT, "--html", help="Open the trace as one web page instead, without JupyterLab.")
    ] = False,
    browser: Annotated[
        bool, option(OUTPUT, "--browser/--no-browser", help="Open a browser. Default: yes, if there is one.")
    ] = True,
    *,
    options: SettingsOptions,
) -> None:
    """Open a trace in JupyterLab, or in the browser.

    Starts JupyterLab, prints its address, and ends it on Ctrl-C. The cells of the trace run
    in a locked container, too, and need no key.
    """
    from rlm_kernel.trace.reader import read_trace

    found = read_trace(chosen(trace, options.settings))
    seen = browser and _is_browser()
    if html:
        from rlm_kernel.session import documents

        _show(_page(documents.html(found), found.path.stem), browser=seen)
        return
    from rlm_kernel.cli._jupyter import serve

    serve(Path(os.path.realpath(found.path)), browser=seen)


def _is_browser() -> bool:
    """Whether a browser with a window of its own can be opened from here."""
    if os.environ.get("BROWSER"):
        return True
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _page(text: str, name: str) -> Path:
    """Write the page to a folder of this user's alone. Raises UsageError."""
    from rlm_kernel import system

    folder = system.state_dir() / "pages"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pages = sorted(folder.glob("*.html"), key=lambda page: page.lstat().st_mtime, reverse=True)
        for old in pages[_KEPT - 1 :]:
            with contextlib.suppress(OSError):
                old.unlink()
        with tempfile.NamedTemporaryFile(
            "w",
            dir=folder,
            prefix=f"{name[:60]}-",
            suffix=".html",
            delete=False,
            encoding="utf-8",
            errors="replace",
        ) as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"The page cannot be written to {folder}: {error.strerror or error}.",
            hint="Write it elsewhere: rlm export --html -o FILE",
        ) from error
    return Path(file.name)


def _show(page: Path, *, browser: bool) -> None:
    import webbrowser

    print(f"rlm: the page is {printable(page.as_uri())}", file=sys.stderr)
    if browser and not webbrowser.open(page.as_uri()):
        print("rlm: no browser could be opened; open the address yourself.", file=sys.stderr)
