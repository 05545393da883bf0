"""A root model for conversations: a question `run: CODE` is answered with that code in a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlm_kernel.engine.messages import SUM_UP
from rlm_kernel.engine.protocols import Message
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.story import repl

_RUN = re.compile(r"run: (.*)")


class Talk(ScriptedModels):
    """`heard` are the messages of each call; `summary` is what it sums an interaction up with, None to fail
    at it.
    """

    def __init__(self, summary: str = "Found what was asked for.") -> None:
        super().__init__(self._speak, lambda prompt: f"echo {prompt}")
        self.heard: list[Sequence[Message]] = []
        self._summary = summary

    def _speak(self, messages: Sequence[Message]) -> str:
        self.heard.append(list(messages))
        if SUM_UP in messages[-1]["content"]:
            return self._summary
        asked = [code for message in messages for code in _RUN.findall(message["content"])]
        return repl(asked[-1])
