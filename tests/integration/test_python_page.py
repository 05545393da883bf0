"""The examples of docs/python.md, as a user would run them: real containers, and a server for the models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import docker
import pytest

from rlm_kernel import RLM, ScriptedModels
from tests.support.model_server import ModelServer
from tests.support.python_page import Example, examples
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("python-page")]
REPLIES = {
    "who resigned, and when": "FINAL([{'name': 'Ana', 'date': '2025-03-01'}])",
    "who resigned": "mark = cite(grep('resigned')[0]) if files else llm_query(context[0])\nFINAL(f'Ana {mark}')",
    "how many tickets": "FINAL(sum(row['state'] == 'open' for row in records()))",
    "how many pages": "FINAL(len(context))",
    "how many lines": "FINAL(len(context.splitlines()))",
    "how many errors": "FINAL(str(len(context)))",
    "which hosts": "FINAL(str(context))",
    "label each ticket": "FINAL(llm_query_batched([row['title'] for row in records()]))",
    "how warm": "context\nFINAL(weather('Berlin')['now'])",
    "how many": "print(len(context))\nFINAL(2)",
}
"""What the root model replies to a question with these words."""
SAID = {
    "give-it-an-input-1": "1\n",
    "give-it-an-input-2": "3\n",
    "use-the-result-1": "march.txt Ana resigned on 1 March 2025.",
    "ask-for-a-type-1": "Ana 2025-03-01",
    "set-limits-and-other-settings-1": "1.0 2\n",
    "ask-before-much-is-spent-1": "2 calls of openai/gpt-5, about $",
    "ask-without-blocking-1": "['1', '…']",
    "replay,-resume,-fork-1": "True [",
    "replay,-resume,-fork-3": "Ana\n",
    "traces-as-tests-1": "True [",
    "functions-of-yours-1": "21.5",
    "errors-1": "3\n",
}
"""What examples print, among other things."""
OTHER = "print(len(context))\nFINAL('The answer.')"
FILES = {
    "minutes/march.txt": "Ana resigned on 1 March 2025.\n",
    "minutes/april.txt": "Bo was elected.\n",
    "data/minutes.txt": "Ana resigned on 1 March 2025.\n",
    "tickets.csv": "id,title,state\n1,No light,open\n2,No water,closed\n",
    "server.log": "E12 disk full\nE7 no route\n",
}


def play(messages: list[dict[str, Any]]) -> str:
    """The root model, and the sub model."""
    if messages[0]["role"] != "system":
        return "label"  # of a sub-call
    asked = [str(one["content"]).lower() for one in messages if one["role"] == "user"]
    text = asked[-1] if len(asked) > 1 else asked[0]
    found = [code for words, code in REPLIES.items() if words in text] or [OTHER]
    return repl(found[0])


@pytest.fixture(scope="module")
def made(kernel_image: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a user would try the examples, with traces of earlier runs."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "rlm-traces").mkdir()
    (folder / "traces").mkdir()
    for name, more in (("minutes", {}), ("cut-off", {"limits.turns": 1})):
        code = "print(len(context))" if more else "print(len(context))\nFINAL(context.split()[0])"
        models = ScriptedModels([repl(code), "Not yet."])
        rlm = RLM(models=models, options={"sandbox.memory": "512m", **more})
        rlm.ask("Who is named?", folder / "data", trace=folder / "rlm-traces" / f"{name}.ipynb")
    shutil.copy(folder / "rlm-traces" / "minutes.ipynb", folder / "traces")
    return folder


def containers() -> set[str]:
    """Those of this process."""
    client = docker.from_env()
    try:
        mine = f"{os.getpid()}-"
        return {
            one.id
            for one in client.containers.list(all=True, ignore_removed=True)
            if one.labels.get("rlm-kernel.owner", "").startswith(mine)
        }
    finally:
        client.close()


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.id)
def test_an_example_of_the_page_runs(
    example: Example,
    made: Path,
    isolated: Path,
    openai_env: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = isolated / "user"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RLM_SANDBOX__MEMORY", "512m")
    openai_env.models = {"gpt-5": play, "gpt-5-mini": play}
    before = containers()
    exec(compile(example.code, f"{example.id}.py", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr()
    assert SAID.get(example.id, "") in said.out
    assert bool(said.out) == ("print(" in example.code)
    assert containers() <= before
