"""A Ray cluster of a head and two nodes on this machine, in a process of its own: it prints where it is, and
for each line on stdin kills a node, which another one replaces. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_MARK = "RLM_TEST_CLUSTER"
_RAYS_PORTS = (6379, 8265, 10001, 52365)
"""Of its own, by default: a cluster that is to have one of them for something else does not begin."""


@dataclass(frozen=True)
class RayMachines:
    """`environment`: what a command needs beside its own to join. `client`: of Ray Client."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    client: str
    mark: str

    def replace_a_node(self) -> None:
        """Blocking."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline()

    def owners(self, containers: list[dict[str, Any]]) -> set[int]:
        """The workers of the cluster among the owners of these containers."""
        pids = {int(one["Labels"].get("rlm-kernel.owner", "0")) for one in containers}
        return {pid for pid in pids if self._is_worker(pid)}

    def _is_worker(self, pid: int) -> bool:
        try:
            return f"{_MARK}={self.mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def _free_port() -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port not in _RAYS_PORTS:
            return port


@contextmanager
def ray_machines() -> Iterator[RayMachines]:
    """Start them; they end with the context."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        port = _free_port()
        mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
        there = {**mode, "HOME": folder, "RAY_TMPDIR": folder, _MARK: folder}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_machines", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | there | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            joins = {"RAY_TMPDIR": folder, "RAY_ADDRESS": address, **mode}
            yield RayMachines(process, joins, f"ray://127.0.0.1:{port}", folder)
        finally:
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()


def main() -> None:
    """Hold the cluster."""
    from benchmarks.cluster import Machines

    told, sys.stdout = sys.stdout, sys.stderr  # Ray prints
    machines = Machines(2, ray_client_server_port=int(sys.argv[1]))
    try:
        print(json.dumps({"address": machines.address}), file=told, flush=True)
        for _ in sys.stdin:
            machines.replace_one(random.Random())
            print("replaced", file=told, flush=True)
    finally:
        machines.close()


if __name__ == "__main__":
    main()
