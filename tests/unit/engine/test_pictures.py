"""Pictures as a container sends them: checked by their bytes, counted, recorded, and known by their digests."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rlm_contract import MAX_ALL_PICTURES, MAX_PICTURE, MAX_PICTURES

from rlm_kernel.engine import kernel_says, pictures
from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import CallRecord, Card, Completion, Message, Picture
from rlm_kernel.engine.records import Keep
from rlm_kernel.engine.subcalls import chars
from rlm_kernel.errors import ModelError, UsageError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.trace.schema import CallMeta
from tests.unit.engine.test_hostcalls import CELL, Host


def saved(form: str, size: tuple[int, int] = (70, 50), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, form, **options)
    return file.getvalue()


PNG, JPEG = saved("PNG"), saved("JPEG")
SMALL = base64.b64encode(JPEG).decode()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"x" * 60_000}, {"icc_profile": b"y" * 200_000}]
)
def test_kind_and_size_are_read_from_the_bytes(options: dict[str, Any]) -> None:
    assert pictures.read(PNG) == Picture(PNG, "image/png", 70, 50)
    data = saved("JPEG", **options)
    assert pictures.read(data) == Picture(data, "image/jpeg", 70, 50)
    assert pictures.read(JPEG[:2] + b"\xff" * 5 + JPEG[2:]).width == 70  # with filling between segments


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "a PNG or JPEG file"),
        (b"GIF89a" + bytes(50), "a PNG or JPEG file"),
        (b"<svg onload=alert(1)>", "a PNG or JPEG file"),
        (b"<html>", "a PNG or JPEG file"),
        (PNG[:20], "damaged"),
        (PNG[:12] + b"IDAT" + PNG[16:], "damaged"),
        (JPEG[:30], "damaged"),
        (b"\xff\xd8\xff" + b"\xe0\0\0" * 100, "damaged"),
        (b"\xff\xd8" + b"\xff\xe0\0\x02" * 100_000, "damaged"),
        (b"\xff\xd8\xff\xda\0\x08" + bytes(50), "damaged"),
        (PNG[:16] + bytes(8) + PNG[24:], "8,000 pixels a side, and this one 0 x 0"),
        (PNG[:16] + b"\xff" * 8 + PNG[24:], "8,000 pixels a side"),
        (saved("PNG", (8001, 1)), "8,000 pixels a side, and this one 8,001 x 1"),
        (PNG + bytes(MAX_PICTURE), "at most 3,700,000 bytes"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pictures.read(data)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", PNG[:16], PNG[:24], JPEG[:100], JPEG]))
def test_any_bytes_are_a_picture_or_refused(tail: bytes, head: bytes) -> None:
    try:
        found = pictures.read(head + tail)
    except ValueError:
        return
    assert 0 < found.width <= 8000
    assert 0 < found.height <= 8000


def body(images: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": "What is it?", "model": None, "images": images, **more}


@pytest.mark.parametrize(
    "images",
    [
        "text", {"a": 1}, 7, [SMALL], [1], [None], [[JPEG]], [JPEG, "x"], [b"GIF89a"], [JPEG] * (MAX_PICTURES + 1),
        [PNG + bytes(MAX_PICTURE - len(PNG))] * (MAX_ALL_PICTURES // MAX_PICTURE + 1),
    ],
)  # fmt: skip
def test_pictures_of_another_form_or_too_many_are_refused(images: Any) -> None:
    with pytest.raises(UsageError):
        kernel_says.Query.of(body(images))


@pytest.mark.parametrize(
    "told",
    [
        None, "x", [None], [7], ["%%%"], [base64.b64encode(b"<svg onload=alert(1)>").decode()],
        [base64.b64encode(saved("PNG", (300, 300))).decode()], [SMALL + "\n"], [base64.b64encode(bytes(9000)).decode()],
        [f"{SMALL}\n<script>"],
    ],
)  # fmt: skip
def test_a_preview_that_is_no_small_picture_is_left_out(told: Any) -> None:
    query = kernel_says.Query.of(body([JPEG], previews=told))
    assert [note.preview for note in query.notes()] == [""]


def test_previews_beyond_the_pictures_are_passed_over() -> None:
    query = kernel_says.Query.of(body([JPEG, PNG], previews=[SMALL] * 9))
    assert [note.preview for note in query.notes()] == [SMALL, SMALL]


def test_only_questions_to_sub_models_have_pictures() -> None:
    query = kernel_says.Query.of({"question": "?", "images": [JPEG]}, "question")
    assert not query.images


class Seeing(ScriptedModels):
    def __init__(self) -> None:
        super().__init__([])
        self.messages: list[Sequence[Message]] = []

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        self.messages.append(messages)
        return Completion("red", "scripted/sub", cost=0.0)


async def test_a_call_with_pictures_is_asked_recorded_and_known_by_their_digests() -> None:
    models = Seeing()
    host = Host(models)
    assert await host.ask("llm_query", body([JPEG, PNG], previews=[SMALL])) == "red"
    (record,), _ = host.end()
    first, second = pictures.read(JPEG), pictures.read(PNG)
    assert models.messages == [[{"role": "user", "content": "What is it?", "images": (first, second)}]]
    known = {"prompt": "What is it?", "model": None, "images": [first.digest, second.digest]}
    assert record.prompt_digest == digest("llm_query", known)
    assert [(image.digest, image.media_type, image.width, image.preview) for image in record.images] == [
        (first.digest, "image/jpeg", 70, SMALL),
        (second.digest, "image/png", 70, ""),
    ]
    meta = CallMeta.of(record)
    assert CallMeta.model_validate_json(meta.model_dump_json()).record().images == record.images


class Blind(Seeing):
    """The sub model sees no pictures, the root model may, another one does."""

    others = (Card("eyes", "test/eyes", sees=True),)

    def card(self, which: str) -> Card:
        return Card(which, f"scripted/{which}", sees={"sub": False, "root": None}[which])


async def test_a_model_that_is_known_to_see_none_is_not_asked() -> None:
    host = Host(Blind())
    for model in (None, "scripted/sub"):
        with pytest.raises(
            ModelError, match=r"sees no pictures, so it was not asked\.\nModels that do: eyes"
        ):
            await host.ask("llm_query", body([JPEG]) | {"model": model})
    assert not host.calls._sub_calls._models.messages  # type: ignore[union-attr]
    for model in ("eyes", "test/eyes", "scripted/root"):
        assert await host.ask("llm_query", body([JPEG]) | {"model": model}) == "red"
    assert await host.ask("llm_query", {"prompt": "?", "model": None}) == "red"
    refused, *_ = host.end()[0]
    assert (refused.error_type, refused.images[0].width) == ("LLMError", 70)


async def test_another_picture_or_another_order_is_another_call() -> None:
    host = Host(Seeing())
    for images in ([JPEG, PNG], [PNG, JPEG], [JPEG], []):
        await host.ask("llm_query", body(images))
    digests = [record.prompt_digest for record in host.end()[0]]
    assert len(set(digests)) == 4
    assert digests[-1] == digest("llm_query", {"prompt": "What is it?", "model": None})


async def test_previews_are_bounded_in_all_and_the_calls_stay() -> None:
    host = Host(Seeing(), keep=Keep(previews=3 * len(SMALL)))
    for side in (10, 10, 20, 30, 40):
        await host.ask("llm_query", body([saved("PNG", (side, side))], previews=[SMALL]))
    shown = [record.images[0].preview for record in host.end()[0]]
    assert shown == [SMALL, "", SMALL, SMALL, ""]  # the same picture is shown once
    before: list[CallRecord] = list(host.end()[0])
    assert Keep().beside(before).shown == 3 * len(SMALL)


async def test_pictures_count_for_the_reservation() -> None:
    """Two calls that each use half of what is left do not go at once, where the pictures say so."""
    message = {"role": "user", "content": "12345", "images": (Picture(PNG, "image/png", 1500, 1000),)}
    assert chars([message]) == 5 + 4 * 2000
    ledger = Ledger(Limits(tokens=5000))
    async with ledger.call("sub", chars([{"role": "user", "content": "x" * 4000}])) as call:
        from rlm_kernel.engine.protocols import Usage

        call.settle(Completion("", "m", Usage(1000, 0)))
    async with ledger.call("sub", chars([message])):
        waiting = asyncio.ensure_future(ledger.call("sub", chars([message, message])).__aenter__())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    call = await waiting
    await call.__aexit__(None, None, None)


def test_a_call_in_the_trace_with_a_preview_of_another_form_is_no_record() -> None:
    image = {"digest": "0" * 64, "media_type": "image/png", "size": 1, "width": 1, "height": 1}
    for wrong in (
        {"preview": '"><script>'}, {"preview": "A" * 20_000}, {"media_type": "image/svg+xml"}, {"digest": "x"}, {"width": -1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="validation error"):
            CallMeta(
                id="1", kind="llm_query", prompt_digest="", preview="", started="2026-01-01T00:00:00Z", seconds=0,
                images=[image | wrong],
            )  # type: ignore[arg-type]  # fmt: skip
    assert CELL
