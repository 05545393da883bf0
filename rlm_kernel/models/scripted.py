"""Models that follow a script: for tests, and for demonstrations, where their names say what they are."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rlm_kernel.engine.protocols import ROLES, UNWATCHED, Card, Completion, Message, Role, Usage, Watch
from rlm_kernel.errors import ModelError, RLMError

RootScript = Sequence[str] | Callable[[Sequence[Message]], str | Awaitable[str]]
SubScript = Mapping[str, str] | Callable[[str], str | Awaitable[str]]


class ScriptedModels:
    """Root and sub models without a model.

    Implements `engine.protocols.Models`; costs nothing, and counts no tokens.

    `root`: the replies in order, or a function of the messages. `sub`: a function of the prompt (the last
    message's text), or the replies by prompt; None for no sub model. `others`: further models by name, each a
    function of the prompt, or of the messages if the model leads a child RLM. `cards`: facts about them. If a
    script has no reply, or its function fails, the call raises a ModelError with the fault "refused".
    """

    def __init__(
        self,
        root: RootScript,
        sub: SubScript | None = None,
        *,
        others: Mapping[str, RootScript | SubScript] | None = None,
        cards: Sequence[Card] = (),
    ) -> None:
        self._scripts: dict[str, RootScript | SubScript | None] = {"root": root, "sub": sub, **(others or {})}
        known = {card.role: card for card in cards}
        self._cards = {name: known.get(name, Card(name, f"scripted/{name}")) for name in self._scripts}
        self._turns: Counter[str] = Counter()

    def name(self, role: Role) -> str:
        return self._cards[role].name

    def card(self, which: str) -> Card:
        return self._cards[which]

    @property
    def others(self) -> Sequence[Card]:
        return [card for name, card in self._cards.items() if name not in ROLES]

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """The next reply of the script. `model`: one of `others`, or a name such as `scripted/sub`."""
        named = {card.name: name for name, card in self._cards.items()} | {
            card.role: card.role for card in self.others
        }
        player = role if model is None else named.get(model)
        if player is None:
            raise ModelError(
                f"The model {str(model)[:80]!r} may not be called here.",
                fault="unknown_model",
                model=str(model)[:80],
                attempts=0,
                hint=f"Allowed: {' and '.join(named)}.",
            )
        started = time.monotonic()
        watch.sent()
        try:
            reply = self._reply(player, role if player not in ROLES else player, messages)
            text = await reply if inspect.isawaitable(reply) else reply
        except RLMError:
            raise
        except Exception as error:
            raise self._broken(player, f"raised {type(error).__name__}: {error}") from error
        if not isinstance(text, str):
            raise self._broken(player, f"gave a value of type {type(text).__name__} in place of a text")
        text, finish = self._streamed(text, watch)
        seconds = time.monotonic() - started
        return Completion(text, self._cards[player].name, Usage(), 0.0, seconds, finish_reason=finish)

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

    def _reply(self, player: str, role: str, messages: Sequence[Message]) -> str | Awaitable[str]:
        script = self._scripts[player]
        if script is None:
            raise self._missing(player, "it has no script")
        prompt = messages[-1]["content"]
        if callable(script):
            return script(messages if role == "root" else prompt)  # type: ignore[arg-type]
        if isinstance(script, Mapping):
            if prompt not in script:
                raise self._missing(player, f"its script has no reply to {prompt[:80]!r}")
            return script[prompt]
        if self._turns[player] >= len(script):
            raise self._missing(player, f"its script has {len(script)} replies, and one more was asked for")
        self._turns[player] += 1
        return script[self._turns[player] - 1]

    def _broken(self, player: str, how: str) -> ModelError:
        name = self._cards[player].name
        return ModelError(
            f"The model {name} has no reply: its script {how}",
            fault="refused",
            model=name,
            hint=f"Correct the argument `{player}` of ScriptedModels.",
        )

    def _missing(self, player: str, why: str) -> ModelError:
        name = self._cards[player].name
        return ModelError(
            f"The model {name} has no reply: {why}.",
            fault="refused",
            model=name,
            hint="Add the reply to the script.",
        )
