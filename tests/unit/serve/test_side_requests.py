"""What chat programs ask for their own sake, such as titles: it counts as questions do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.totals import Usage
from rlm_kernel.engine.values import Completion
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.serve.accounts import Accounts
from rlm_kernel.serve.chat import read_chat
from rlm_kernel.serve.kernels import Kernel
from rlm_kernel.serve.keys import Key, Keys
from rlm_kernel.serve.reasoning import Reasoning
from rlm_kernel.serve.service import Job, Service

TITLE = {"messages": [{"role": "user", "content": "### Task:\nGenerate a concise, 3-5 word title."}]}


class Failing(ScriptedModels):
    """Whose reply is paid, and of no use."""

    async def complete(self, *_: Any, **__: Any) -> Completion:
        spent = Completion("", "a/model", Usage(40, 2), cost=0.25)
        raise ModelError("Nothing came.", fault="empty", model="a/model", spent=spent)


@pytest.mark.parametrize(("models", "cost"), [(Failing([]), 0.25), (ScriptedModels([], lambda _: "A"), 0.0)])
async def test_a_title_counts_also_where_its_reply_is_paid_and_useless(models: Any, cost: float) -> None:
    key, chosen = Key(name="ann"), SimpleNamespace(models=models)
    service = Service(load_settings(None), chosen, Keys(), Accounts(), 1)  # type: ignore[arg-type]
    job = service.job(read_chat(json.dumps(TITLE).encode()), key, Reasoning(lambda _: None))
    assert job.kernel is None
    if cost:
        with pytest.raises(ModelError):
            await service.answer(job)
        assert service.accounts.of(key).used.tokens == 42
    else:
        assert (await service.answer(job)).text == "A"
    assert service.accounts.of(key).used.cost == cost


async def test_a_summary_that_a_program_asks_for_leaves_the_chat_its_kernel(tmp_path: Path) -> None:
    service = Service(load_settings(None), SimpleNamespace(models=ScriptedModels([])), Keys(), Accounts(), 1)  # type: ignore[arg-type]
    said = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}]

    def job(*more: tuple[str, str]) -> Job:
        messages = [*said, *({"role": role, "content": text} for role, text in more)]
        asked = read_chat(json.dumps({"messages": messages}).encode())
        return service.job(asked, Key(name="ann"), Reasoning(lambda _: None))

    kernel = Kernel("a", tmp_path / "a.ipynb", keeps=True)
    goes_on = [("user", "Why?")]
    known_as = job(*goes_on).chat.known_as("ann")
    service.kernels.put(known_as, kernel)
    assert job(("system", "Sum this chat up.")).kernel is not kernel
    assert job(*goes_on).kernel is kernel
