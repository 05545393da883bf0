"""Code that fills what it can write to: memory of its own, nothing of the host's."""

from __future__ import annotations

from typing import Any

FILL = (
    "import os\nos.chdir('/rlm/run')\n"
    "try:\n    for n in range(1_000_000): open(f'/rlm/run/{n}', 'wb').write(bytes(100_000))\n"
    "except OSError as error: print(error.strerror)\n"
    "try:\n    for _ in range(1_000): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
    "except OSError as error: print(error.strerror)\n"
)


async def test_the_folder_of_the_sockets_is_small_and_full_of_it_the_kernel_works_on(sandbox: Any) -> None:
    box = await sandbox()
    assert (await box.text(FILL)).startswith("No space left on device")
    assert (
        await box.text(
            "print(llm_query('on'), sum(os.path.getsize(f'/rlm/run/{n}') for n in range(5)) < 1 << 20)"
        )
        == "echo on True"
    )


async def test_a_file_is_no_larger_than_one_may_be_and_the_cell_is_told(sandbox: Any) -> None:
    box = await sandbox()
    for folder in ("/tmp", "/dev/shm"):
        assert "File too large" in await box.text(f"open('{folder}/big', 'wb').truncate(3 << 30)")
    assert await box.text("open('/tmp/big', 'wb').truncate(2 << 30)") == "2147483648"
