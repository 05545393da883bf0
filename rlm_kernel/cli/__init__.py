"""The `rlm` command: parse, call, print. No logic lives here.

Each command has a module of its own; heavy imports happen inside the commands, so that `rlm --help` stays fast.
"""

from __future__ import annotations

from rlm_kernel.cli._app import app
from rlm_kernel.cli._main import main

__all__ = ["app", "main"]
