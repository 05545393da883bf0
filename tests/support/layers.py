"""An image of the usual engine for an engine of a test's own, in a second: by links to its files, which no
engine ever writes to.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

# An engine mounts its folder on itself, and no link goes from one mount to another.
_LINK = (
    'target=$1; cd "$0" && umount --lazy . ; cd "$0" && shift && cp --archive --link --parents -- "$@" '
    '"$target"'
)


def link_image(image: str, target: Path, environment: Mapping[str, str]) -> bool:
    """Into the data folder of an engine that is not running.

    False where the usual engine keeps its images in another way, or elsewhere.

    `environment` leads to the usual engine.
    """

    def told(*command: str) -> str:
        return subprocess.run(
            ["docker", *command], capture_output=True, text=True, env=environment, check=True
        ).stdout.strip()

    driver, _, root = told("info", "--format", "{{.Driver}} {{.DockerRootDir}}").partition(" ")
    source = Path(root)
    if driver != "overlay2" or not (source / "overlay2").is_dir():
        return False
    digest = told("image", "inspect", "--format", "{{.Id}}", image).partition(":")[2]
    config = Path("image/overlay2/imagedb/content/sha256", digest)
    chain, entries, layers = "", [], []
    for layer in json.loads((source / config).read_text())["rootfs"]["diff_ids"]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest() if chain else layer
        entries.append(Path("image/overlay2/layerdb/sha256", chain.partition(":")[2]))
        layers.append(Path("overlay2", (source / entries[-1] / "cache-id").read_text()))
    (target / "overlay2/l").mkdir(parents=True)
    if subprocess.run(
        ["unshare", "--mount", "sh", "-c", _LINK, root, target, config, *entries, *layers], check=False
    ).returncode:
        shutil.rmtree(target)
        return False
    for path in layers:
        (target / "overlay2/l" / (target / path / "link").read_text()).symlink_to(f"../{path.name}/diff")
    known = {image.rpartition(":")[0]: {image: f"sha256:{digest}"}}
    (target / "image/overlay2/repositories.json").write_text(json.dumps({"Repositories": known}))
    return True
