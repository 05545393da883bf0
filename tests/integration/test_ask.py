"""`rlm ask` as a user runs it: the real command, a real container, real HTTP to an OpenAI-compatible
server.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from docker.errors import NotFound

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.trace.schema import CellMeta, NotebookMeta
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.sandbox import until

ROOT = Path(__file__).parents[2]
COUNT_IN_PIECES = """I split the input and have each piece counted.

```repl
lines = context.splitlines(keepends=True)
step = -(-len(lines) // 200)
pieces = ["".join(lines[i:i + step]) for i in range(0, len(lines), step)]
counts = llm_query_batched(["COUNT needle\\n" + piece for piece in pieces])
print(len(counts), "counts")
```"""
ADD_UP = "```repl\nFINAL(sum(int(count) for count in counts))\n```"
ASK = ("ask", "How often does needle occur?", "-m", "openai/root", "--sub-model", "openai/sub")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rlm_kernel", *arguments]


@pytest.fixture
def rlm_process(kernel_image: Any) -> Rlm:
    """Run `rlm` as a process of its own, in the test's folder and environment."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _command(*arguments), capture_output=True, text=True, timeout=110, check=False, **options
        )

    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "small.log"
    path.write_text("hay\nneedle in hay\n" * 50)
    return path


def _containers(client: Any, trace: str) -> list[str]:
    """Names of the containers of the trace's session."""
    session = nbformat.read(trace, 4).metadata.rlm.session
    return [
        c.name
        for c in client.containers.list(
            ignore_removed=True, all=True, filters={"label": f"rlm-kernel.session={session}"}
        )
    ]


def _traces() -> list[Path]:
    return sorted(Path("rlm-traces").glob("*.ipynb"))


def _count(prompt: str) -> str:
    head, _, text = prompt.partition("\n")
    return str(text.count(head.removeprefix("COUNT ")))


def test_50_mb_with_200_sub_calls(
    rlm_process: Rlm, openai_env: ModelServer, tmp_path: Path, docker_client: Any
) -> None:
    path = tmp_path / "big.log"
    path.write_text(("hay and more hay in a line of a log " * 3 + "\nneedle in the hay\n") * 400_000)
    assert path.stat().st_size > 50_000_000
    openai_env.root, openai_env.sub = [COUNT_IN_PIECES, ADD_UP], _count
    done = rlm_process(*ASK, "-f", str(path), "--trace", "t.ipynb")
    assert done.stderr.count("Traceback") == 0
    assert (done.stdout, done.returncode) == ("400000\n", 0)
    assert len([r for r in openai_env.requests if r.model == "sub"]) == 200
    assert "trace: t.ipynb" in done.stderr
    text = Path("t.ipynb").read_text()
    assert openai_env.api_key is not None
    assert openai_env.api_key not in text
    notebook = nbformat.reads(text, 4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == [
        "title", "parameters", "setup", "turn-01", "turn-01-a", "turn-02", "turn-02-a", "answer", "summary",
    ]  # fmt: skip
    meta = NotebookMeta.model_validate(notebook.metadata.rlm)
    assert (meta.status, meta.stop_reason) == ("finished", "answered")
    assert meta.files[0].sha256 is not None
    calls = CellMeta.model_validate(notebook.cells[4].metadata.rlm).calls
    assert len(calls) == 200
    assert {call.model for call in calls} == {"openai/sub"}
    assert sum(int(call.answer) for call in calls) == 400_000
    assert _containers(docker_client, "t.ipynb") == []
    assert sorted(path.name for path in Path().iterdir()) == ["t.ipynb", "t.prompts.zst"]


def test_json_is_one_object_on_stdout(rlm: Rlm, openai_env: ModelServer, log: Path) -> None:
    openai_env.root, openai_env.sub = [COUNT_IN_PIECES, ADD_UP], _count
    done = rlm(*ASK, "-f", str(log), "--json", "--quiet")
    result = json.loads(done.stdout)
    assert done.stderr == ""
    assert set(result) == {
        "answer",
        "trace",
        *Totals().as_json(),
        "stop_reason",
        "forced",
        "evidence",
        "seal",
    }
    assert (result["answer"], result["turns"], result["calls"], result["cost"]) == (50, 2, 100, None)


def test_cost_from_configured_prices_and_settings_from_a_file_and_the_command_line(
    rlm: Rlm, openai_env: ModelServer, log: Path
) -> None:
    openai_env.root = ["```repl\nFINAL(len(context))\n```"]
    prices = {"input_price": 1.0, "output_price": 5.0}
    Path("mine.json").write_text(
        json.dumps({"root_llm": {"model": "openai/root", **prices}, "limits": {"turns": 3}})
    )
    given = (
        "--config",
        "mine.json",
        "--set",
        "root_llm.output_price=2",
        "--set",
        "sandbox.memory=1g",
        "--set",
        "limits.turns=9",
    )
    result = json.loads(rlm("ask", "How long?", "-f", str(log), *given, "--max-turns", "4", "--json").stdout)
    tokens = result["tokens"]
    assert result["answer"] == 900
    assert result["cost"] == pytest.approx((tokens["prompt"] + 2 * tokens["completion"]) / 1e6)
    meta = NotebookMeta.model_validate(nbformat.read(result["trace"], 4).metadata.rlm)
    assert (meta.limits["turns"], meta.sandbox["memory"]) == (4, "1g")


def test_a_best_effort_answer_at_exhaustion_is_marked(rlm: Rlm, openai_env: ModelServer, log: Path) -> None:
    openai_env.root = ["```repl\nprint(context[:9])\n```", "FINAL(about 50)"]
    done = rlm(*ASK, "-f", str(log), "--max-turns", "1")
    assert (done.stdout, done.returncode) == ("about 50\n", 0)
    assert "best-effort answer. The limit of turns is reached" in done.stderr
    assert "*Best-effort answer: the limit of turns was reached.*" in _traces()[0].read_text()


def test_no_answer_exits_1_and_says_why(rlm: Rlm, openai_env: ModelServer, log: Path) -> None:
    openai_env.root = ["```repl\nprint(context[:9])\n```"]
    openai_env.models = {}
    openai_env.fail("content_filter", times=1, model="root")
    done = rlm(*ASK, "-f", str(log))
    assert (done.stdout, done.returncode) == ("", 1)
    assert "refus" in done.stderr
    assert json.loads(_traces()[0].read_text())["metadata"]["rlm"]["status"] == "finished"


def test_call_limit_raises_in_the_cell_and_is_never_passed(
    rlm: Rlm, openai_env: ModelServer, log: Path
) -> None:
    openai_env.root = [
        "```repl\nprint(context[:5]); r = [bool(a) for a in llm_query_batched(['x'] * 20)]\nFINAL(sum(r))\n"
        "```"
    ]
    done = rlm(*ASK, "-f", str(log), "--max-calls", "7")
    assert done.stdout == "7\n"
    assert len([r for r in openai_env.requests if r.model == "sub"]) == 7


def test_time_limit_stops_the_running_cell(rlm: Rlm, openai_env: ModelServer, log: Path) -> None:
    openai_env.root = [
        "```repl\nprint(context[:5], flush=True)\nwhile True: pass\n```",
        "FINAL(nothing found in time)",
    ]
    done = rlm(*ASK, "-f", str(log), "--timeout", "8", "--json")
    result = json.loads(done.stdout)
    assert (result["answer"], result["stop_reason"], result["forced"]) == (
        "nothing found in time",
        "seconds",
        True,
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.hostile)])
def test_interrupt_closes_the_trace_and_leaves_nothing(
    kernel_image: Any, openai_env: ModelServer, log: Path, docker_client: Any, signum: signal.Signals
) -> None:
    openai_env.root = ["```repl\nprint(context[:5], flush=True)\nimport time; time.sleep(99)\n```"]
    with subprocess.Popen(
        _command(*ASK, "-f", str(log), "--trace", "t.ipynb"), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        _wait_for_output(Path("t.ipynb"), "hay")
        running.send_signal(signum)
        stdout, stderr = running.communicate(timeout=20)
    assert (running.returncode, stdout) == (130, b"")
    assert b"Traceback" not in stderr
    assert re.search(
        rb"rlm: interrupted after 1 turn, 0 sub-calls, .* To continue:\nrlm resume t.ipynb\n", stderr
    )
    notebook = nbformat.read("t.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.metadata.rlm.stop_reason == "interrupted"
    assert _containers(docker_client, "t.ipynb") == []


def _wait_for_output(trace: Path, text: str) -> None:
    import asyncio

    def printed() -> bool:
        return trace.exists() and any(
            "outputs" in c and text in str(c.outputs) for c in nbformat.read(trace, 4).cells
        )

    asyncio.run(until(printed, 60))


def test_sigkill_leaves_a_valid_trace_and_no_container(
    kernel_image: Any, openai_env: ModelServer, log: Path, docker_client: Any
) -> None:
    openai_env.root = [
        "```repl\nprint(context[:5], llm_query('hello'), flush=True)\nimport time; time.sleep(99)\n```"
    ]
    with subprocess.Popen(_command(*ASK, "-f", str(log), "--trace", "t.ipynb", "-q")) as running:
        _wait_for_output(Path("t.ipynb"), "echo: hello")
        names = _containers(docker_client, "t.ipynb")
        folder = Path(docker_client.containers.get(names[0]).labels["rlm-kernel.folder"])
        running.kill()
    with contextlib.suppress(NotFound):  # it is gone already
        docker_client.api.wait(names[0], condition="removed", timeout=30)
    assert _containers(docker_client, "t.ipynb") == []
    notebook = nbformat.read("t.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.metadata.rlm.get("status", "running") == "running"
    assert notebook.cells[-1].metadata.rlm.calls[0].answer == "echo: hello"
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ask", "Q", "-m", "anthropic/claude-sonnet-4-5"), 3, "ANTHROPIC_API_KEY"),
        (("ask", "Q", "-m", "nosuchprovider/x"), 3, "nosuchprovider"),
        (("ask", "Q"), 2, "No root model is set"),
        (("ask", " ", "-m", "openai/root"), 2, "question is empty"),
        (("ask", "Q", "-m", "openai/root", "-f", "missing.txt"), 2, "missing.txt"),
        (("ask", "Q", "-m", "openai/root", "-f", "\x1b]0;own\x07"), 2, "cannot be read"),
        (("ask", "Q", "-m", "openai/root", "-f", "/dev/zero"), 2, "neither a file nor a folder"),
        (("ask", "Q", "-m", "openai/root", "--config", "missing.json"), 2, "missing.json"),
        (("ask", "Q", "-m", "openai/root", "--max-turns", "0"), 2, "turns"),
        (("ask", "Q", "-m", "openai/root", "--max-cost", "1"), 2, "it knows no price for openai/root"),
        (("ask", "Q", "-m", "openai/root", "--trace", "/proc/x/t.ipynb"), 1, "cannot be written"),
        (("ask", "Q", "--no-such-option"), 2, "--no-such-option"),
    ],
)
def test_failures_say_what_to_do_and_exit_with_their_code(
    rlm: Rlm, openai_env: ModelServer, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = rlm(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_without_docker_it_says_what_to_type(rlm_process: Rlm, openai_env: ModelServer) -> None:
    done = rlm_process(
        "ask", "Q", "-m", "openai/root", env=os.environ | {"DOCKER_HOST": "unix:///nonexistent.sock"}
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "rlm doctor" in done.stderr


def test_binary_and_too_large_inputs_are_clear_errors(
    rlm: Rlm, openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary, large = tmp_path / "a.bin", tmp_path / "large.txt.gz"
    binary.write_bytes(bytes(range(256)) * 10)
    large.write_bytes(gzip.compress(b"0123456789" * 5_000_000, 1))
    done = rlm(*ASK, "-f", str(binary))
    assert done.returncode == 2
    assert "binary" in done.stderr
    monkeypatch.setenv("RLM_SANDBOX__MEMORY", "256m")
    done = rlm(*ASK, "-f", str(large))
    assert done.returncode == 2
    assert "Unpack it on disk" in done.stderr


def test_terminal_escapes_of_models_do_not_reach_the_view(
    rlm: Rlm, openai_env: ModelServer, log: Path
) -> None:
    openai_env.root = ["FINAL(\x1b]0;owned\x07)", "FINAL(\x1b]0;owned\x07)"]
    done = rlm(*ASK, "-f", str(log))
    assert "\x1b" not in done.stderr


def test_kernel_that_dies_is_told_to_the_model_and_the_run_goes_on(
    rlm: Rlm, openai_env: ModelServer, log: Path
) -> None:
    openai_env.root = [
        "```repl\nfound = context.count('needle')\n```\n",
        "```repl\nimport os; os._exit(1)\n```",
        "```repl\nFINAL(context.count('needle'))\n```",
    ]
    done = rlm(*ASK, "-f", str(log), "--trace", "t.ipynb")
    assert done.stdout == "50\n"
    told = openai_env.requests[-1].prompt
    assert "The kernel died" in told
    assert "found" in told
    assert nbformat.read("t.ipynb", 4).cells[6].metadata.rlm.status == "died"


@pytest.mark.parametrize(
    ("context", "kind"),
    [
        ("a long text " * 10, "str"),
        ({"a": [1, 2], "b": {"c": None}}, "dict"),
        ([{"id": 1}, {"id": 2}], "list"),
    ],
)
def test_python_objects_are_contexts(kernel_image: Any, context: Any, kind: str) -> None:
    models = ScriptedModels(["```repl\nFINAL([type(context).__name__, context])\n```"])
    result = RLM(models=models).ask("What is it?", context)
    assert result.value == [kind, context]
    assert result.trace.exists()


async def test_python_interface_inside_an_event_loop(kernel_image: Any, log: Path) -> None:
    models = ScriptedModels(
        ["```repl\nanswers = llm_query_batched(['a', 'b']); print(context[:3])\nFINAL(answers)\n```"],
        str.upper,
    )
    result = await RLM(models=models).aask("Q", log)
    assert (result.value, result.totals.calls, result.cost, result.stop_reason) == (
        ["A", "B"],
        2,
        0.0,
        "answered",
    )
    other = log.parent / "other" / log.name
    other.parent.mkdir()
    other.write_text("the same name")
    blocking = RLM(models=ScriptedModels(["```repl\nFINAL(sorted(context))\n```"]))
    assert blocking.ask("Q", [log, other]).value == sorted(
        ["other/small.log", f"{log.parent.name}/small.log"]
    )


@pytest.mark.local_model
@pytest.mark.timeout(900)
def test_local_model_answers_a_question_that_grep_can_check(
    kernel_image: Any, models_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    path = tmp_path / "library.txt"
    path.write_bytes(
        b"".join(source.read_bytes() for source in sorted(Path(os.__file__).parent.glob("*.py")))
    )
    right = sum(b"raise ValueError" in line for line in path.read_bytes().split(b"\n"))
    command = _command(
        "ask", 'How many lines contain "raise ValueError"?', "-f", str(path), "-m", "local", "--json"
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert str(result["answer"]) == str(right)
    assert result["cost"] == 0.0
