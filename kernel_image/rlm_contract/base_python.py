"""Says what the Python is that runs this, as JSON. The host has it run in base images (`sandbox.image_base`),
which may have an old one.
"""

import json
import platform
import sys


def main() -> None:
    """Print what this Python is, as JSON."""
    found = {
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "glibc": platform.libc_ver(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
