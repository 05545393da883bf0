"""The `rlm` command: parse, call, print. No logic lives here.

Each command has a module of its own; heavy imports happen inside the commands, so that `rlm --help` stays
fast.
"""

from __future__ import annotations

import contextlib
import os
from gc import set_threshold
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rlm_kernel.cli._app import app

__all__ = ["app", "main"]
_OBJECTS = 50_000
"""New ones after which Python looks for garbage; by default 700."""


def main() -> NoReturn:
    """Entry point of `rlm`, also where Ctrl-C comes before all of it is imported."""
    # Most of what a start makes stays: to look through all of it for garbage, again and again, takes an
    # eighth of its time.
    set_threshold(_OBJECTS)
    # Looking for plugins, pydantic reads the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if os.environ.get("_RLM_COMPLETE"):
        from rlm_kernel.cli._complete import answer

        answer(lambda: __getattr__("app"))
    try:
        from rlm_kernel.cli._main import main as run

        run()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            os.write(2, b"rlm: interrupted.\n")
        os._exit(130)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from rlm_kernel.cli._app import app

    return app
