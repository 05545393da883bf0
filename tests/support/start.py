"""What a process has imported, for tests of what commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOR_NOTEBOOKS = frozenset({"nbformat", "jsonschema", "fastjsonschema", "rfc3987_syntax", "lark"})
"""What nbformat brings."""
FOR_KERNELS = frozenset({"jupyter_client", "zmq", "tornado", "traitlets"})
FOR_MODELS = frozenset({"litellm", "openai", "aiohttp", "xllamacpp"})
FOR_TERMINALS = frozenset({"rich", "prompt_toolkit", "pygments"})
_PROBE = """
import json, sys
try:
    exec({code!r})
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def loaded_by(code: str, folder: Path, env: Mapping[str, str] = {}) -> set[str]:
    """The packages that a process has imported once it has run the code, in that folder."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(code=code)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **env, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def command(*arguments: str) -> str:
    """The code of a command."""
    return f"import sys\nsys.argv = {['rlm', *arguments]!r}\nfrom rlm_kernel.cli import main\nmain()"
