"""How well this machine's engine keeps a container's code in: a grade, and what it rests on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlm_kernel.config import SandboxSettings

_OWN_KERNEL = re.compile(r"(^|[./])(runsc|kata|krun)")
"""In the names of runtimes (kata-qemu, io.containerd.runsc.v1) that put a kernel of their own between code
and host.
"""
_LIMITS = {"memory": "MemoryLimit", "CPU": "CpuCfsQuota", "pids": "PidsLimit"}


@dataclass(frozen=True)
class Isolation:
    """`grade`: A, a kernel of its own; B, the host's kernel, on which its root would be nobody; C, the host's
    kernel; D, less than the usual locks. `because`: what holds and what does not. `better`: what would raise
    the grade.
    """

    grade: Literal["A", "B", "C", "D"]
    because: str
    better: str = ""


def engine_has(facts: Mapping[str, Any], option: str) -> bool:
    """Whether the engine's `info` names a security option (`seccomp`, `rootless`, …) that is on."""
    named = [str(found) for found in facts.get("SecurityOptions") or []]
    return any(option in found and "unconfined" not in found for found in named)


def is_rootless(facts: Mapping[str, Any]) -> bool:
    """Whether the engine is a usual user's own program. podman has a field of its own for that."""
    return engine_has(facts, "rootless") or bool(facts.get("Rootless"))


def missing_limits(facts: Mapping[str, Any]) -> list[str]:
    """What the engine cannot limit."""
    if is_rootless(facts) and str(facts.get("CgroupVersion", "1")) == "1":  # podman says that it can
        return list(_LIMITS)
    return [name for name, key in _LIMITS.items() if not facts.get(key)]


def isolation(facts: Mapping[str, Any], sandbox: SandboxSettings) -> Isolation:
    """The grade, by the engine's `info` and the settings."""
    runtime = sandbox.runtime or str(facts.get("DefaultRuntime") or "runc")
    lacking = [f"no limit of {name}" for name in missing_limits(facts)]
    lacking += [] if engine_has(facts, "seccomp") else ["no seccomp"]
    lacking += [] if sandbox.network == "none" else [f"the network {sandbox.network}"]
    if lacking:
        return Isolation(
            "D",
            ", ".join(lacking),
            "Enable the missing parts in the engine, and keep sandbox.network at none.",
        )
    calls = "few system calls" if sandbox.seccomp == "tight" else "the engine's system calls"
    module = next(
        (
            name
            for name, option in (("AppArmor", "apparmor"), ("SELinux", "selinux"))
            if engine_has(facts, option)
        ),
        None,
    )
    locks = ", ".join(filter(None, [calls, module, "no capabilities", "no network", "all limits"]))
    if _OWN_KERNEL.search(runtime):
        return Isolation("A", f"the runtime {runtime} has its own kernel; {locks}")
    own = "A runtime with its own kernel (gVisor, Kata) gives grade A, if the line `sandbox` is ok with it"
    if is_rootless(facts) or engine_has(facts, "userns"):
        return Isolation(
            "B", f"the host's kernel ({runtime}), on which the engine's root is nobody; {locks}", f"{own}."
        )
    return Isolation(
        "C",
        f"the host's kernel ({runtime}); {locks}",
        f"A rootless engine with cgroups version 2 gives grade B. {own}.",
    )
