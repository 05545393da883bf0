"""Outputs of a replayed cell against the recorded ones: what must differ is not told, all else is."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.trace.compare import MAX_LINES, MAX_WIDTH, Ran, compare
from tests.support.engine import failure, stream

THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
SECONDS = 3.0


def compared(recorded: list[Any], replayed: list[Any], seconds: float | None = SECONDS) -> str | None:
    return compare(Ran(recorded, THEN, seconds), Ran(replayed, NOW, seconds))


def texts(recorded: str, replayed: str, seconds: float | None = SECONDS) -> str | None:
    return compared([stream(recorded)], [stream(replayed)], seconds)


def shown(data: Any, kind: str = "display_data", **fields: Any) -> dict[str, Any]:
    return {"output_type": kind, "data": data, "metadata": {}} | fields


def warning(text: str) -> dict[str, Any]:
    return stream(text) | {"name": "stderr"}


# The same


@pytest.mark.parametrize(
    ("recorded", "replayed"),
    [
        ("<A object at 0x7f0123456789>", "<A object at 0x7fabcdef0123>"),
        ("0x7f0123456789 0x55d0c0ffee00", "0x7f9876543210 0x55d0c0ffee10"),
        ("<capsule at 0x5581a0>", "<capsule at 0x55ff1234ab>"),
        ("saved /tmp/tmpab12_x9z/out.csv", "saved /tmp/tmpzzzzzzzz/out.csv"),
        ("File /tmp/ipykernel_12/345678.py:3", "File /tmp/ipykernel_9/1.py:3"),
        ("Cell In[3], line 1", "Cell In[12], line 1"),
        ("<Thread(Thread-5 (run), started 140256)>", "<Thread(Thread-16 (run), started 140999888777)>"),
        (
            "<Thread(Thread-5 (run), started daemon 140256)>",
            "<Thread(Thread-6 (run), started daemon 9140256)>",
        ),
        ("ThreadPoolExecutor-0_3 is idle", "ThreadPoolExecutor-12_0 is idle"),
        (
            "<ForkProcess name='ForkPoolWorker-3' parent=12 started daemon>",
            "<ForkProcess name='ForkPoolWorker-17' parent=9 started daemon>",
        ),
        ("ForkPoolWorker-3, 1234 pid=12 PID: 7", "ForkPoolWorker-4, 12 pid=1234 PID: 81"),
        ("run 1b4e28ba-2fa1-41d2-883f-0016d3cca427", "run a8098c1a-f86e-4d6a-bd1a-00112444be1e"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("10%\r 50%\r100%\ndone", "33%\r100%\ndone\r\n"[:-2]),
        ("at 2026-01-02 03:04:06", "at 2026-05-06 07:08:11"),
        ("at 2026-01-02T03:04:06.123456+00:00", "at 2026-05-06T07:08:11Z"),
        ("at 2026-01-02T04:04:06+01:00", "at 2026-05-06T02:08:11-0500"),
        ("at 2026-01-02 03:04", "at 2026-05-06 07:08"),
        ("2026-01-02 03:04:06,123 INFO x", "2026-05-06 07:08:09,001 INFO x"),
        ("log_20260102_030406.txt", "log_20260506_070809.txt"),
        ("Fri Jan  2 03:04:06 2026", "Wed May  6 07:08:10 2026"),
        ("Fri Jan  2 03:04:06 UTC 2026", "Wed May  6 07:08:10 UTC 2026"),
        ("datetime.datetime(2026, 1, 2, 3, 4, 6, 123456)", "datetime.datetime(2026, 5, 6, 7, 8, 11)"),
        (
            "datetime.datetime(2026, 1, 2, 3, 4, 6, tzinfo=x)",
            "datetime.datetime(2026, 5, 6, 7, 8, 11, 5, tzinfo=x)",
        ),
        ("datetime.date(2026, 1, 2)", "datetime.date(2026, 5, 6)"),
        ("[2026-01-02] today", "[2026-05-06] today"),
        ("03:04:06.5 go", "07:08:10.25 go"),
        ("elapsed 0:00:02.123456", "elapsed 0:00:00.000123"),
        (f"{THEN.timestamp() + 1.5}", f"{NOW.timestamp() + 0.25}"),
        (f"t={int(THEN.timestamp())},", f"t={int(NOW.timestamp())},"),
        (f"{int(THEN.timestamp() * 1000)}", f"{int(NOW.timestamp() * 1000)}"),
        (f"{int(THEN.timestamp()) * 10**9}", f"{int(NOW.timestamp()) * 10**9 + 5}"),
        ("took 1.23 s", "took 980 ms"),
        ("took    9.98 ms.", "took 1002.00 ms."),
        ("Wall time: 1min 2s", "Wall time: 59.8 s"),
        ("Elapsed: 1.2345", "Elapsed: 0.9"),
        (
            "CPU times: user 12 ms, sys: 3 ms, total: 15 ms\nWall time: 14 ms",
            "CPU times: user 1.2 s, sys: 300 µs, total: 1.23 s\nWall time: 15.2 µs",
        ),
        (
            "1.23 μs ± 45 ns per loop (mean ± std. dev. of 7 runs, 1,000,000 loops each)",
            "998 ns ± 4.5 ns per loop (mean ± std. dev. of 7 runs, 100,000 loops each)",
        ),
        ("50000 loops, best of 5: 4.1 usec per loop", "100000 loops, best of 5: 3.98 usec per loop"),
    ],
)
def test_what_must_differ_is_the_same(recorded: str, replayed: str) -> None:
    seconds = 70.0 if "min" in recorded else SECONDS
    assert texts(recorded, replayed, seconds) is None
    assert compared([shown({"text/plain": recorded})], [shown({"text/plain": replayed})], seconds) is None
    assert compared([failure("E", recorded)], [failure("E", replayed)], seconds) is None


@pytest.mark.parametrize(
    ("recorded", "replayed"),
    [
        ("42", "43"),
        ("0xdeadbeef", "0xdeadbee0"),
        ("/data/tmp1/x", "/data/tmp2/x"),
        (
            "a8098c1a-f86e-11da-bd1a-00112444be1e",
            "1b4e28ba-f86e-11da-bd1a-00112444be1e",
        ),  # of a time and a machine
        ("at 2025-01-02 03:04:06", "at 2025-05-06 07:08:11"),
        ("at 2026-01-02 03:04:06", "at 2026-05-06 07:09:11"),  # one of them is no time of its run
        ("at 2026-01-02T03:04:06+01:00", "at 2026-05-06T07:08:11Z"),
        ("2026-01-01", "2026-05-06"),
        ("2026-01-02 5", "2026-05-06 6"),
        ("03:04:06", "03:04:07"),
        ("Thu Jan  1 03:04:06 2026", "Wed May  6 07:08:10 2026"),
        ("datetime.date(2026, 1, 3)", "datetime.date(2026, 5, 6)"),
        (f"{THEN.timestamp() + 100}", f"{NOW.timestamp()}"),
        ("served in 3566 ms", "served in 3567 ms"),
        ("took 1.23 s", "took 12.3 s"),
        ("took 1.23 s", "took 1.23 kg"),
        ("Elapsed: 1.5", "Elapsed: 7.5"),
        ("a 1 s", "b 2 s"),
        ("1 s 2 s", "1 s"),
        ("x", "x\n"),
        ("a\nb\n", "b\na\n"),
        ("1763852517", "1763852518"),
        ("", "x"),
    ],
)
def test_data_that_differ_are_told(recorded: str, replayed: str) -> None:
    told = texts(recorded, replayed)
    assert told is not None
    assert told.startswith("--- recorded\n+++ replayed\nstdout")
    assert texts(replayed, recorded) is not None


def test_a_time_in_the_data_is_the_same_beside_one_that_must_differ() -> None:
    assert texts("2026-01-02 0x7f0123456789 40 ms", "2026-01-02 0x7f9876543210 40 ms", 0.01) is None


@pytest.mark.parametrize(
    "text",
    [
        "at 2026-01-02 03:04:05|at 2026-05-06 07:08:09",
        "1 ms|2 ms",
        "03:04:05|07:08:09",
        "2026-01-02|2026-05-06",
    ],
)
def test_without_the_times_of_the_runs_no_time_must_differ(text: str) -> None:
    one, other = text.split("|")
    assert compare(Ran([stream(one)]), Ran([stream(other)])) is not None
    assert compare(Ran([stream(one)], THEN, 1), Ran([stream(other)])) is not None


def test_a_naive_start_is_utc_and_other_zones_are_minded() -> None:
    naive, far = THEN.replace(tzinfo=None), NOW.astimezone(timezone(timedelta(hours=9)))
    one, other = [stream("2026-01-02 03:04:06")], [stream("2026-05-06 07:08:10")]
    assert compare(Ran(one, naive, 1), Ran(other, far, 1)) is None


def test_a_run_over_midnight_has_two_days() -> None:
    late = datetime(2026, 1, 2, 23, 59, 59, tzinfo=UTC)
    for text in ("2026-01-03", "00:00:01", "2026-01-02", "23:59:59"):
        assert (
            compare(
                Ran([stream(text)], late, 4),
                Ran([stream("2026-05-06" if "-" in text else "07:08:09")], NOW, 4),
            )
            is None
        )


# Shapes


def test_streams_are_compared_as_wholes_however_they_interleave() -> None:
    recorded = [stream("a\n"), warning("warn\n"), stream("b\n")]
    assert compared(recorded, [warning("warn\n"), stream("a\nb\n")]) is None
    told = compared(recorded, [stream("a\nb\nwarn\n")])
    assert told is not None
    assert "stderr: only in the recording" in told


def test_counts_empty_metadata_and_lines_in_lists_do_not_matter() -> None:
    recorded = [shown({"text/plain": ["a\n", "b"]}, "execute_result", execution_count=3), stream("")]
    replayed = [{"output_type": "execute_result", "data": {"text/plain": "a\nb"}, "execution_count": 9}]
    assert compared(recorded, replayed) is None
    assert (
        compared(
            recorded, [shown({"text/plain": "a\nb"}, "execute_result", metadata={"image/png": {"width": 5}})]
        )
        is not None
    )


def test_json_is_compared_as_values() -> None:
    assert (
        compared(
            [shown({"application/json": {"a": 1, "b": [2]}})],
            [shown({"application/json": {"b": [2], "a": 1}})],
        )
        is None
    )
    assert (
        compared([shown({"application/json": {"a": 1}})], [shown({"application/json": {"a": "1"}})])
        is not None
    )


def test_displays_keep_their_order() -> None:
    a, b = shown({"text/plain": "a"}), shown({"text/html": "<b>"})
    assert compared([a, b], [b, a]) is not None
    assert compared([a, b], [a]) is not None


def test_pictures_are_compared_exactly_and_told_by_size_and_digest() -> None:
    one, other = (base64.b64encode(content).decode() for content in (b"x" * 12_345, b"y" * 12_000))
    assert (
        compared([shown({"image/png": one + "\n"})], [shown({"image/png": [one[:76] + "\n", one[76:]]})])
        is None
    )
    told = compared([shown({"image/png": one})], [shown({"image/png": other})])
    assert told is not None
    line = told.split("\n")[2]
    assert line.startswith("output 1 (display_data) image/png differs (12,345 bytes, sha256 ")
    assert "/ 12,000 bytes" in line
    assert len(told) < 250
    assert "missing" in str(compared([shown({"image/png": one})], []))
    assert compared([shown({"image/png": "no base64"})], [shown({"image/png": "no base 64!"})]) is not None


def test_an_error_is_compared_with_its_traceback() -> None:
    def raised(line: int, value: str = "bad") -> dict[str, Any]:
        return failure("ValueError", value) | {
            "traceback": [f"Cell \x1b[32mIn[{line}]\x1b[0m, line 1", f"ValueError: {value}"]
        }

    assert compared([raised(3)], [raised(5)]) is None
    assert "-ValueError: bad" in str(compared([raised(3)], [raised(3, "worse")]))


ODD: list[Any] = [
    {},
    None,
    5,
    "text",
    {"output_type": 5},
    {"output_type": "stream"},
    {"output_type": "stream", "name": 5, "text": {"a": 1}},
    {"output_type": "stream", "name": "stdout", "text": ["a", 5]},
    {"output_type": "error"},
    {"output_type": "error", "ename": 5, "evalue": None, "traceback": "x"},
    {"output_type": "error", "traceback": [1, None]},
    {"output_type": "display_data"},
    {"output_type": "display_data", "data": [1]},
    {"output_type": "display_data", "data": {5: 6, "image/png": 5, "text/plain": None}},
    {"output_type": "display_data", "data": {"application/json": {1: 2, "a": math.nan}}, "metadata": [1]},
    {"output_type": "display_data", "data": {"application/json": object(), "image/png": "\ud800"}},
    {"output_type": "x", "text": "\ud800\x1b]0;own\x07"},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_shapes_are_compared_without_a_traceback(odd: Any) -> None:
    assert compared([odd], [odd]) is None
    told = compared([odd], [shown({"text/plain": "a"}), stream("b")])
    assert told is not None
    assert "\x1b" not in told


def test_data_nested_too_deep_are_the_same_as_themselves_alone() -> None:
    def nested() -> Any:
        value: Any = 1
        for _ in range(100_000):
            value = [value]
        return value

    deep, other = nested(), nested()
    assert compared([shown({"application/json": deep})], [shown({"application/json": deep})]) is None
    assert compared([shown({"application/json": deep})], [shown({"application/json": other})]) is not None


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1, 1e300])
def test_odd_durations_of_a_trace_do_no_harm(seconds: float) -> None:
    for text in (
        "2026-01-02 03:04:06|2026-01-02 03:04:07",
        "2026-01-02|2026-01-03",
        "1:02:03|1:02:04",
        "99:99:99|99:99:98",
    ):
        one, other = text.split("|")
        compare(Ran([stream(one)], THEN, seconds), Ran([stream(other)], THEN, seconds))


# The diff


def test_the_diff_shows_what_differs_with_lines_beside_it() -> None:
    recorded, replayed = [[f"line {number} at 0x7f{side}23456789a" for number in range(20)] for side in "01"]
    replayed[9] = "another"
    assert texts("\n".join(recorded), "\n".join(replayed)) == (
        "--- recorded\n+++ replayed\nstdout\n@@ -8,5 +8,5 @@\n"
        f" {recorded[7]}\n {recorded[8]}\n-{recorded[9]}\n+another\n {recorded[10]}\n {recorded[11]}"
    )


def test_where_in_its_code_a_cell_was_stopped_does_not_count() -> None:
    stopped = {"output_type": "error", "ename": "KeyboardInterrupt", "evalue": ""}
    here = [stream("1\n"), {**stopped, "traceback": ["KeyboardInterrupt: the cell was stopped here"]}]
    there = [stream("1\n"), {**stopped, "traceback": ["Cell In[3], line 2", "KeyboardInterrupt: "]}]
    assert compare(Ran(here), Ran(there)) is None
    assert compare(Ran(here), Ran(there[:1]))
    assert compare(Ran(here), Ran([stream("2\n"), there[1]]))


def test_lines_left_out_and_added_are_aligned() -> None:
    told = texts("a\nb 1 s\nc\nd\ne\nf", "new\na\nb 2 s\nd\ne\nf")
    assert told is not None
    assert [line for line in told.split("\n")[4:] if line[0] in "+-"] == ["+new", "-c"]


def test_a_long_line_is_cut_around_the_place_where_it_differs() -> None:
    told = texts("x" * 5000 + "NEEDLE" + "y" * 5000, "x" * 5000 + "PIN" + "y" * 5000)
    assert told is not None
    assert "NEEDLE" in told
    assert "PIN" in told
    assert max(map(len, told.split("\n"))) <= MAX_WIDTH


@pytest.mark.parametrize("side", [lambda one, other: (one, other), lambda one, other: (other, one)])
def test_the_diff_is_bounded_and_names_every_kind_of_output(side: Callable[..., Any]) -> None:
    many = [stream("a\n" * 5000), warning("b\n" * 5000), *[shown({f"text/x-{n}": "c"}) for n in range(50)]]
    told = compared(*side(many, [stream("c\n" * 300)]))
    assert told is not None
    lines = told.split("\n")
    assert len(lines) <= MAX_LINES
    assert lines[-1].startswith("… ")
    assert lines[-1].endswith(" more outputs differ")


_HEAVY = {
    "digits": ("1" * 300_000, "1" * 299_999 + "2"),
    "one line": ("lorem ipsum 12 3 " * 15_000, "lorem ipsus 12 4 " * 15_000),
    "lines of which the first is new": ("lorem\n" * 200_000, "new\n" + "lorem\n" * 200_000),
    "lines that all differ": ("lorem a\n" * 200_000, "lorem b\n" * 200_000),
    "lines in another order": ("a\nb\nb\n" * 50_000, "b\na\na\n" * 50_001),
    "open escapes": ("\x1b]" * 100_000, "\x1b[" * 100_000),
    "addresses": ("<at 0x7f0123456789>, " * 20_000, "<at 0x7f9876543210>, " * 20_000),
    "hours": ("1h " * 300_000, "2h " * 300_000),
    "commas": ("1," * 100_000 + "x", "2," * 100_000 + "y"),
    "returns": ("a\r" * 100_000, "b\r" * 100_000),
}


@pytest.mark.parametrize("kind", _HEAVY)
def test_the_time_is_linear_in_the_size(kind: str) -> None:
    started = time.process_time()
    texts(*_HEAVY[kind])
    assert time.process_time() - started < 5


_TEXT = st.lists(
    st.one_of(
        st.text(st.characters(codec=None), max_size=12),
        st.from_regex(r"\d{1,4}[-:/ ,.T]\d{1,2}[-:., ]{1,2}\d{1,20}( ?(ms|s|min|h|Z))?", fullmatch=True),
        st.sampled_from(
            [
                "0x",
                "at ",
                "/tmp",
                "In[",
                "pid=",
                "\r",
                "\n",
                "\x1b[",
                "datetime.datetime(",
                "elapsed: ",
                "1e+99 s",
                "٣ s",
                "1,,,s",
            ]
        ),
    ),
    max_size=8,
).map("".join)


@given(_TEXT, _TEXT)
@settings(max_examples=150, deadline=None)
def test_any_text_is_the_same_as_itself_and_the_answer_does_not_hang_on_the_sides(
    one: str, other: str
) -> None:
    assert texts(one, one) is None
    run = (THEN, SECONDS)
    there = compare(Ran([stream(one)], *run), Ran([stream(other)], *run))
    back = compare(Ran([stream(other)], *run), Ran([stream(one)], *run))
    assert (there is None) == (back is None)
    if there is not None:
        assert any(line[:1] in "+-" or "only in" in line for line in there.split("\n")[2:])
        assert len(there.split("\n")) <= MAX_LINES
