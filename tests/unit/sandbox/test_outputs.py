from __future__ import annotations

import json
import math
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.sandbox import outputs as outputs_module
from rlm_kernel.sandbox.kernel_says import Counted
from rlm_kernel.sandbox.outputs import OutputCollector


def collect(*messages: tuple[str, dict[str, Any]]) -> OutputCollector:
    collector = OutputCollector()
    for kind, content in messages:
        collector.add(kind, content)
    return collector


def out(text: Any, name: Any = "stdout") -> tuple[str, dict[str, Any]]:
    return "stream", {"name": name, "text": text}


def show(
    text: Any, display_id: str | None = None, kind: str = "display_data", mime: str = "text/plain"
) -> tuple[str, dict[str, Any]]:
    transient = {"display_id": display_id} if display_id else {}
    return kind, {"data": {mime: text}, "metadata": {}, "transient": transient}


def update(text: Any, display_id: str, mime: str = "text/plain") -> tuple[str, dict[str, Any]]:
    return show(text, display_id, "update_display_data", mime)


def clear(*, wait: bool) -> tuple[str, dict[str, Any]]:
    return "clear_output", {"wait": wait}


def texts(collector: OutputCollector) -> list[str]:
    return [
        output.get("text", output.get("evalue", output.get("data", {}).get("text/plain", "")))
        for output in collector.outputs
    ]


def check(collector: OutputCollector) -> None:
    """What JupyterLab and nbformat ask of outputs: the schema, and JSON that any reader takes."""
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": "",
        "execution_count": 1,
        "outputs": collector.outputs,
    }
    nbformat.validate(
        nbformat.from_dict({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    json.dumps(collector.outputs, allow_nan=False, ensure_ascii=False).encode()


def test_streams_of_a_kind_are_merged_and_others_kept_apart() -> None:
    collector = collect(out("a"), out("b"), out("c", "stderr"), out("d"))
    assert [(o["name"], o["text"]) for o in collector.outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def test_displays_part_streams() -> None:
    assert texts(collect(out("a"), show("X"), out("b"))) == ["a", "X", "b"]


def test_a_result_has_its_count() -> None:
    (output,) = collect(
        ("execute_result", {"data": {"text/plain": "5"}, "metadata": {}, "execution_count": 3})
    ).outputs
    assert output == {
        "output_type": "execute_result",
        "data": {"text/plain": "5"},
        "metadata": {},
        "execution_count": 3,
    }


def test_an_error_is_an_output() -> None:
    (output,) = collect(("error", {"ename": "E", "evalue": "v", "traceback": ["1", "2"]})).outputs
    assert output == {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["1", "2"]}


def test_clear_output_clears_at_once() -> None:
    assert texts(collect(out("a"), show("X"), clear(wait=False), out("b"))) == ["b"]
    assert collect(out("a"), clear(wait=False)).outputs == []


def test_clear_output_with_wait_clears_when_something_comes() -> None:
    assert texts(collect(out("a"), clear(wait=True))) == ["a"]
    assert texts(collect(out("a"), clear(wait=True), out("b"), out("c"))) == ["bc"]


def test_clear_output_with_wait_clears_once() -> None:
    assert texts(collect(clear(wait=True), out("a"), show("b"))) == ["a", "b"]


def test_status_messages_do_not_set_off_a_waiting_clear() -> None:
    assert texts(collect(out("a"), clear(wait=True), ("status", {"execution_state": "busy"}))) == ["a"]


def test_update_display_data_replaces_every_display_of_its_id() -> None:
    collector = collect(show("old", "1"), out("-"), show("old", "1"), show("other", "2"), update("new", "1"))
    assert texts(collector) == ["new", "-", "new", "other"]
    check(collector)


def test_an_update_of_an_unknown_or_cleared_display_is_ignored() -> None:
    assert collect(update("x", "1")).outputs == []
    assert texts(collect(show("a", "1"), clear(wait=False), out("b"), update("x", "1"))) == ["b"]


def test_an_update_keeps_the_kind_of_output() -> None:
    collector = collect(
        (
            "execute_result",
            {"data": {"text/plain": "a"}, "execution_count": 1, "transient": {"display_id": "1"}},
        )
    )
    collector.add(*update("b", "1"))
    assert collector.outputs == [
        {"output_type": "execute_result", "data": {"text/plain": "b"}, "metadata": {}, "execution_count": 1}
    ]


@pytest.fixture
def small_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs_module, "TEXT_CAP", 100)
    monkeypatch.setattr(outputs_module, "PICTURE_CAP", 1000)
    monkeypatch.setattr(outputs_module, "COUNT_CAP", 5)


@pytest.mark.usefixtures("small_caps")
class TestCaps:
    def test_text_is_capped_with_one_notice(self) -> None:
        collector = collect(*[out("x" * 30)] * 10)
        assert collector.truncated
        (text,) = texts(collector)
        assert text == "x" * 100 + "\n… output over 100 characters left out …\n"

    def test_the_cap_is_for_all_texts_together(self) -> None:
        collector = collect(
            out("x" * 90),
            show("y" * 90),
            ("error", {"ename": "E", "evalue": "z" * 90, "traceback": ["t" * 90]}),
        )
        assert sum(text.count(c) for text in texts(collector) for c in "xyz") == 100
        check(collector)

    def test_text_within_the_cap_is_whole(self) -> None:
        collector = collect(out("x" * 60), out("x" * 40))
        assert (texts(collector), collector.truncated) == (["x" * 100], False)

    def test_outputs_are_capped_in_number_with_one_notice(self) -> None:
        collector = collect(*[show(str(number)) for number in range(20)])
        assert collector.truncated
        assert texts(collector) == [
            "0",
            "1",
            "2",
            "3",
            "4",
            "\n… more than 5 outputs: the rest is left out\n",
        ]

    def test_errors_and_streams_count_too(self) -> None:
        error = ("error", {"ename": "E", "evalue": "v", "traceback": []})
        assert len(collect(*[error, out("a")] * 20).outputs) <= 7

    def test_pictures_are_capped_with_a_notice(self) -> None:
        collector = collect(show("A" * 700, mime="image/png"), show("B" * 700, mime="image/png"))
        assert collector.truncated
        assert "image/png" in collector.outputs[0]["data"]
        assert collector.outputs[1]["data"] == {"text/plain": "… a display over 1,000 characters left out …"}

    def test_a_picture_over_the_cap_leaves_its_text(self) -> None:
        collector = collect(
            ("display_data", {"data": {"image/png": "A" * 2000, "text/plain": "<Figure>"}, "metadata": {}})
        )
        assert collector.outputs[0]["data"] == {"text/plain": "<Figure>"}
        assert collector.truncated

    def test_json_data_count_by_their_size(self) -> None:
        collector = collect(show(list(range(1000)), mime="application/json"))
        assert collector.truncated
        assert "application/json" not in collector.outputs[0]["data"]

    def test_what_was_cleared_no_longer_counts(self) -> None:
        collector = OutputCollector()
        for number in range(50):
            collector.add(*clear(wait=True))
            collector.add(*out(f"{number:03}" * 20))
            collector.add(*show("A" * 600, mime="image/png"))
        assert not collector.truncated
        assert texts(collector)[0] == "049" * 20

    def test_what_was_updated_no_longer_counts(self) -> None:
        collector = collect(show("0%", "bar"), show("A" * 600, "plot", mime="image/png"))
        for number in range(50):
            collector.add(*update(f"{number}%" * 10, "bar"))
            collector.add(*update("B" * 600, "plot", mime="image/png"))
        assert not collector.truncated
        assert texts(collector)[0] == "49%" * 10
        collector.add(*out("x" * 200))
        assert texts(collector)[-1].count("x") == 70

    def test_our_own_words_pass_the_caps(self) -> None:
        collector = collect(*[show(str(number)) for number in range(20)], out("x" * 300))
        collector.say("[The kernel died.]\n")
        assert texts(collector)[-1].endswith("[The kernel died.]\n")

    @given(
        st.lists(
            st.one_of(
                st.builds(out, st.text(max_size=80)),
                st.builds(show, st.text(max_size=80)),
                st.just(clear(wait=True)),
            )
        )
    )
    @settings(max_examples=50)
    def test_whatever_comes_what_is_kept_is_bounded(self, messages: list[tuple[str, dict[str, Any]]]) -> None:
        collector = collect(*messages)
        assert len(collector.outputs) <= 6
        assert sum(map(len, texts(collector))) <= 100 + 60 * 7


@pytest.mark.parametrize(
    "content",
    [
        {"data": {"text/plain": 5}},
        {"data": {"text/plain": ["a", 5]}},
        {"data": {"image/png": {"a": 1}}},
        {"data": {"text/plain": None, "text/html": "<b>"}},
        {"data": {"application/json": math.nan}},
        {"data": {"application/vnd.x+json": {"a": [math.inf]}}},
        {"data": {"application/json": {"a": "\ud800", "\udcff": 1}}},
        {"data": {"\ud800/x": "y", "image/png": "\ud800"}},
        {"data": {"text/plain": "a"}, "metadata": {"a": math.nan}},
        {"data": {"text/plain": "a"}, "metadata": {"\ud800": "\ud800"}},
        {"data": {"text/plain": "a"}, "metadata": [1]},
        {"data": [1]},
        {"data": {}},
        {},
    ],
)
@pytest.mark.parametrize("kind", ["display_data", "execute_result"])
def test_odd_displays_leave_a_valid_notebook(kind: str, content: dict[str, Any]) -> None:
    check(
        collect(
            (kind, content),
            show("x", "1"),
            ("update_display_data", content | {"transient": {"display_id": "1"}}),
        )
    )


@pytest.mark.parametrize("depth", [50, 150, 900, 100_000])
def test_nested_data_are_kept_or_dropped_but_never_an_error(depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    collector = collect(
        (
            "display_data",
            {
                "data": {"application/json": nested, "text/plain": "x"},
                "metadata": {"a": nested},
                "transient": {},
            },
        )
    )
    assert ("application/json" in collector.outputs[0]["data"]) is (depth < 100)
    check(collector)


@pytest.mark.parametrize(
    ("count", "kept"),
    [(5, 5), (0, 0), (True, None), (-1, None), ("5", None), (None, None), (2.0, None), (10**30, None)],
)
def test_only_a_count_that_a_notebook_may_hold_is_kept(count: Any, kept: int | None) -> None:
    assert Counted.part({"execution_count": count}).execution_count == kept
    check(collect(("execute_result", {"data": {"text/plain": "5"}, "execution_count": count})))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)
_MIMES = st.sampled_from(
    [
        "text/plain",
        "text/html",
        "image/png",
        "application/json",
        "application/x+json",
        "application/json\n",
        "odd",
        "",
    ]
)
_CONTENT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["stdout", "stderr", "other"]) | _JSON,
        "text": _JSON,
        "data": st.dictionaries(_MIMES, _JSON, max_size=3) | _JSON,
        "metadata": _JSON,
        "transient": st.fixed_dictionaries({"display_id": st.sampled_from(["1", "2"])}) | _JSON,
        "execution_count": _JSON,
        "ename": _JSON,
        "evalue": _JSON,
        "traceback": st.lists(_JSON, max_size=3) | _JSON,
        "wait": st.booleans() | _JSON,
    },
)
_KINDS = [
    "stream",
    "display_data",
    "execute_result",
    "error",
    "update_display_data",
    "clear_output",
    "status",
    "comm_open",
    "",
]


@given(st.lists(st.tuples(st.sampled_from(_KINDS), _CONTENT), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_messages_leave_a_valid_notebook(messages: list[tuple[str, dict[str, Any]]]) -> None:
    collector = OutputCollector()
    for kind, content in messages:
        collector.add(kind, content)
    check(collector)
