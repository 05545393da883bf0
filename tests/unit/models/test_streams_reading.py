"""Streams of events, read from bytes in any pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.models._bounds import Unreadable
from rlm_kernel.models._direct import Listening
from rlm_kernel.models._streams import Chunks, Events

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=6
)


def body(texts: Sequence[str], end: str, ascii: bool) -> bytes:
    chunks = [json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=ascii) for text in texts]
    return "".join(f"data: {chunk}{end}{end}" for chunk in chunks).encode()


@given(
    TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.lists(st.integers(0, 400), max_size=20)
)
def test_a_stream_comes_to_the_same_in_whatever_pieces_it_comes(
    texts: list[str], end: str, ascii: bool, cuts: list[int]
) -> None:
    whole = body(texts, end, ascii)
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    heard: list[str] = []
    listening = Listening(Chunks(), lambda text, _thought: (heard.append(text), True)[1])
    for begin, stop in pairwise(places):
        assert listening(whole[begin:stop]) == stop - begin
    made = listening.completion(stopped=False)
    assert heard == texts
    assert made is not None
    assert made["choices"][0]["message"]["content"] == "".join(texts)


@given(TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 40))
def test_who_has_heard_enough_has_the_text_up_to_there(texts: list[str], end: str, most: int) -> None:
    heard: list[str] = []
    listening = Listening(
        Chunks(), lambda text, _thought: (heard.append(text), len("".join(heard)) < most)[1]
    )
    whole = body(texts, end, False)
    stopped = listening(whole) < len(whole)
    made = listening.completion(stopped=stopped)
    assert made is not None
    assert made["choices"][0]["message"]["content"] == "".join(heard)
    assert stopped is (len("".join(texts)) >= most)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    assert all(isinstance(found, dict) for found in Events().all(data))


@pytest.mark.parametrize("line", [b"data: x", b": x", b"x"])
def test_a_line_or_an_event_without_an_end_is_over_the_limit(line: bytes) -> None:
    events = Events()

    def feed() -> None:
        for _ in range(70):
            list(events.feed(line * (1 << 18)))

    with pytest.raises(Unreadable, match="16 MiB"):
        feed()
