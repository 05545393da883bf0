"""The calls of sub models and child RLMs, as code in a cell makes them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlm_contract import ChildQuery, Query

from rlm_runtime import asyncwire, pictures, wire
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
    return body, (asked, model, wanted.told if wanted else "", *(image.digest for image in images))


def _unfit(wrong: ValueError, reply: str) -> wire.LLMError:
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
) -> Any:
    """Ask the sub model one question; it sees this prompt alone. Its reply as text.

    `model`: another of the run's models, by its name; an unknown one raises LLMError with those there are.
    `schema`: a JSON schema, or a Python type such as list[str]; the reply is then a checked value of it,
    asked for twice at most. `timeout` in seconds, for each time. `images`: a list of pictures that it sees,
    too: loaded ones, paths, bytes, PIL images, matplotlib figures, arrays, pdf_page(name, number); they are
    scaled to at most `image_side` pixels on the longer side. Raises LLMError, BudgetExceeded, PictureError.
    """
    wanted = _wanted(schema)
    _prompt(prompt)
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
        raise _unfit(wrong, reply) from None


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
    asked = [_prompt(prompt) for prompt in prompts]
    shown = _images_of_each(images, len(asked))
    wanted = _wanted(schema)
    deadline = None if timeout is None else time.monotonic() + timeout

    def item(place: int, after: _Unfit | None = None) -> wire.Item:
        # Pictures are made when they are sent: those of all prompts need not fit into memory.
        try:
            made = pictures.encoded(shown[place], image_side)
        except wire.HostCallError as wrong:
            return wire.Item(wrong)
        return wire.Item(*_query(asked[place], model, wanted, after=after, images=made))

    results = wire.call_many("llm_query", map(item, range(len(asked))), len(asked), seconds=timeout)
    if wanted is None:
        return results
    unfit: dict[int, _Unfit] = {}
    for place, reply in enumerate(results):
        try:
            results[place] = wanted.read(reply) if isinstance(reply, str) else reply
        except ValueError as wrong:
            unfit[place] = (reply, wrong)
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        replies = wire.call_many(
            "llm_query", itertools.starmap(item, unfit.items()), len(unfit), seconds=left
        )
    except wire.BudgetExceeded as refused:
        replies = [wire.CallFailed(refused)] * len(unfit)
    for place, reply in zip(unfit, replies, strict=True):
        try:
            results[place] = wanted.read(reply) if isinstance(reply, str) else reply
        except ValueError as wrong:
            results[place] = wire.CallFailed(_unfit(wrong, reply))
    return results


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
) -> Any:
    """llm_query for asyncio code: `await asyncio.gather(*(allm_query(p) for p in prompts))`."""
    wanted = _wanted(schema)
    _prompt(prompt)
    given = pictures.listed(images)
    shown = await asyncio.to_thread(pictures.encoded, given, image_side) if given else []
    query = _query(prompt, model, wanted, timeout, images=shown)
    reply: str = await asyncwire.call("llm_query", *query)
    if wanted is None:
        return reply
    try:
        return wanted.read(reply)
    except ValueError as wrong:
        query = _query(prompt, model, wanted, timeout, (reply, wrong), shown)
    reply = await asyncwire.call("llm_query", *query)
    try:
        return wanted.read(reply)
    except ValueError as wrong:
        raise _unfit(wrong, reply) from None


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
    deadline = None if timeout is None else time.monotonic() + timeout
    results = _ask_children(list(zip(asked, each, strict=True)), model, wanted, timeout)
    # At the depth limit the sub model is asked, which must be given the text.
    again = [
        place
        for place, result in enumerate(results)
        if isinstance(result, wire.CallFailed) and isinstance(result.error, wire.TextWanted)
    ]
    fitting = [place for place in again if _size(each[place]) <= int(str(results[place].error))]
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        again_asked = [(asked[place], each[place]) for place in fitting]
        given = _ask_children(again_asked, model, wanted, left, by_name=False)
    except wire.BudgetExceeded as refused:
        if len(fitting) == len(asked):
            raise
        given = [wire.CallFailed(refused)] * len(fitting)
    for place in again:
        limit = int(str(results[place].error))
        results[place] = wire.CallFailed(
            wire.LLMError(_TOO_LONG.format(limit=limit, size=_size(each[place])))
        )
    for place, result in zip(fitting, given, strict=True):
        results[place] = result
    return [_fitting(wanted, result) for result in results]


_TOO_LONG = (
    "At this depth rlm_query asks the sub model, which reads about {limit:,} characters; the "
    "context has {size:,}. Hand over less."
)


def _size(files: Any) -> int:
    """Characters of a loaded file, or of a dict of them."""
    return sum(map(len, files.values())) if isinstance(files, dict) else len(files)


def _ask_children(
    asked: list[tuple[str, Any]],
    model: str | None,
    wanted: Wanted | None,
    seconds: float | None,
    *,
    by_name: bool = True,
) -> list[Any]:
    handed: dict[int, Handover] = {}

    def items() -> Iterator[wire.Item]:
        for place, (question, context) in enumerate(_long_question(*one) for one in asked):
            try:
                handed[place] = given = Handover(context, by_name=by_name)
            except TypeError as error:
                yield wire.Item(wire.HostCallError(f"not handed over: {error}"))
                continue
            body: ChildQuery = {"question": question, "context": given.given}
            if model is not None:
                body["model"] = model
            if wanted:
                body["schema"] = wanted.schema
            yield wire.Item(body, (question, given.same, model, wanted.told if wanted else ""))

    def ended(place: int) -> None:
        if place in handed:
            handed.pop(place).remove()

    try:
        return wire.call_many(
            "rlm_query", items(), len(asked), window=CHILDREN_AT_ONCE, seconds=seconds, done=ended
        )
    finally:
        for left in handed.values():
            left.remove()


def _fitting(wanted: Wanted | None, result: Any) -> Any:
    if wanted is None or isinstance(result, wire.CallFailed):
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
