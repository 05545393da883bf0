"""`rlm gc` takes what nobody uses any more, and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.sandbox import cleanup, containers, image, rundir
from rlm_kernel.sandbox.cleanup import IDLE_MARGIN, collect
from rlm_kernel.sandbox.rundir import RunDir, container_ids
from rlm_kernel.scratch import Scratch
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.sandbox import until

LABEL = f"rlm-test-{os.getpid()}"
LONG_AGO = 1_000_000_000
Crashed = Callable[..., tuple[RunDir, str]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, docker_client: Any) -> Iterator[Path]:
    """Sessions' folders and labels of this test's own: the machine's others are none of its business."""
    base = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))  # short, for sockets
    monkeypatch.setattr(rundir, "_bases", lambda: iter([base]))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setattr(containers, "LABEL", LABEL)
    monkeypatch.setattr(image, "REPOSITORY", LABEL)
    monkeypatch.setattr(image, "DIGEST_LABEL", f"{LABEL}.digest")
    monkeypatch.setattr(image, "STAGE_LABEL", f"{LABEL}.stage")
    yield base
    for container in docker_client.containers.list(
        all=True, ignore_removed=True, filters={"label": f"{LABEL}.session"}
    ):
        container.remove(force=True)
    for found in docker_client.api.images(filters={"label": f"{LABEL}.test"}):
        docker_client.api.remove_image(found["Id"], force=True)
    shutil.rmtree(base)


@pytest.fixture
def crashed(kernel_image: Any, docker_client: Any) -> Crashed:
    """Makes a session whose owner is gone, and its container, which nothing ends: folder and container's
    name.
    """

    def make(
        *, idle: float = 0, when: float = LONG_AGO, started: bool = True, by: str | None = None
    ) -> tuple[RunDir, str]:
        run = RunDir.create(max_request=1, window=1, idle=idle)
        run.describe(trace=run.path / "trace.ipynb", question="?")
        for path in (run.path / "lease", run.path / "about.json"):
            os.utime(path, (when, when))
        container = docker_client.containers.create(
            kernel_image.id,
            ["sleep", "1000"],
            name=run.container_name,
            network_mode="none",
            user=":".join(map(str, container_ids())),
            labels={
                f"{LABEL}.session": run.session_id,
                f"{LABEL}.folder": str(run.path),
                containers.USER: by or containers.user(),
            },
        )
        if started:
            container.start()
        run.leave()
        return run, container.name

    return make


def names(docker_client: Any) -> set[str]:
    return {
        found.name
        for found in docker_client.containers.list(
            ignore_removed=True, all=True, filters={"label": f"{LABEL}.session"}
        )
    }


def collected(docker_client: Any, **options: Any) -> list[tuple[str, str]]:
    return [(found.kind, found.name) for found in collect(docker_client, **options)]


def test_a_container_whose_owner_is_gone_goes_with_its_folder(crashed: Crashed, docker_client: Any) -> None:
    (run, name), (other, created) = crashed(), crashed(started=False)
    (run.path / "copies").write_text("x" * 1000)
    expected = {
        ("container", name),
        ("folder", str(run.path)),
        ("container", created),
        ("folder", str(other.path)),
    }
    assert set(collected(docker_client, dry_run=True)) == expected
    assert names(docker_client) == {name, created}
    assert run.path.exists()
    found = list(collect(docker_client))
    assert {(one.kind, one.name) for one in found} == expected
    assert next(one for one in found if one.name == str(run.path)).size > 1000
    assert names(docker_client) == set()
    assert not run.path.exists()
    assert collected(docker_client) == []


def test_folders_for_temporary_files_of_killed_programs_are_taken_and_those_in_use_are_not(
    docker_client: Any, alone: Path
) -> None:
    code = "from rlm_kernel.scratch import Scratch; print(Scratch('kept').path, flush=True); input()"
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(alone)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    theirs = Path(program.stdout.readline().strip())
    (theirs / "state").write_text("x" * 1000)
    mine, young = Scratch("mcp", "1-"), alone / "rlm-serve-young"
    young.mkdir()
    (young / ".in-use").touch()
    (alone / "rlm-kept-other").mkdir()  # another program's: it has no such file
    for folder in (theirs, mine.path):
        os.utime(folder / ".in-use", (LONG_AGO, LONG_AGO))
    assert collected(docker_client) == []
    program.kill()
    program.communicate()
    assert collected(docker_client, dry_run=True) == [("folder", str(theirs))]
    assert collected(docker_client) == [("folder", str(theirs))]
    assert not theirs.exists()
    assert {one.name for one in alone.iterdir()} >= {mine.path.name, young.name, "rlm-kept-other"}
    mine.remove()
    mine.remove()
    assert not mine.path.exists()


async def test_a_session_in_use_is_left_alone(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox()
    os.utime(box.run_dir.path / "lease", (LONG_AGO, LONG_AGO))
    assert collected(docker_client) == []
    assert await box.text("print('still here')") == "still here"


def test_what_is_just_being_made_is_left_alone(crashed: Crashed, docker_client: Any, alone: Path) -> None:
    _, name = crashed(when=4_000_000_000)
    (alone / "rlm-0123abcd").mkdir()
    assert collected(docker_client) == []
    assert names(docker_client) == {name}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_users_are_left_alone(crashed: Crashed, docker_client: Any) -> None:
    (run, name), (gone, of_another) = crashed(), crashed(started=False, by="another@elsewhere")
    os.chown(run.path, 12345, 12345)
    shutil.rmtree(gone.path)
    assert collected(docker_client) == []
    assert names(docker_client) == {name, of_another}


def test_a_kept_session_is_left_alone_until_its_idle_time_is_long_over(
    crashed: Crashed, docker_client: Any
) -> None:
    run, name = crashed(idle=3600)
    trace = run.path / "trace.ipynb"
    trace.touch()
    now = time.time()
    os.utime(trace, (now - 3600 - IDLE_MARGIN + 60,) * 2)  # the last trace of its use
    assert collected(docker_client) == []
    os.utime(trace, (now - 3600 - IDLE_MARGIN - 60,) * 2)
    owner = RunDir.adopt(run.path)
    assert owner is not None
    assert collected(docker_client) == []
    owner.leave()
    assert collected(docker_client) == [("container", name), ("folder", str(run.path))]


def test_containers_without_a_folder_go_if_they_do_not_run(
    crashed: Crashed, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run, name), (other, created) = crashed(), crashed(started=False)
    for folder in (run.path, other.path):
        shutil.rmtree(folder)
    assert collected(docker_client) == []  # one may be started the next moment
    monkeypatch.setattr(cleanup, "JUST_MADE", -1)
    assert collected(docker_client) == [("container", created)]
    assert names(docker_client) == {name}


def test_half_made_folders_and_builds_go_when_they_are_old(
    docker_client: Any, alone: Path, isolated: Path
) -> None:
    wheels = isolated / "cache" / "rlm" / "wheels"
    half, base, partial, whole = (
        alone / "rlm-0123abcd",
        alone / "rlm-base-x1",
        wheels / "0123456789ab-x",
        wheels / "0123456789ab",
    )
    for inside in (half / "host", base / "mmdebstrap.x", partial / "inside", whole / "inside"):
        inside.mkdir(parents=True)
    (base / "sources.list").touch()
    assert collected(docker_client) == []
    for folder in (half, base, partial, whole):
        os.utime(folder, (LONG_AGO, LONG_AGO))
    assert {name for _, name in collected(docker_client)} == {str(half), str(base), str(partial)}
    assert [folder.exists() for folder in (half, base, partial, whole)] == [False, False, False, True]


def test_what_other_programs_call_like_ours_is_left_alone(docker_client: Any, alone: Path) -> None:
    theirs = [alone / "rlm-20240131" / "results", alone / "rlm-base-training" / "weights"]
    for inside in theirs:
        inside.mkdir(parents=True)
        os.utime(inside.parent, (LONG_AGO, LONG_AGO))
    assert collected(docker_client) == []
    assert all(inside.exists() for inside in theirs)


def made_image(docker_client: Any, tag: str = "", *labels: str) -> str:
    """An image of a few bytes; its id, or with a tag that."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"f{os.urandom(4).hex()}"))
    changes = [f"LABEL {LABEL}.{label}=1" for label in ("test", *labels)]
    repository = {"repository": LABEL, "tag": tag} if tag else {}
    answer = docker_client.api.import_image_from_data(content.getvalue(), changes=changes, **repository)
    return f"{LABEL}:{tag}" if tag else str(json.loads(answer)["status"])


def test_images_of_other_versions_go_if_asked_for_and_unused(docker_client: Any) -> None:
    current, old, used = (made_image(docker_client, tag, "digest") for tag in ("current", "old", "used"))
    foreign = made_image(docker_client, "foreign")
    docker_client.containers.create(used, ["x"], labels={f"{LABEL}.session": ""})
    assert collected(docker_client) == []
    assert collected(docker_client, images=[current], dry_run=True) == [("image", old)]
    assert collected(docker_client, images=[current]) == [("image", old)]
    assert {tag for found in docker_client.images.list(LABEL) for tag in found.tags} == {
        current,
        used,
        foreign,
    }


def test_parts_of_builds_go_but_for_the_newest(docker_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [made_image(docker_client, "", "stage")]
    time.sleep(1.1)  # the engine counts in whole seconds
    parts.append(made_image(docker_client, "", "stage"))
    replaced = made_image(docker_client, "", "digest")
    assert collected(docker_client) == [("image", replaced)]  # a build may be under way
    monkeypatch.setattr(cleanup, "BUILD_HOURS", -1)
    assert collected(docker_client) == [("image", parts[0])]


def test_the_command_says_what_it_removed(rlm: Rlm, crashed: Crashed, docker_client: Any) -> None:
    run, name = crashed()
    would = rlm("gc", "--dry-run", "--json")
    told = json.loads(would.stdout)
    assert told["dry_run"]
    assert [(one["kind"], one["name"]) for one in told["removed"]] == [
        ("container", name),
        ("folder", str(run.path)),
    ]
    done = rlm("gc")
    assert done.returncode == 0
    assert f"container        0.0 MB  {name}" in done.stdout
    assert "2 removed" in done.stderr
    assert rlm("gc").stdout == ""


def test_what_tools_gave_stays_with_the_trace_of_a_killed_run_and_is_told_where_that_is_gone(
    alone: Path, rlm: Rlm, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("city,people\nBonn,3\n")
    code = f"""
from pathlib import Path
from rlm_kernel import RLM, ScriptedModels
def table() -> Path:
    return Path({str(tmp_path / "a.csv")!r})
cells = ["```repl\\nfound = table()\\nprint(found)\\n```", "```repl\\nimport time; time.sleep(600)\\n```"]
rlm = RLM(models=ScriptedModels(cells, "x"), options={{"sandbox.memory": "1g"}}, tools=[table])
rlm.ask("What?", trace=Path("t.ipynb"))
"""
    traces = tmp_path / "traces"
    traces.mkdir()
    environment = os.environ | {"XDG_RUNTIME_DIR": str(alone)}
    program = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=traces)
    notebook = traces / "t.ipynb"
    asyncio.run(
        until(lambda: notebook.exists() and "time.sleep" in str(read_trace(notebook).code_cells), 120)
    )
    program.kill()
    program.wait()

    def told() -> dict[str, Any]:
        done = rlm("gc", "--json", "--set", f"trace.dir={traces}")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert told()["without_trace"] == []
    kept = list((traces / "t.tools").iterdir())
    assert [path.read_text() for path in kept] == ["city,people\nBonn,3\n"]
    (tmp_path / "a.csv").unlink()
    notebook.unlink()
    assert told()["without_trace"] == [{"path": str(traces / "t.tools"), "size": 19}]
    assert kept[0].exists()
    assert "kept without its trace: " in rlm("gc", "--set", f"trace.dir={traces}").stderr
