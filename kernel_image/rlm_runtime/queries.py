"""The calls of sub models and child RLMs, as code in a cell makes them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from rlm_contract import ChildQuery, Query
from rlm_contract.tokens import tokens_of_all

from rlm_runtime import asyncwire, batches, pictures, predecessor, wire
from rlm_runtime.handover import Handover
from rlm_runtime.lazytext import LazyText
from rlm_runtime.schemas import Wanted

CHILDREN_AT_ONCE = 16
"""Children of one batch that are asked for at one time; the host may run fewer."""
LONG_QUESTION = 10_000
"""Characters beyond which a question without a context is one."""


def _prompt(prompt: Any) -> str:
    if not isinstance(prompt, str):
        how = ": take pieces of it, by slices or chunks(size)" if isinstance(prompt, LazyText) else ""
        raise TypeError(f"a prompt must be a str, not {type(prompt).__name__}{how}")
    return prompt


_Unfit = tuple[str, ValueError]
"""A reply that does not fit the schema, and why."""
_Same = tuple[str, str | None, str, *tuple[str, ...]]
"""What tells a call from others; at the end the digests of its pictures."""


def _query(
    prompt: str,
    model: str | None,
    wanted: Wanted | None,
    timeout: float | None = None,
    after: _Unfit | None = None,
    images: Sequence[pictures.Encoded] = (),
) -> tuple[Query, _Same]:
    """One sub-model call, as it is sent; `after` a reply that did not fit."""
    if not isinstance(model, (str, type(None))):
        raise TypeError(f"model is a model's name, not a {type(model).__name__}; pictures go to images=[…]")
    asked = (
        prompt
        if wanted is None
        else wanted.ask(prompt)
        if after is None
        else wanted.ask_again(prompt, *after)
    )
    body: Query = {"prompt": asked, "model": model}
    if wanted is not None:
        body["schema"] = wanted.sent
    if timeout is not None:
        body["timeout"] = timeout
    for part, given in pictures.parts(images).items():
        body[part] = given  # type: ignore[literal-required]
    told = wanted.told if wanted else ""
    if hash((prompt, model, told)) in _unfit_twice:
        body["anew"] = True
    return body, (asked, model, told, *(image.digest for image in images))


_unfit_twice: set[int] = set()
"""Hashes of prompt, model and schema whose replies did not fit, twice: the host may have kept these."""


def _unfit(wrong: ValueError, reply: str, prompt: str, model: str | None, wanted: Wanted) -> wire.LLMError:
    _unfit_twice.add(hash((prompt, model, wanted.told)))
    return wire.LLMError(f"The reply does not fit the schema, twice: {wrong}. It began: {reply[:200]!r}")


def _wanted(schema: Any) -> Wanted | None:
    return None if schema is None else Wanted(schema)


def llm_query(
    prompt: str,
    model: str | None = None,
    *,
    schema: Any = None,
    timeout: float | None = None,
    images: Any = None,
    image_side: int = 1568,
    instruction: str | None = None,
) -> Any:
    """Ask the sub model one question; it sees this prompt alone. Its reply as text.

    `model`: another of the run's models, by its name; an unknown one raises LLMError with those there are. A
    text that can be no name, or `instruction`, is put before the prompt: llm_query(chunk, "Sum this up.").
    `schema`: a JSON schema, or a Python type such as list[str]; the reply is then a checked value of it,
    asked for twice at most. `timeout` in seconds, for each time. `images`: a list of pictures that it sees,
    too: loaded ones, paths, bytes, PIL images, matplotlib figures, arrays, pdf_page(name, number); they are
    scaled to at most `image_side` pixels on the longer side. Raises LLMError, BudgetExceeded, PictureError.
    """
    wanted = _wanted(schema)
    prompt, model = predecessor.with_instruction(_prompt(prompt), model, instruction)
    shown = pictures.encoded(pictures.listed(images), image_side)
    query = _query(prompt, model, wanted, timeout, images=shown)
    reply: str = wire.call("llm_query", *query)
    if wanted is None:
        return reply
    try:
        return wanted.read(reply)
    except ValueError as wrong:
        query = _query(prompt, model, wanted, timeout, (reply, wrong), shown)
    reply = wire.call("llm_query", *query)
    try:
        return wanted.read(reply)
    except ValueError as wrong:
        raise _unfit(wrong, reply, prompt, model, wanted) from None


def llm_query_batched(
    prompts: Iterable[str],
    model: str | None = None,
    *,
    schema: Any = None,
    timeout: float | None = None,
    images: Any = None,
    image_side: int = 1568,
) -> list[Any]:
    """Ask the sub model many questions at once; answers in the prompts' order. `model`, `schema` as of
    llm_query.

    `images`: a list with the pictures of each prompt: a list of them, one, or None.

    An item that failed is a falsy CallFailed with its error, never text. `timeout`: seconds for the whole
    batch, after which all that is left fails. Raises BudgetExceeded if all were refused for it.
    """
    if isinstance(prompts, str):
        raise TypeError("llm_query_batched takes a list of prompts; for one prompt use llm_query")
    given = [predecessor.with_instruction(_prompt(prompt), model) for prompt in prompts]
    asked, model = [prompt for prompt, _ in given], given[0][1] if given else None
    shown = _images_of_each(images, len(asked))
    wanted = _wanted(schema)
    deadline = batches.Deadline(timeout)

    unfit: dict[int, _Unfit] = {}

    def item(place: int, after: _Unfit | None = None) -> batches.Item:
        # Pictures are made when they are sent: those of all prompts need not fit into memory.
        try:
            made = pictures.encoded(shown[place], image_side)
        except wire.HostCallError as wrong:
            return batches.Item(wrong)
        return batches.Item(*_query(asked[place], model, wanted, after=after, images=made))

    def first(place: int, reply: Any) -> Any:
        try:
            return reply if wanted is None else wanted.read(reply)
        except ValueError as wrong:
            unfit[place] = (reply, wrong)
            return _NOT_ASKED_AGAIN

    def second(place: int, reply: Any) -> Any:
        assert wanted is not None
        try:
            return wanted.read(reply)
        except ValueError as wrong:
            return wire.CallFailed(_unfit(wrong, reply, asked[place], model, wanted))

    with batches.results_of(len(asked)) as results:
        places = range(len(asked))
        about = round(tokens_of_all(asked)), model
        batches.call_many(
            "llm_query", map(item, places), results, places, read=first, deadline=deadline, about=about
        )
        again, items = list(unfit), itertools.starmap(item, unfit.items())
        with contextlib.suppress(wire.BudgetExceeded):  # each of them has it in its place
            about = round(tokens_of_all([asked[place] for place in again])), model
            batches.call_many("llm_query", items, results, again, read=second, deadline=deadline, about=about)
        return results


_NOT_ASKED_AGAIN = wire.CallFailed(
    wire.Cancelled("the reply does not fit the schema, and it was not asked again")
)


def _images_of_each(images: Any, count: int) -> list[list[Any]]:
    """The pictures of each of so many prompts."""
    if images is None:
        return [[]] * count
    if not isinstance(images, (list, tuple)) or len(images) != count:
        given = len(images) if isinstance(images, (list, tuple)) else f"a {type(images).__name__}"
        raise ValueError(
            f"{count} prompts, but images is {given}: give a list with the pictures of each prompt, "
            "[[…], […]]"
        )
    return [pictures.listed(each) for each in images]


async def allm_query(
    prompt: str,
    model: str | None = None,
    *,
    schema: Any = None,
    timeout: float | None = None,
    images: Any = None,
    image_side: int = 1568,
    instruction: str | None = None,
) -> Any:
    """llm_query for asyncio code: `await asyncio.gather(*(allm_query(p) for p in prompts))`."""
    wanted = _wanted(schema)
    prompt, model = predecessor.with_instruction(_prompt(prompt), model, instruction)
    given = pictures.listed(images)
    with batches.gathered() as take:
        shown = await asyncio.to_thread(pictures.encoded, given, image_side) if given else []
        query = _query(prompt, model, wanted, timeout, images=shown)
        reply = result = await asyncwire.call("llm_query", *query)
        if wanted is not None:
            try:
                result = wanted.read(reply)
            except ValueError as wrong:
                query = _query(prompt, model, wanted, timeout, (reply, wrong), shown)
                reply = await asyncwire.call("llm_query", *query)
                try:
                    result = wanted.read(reply)
                except ValueError as wrong:
                    raise _unfit(wrong, reply, prompt, model, wanted) from None
        take(result)
        return result


def rlm_query(
    question: str,
    context: Any = None,
    *,
    model: str | None = None,
    schema: Any = None,
    timeout: float | None = None,
) -> Any:
    """Have a child RLM answer: it has a session of its own, in which `context` is what you hand over, and
    works on it by code.

    `context`: a text, a loaded file, or lists and dicts of texts and numbers. `model`: another of the run's
    models, by its name, as the child's root model. `schema`: how the answer must
    look. The answer is what the child delivered: text, or a value. `timeout` in seconds. At the depth limit
    the sub model answers, so `context` must then fit its window. Raises LLMError, BudgetExceeded.
    """
    answer = rlm_query_batched([question], [context], model=model, schema=schema, timeout=timeout)[0]
    if isinstance(answer, wire.CallFailed):
        raise answer.error
    return answer


def rlm_query_batched(
    questions: Iterable[str],
    contexts: Any = None,
    *,
    model: str | None = None,
    schema: Any = None,
    timeout: float | None = None,
) -> list[Any]:
    """rlm_query for many questions at once, in their order.

    `contexts`: a list with one for each, or one for all.

    An item that failed is a falsy CallFailed with its error. `timeout`: seconds for the whole batch. Raises
    BudgetExceeded if all were refused for it.
    """
    if isinstance(questions, str):
        raise TypeError("rlm_query_batched takes a list of questions; for one question use rlm_query")
    asked = [_prompt(question) for question in questions]
    each = list(contexts) if isinstance(contexts, (list, tuple)) else [contexts] * len(asked)
    if len(each) != len(asked):
        raise ValueError(
            f"{len(asked)} questions, but {len(each)} contexts: give one for each question, or one that is "
            "no list for all"
        )
    wanted = _wanted(schema)
    deadline = batches.Deadline(timeout)
    with batches.results_of(len(asked)) as results:
        children = _Children(asked, each, model, wanted, results)
        children.ask(range(len(asked)), deadline)
        # At the depth limit the sub model is asked, which must be given the text.
        fitting = []
        for place, result in enumerate(results):
            if isinstance(result, wire.CallFailed) and isinstance(result.error, wire.TextWanted):
                limit, size = int(str(result.error)), _size(each[place])
                if size <= limit:
                    fitting.append(place)
                else:
                    too_long = wire.LLMError(_TOO_LONG.format(limit=limit, size=size))
                    results[place] = wire.CallFailed(too_long)
        try:
            children.ask(fitting, deadline, by_name=False)
        except wire.BudgetExceeded:
            if len(fitting) == len(asked):
                raise
        return results


_TOO_LONG = (
    "At this depth rlm_query asks the sub model, which reads at most {limit:,} characters; the "
    "context has {size:,}. Hand over less."
)


def _size(files: Any) -> int:
    """Characters of a loaded file, or of a dict of them."""
    return sum(map(len, files.values())) if isinstance(files, dict) else len(files)


class _Children:
    """A batch of child RLMs, of which `ask` fills in the results."""

    def __init__(
        self,
        questions: Sequence[str],
        contexts: Sequence[Any],
        model: str | None,
        wanted: Wanted | None,
        results: list[Any],
    ) -> None:
        self._asked = list(zip(questions, contexts, strict=True))
        self._model, self._wanted, self._results = model, wanted, results
        self._handed: dict[int, Handover] = {}

    def ask(self, places: Sequence[int], deadline: batches.Deadline, *, by_name: bool = True) -> None:
        """Ask the questions at these places. Raises BudgetExceeded if all were refused for it."""
        items = (self._item(place, by_name=by_name) for place in places)
        try:
            batches.call_many(
                "rlm_query",
                items,
                self._results,
                places,
                read=lambda _place, answer: _fitting(self._wanted, answer),
                window=CHILDREN_AT_ONCE,
                deadline=deadline,
                done=self._ended,
                about=(round(tokens_of_all([self._asked[place][0] for place in places])), self._model),
            )
        finally:
            for left in self._handed.values():
                left.remove()
            self._handed.clear()

    def _item(self, place: int, *, by_name: bool) -> batches.Item:
        question, context = _long_question(*self._asked[place])
        try:
            self._handed[place] = given = Handover(context, by_name=by_name)
        except TypeError as error:
            return batches.Item(wire.HostCallError(f"not handed over: {error}"))
        body: ChildQuery = {"question": question, "context": given.given}
        if self._model is not None:
            body["model"] = self._model
        if self._wanted:
            body["schema"] = self._wanted.schema
        told = self._wanted.told if self._wanted else ""
        return batches.Item(body, (question, given.same, self._model, told))

    def _ended(self, place: int) -> None:
        if place in self._handed:
            self._handed.pop(place).remove()


def _fitting(wanted: Wanted | None, result: Any) -> Any:
    if wanted is None:
        return result
    try:
        return wanted.of(result)
    except ValueError as wrong:
        return wire.CallFailed(
            wire.LLMError(
                f"The child's answer does not fit the schema: {wrong}. It began: {str(result)[:200]!r}"
            )
        )


def _long_question(question: str, context: Any) -> tuple[str, Any]:
    """A question that has its text in it: what is long is an input."""
    if context is not None or len(question) <= LONG_QUESTION:
        return question, context
    ends = f"It begins: {question[:1000]}\n…\nIt ends: {question[-500:]}"
    return (
        f"Do what the text in `context` asks for, which was too long to be shown here as a whole. {ends}",
        question,
    )
