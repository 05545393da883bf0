"""What a container uses, by its control group or by the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.sandbox import usage
from rlm_kernel.sandbox.usage import Use, use_of

ID = "d0" * 32
VERSION_2 = {
    "memory.current": "3000\n",
    "memory.max": "9000\n",
    "memory.stat": "anon 5\ninactive_file 1000\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
}
VERSION_1 = {
    "memory.usage_in_bytes": "3000\n",
    "memory.limit_in_bytes": "9000\n",
    "memory.stat": "inactive_file 7\ntotal_inactive_file 1000\n",
}
TOLD = {
    "memory_stats": {"usage": 30, "limit": 90, "stats": {"inactive_file": 10}},
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
}


def engine(told: Any) -> Any:
    return SimpleNamespace(api=SimpleNamespace(stats=lambda *_, **__: told))


def written(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(usage, "_GROUPS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", [f"docker/{ID}", f"system.slice/docker-{ID}.scope"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_on_this_machine_is_read_itself(groups: Path, place: str, version: int) -> None:
    if version == 2:
        written(groups / place, VERSION_2)
    else:
        written(groups / "memory" / place, VERSION_1)
        written(groups / "cpuacct" / place, {"cpuacct.usage": "2500000000\n"})
    assert use_of(engine(TOLD), ID) == Use(2000, 9000, 2.5)


@pytest.mark.parametrize(
    "files",
    [VERSION_2 | {"memory.max": "max\n"}, VERSION_1 | {"memory.limit_in_bytes": "9223372036854771712\n"}],
)
def test_no_limit_is_none(groups: Path, files: dict[str, str]) -> None:
    written(
        groups / ("docker" if files is VERSION_2 or "memory.max" in files else "memory/docker") / ID, files
    )
    written(groups / "cpuacct" / "docker" / ID, {"cpuacct.usage": "0\n"})
    found = use_of(engine(TOLD), ID)
    assert found is not None
    assert found.memory_limit == 0


@pytest.mark.parametrize("files", [{}, {"memory.current": "?"}, VERSION_2 | {"memory.stat": "anon 5\n"}])
def test_the_engine_tells_where_there_is_no_such_group(groups: Path, files: dict[str, str]) -> None:
    written(groups / "docker" / ID, files)
    assert use_of(engine(TOLD), ID) == Use(20, 90, 1.5)


@pytest.mark.parametrize("name", ["../../etc", "", "D0" * 32, f"{ID}/..", f"{ID}\n"])
def test_only_an_id_leads_to_a_group(groups: Path, name: str) -> None:
    written(groups / "docker" / ID, VERSION_2)
    assert use_of(engine(TOLD), name) == Use(20, 90, 1.5)


@pytest.mark.parametrize("told", [{}, [], None, {"memory_stats": None}, {**TOLD, "memory_stats": {}}])
def test_an_engine_that_does_not_tell_is_no_failure(told: Any) -> None:
    assert use_of(engine(told), ID) is None
