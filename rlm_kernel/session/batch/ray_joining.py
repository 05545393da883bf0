"""Ray itself: imported, and a cluster of it joined or started; its nodes.

Ray is imported here alone, when a cluster is asked for: that takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from typing import Any

from rlm_kernel.errors import RLMError, SetupError, UsageError

RESOURCE = "rlm"
"""A node's own resource that has workers on it; where no node has it, all with a CPU have one."""
_TOKEN = (
    "If the cluster uses a token, set RAY_AUTH_MODE=token, and copy the token to this machine: from "
    "~/.ray/auth_token of the head node, or as RAY_AUTH_TOKEN."
)
"""Ray sends it to the address that it is told only then."""

_ATTEMPTS = 3
_HEAD_IS_BUSY = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""A head has half a minute to start a process for a client, and says so where that was not enough."""


def import_ray() -> Any:
    """The package. Blocking. Raises SetupError without it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it is read as Ray is imported
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a lost connection begins no cluster here
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError as error:
        raise SetupError(
            f"Ray cannot be imported: {error}.", hint="Type: pip install 'rlm-kernel[ray]'"
        ) from error
    return ray


def join(ray: Any, address: str | None) -> None:
    """Join the cluster at that address, or that of the environment, or start one, as the docs say.

    Blocking, and not in the main thread: there Ray would take its signals. Raises SetupError.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    configured = os.environ.get("RAY_ADDRESS")
    try:
        if address is None and configured != "local":
            with contextlib.suppress(ConnectionError):
                ray.init(address=configured or "auto", **quiet)
                return
            if configured:
                raise SetupError(
                    f"There is no Ray cluster at {configured} (RAY_ADDRESS).",
                    hint="Start one (`ray start --head`), or unset RAY_ADDRESS to start one on this machine. "
                    f"{_TOKEN}",
                )
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            _join_as_client(ray, address, quiet)
    except RLMError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        hint = (
            "All nodes and this machine need the same versions of Ray and of Python."
            if "ersion" in said
            else "`ray status` on a node says whether it runs. ray:// needs the port of Ray Client's server "
            f"(10001, not 6379). {_TOKEN}"
        )
        raise SetupError(f"Cannot connect to the Ray cluster: {said}", hint=hint) from error


def _join_as_client(ray: Any, address: str, quiet: dict[str, Any]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address=address, **quiet)
            return
        except Exception as error:
            if attempt == _ATTEMPTS or not any(said in str(error) for said in _HEAD_IS_BUSY):
                raise


def silence() -> None:
    """Ray tells of workers that end on stdout, where `rlm` has its answer; no option of it stops that. Its
    client warns on stderr of much that is sent, though all files have to be.
    """
    warnings.filterwarnings("ignore", "More than 10MB of messages", UserWarning)
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_given, **_named: None


def check_pickled(ray: Any, plan: object) -> None:
    """Raise UsageError for what cannot be sent to other machines. Blocking."""
    try:
        ray.cloudpickle.dumps(plan)
    except Exception as error:
        raise UsageError(
            f"The models or tools of this program cannot be sent to other machines: {first_line(error)}.",
            hint="Models and tools for a cluster must be picklable: no open files or connections in them.",
        ) from error


def own_node(ray: Any) -> str | None:
    """The id of this machine's node; None where it is no part of the cluster."""
    try:
        return str(ray.get_runtime_context().get_node_id())
    except Exception:  # a client has none
        return None


def nodes(ray: Any) -> dict[str, dict[str, Any]]:
    """The nodes that can have a worker, and what that takes there."""
    alive = {node["NodeID"]: node.get("Resources", {}) for node in ray.nodes() if node.get("Alive")}
    own = {node: has for node, has in alive.items() if has.get(RESOURCE, 0) > 0}
    if own:
        return {
            node: {"num_cpus": 0, "resources": {RESOURCE: min(1, has[RESOURCE])}} for node, has in own.items()
        }
    return {node: {"num_cpus": 1} for node, has in alive.items() if has.get("CPU", 0) >= 1}


def first_line(error: BaseException) -> str:
    """What an error of Ray's says, in short: of a traceback its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        lines[-1] if "Traceback" in str(error) and lines else lines[0] if lines else type(error).__name__
    )[:300]
