"""What can be told before anything costs time or money is told then, with what to type."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import CellResult, Models, Totals
from rlm_kernel.errors import FileRefused, ImageError, ModelError, UsageError
from rlm_kernel.models._near import nearest_model
from rlm_kernel.nearest import nearest, nearest_path
from rlm_kernel.session import environment
from rlm_kernel.session import models as session_models
from rlm_kernel.session.ask import ask
from rlm_kernel.session.environment import Host
from rlm_kernel.session.inputs import check_setup
from rlm_kernel.session.manager import open_session
from rlm_kernel.session.status import SessionStatus

LITELLM = SimpleNamespace(
    model_cost={
        "azure/gpt-5": {"litellm_provider": "azure", "mode": "chat"},
        "gpt-5": {"litellm_provider": "openai", "mode": "chat"},
        "deepseek/deepseek-chat": {"litellm_provider": "deepseek", "mode": "chat"},
        "gpt-image-5": {"litellm_provider": "openai", "mode": "image_generation"},
    },
    provider_list=["openai", "azure", "deepseek"],
)


@pytest.fixture
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("models were made ready")

    monkeypatch.setattr(session_models, "open_models", refuse)


@pytest.fixture
def refused(tmp_path: Path) -> list[Path]:
    """Paths that cannot be read, of each kind."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    return [
        tmp_path / "missing.txt",
        fifo,
        tmp_path / "loop",
        tmp_path / "dangling",
        Path("/dev/null"),
        tmp_path / ("x" * 300),
    ]


@pytest.mark.usefixtures("_no_models")
async def test_what_cannot_be_read_is_refused_before_models_and_image(refused: list[Path]) -> None:
    settings = Settings.model_validate({"root_llm": {"model": "local"}})
    for path in refused:
        with pytest.raises(FileRefused):
            await ask("Q", [path], settings=settings)
        with pytest.raises(FileRefused):
            async with open_session(paths=[path], changes={"root_llm.model": "local"}):
                pass
    assert not os.path.exists(".rlm_state")  # noqa: ASYNC240


async def test_models_that_cannot_be_had_are_told_before_an_image_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = []

    def image(_settings: Settings, _say: Any, *, build: bool = True) -> str:
        if not build:
            raise ImageError("It is not built.")
        built.append(True)
        return "image"

    async def models(fails: bool) -> Models:
        if fails:
            raise ModelError("no key", fault="auth", model="m")
        return None  # type: ignore[return-value]

    monkeypatch.setattr(environment, "find_or_build_image", image)
    with pytest.raises(ModelError):
        await environment.image_for(Host(Settings()), models(True))
    assert built == []
    assert await environment.image_for(Host(Settings()), models(False)) == "image"  # type: ignore[comparison-overlap]
    with pytest.raises(ImageError):
        await environment.image_for(Host(Settings.model_validate({"sandbox": {"image": "mine"}})))


@pytest.mark.parametrize(
    ("ename", "evalue", "variable"),
    [
        ("MemoryError", "", "RLM_SANDBOX__MEMORY=8g"),
        ("OSError", "[Errno 28] No space left on device", "RLM_SANDBOX__TMP=4g"),
        (
            "FileNotFoundError",
            "[Errno 2] No usable temporary directory found in ['/tmp']",
            "RLM_SANDBOX__TMP=4g",
        ),
        ("RuntimeError", "can't start new thread", "RLM_SANDBOX__PIDS=512"),
        ("ValueError", "a.bin is binary", None),
    ],
)
def test_a_container_that_is_too_small_is_told_with_the_limit_to_raise(
    ename: str, evalue: str, variable: str | None
) -> None:
    output = {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": []}
    with pytest.raises(UsageError) as refusal:
        check_setup(CellResult("setup", "load_files(paths)", "error", [output], 1, 0.1), Settings())
    assert (variable or "") in refusal.value.hint
    assert bool(refusal.value.hint) is (variable is not None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("server.lgo", "server.log"),
        ("Server.LOG", "server.log"),
        ("server", "server.log"),
        ("report.txt", "report.pdf"),
        ("dta/in.csv", "data/in.csv"),
        ("quite/else.csv", None),
        ("nothing-like-it", None),
    ],
)
def test_a_path_that_is_almost_right(written: str, meant: str | None) -> None:
    for name in ("server.log", "report.pdf", "data/in.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    found = nearest_path(Path(written))
    assert (str(found) if found else None) == meant
    assert nearest("", []) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gpt5", "openai/gpt-5"),
        ("opnai/gpt-5", "openai/gpt-5"),
        ("opnai/my-own", "openai/my-own"),
        ("deepseek-chat", "deepseek/deepseek-chat"),
        ("locl", "local"),
        ("no such model", None),
    ],
)
def test_a_model_that_is_almost_right(written: str, meant: str | None) -> None:
    assert nearest_model(LITELLM, written) == meant


def test_a_status_names_ten_files_and_says_how_many_more_there_are() -> None:
    files = [{"name": f"{number}.txt", "characters": 5} for number in range(25)]
    found = SessionStatus(
        "s", "idle", Path("t"), datetime.now(UTC), {}, files, {}, 0, Totals(), None, 1.0, None
    )
    lines = found.lines()
    assert sum(".txt: 5 characters" in line for line in lines) == 10
    assert any(line.strip() == "… and 15 more" for line in lines)
    assert len(found.file_lines()) == 25
