"""The kernelspecs by which Jupyter finds the kernel of `session.jupyter`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlm_kernel.errors import SetupError, UsageError

NAME, LIVE_NAME = "rlm", "rlm-live"
"""Traces name the first."""
_TITLE, _LIVE_TITLE = "RLM (Docker)", "RLM (Docker, live model calls)"
_PROVISIONER = "rlm-notebook"
_NO_PROVISIONERS = (
    "This kernel runs in a Docker container, which a kernel provisioner starts; the program that you use "
    "starts kernels by itself and "
    "knows no provisioners. Start a Jupyter server (jupyter lab) where rlm-kernel is installed, and connect "
    "to it: in VS Code with "
    "'Select Another Kernel', 'Existing Jupyter Server'."
)


def kernelspec(*, live: bool) -> dict[str, Any]:
    """What kernel.json says."""
    return {
        # Run only by programs that know no provisioners.
        "argv": [sys.executable, "-c", f"raise SystemExit({_NO_PROVISIONERS!r})", "{connection_file}"],
        "display_name": _LIVE_TITLE if live else _TITLE,
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {
            "kernel_provisioner": {"provisioner_name": _PROVISIONER, "config": {"live": True} if live else {}}
        },
    }


def install(
    *, name: str | None = None, live: bool = False, user: bool = False, prefix: Path | None = None
) -> Path:
    """Install the kernelspec and return its folder.

    `name` defaults to `rlm`, or `rlm-live`. `prefix`: below it. Without `user` and `prefix`: in the
    environment that this Python runs in if it is a virtual one, else for the user. Raises UsageError for a
    name that Jupyter does not take, SetupError if it cannot be written.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    if prefix is None and not user and not in_environment():
        user = True
    place = None if user else str(prefix or sys.prefix)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # it is copied with its mode
        (folder / "kernel.json").write_text(json.dumps(kernelspec(live=live), indent=1))
        try:
            installed = KernelSpecManager().install_kernel_spec(
                made, name or default_name(live), user=user, prefix=place
            )
        except ValueError as error:
            raise UsageError(
                f"Jupyter does not accept this name for a kernel: {error}",
                hint="Use letters, digits, dots, - and _.",
            ) from error
        except OSError as error:
            hint = "Install it for yourself with --user, or elsewhere with --prefix PATH."
            raise SetupError(f"The kernelspec cannot be written: {error}.", hint=hint) from error
    return Path(installed)


def write(folder: Path) -> None:
    """Write the kernelspec of traces into a folder that `JUPYTER_PATH` then names."""
    place = folder / "kernels" / NAME
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(kernelspec(live=False), indent=1))


def remove(*, name: str | None = None, live: bool = False) -> Path:
    """Remove the kernelspec that Jupyter finds by that name, and return its folder.

    Raises UsageError if there is none, or not ours.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    name = name or default_name(live)
    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        raise UsageError(
            f"Jupyter does not find a kernelspec {name}.", hint="jupyter kernelspec list"
        ) from None
    if spec.metadata.get("kernel_provisioner", {}).get("provisioner_name") != _PROVISIONER:
        raise UsageError(
            f"The kernelspec {name} does not belong to rlm_kernel.", hint=f"jupyter kernelspec remove {name}"
        )
    try:
        return Path(manager.remove_kernel_spec(name))
    except OSError as error:
        raise SetupError(
            f"The kernelspec cannot be removed: {error}.", hint="Check the folder's permissions."
        ) from error


def default_name(live: bool) -> str:
    """The name of a kernelspec that is given none."""
    return LIVE_NAME if live else NAME


def in_environment() -> bool:
    """Whether this Python is that of a virtual environment."""
    return sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
