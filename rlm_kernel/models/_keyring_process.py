"""The one place that uses the library `keyring`: a process of its own, which runs this file.

One request is on stdin and one reply goes to stdout, both JSON. The process ends by itself in time, whatever
the keyring does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def main() -> None:
    """Read a request (`do`, `service`, `name`, `key`, `seconds`, `path`), and write what came of it: `key` or
    `error`, with the `backend`.
    """
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    alarm = threading.Timer(request["seconds"], os._exit, (1,))
    alarm.daemon = True
    alarm.start()
    # Backends print, and some ask on stdin.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    answers.write(json.dumps(_answer(request)))
    answers.flush()
    os._exit(0)  # a backend's threads may not end


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    backend = ""
    try:
        import keyring

        ring = keyring.get_keyring()
        backend = f"{type(ring).__module__}.{type(ring).__qualname__}"
        return {"key": _do(ring, request), "backend": backend}
    except BaseException as error:
        return {"error": _kind(error), "said": _said(error), "backend": backend}


def _do(ring: Any, request: dict[str, Any]) -> str | None:
    """What the keyring has under the name; "" for what was removed."""
    place = request["service"], request["name"]
    if request["do"] == "add":
        ring.set_password(*place, request["key"])
    found: str | None = ring.get_password(*place)
    if request["do"] == "remove" and found is not None:
        ring.delete_password(*place)
        return ""
    return found


def _kind(error: BaseException) -> str:
    try:
        from keyring import errors
    except Exception:  # the library itself is what fails
        return "failed"
    if isinstance(error, errors.NoKeyringError):
        return "none"
    return "locked" if isinstance(error, errors.KeyringLocked) else "failed"


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main()
