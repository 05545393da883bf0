"""Code that fills the host's disk through the one folder that it can write to there."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.sandbox.disk import MAX_BYTES, MIN_FREE

# Until it is killed: code that just ends may have been quicker than the next look, which comes within a second.
_WAIT = "\nimport time\nwhile True: time.sleep(1)"
DEEP = "import os\nos.chdir('/rlm/run')\nfor _ in range(1_000):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)" + _WAIT
MANY = "for n in range(12_000): open(f'/rlm/run/{n}', 'w').close()" + _WAIT
CLOSED = "import os\nos.makedirs('/rlm/run/a/b')\nos.chmod('/rlm/run/a/b', 0)\nos.chmod('/rlm/run/a', 0)\nos.symlink('/', '/rlm/run/root')"
FULL = (
    "block = b'x' * (8 << 20)\n"
    "for n in range(20):\n"
    "    with open(f'/rlm/run/{n}', 'wb') as file:\n"
    "        for _ in range(200): file.write(block)"
)
HIDDEN = (
    "import os\nblock, kept = b'x' * (8 << 20), []\n"
    "for n in range(20):\n"
    "    kept.append(open(f'/rlm/run/{n}', 'wb', buffering=0))\n"
    "    os.unlink(kept[-1].name)\n"
    "    for _ in range(200): kept[-1].write(block)"
)


@pytest.mark.parametrize(("code", "why"), [(DEEP, "folders within folders"), (MANY, "10,000 files")])
async def test_a_kernel_that_fills_its_folder_is_killed_and_the_folder_goes(sandbox: Any, code: str, why: str) -> None:
    box = await sandbox()
    folder = box.run_dir.sockets
    result = await box.run(code)
    assert result.status == "died"
    assert why in result.notices[0]
    assert not folder.exists()
    assert await box.text(f"{CLOSED}\nprint('alive')") == "alive"
    await box.stop()
    assert not box.run_dir.path.exists()


async def test_a_file_is_no_larger_than_one_may_be_and_the_cell_is_told(sandbox: Any) -> None:
    box = await sandbox()
    for folder in ("/rlm/run", "/dev/shm"):
        assert "File too large" in await box.text(f"open('{folder}/big', 'wb').truncate(3 << 30)")
    assert await box.text("open('/rlm/run/big', 'wb').truncate(2 << 30)") == "2147483648"


@pytest.mark.hostile
async def test_a_full_folder_is_noticed_in_time(sandbox: Any) -> None:
    assert shutil.disk_usage("/tmp").free > 2 * MAX_BYTES + MIN_FREE
    box = await sandbox(cell_timeout=None)
    before = shutil.disk_usage(box.run_dir.path).free
    result = await box.run(FULL + _WAIT)
    assert result.status == "died"
    assert "8 GiB" in result.notices[0]
    assert shutil.disk_usage(box.run_dir.path).free > before - MAX_BYTES / 2
    assert await box.text("print('alive')") == "alive"


@pytest.mark.hostile
async def test_deleted_files_fill_the_disk_no_further_than_to_the_reserve(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if there were only 4 GiB: the rest of the machine's disk is somebody else's.
    real = os.statvfs
    others = shutil.disk_usage("/tmp").free - (4 << 30)

    def less(path: Any) -> Any:
        found = real(path)
        return SimpleNamespace(f_frsize=1, f_bavail=found.f_bavail * found.f_frsize - others)

    monkeypatch.setattr(os, "statvfs", less)
    box = await sandbox(cell_timeout=None)
    result = await box.run(HIDDEN + _WAIT)
    assert result.status == "died"
    assert "nearly full" in result.notices[0]
