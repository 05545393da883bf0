"""JupyterLab on one notebook: a server of its own, which ends with the command."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from rlm_kernel import system
from rlm_kernel.errors import SetupError
from rlm_kernel.printable import printable
from rlm_kernel.session.kernelspecs import LIVE_NAME, NAME, write

_WAIT = 60.0
"""Seconds that JupyterLab has to start."""
_ASKED, _END = 3, 10.0
"""How often it is asked to end, and the seconds that it has each time: it removes its kernels' containers."""
_LOOK = 0.1
_RUN = "import os; from jupyterlab.labapp import main; main(); os._exit(0)"
"""JupyterLab, which has closed everything when `main` returns.

Python would then wait for its threads, some of them for ever: a worker thread of AnyIO's ends with the
request that it was started for, and that never ends where the server was stopped meanwhile.
"""


def serve(notebook: Path, *, browser: bool) -> None:
    """Start JupyterLab on a notebook, print its address, and wait for its end or Ctrl-C.

    Raises SetupError where it is not installed, or does not start.
    """
    _check_installed()
    with tempfile.TemporaryDirectory(prefix="rlm-open-") as kernels:
        write(Path(kernels))
        _serve(notebook, kernels, browser=browser)


def _serve(notebook: Path, kernels: str, *, browser: bool) -> None:
    token = secrets.token_hex(24)
    path = os.pathsep.join(filter(None, (kernels, os.environ.get("JUPYTER_PATH"))))
    server = subprocess.Popen(  # not in the terminal's group: its Ctrl-C is for this command, which ends it
        _arguments(notebook, browser=browser),
        env={**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = _address(server, notebook, token)
        print(f"rlm: JupyterLab: {address}", file=sys.stderr)
        print("rlm: Ctrl-C stops it.", file=sys.stderr, flush=True)
        server.wait()
    except KeyboardInterrupt:
        print("\nrlm: stopping JupyterLab …", file=sys.stderr, flush=True)
    finally:
        _end(server)


def _check_installed() -> None:
    if importlib.util.find_spec("jupyterlab") is None:
        raise SetupError(
            "JupyterLab is not installed in the Python environment of rlm.",
            hint="Install it: pip install 'rlm-kernel[lab]'. Without it: rlm open --html, or rlm show",
        )


def _root(notebook: Path) -> Path:
    """The folder that Jupyter serves: this one, if the notebook is seen from it; else the notebook's."""
    here = Path.cwd()
    if notebook.is_relative_to(here) and here != Path(here.anchor):
        between = notebook.relative_to(here).parts[:-1]
        if not any(part.startswith(".") for part in between):  # what is hidden is not served
            return here
    return notebook.parent


def _arguments(notebook: Path, *, browser: bool) -> list[str]:
    root = _root(notebook)
    return [
        sys.executable,
        "-c",
        _RUN,
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{quote(notebook.relative_to(root).as_posix())}",
        "--ServerApp.ip=localhost",
        "--ServerApp.allow_remote_access=False",
        # Without its kernel, or for a trace that names another one, JupyterLab takes the Python of this
        # machine and says nothing: a model's code would run outside of any container.
        *(f"--KernelSpecManager.allowed_kernelspecs={name}" for name in (NAME, LIVE_NAME)),
        "--KernelSpecManager.ensure_native_kernel=False",
        *(f"--{app}.log_level=ERROR" for app in ("ServerApp", "LabApp", "LabServerApp")),
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if system.is_root() else []),
    ]


def _address(server: subprocess.Popen[bytes], notebook: Path, token: str) -> str:
    """Where the notebook is shown, when the server says that it is there. Raises SetupError."""
    from jupyter_core.paths import jupyter_runtime_dir

    told = Path(jupyter_runtime_dir(), f"jpserver-{server.pid}.json")
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            url = json.loads(told.read_text("utf-8"))["url"]
            place = quote(notebook.relative_to(_root(notebook)).as_posix())
            return printable(f"{url}lab/tree/{place}?token={token}")
        time.sleep(_LOOK)
    raise SetupError(
        "JupyterLab did not start.",
        hint=f"To see its own messages: jupyter lab {system.quoted(str(notebook))}",
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels first."""
    for _ in range(_ASKED):
        if server.poll() is None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                server.wait(_END)
    if server.poll() is None:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                server.kill()
            else:
                os.killpg(server.pid, signal.SIGKILL)
        server.wait()
