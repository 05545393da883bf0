"""The bytes of a large file: what a bytes would give, and an error where the file became shorter."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import ondisk, search, source
from rlm_runtime.lazytext import LazyText
from rlm_runtime.ondisk import FileShrank, OnDisk
from rlm_runtime.source import Source

SIZE = 3 << 20


@given(
    data=st.lists(st.sampled_from([b"a", b"b", b"\n"]), min_size=1, max_size=60).map(b"".join),
    sub=st.lists(st.sampled_from([b"a", b"b", b"\n"]), min_size=1, max_size=5).map(b"".join),
    low=st.integers(0, 70),
    high=st.integers(0, 70),
    near=st.sampled_from([1, 2, 7, 1000]),
)
def test_it_is_searched_and_cut_as_bytes_are(
    data: bytes, sub: bytes, low: int, high: int, near: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ondisk") / "data"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ondisk, "NEAR", near)
        found = OnDisk(path)
        for _ in range(2):  # what is near is known the second time
            assert found.find(sub, low, high) == data.find(sub, low, high)
            assert found.rfind(sub, low, high) == data.rfind(sub, low, high)
            assert found.part(min(low, high), high) == data[min(low, high) : high]
        assert [found.byte(place) for place in range(len(data))] == list(data)


@pytest.mark.parametrize("left", [0, 4096, SIZE - 1])
def test_a_file_that_became_shorter_is_an_error_that_says_so(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_STEP", 1 << 10)
    path = tmp_path / "app.log"
    path.write_bytes((b"all is well\n" * SIZE)[:SIZE])
    text = LazyText(Source(path), 1000)
    assert len(search.search({"": text}, re.compile("is well"), 5)) == 5
    os.truncate(path, left)
    for look in (
        lambda: search.search({"": text}, re.compile("is well"), None),
        lambda: search.search({"": text}, re.compile("(is|be) w.ll"), None),
        lambda: text.count("\n"),
        lambda: text.find("nowhere"),
        lambda: text[-10:],
        lambda: sum(map(len, text)),
        lambda: text.search("nowhere"),
    ):
        with pytest.raises(FileShrank, match=rf"app.log shrank from {SIZE:,} to {left:,} bytes"):
            look()


def test_what_is_appended_later_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n" * 1000)
    text = LazyText(Source(path), 100)
    with path.open("ab") as file:
        file.write(b"two\n")
    assert (len(text), text.find("two"), text[-4:]) == (4000, -1, "one\n")
    assert len(search.search({"": text}, re.compile("two"), None)) == 0


def test_newlines_are_counted_over_several_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_SMALL", 1)
    monkeypatch.setattr(source, "_READ", 8)
    path = tmp_path / "a"
    path.write_bytes(b"ab\ncd\n\n" * 10)
    assert [Source(path).newlines(low, high) for low, high in ((0, 70), (3, 20), (5, 5))] == [30, 7, 0]
