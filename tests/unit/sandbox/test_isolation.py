"""The grade that `rlm doctor` gives an engine's isolation."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel.config import SandboxSettings
from rlm_kernel.sandbox import rundir
from rlm_kernel.sandbox.isolation import isolation

LIMITS = {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
FULL = LIMITS | {"DefaultRuntime": "runc", "SecurityOptions": ["name=seccomp,profile=default"]}


@pytest.mark.parametrize(
    ("grade", "facts", "settings"),
    [
        ("C", {}, {}),
        ("C", {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"]}, {"seccomp": "engine"}),
        (
            "B",
            {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"], "CgroupVersion": "2"},
            {},
        ),
        ("B", {"Rootless": True, "CgroupVersion": "2"}, {}),
        ("C", {"Rootless": False, "CgroupVersion": "1"}, {}),
        ("D", {"Rootless": True, "CgroupVersion": "1"}, {}),
        ("B", {"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, {}),
        ("A", {}, {"runtime": "runsc"}),
        ("A", {"DefaultRuntime": "kata-runtime"}, {}),
        ("A", {}, {"runtime": "io.containerd.runsc.v1"}),
        ("C", {}, {"runtime": "crun"}),
        ("D", {"SecurityOptions": []}, {}),
        ("D", {"SecurityOptions": None}, {"runtime": "runsc"}),
        ("D", {"SecurityOptions": ["name=seccomp,profile=unconfined"]}, {}),
        ("D", {"PidsLimit": False}, {}),
        ("D", {}, {"network": "bridge"}),
    ],
)
def test_the_grade_follows_the_weakest_lock(
    grade: str, facts: dict[str, Any], settings: dict[str, Any]
) -> None:
    found = isolation(FULL | facts, SandboxSettings(**settings))
    assert found.grade == grade
    assert bool(found.better) == (grade != "A")


def test_what_it_rests_on_is_named() -> None:
    usual = isolation(FULL, SandboxSettings())
    assert (
        usual.because == "the host's kernel (runc); few system calls, no capabilities, no network, all limits"
    )
    lacking = isolation(
        FULL | {"MemoryLimit": False, "SecurityOptions": []}, SandboxSettings(network="bridge")
    )
    assert lacking.because == "no limit of memory, no seccomp, the network bridge"


@pytest.mark.parametrize(
    ("who", "rootless", "user"),
    [
        ((1000, 1000), False, "1000:1000"),
        ((1000, 0), False, f"1000:{rundir.UNPRIVILEGED}"),
        ((0, 0), False, f"{rundir.UNPRIVILEGED}:{rundir.UNPRIVILEGED}"),
        ((1000, 1000), True, "0:0"),
        ((0, 0), True, f"{rundir.UNPRIVILEGED}:{rundir.UNPRIVILEGED}"),
    ],
)
def test_code_is_0_only_where_that_is_the_user(
    who: tuple[int, int], rootless: bool, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir.os, "getuid", lambda: who[0])
    monkeypatch.setattr(rundir.os, "getgid", lambda: who[1])
    assert rundir.container_user(rootless) == user
