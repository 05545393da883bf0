"""Which bytes of which files prompts held: cases with known sources, odd and hostile ones."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.proof import matching, plaintext
from rlm_kernel.proof.anchors import Anchors
from rlm_kernel.proof.chains import runs
from rlm_kernel.proof.matching import Matcher, batches
from rlm_kernel.proof.normal import Normal
from tests.support.passages import CHANGES, KINDS, Case, Span, case, log, prose, score


def claims(made: Case, folder: Path) -> list[list[Span]]:
    places = made.write(folder)
    names = list(places)
    matcher = Matcher(made.prompts)
    for number, name in enumerate(names):
        matcher.scan(number, plaintext.parts(places[name], lambda: matcher.words))
    return [
        [
            (names[place.source], place.low, place.high)
            for run in runs(matcher.matches[number], prompt.encode("utf-8", "surrogatepass"))
            for place in run.places
        ]
        for number, prompt in enumerate(made.prompts)
    ]


PLAIN = ("prose", "log", "table")


@pytest.mark.parametrize("change", CHANGES)
def test_passages_are_found_however_code_has_put_them_into_the_prompt(change: str, tmp_path: Path) -> None:
    for kind in PLAIN:
        made = case(kind, CHANGES[change], random.Random(f"{change} {kind}"))
        precision, recall = score(claims(made, tmp_path), made.truth)
        assert precision >= 0.95, (kind, precision, recall)
        assert recall >= 0.95, (kind, precision, recall)


# In those of `PLAIN` they are looked for above.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLAIN])
def test_passages_are_found_in_texts_of_all_kinds_and_encodings(kind: str, tmp_path: Path) -> None:
    for change in ("json.dumps", "numbered lines", "wrapped anew"):
        made = case(kind, CHANGES[change], random.Random(f"{change} {kind}"))
        precision, recall = score(claims(made, tmp_path), made.truth)
        assert precision >= 0.95, (change, precision, recall)
        assert recall >= 0.95, (change, precision, recall)


PASSAGE = (
    "The committee met on the ninth of March and resolved, with two votes against, that the bridge at Oldham "
    "be closed to lorries until its eastern pier had been repaired; the costs were put at 310,000 pounds.\n"
)


def places(prompt: str, folder: Path, **files: str) -> list[tuple[str, int, int]]:
    (found,) = claims(Case({name: text.encode() for name, text in files.items()}, [prompt]), folder)
    return sorted(found)


def test_a_passage_that_stands_twice_has_all_its_places(tmp_path: Path) -> None:
    noise = prose(random.Random(1), 3_000)
    one, other = noise + PASSAGE + noise + PASSAGE, PASSAGE + noise
    found = places(f"Read: {PASSAGE}", tmp_path, a=one, b=other)
    assert [(name, start) for name, start, _ in found] == [
        ("a", one.index(PASSAGE)),
        ("a", one.rindex(PASSAGE)),
        ("b", 0),
    ]


def test_a_passage_is_not_taken_for_one_that_nearly_is_the_same(tmp_path: Path) -> None:
    noise = prose(random.Random(1), 3_000)
    changed = PASSAGE.replace(
        "ninth of March and resolved, with two votes against", "third of May and decided"
    )
    text = changed + noise + PASSAGE
    assert [start for _, start, _ in places(f"Read: {PASSAGE}", tmp_path, a=text)] == [text.index(PASSAGE)]


def test_lines_that_code_has_left_out_are_not_told_as_read(tmp_path: Path) -> None:
    chance = random.Random(6)
    lines = [
        f"{'ERROR' if n % 2 else 'debug'} {''.join(chance.choices('abcdefgh ', k=chance.randint(50, 60)))}\n"
        for n in range(120)
    ]
    text = "".join(lines)
    found = places("Why?\n" + "".join(line for line in lines if "ERROR" in line), tmp_path, a=text)
    told = {at for name, low, high in found for at in range(low, high)}
    shares = [len(told & set(range(at := text.index(line), at + len(line)))) / len(line) for line in lines]
    assert sum(shares[1::2]) / 60 > 0.9
    assert max(shares[::2]) < 0.25


def test_short_lines_between_labels_belong_to_the_passage(tmp_path: Path) -> None:
    lines = PASSAGE.replace(", ", ",\nso,\n").replace("; ", ";\nand\n").splitlines(keepends=True)
    prompt = "".join(
        f"source: minutes.txt, entry {n} of {len(lines)}\ntext: {line}" for n, line in enumerate(lines)
    )
    (found,) = places(prompt, tmp_path, a="".join(lines))
    assert found[2] - found[1] > 0.97 * len("".join(lines))


def test_short_fields_between_the_names_of_columns_belong_to_the_passage(tmp_path: Path) -> None:
    rows = [
        (str(n * 7919), PASSAGE[n * 9 : n * 9 + 40], str(n), PASSAGE[n * 9 : n * 9 + 40][::-1])
        for n in range(8)
    ]
    names = ("number", "comment", "amount", "remark")
    text = "".join(",".join(row) + "\n" for row in rows)
    spans = places(f"Which? {[dict(zip(names, row, strict=True)) for row in rows]}", tmp_path, a=text)
    assert sum(high - low for _, low, high in spans) > 0.9 * len(text)


def test_passages_in_another_order_than_the_files_are_all_found(tmp_path: Path) -> None:
    parts = [prose(random.Random(number), 600) for number in range(6)]
    text = "".join(parts)
    prompt = "\n---\n".join(parts[number] for number in (4, 1, 5, 0))
    covered = sum(end - start for _, start, end in places(prompt, tmp_path, a=text))
    assert covered >= 0.98 * sum(len(parts[number]) for number in (4, 1, 5, 0))


def test_a_models_own_words_have_no_source(tmp_path: Path) -> None:
    text = prose(random.Random(1), 50_000)
    assert (
        places("Is the following review positive or negative? Answer with one word.", tmp_path, a=text) == []
    )


def test_a_passage_across_the_parts_in_which_a_file_is_read_is_one(tmp_path: Path) -> None:
    text = prose(random.Random(2), plaintext.PART + 200_000)
    start = plaintext.PART - 20_000
    found = places(text[start : start + 40_000], tmp_path, a=text)
    assert [(low, high) for _, low, high in found] == [(start, start + 40_000)]


def test_a_shared_beginning_of_many_prompts_is_found_in_each(tmp_path: Path) -> None:
    text = prose(random.Random(3), 30_000)
    prompts = [f"{text[5_000:7_000]}\n\nQuestion {number}?" for number in range(200)]
    found = claims(Case({"a": text.encode()}, prompts), tmp_path)
    assert all(one and one[0][2] - one[0][1] > 1_950 for one in found)


def test_a_log_line_among_many_that_are_nearly_the_same_is_found_where_it_stands(tmp_path: Path) -> None:
    text = log(random.Random(5), 400_000)
    lines = text.splitlines(keepends=True)
    prompts = ["Why?\n" + "".join(lines[at : at + 3]) for at in range(0, len(lines), 40)]
    found = claims(Case({"a": text.encode()}, prompts), tmp_path)
    for prompt, spans in zip(prompts, found, strict=True):
        start = text.index(prompt[5:])
        assert any(low <= start + 2 and high >= start + len(prompt) - 8 for _, low, high in spans)


def test_prompts_in_several_batches_are_all_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "BATCH", 10)
    assert [list(one) for one in batches(["a" * 6, "b" * 6, "c" * 4, "d" * 30])] == [[0], [1, 2], [3]]
    assert [list(one) for one in batches([])] == [[]]


HOSTILE = {
    "one letter": ("a" * 1_000_000, "a" * 2_000_000),
    "two letters": ("ab" * 500_000, "ab" * 1_000_000),
    "a period": ("the quick brown fox jumps over the lazy dog " * 20_000,) * 2,
    "NULs": ("\0" * 1_000_000, "\0" * 1_000_000),
    "backslashes": ("\\" * 500_000 + "n", "\\" * 500_000 + "u"),
    "ampersands": ("&#" * 300_000, "&#1;" * 300_000),
    "numbers of lines": ("1: \n" * 200_000, "1: a\n" * 200_000),
    "half a pair": ("\ud800 half " * 1_000, "half \\ud800 " * 1_000),
    "digits": ("".join(random.Random(1).choices("01", k=500_000)), "".join(random.Random(2).choices("01", k=500_000))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(60)
def test_texts_that_repeat_themselves_without_end_are_bounded(name: str, tmp_path: Path) -> None:
    prompt, text = HOSTILE[name]
    matcher = Matcher([prompt, prompt])
    (tmp_path / "a").write_bytes(text.encode("utf-8", "replace"))
    try:
        matcher.scan(0, plaintext.parts(tmp_path / "a", lambda: matcher.words))
    except plaintext.NotRead:
        assert name == "NULs"
    raw = prompt.encode("utf-8", "surrogatepass")
    for run in runs(matcher.matches[0], raw):
        assert 0 <= run.start < run.end <= len(raw)
        assert all(
            0 <= place.low < place.high <= len(text.encode("utf-8", "replace")) for place in run.places
        )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_places_are_bytes_of_the_file_in_its_own_encoding(encoding: str, tmp_path: Path) -> None:
    noise = prose(random.Random(4), 40_000, "abcdefghijklmnopqrstuvwxyzäöüßé")
    passage = PASSAGE.replace("bridge", "Brücke").replace("pier", "Pfähle")
    (tmp_path / "a").write_bytes((noise + passage + noise).encode(encoding))
    prompt = f"<{passage}> {noise[:3_000]}"
    matcher = Matcher([prompt])
    parts = list(plaintext.parts(tmp_path / "a", lambda: matcher.words))
    matcher.scan(0, parts)
    found = next(one for one in runs(matcher.matches[0], prompt.encode()) if one.start < 100)
    content = (tmp_path / "a").read_bytes()
    name = (
        encoding
        if encoding.startswith("cp") or encoding[-1] == "e"
        else {"utf-8-sig": "utf-8"}.get(encoding, f"{encoding}-le")
    )
    (place,) = found.places
    assert passage.strip() in content[place.low : place.high].decode(name)
    assert place.line == (noise + passage).count("\n")


def test_a_gzip_file_is_read_unpacked_and_formats_are_named(tmp_path: Path) -> None:
    noise = prose(random.Random(1), 3_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress((noise + PASSAGE).encode()))
    matcher = Matcher([PASSAGE])
    matcher.scan(0, plaintext.parts(tmp_path / "a.gz", lambda: matcher.words))
    assert [place.low for place in matcher.matches[0]] == [len(noise)]
    for name, content in {"a PDF": b"%PDF-1.7", "a zip": b"PK\x03\x04", "no text": bytes(500)}.items():
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(plaintext.NotRead, match=name):
            list(plaintext.parts(tmp_path / "b", lambda: matcher.words))


@given(st.text(max_size=400), st.integers(0, 400), st.integers(0, 400))
def test_places_in_a_normal_form_lead_back_to_the_same_bytes(text: str, start: int, end: int) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    normal = Normal(raw)
    found = [normal.place(at) for at in range(len(normal.text))]
    assert found == sorted(set(found))
    assert all(0 <= place < len(raw) for place in found)
    assert Normal(json.dumps(text).encode()).text == Normal(json.dumps(json.dumps(text)).encode()).text


@pytest.mark.parametrize("text", ["Brücke am Fluß", "naïve 😀 déjà", "Москва 東京", "\x7f plain"])
def test_a_text_has_one_normal_form_however_python_writes_its_characters(text: str) -> None:
    assert Normal(ascii(text).encode()).text == Normal(text.encode()).text
    assert Normal(repr(text.encode()).encode()).text[1:] == Normal(text.encode()).text  # without the b


def test_spaces_and_punctuation_beyond_ascii_do_not_count() -> None:
    typeset = "«Müller’s»\u00a0– 48\u202f213\u3000Euro…\u2028なぜ、か。"
    assert Normal(typeset.encode()).text == "Müllers48213euroなぜか".lower().encode()


@given(st.binary(min_size=400, max_size=2_000), st.integers(0, 100))
def test_the_same_bytes_have_the_same_anchors_wherever_they_stand(text: bytes, before: int) -> None:
    anchors = Anchors(8)
    moved = {at - before for at in anchors.of(bytes(before) + text) if at - before > 8}
    assert moved == {at for at in anchors.of(text) if at > 8}
