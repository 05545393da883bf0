"""Models that follow a script: for tests, and for demonstrations, where their names say what they are."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from rlm_kernel.engine.protocols import ROLES, UNWATCHED, Card, Completion, Message, Role, Usage, Watch
from rlm_kernel.errors import ModelError, RLMError

RootScript = Sequence[str] | Callable[[Sequence[Message]], str | Awaitable[str]]
SubScript = Mapping[str, str] | Callable[[str], str | Awaitable[str]]


class ScriptedModels:
    """Root and sub models without a model.

    Implements `engine.protocols.Models`; costs nothing, and counts no tokens.

    `root`: the replies in order, or a function of the messages. `sub`: a function of the prompt (the last
    message's text), or the replies by prompt; None for no sub model. What the script does not have, or cannot
    give because it fails, is a ModelError, fault refused.
    """

    def __init__(self, root: RootScript, sub: SubScript | None = None) -> None:
        self._root = root
        self._sub = sub
        self._turn = 0

    def name(self, role: Role) -> Literal["scripted/root", "scripted/sub"]:
        return "scripted/root" if role == "root" else "scripted/sub"

    def card(self, which: str) -> Card:
        known: dict[str, Card] = {role: Card(role, self.name(role)) for role in ROLES}
        return known[which]

    others: Sequence[Card] = ()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """The script's next reply. `model` may be `scripted/root` or `scripted/sub`."""
        names: dict[str | None, Role] = {None: role, "scripted/root": "root", "scripted/sub": "sub"}
        if model not in names:
            raise ModelError(
                f"The model {str(model)[:80]!r} may not be called here.",
                fault="unknown_model",
                model=str(model)[:80],
                attempts=0,
                hint="Allowed: scripted/root and scripted/sub.",
            )
        started = time.monotonic()
        player = names[model]
        watch.sent()
        try:
            reply = self._root_reply(messages) if player == "root" else self._sub_reply(messages)
            text = await reply if inspect.isawaitable(reply) else reply
        except RLMError:
            raise
        except Exception as error:
            raise self._broken(player, f"raised {type(error).__name__}: {error}") from error
        if not isinstance(text, str):
            raise self._broken(player, f"gave a value of type {type(text).__name__} in place of a text")
        text, finish = self._streamed(text, watch)
        return Completion(
            text, self.name(player), Usage(), 0.0, time.monotonic() - started, finish_reason=finish
        )

    def _streamed(self, text: str, watch: Watch) -> tuple[str, str]:
        """What is heard of a reply, line by line, and how it ended."""
        if watch.heard is None:
            return text, "stop"
        said = 0
        for line in text.splitlines(keepends=True):
            said += len(line)
            if not watch.heard(line, False):
                return text[:said], "stopped"
        return text, "stop"

    async def aclose(self) -> None:
        """Nothing to free."""

    def _root_reply(self, messages: Sequence[Message]) -> str | Awaitable[str]:
        if callable(self._root):
            return self._root(messages)
        if self._turn >= len(self._root):
            raise self._missing(
                "root", f"its script has {len(self._root)} replies, and one more was asked for"
            )
        self._turn += 1
        return self._root[self._turn - 1]

    def _sub_reply(self, messages: Sequence[Message]) -> str | Awaitable[str]:
        prompt = messages[-1]["content"]
        if self._sub is None:
            raise self._missing("sub", "it has no script")
        if callable(self._sub):
            return self._sub(prompt)
        if prompt not in self._sub:
            raise self._missing("sub", f"its script has no reply to {prompt[:80]!r}")
        return self._sub[prompt]

    def _broken(self, role: Role, how: str) -> ModelError:
        return ModelError(
            f"The model {self.name(role)} has no reply: its script {how}",
            fault="refused",
            model=self.name(role),
            hint=f"Mend what ScriptedModels was given as `{role}`.",
        )

    def _missing(self, role: Role, why: str) -> ModelError:
        return ModelError(
            f"The model {self.name(role)} has no reply: {why}.",
            fault="refused",
            model=self.name(role),
            hint="Add the reply to the script.",
        )
