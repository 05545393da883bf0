"""What a kernel's container is made of: its image, its files, and every lock that keeps code in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from rlm_contract import COMMAND, RUN

from rlm_kernel.config import SandboxSettings, parse_size
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.rundir import RunDir, container_user
from rlm_kernel.sandbox.shares import Shares
from rlm_kernel.sandbox.stream import Channel
from rlm_kernel.sandbox.syscalls import security_options
from rlm_kernel.sandbox.volumes import Sender

MAX_FILE = 2 << 30
"""Bytes of one file that code in a container writes."""
MOST_PROCESSES = 32768
"""Of one user, on the engine's whole machine; `pids` limits the container's."""
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"

Made = Callable[[], None]
"""Called as soon as a container is made: from then on the engine counts it."""


def at_once() -> AbstractAsyncContextManager[Made]:
    """For a container that waits for no room."""
    return contextlib.nullcontext(lambda: None)


@dataclass(frozen=True)
class SandboxSpec:
    """What a kernel's container is made of."""

    image: str
    run: RunDir
    ready: asyncio.Event
    """Set when the kernel has said hello on the broker."""
    accept: Callable[[Channel], None]
    """Serves the host calls on a channel that code in the container opened."""
    loop: asyncio.AbstractEventLoop | None = None
    """Where `accept` is to be called and the stream lives; by default where the kernel is started."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """Its limits and locks."""
    shares: Shares = field(default_factory=Shares)
    """The user's files."""
    sender: Sender = field(default_factory=Sender)
    """How they are sent to an engine that does not see them."""
    start_timeout: float = 60.0
    debugger: bool = False
    """Whether Jupyter's debugger may attach, for which the kernel starts later."""
    admit: Callable[[], AbstractAsyncContextManager[Made]] = at_once
    """Entered before the session's first container is made, and left once its kernel is up: waits for room
    (`sandbox.room`).
    """

    @property
    def memory(self) -> int:
        """Bytes that the container may take."""
        return parse_size(self.sandbox.memory)


def container_options(
    spec: SandboxSpec,
    *,
    rootless: bool = False,
    podman: bool = False,
    cpus: float | None = None,
    here: bool = False,
) -> dict[str, Any]:
    """The keywords for docker's `containers.create`: every lock of the sandbox is here.

    `rootless`: for an engine of that kind. `podman`: it takes the seccomp profile as a file, which is then
    written. `cpus`: how many its machine has, if that is known; none gives more. `here`: it sees the
    session's folder.
    """
    from docker.types import LogConfig, Mount, Ulimit

    limits, memory = spec.sandbox, spec.memory
    session = {f"{containers.LABEL}.session": spec.run.session_id, **containers.owner_labels()}
    ulimits = {"nofile": 4096, "core": 0, "fsize": MAX_FILE}
    if podman and not rootless:
        ulimits["nproc"] = (
            MOST_PROCESSES  # else it raises that limit, which root may not do where it lacks CAP_SYS_RESOURCE
        )
    mounts = spec.shares.mounts(spec.run.container_name, session)
    bare = here and limits.network == "none"
    if bare:  # what such an engine would write; a file of the image is not seen in this place
        mounts.append(Mount("/etc/hosts", str(spec.run.show("hosts", _HOSTS)), type="bind", read_only=True))
    return {
        "image": spec.image,
        "command": list(COMMAND),
        "entrypoint": [],
        "name": spec.run.container_name,
        "labels": session | _about(spec),
        # Nothing of the host's environment: it has the API keys.
        "use_config_proxy": False,  # the client's configuration may hold a proxy with a password
        # A fixed hash seed: the order of a set is the same at replay.
        "environment": {"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"},
        "user": container_user(rootless),
        "working_dir": "/tmp",
        "init": False,  # ours is the first process: nobody inside can stop that one
        "stdin_open": True,
        # With an owner that is not detached the engine closes stdin when the owner goes (StdinOnce), and with
        # it ends the container.
        "detach": spec.run.idle > 0,
        "auto_remove": True,
        "network_mode": limits.network,
        # The namespace has a loopback device and nothing else either way. But an engine that takes it for a
        # network runs two programs of its own for it, which is a fifth of a start.
        "network_disabled": bare,
        "runtime": limits.runtime,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": security_options(
            limits.seccomp == "tight", spec.run.path / "seccomp.json" if podman else None
        ),
        "privileged": False,
        "ipc_mode": "private",
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(min(limits.cpus, cpus or limits.cpus) * 1e9),
        "pids_limit": limits.pids,
        "ulimits": [Ulimit(name=name, soft=most, hard=most) for name, most in ulimits.items()],
        "shm_size": "64m",
        # podman takes no uid.
        "tmpfs": {
            "/tmp": f"rw,nosuid,nodev,size={parse_size(limits.tmp)},mode=1777",
            RUN: "rw,nosuid,nodev,noexec,size=1m,mode=1777",
        },
        "mounts": mounts,
        "log_config": LogConfig(type="none"),  # all that is said is for the owner, who listens
    }


def _about(spec: SandboxSpec) -> dict[str, str]:
    """What `room` and `cleanup` read of a container."""
    about = {"folder": str(spec.run.path), "memory": str(spec.memory), "idle": f"{spec.run.idle:g}"}
    return {f"{containers.LABEL}.{name}": value for name, value in about.items()}
