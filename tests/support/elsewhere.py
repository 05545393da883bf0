"""An engine of a test's own that sees none of this machine's files in /tmp, /root, /home and /srv, but empty folders of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.own_engine import OwnEngine

ROOT = Path(__file__).parents[2]
_APART = """
mkdir -p /run/rlm-keep && mount --bind "$0" /run/rlm-keep
for place in /tmp /root /home /srv; do mount -t tmpfs -o mode=1777 apart "$place"; done
mkdir -p "$0" && mount --move /run/rlm-keep "$0"
ip link set lo up 2>/dev/null || true
exec "$@"
"""


class Elsewhere(OwnEngine):
    """Reached by a socket, and as far away as one over tcp: the same is asked and answered."""

    def _command(self) -> list[str]:
        return ["unshare", "--mount", "--net", "sh", "-c", _APART, str(self._folder), *super()._command()]

    def files(self, path: str) -> Path:
        """What the engine finds at an absolute path, as a path of this machine."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root") / path.lstrip("/")

    def volumes(self) -> list[str]:
        return sorted(self.docker("volume", "ls", "--quiet").stdout.split())

    def rlm(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `rlm` on this engine."""
        more = {"DOCKER_HOST": self.address, "LITELLM_LOCAL_MODEL_COST_MAP": "True", **environment}
        command = ["env", *(f"{name}={value}" for name, value in more.items()), sys.executable, "-m", "rlm_kernel", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)
