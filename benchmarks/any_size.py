"""A log larger than the kernel's memory: what loading, grep, the end and batched sub-calls take, against grep
in the same run.

    python benchmarks/any_size.py --gigabytes 10 --folder /somewhere/with/room

Makes a log (a line in 100,000 says ERROR, some have characters of several bytes), starts a kernel with 2 GiB,
and takes the median of `--times` runs of each. Both sides read the file from the page cache, as far as it
holds it. Prints a table, and JSON with --json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import find_image
from tests.support.sandbox import Sandbox

GIB = 1 << 30
PATTERNS = {
    "literal": "disk full",
    "regular expression": "ERROR .*code 4[0-9][0-9]$",
    "nothing found": "no such words here",
}


def write_log(path: Path, size: int) -> None:
    """Lines of a web service's log, until the file has so many bytes."""
    part = []
    for number in range(100_000):
        part.append(
            f"2026-11-01 12:{number // 1000 % 60:02}:00 INFO worker-{number % 17} request {number} took "
            f"{number % 97} ms — ok\n"
        )
    part[50_000] = "2026-11-01 12:50:00 ERROR worker-3 disk full — größer als erlaubt, code 417\n"
    block = "".join(part).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)
        file.write(b"the very last line")


async def timed(times: int, run: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Median seconds, and what it gave last."""
    seconds, result = [], None
    for _ in range(times):
        started = time.monotonic()
        result = await run()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds), result


async def host_grep(path: Path, pattern: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "grep", "-c", "-E", pattern, str(path), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def measure(path: Path, size: int, times: int) -> dict[str, Any]:
    client = connect()
    image = find_image(client)
    client.close()
    assert image is not None, "the kernel image is not built: type `rlm image build`"
    box = Sandbox(image, files=[path], memory="2g", cell_timeout=None)
    await box.start()
    figures: dict[str, Any] = {"bytes": size, "times": times}
    try:
        figures["load"], said = await timed(1, lambda: box.text(f"load_files([{str(path)!r}])"))
        assert "LazyText" in said, said
        for name, pattern in PATTERNS.items():
            theirs, count = await timed(times, lambda pattern=pattern: host_grep(path, pattern))
            ours, found = await timed(
                times, lambda pattern=pattern: box.text(f"print(len(grep({pattern!r})))")
            )
            assert found == count, (pattern, found, count)
            figures[name] = {"grep -c": theirs, "grep()": ours, "ratio": ours / theirs, "lines": int(count)}
        figures["peek at the end"], end = await timed(times, lambda: box.text("print(peek(-18))"))
        assert end == "the very last line", end
        figures["100 pieces, batched"], told = await timed(
            1,
            lambda: box.text(
                "import itertools; print(len(llm_query_batched([p for p in "
                "itertools.islice(chunks(100_000), 100)])))"
            ),
        )
        assert told == "100", told
        figures["len"], _ = await timed(1, lambda: box.text("print(len(context))"))
        figures["count of newlines"], _ = await timed(1, lambda: box.text("print(context.count('\\n'))"))
        figures["all pieces of 1 MB"], _ = await timed(
            1, lambda: box.text("print(sum(1 for _ in chunks(1_000_000)))")
        )
    finally:
        await box.stop()
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gigabytes", type=float, default=1.0, help="of the log")
    options.add_argument("--folder", type=Path, help="where the log is made; default: a temporary one")
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--json", type=Path, help="where the figures go as JSON")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        Path(folder).chmod(0o755)
        log = Path(folder) / "large.log"
        write_log(log, int(chosen.gigabytes * 1e9))
        log.chmod(0o644)
        figures = asyncio.run(measure(log, log.stat().st_size, chosen.times))
    for name, value in figures.items():
        if isinstance(value, dict):
            shown = (
                f"{value['grep()']:.2f} s, grep -c {value['grep -c']:.2f} s: {value['ratio']:.2f} times "
                f"as long ({value['lines']:,} lines)"
            )
        else:
            shown = f"{value:.2f} s" if isinstance(value, float) else f"{value:,}"
        print(f"{name:<24}{shown}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
