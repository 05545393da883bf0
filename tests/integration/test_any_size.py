"""A text that is larger than the kernel's memory: everything that code does with it works, and memory stays
bounded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LINE = "2026-11-01 12:00:00 INFO worker handled a request in 23 ms — fine\n"


async def test_a_log_larger_than_memory_is_searched_cut_and_asked_about(sandbox: Any, tmp_path: Path) -> None:
    log = tmp_path / "large.log"
    lines = 50_000
    with log.open("w", encoding="utf-8") as file:
        for part in range(100):
            file.write(LINE * lines)
            file.write(f"2026-11-01 12:00:00 ERROR part {part} — größer\n")
        file.write("the very last line")
    assert log.stat().st_size > 300 << 20
    box = await sandbox(files=[log], memory="192m")
    assert "too large for memory" in await box.text(f"load_files([{str(log)!r}])")
    assert (await box.kernel.describe()).about
    assert (
        await box.text("print(peek(-18), '|', context[:10], '|', type(context).__name__)")
        == "the very last line | 2026-11-01 | LazyText"
    )
    found = await box.text("hits = grep(r'ERROR part \\d+'); print(len(hits), hits[1])")
    assert found == f"100 large.log:{2 * (lines + 1)}: 2026-11-01 12:00:00 ERROR part 1 — größer"
    counted = await box.text(
        "print(len(context), context.count('\\n'), 'größer' in context, context.find('part 99'))"
    )
    chars = 100 * lines * len(LINE) + sum(
        len(f"2026-11-01 12:00:00 ERROR part {part} — größer\n") for part in range(100)
    )
    last = chars - len("part 99 — größer\n")
    assert counted == f"{chars + 18} {100 * (lines + 1)} True {last}"
    asked = await box.text(
        "parts = [part[:20] for part in chunks(4_000_000)]; print(len(parts), llm_query_batched(parts)[-1])"
    )
    assert asked.startswith("83 echo ")
    assert await box.text("import re; print(re.search(r'part (\\d)\\b', context).group(1))") == "0"
    assert (await box.run("str(context)")).status == "error", "and the kernel lives on"
    assert await box.text("print(len(hits))") == "100"
