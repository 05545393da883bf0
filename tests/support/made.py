"""The containers that a run of the tests made, found and removed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.docker_host import connect


def made_by(owner: int, folder: Path) -> list[str]:
    """The ids of containers that a process made, and of those of the kept sessions anywhere in a folder,
    whoever made these.
    """
    client = connect()
    try:
        sessions, found = _sessions(folder), []
        for one in client.api.containers(all=True, filters={"label": f"{containers.LABEL}.owner"}):
            labels = one["Labels"]
            mine = (
                labels[f"{containers.LABEL}.owner"] == str(owner)
                and labels[f"{containers.LABEL}.host"] == os.uname().nodename
            )
            if mine or labels.get(f"{containers.LABEL}.session") in sessions:
                found.append(one["Id"])
        return found
    finally:
        client.close()


def remove_made_by(owner: int, folder: Path) -> None:
    """Remove what `made_by` finds."""
    for found in made_by(owner, folder):
        client = connect()
        try:
            containers.remove_late(client, found)
        finally:
            client.close()


def _sessions(folder: Path) -> set[str]:
    """The ids of the kept sessions whose state lies there."""
    found = set()
    for file in folder.rglob(".rlm_state/*/state.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.add(Path(json.loads(file.read_text())["run"]).name.removeprefix("rlm-"))
    return found
