"""What a container uses of its machine.

Engines take one reading a second, and whoever asks waits for the next. Where the container's control group is
on this machine, it is read itself, at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

_GROUPS = Path("/sys/fs/cgroup")
_ID = re.compile(r"[0-9a-f]{64}")
"""No other container has it, here or elsewhere: a group of that name is the container's."""
_PLACES = ("docker/{}", "system.slice/docker-{}.scope")
"""Of Docker's drivers `cgroupfs` and `systemd`."""
_UNLIMITED = 1 << 62


@dataclass(frozen=True)
class Use:
    """Bytes of memory without the file cache, and their limit (0 for none); seconds of a CPU used so far."""

    memory: int
    memory_limit: int
    cpu_seconds: float


def use_of(client: DockerClient, container_id: str) -> Use | None:
    """What a running container uses; None where nobody tells. Blocking.

    Raises what docker-py raises.
    """
    return _by_its_group(container_id) or _by_the_engine(client, container_id)


def _by_its_group(container_id: str) -> Use | None:
    if not _ID.fullmatch(container_id):
        return None
    for place in (place.format(container_id) for place in _PLACES):
        for read in (_version_2, _version_1):
            try:
                return read(place)
            except (OSError, KeyError, ValueError):  # not here, or gone
                continue
    return None


def _version_2(place: str) -> Use:
    group = _GROUPS / place
    limit = (group / "memory.max").read_text().strip()
    return Use(
        max(0, _number(group / "memory.current") - _fields(group / "memory.stat")["inactive_file"]),
        0 if limit == "max" else int(limit),
        _fields(group / "cpu.stat")["usage_usec"] / 1e6,
    )


def _version_1(place: str) -> Use:
    group = _GROUPS / "memory" / place
    limit = _number(group / "memory.limit_in_bytes")
    cache = _fields(group / "memory.stat")["total_inactive_file"]
    return Use(
        max(0, _number(group / "memory.usage_in_bytes") - cache),
        0 if limit >= _UNLIMITED else limit,
        _number(_GROUPS / "cpuacct" / place / "cpuacct.usage") / 1e9,
    )


def _number(file: Path) -> int:
    return int(file.read_text())


def _fields(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}


def _by_the_engine(client: DockerClient, container_id: str) -> Use | None:
    told = client.api.stats(container_id, stream=False, one_shot=True)
    try:
        memory, cpu = told["memory_stats"], told.get("cpu_stats", {}).get("cpu_usage", {})
        kept = memory.get("stats", {})
        cache = kept.get("total_inactive_file", kept.get("inactive_file", 0))
        return Use(max(0, memory["usage"] - cache), memory.get("limit", 0), cpu.get("total_usage", 0) / 1e9)
    except (KeyError, TypeError, AttributeError):  # the container ended in the meantime
        return None
