"""Code in the kernel calling the host: from everywhere, delivering answers, and loading every kind of
file.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pypdf
import zstandard
from arro3.core import Array, DataType

from rlm_kernel.errors import BudgetExceeded, ModelError
from tests.support.filekinds import (
    book,
    database,
    parquet,
    pdf,
    run,
    shape,
    sheet_rows,
    slides,
    tarred,
    word,
    workbook,
    zipped,
)
from tests.support.sandbox import until


async def test_calls_from_the_main_thread_threads_asyncio_and_forks(sandbox: Any) -> None:
    box = await sandbox()
    assert await box.text("print(llm_query('a'))") == "echo a"
    expected = "[f'echo {i}' for i in range(50)]"
    code = (
        "from concurrent.futures import ThreadPoolExecutor as T\nprint(list(T(8).map(llm_query, "
        f"map(str, range(50)))) == {expected})"
    )
    assert await box.text(code) == "True"
    code = (
        "import asyncio\nr = await asyncio.gather(*(allm_query(str(i)) for i in range(50)))\nprint(r == "
        f"{expected})"
    )
    assert await box.text(code) == "True"
    code = (
        "import multiprocessing as mp\nwith mp.get_context('fork').Pool(3) as p: print(p.map(llm_query, "
        "list('abcdef')))"
    )
    assert await box.text(code) == str([f"echo {c}" for c in "abcdef"])
    assert await box.text("print(llm_query('after the forks'))") == "echo after the forks"


async def test_the_host_is_told_in_which_order_threads_had_their_answers(sandbox: Any) -> None:
    box = await sandbox()
    await box.text("llm_query('alone')")
    assert box.order == [], "one thread needs no telling"
    await box.text(
        "from concurrent.futures import ThreadPoolExecutor as T\nwith T(4) as pool: "
        "list(pool.map(llm_query, 'abcdefgh'))"
    )
    assert len(set(box.order)) == 8


async def test_threads_of_the_host_run_side_by_side(sandbox: Any) -> None:
    started = 0
    all_in = asyncio.Event()

    async def together(prompt: str) -> str:
        nonlocal started
        started += 1
        if started == 8:
            all_in.set()
        await all_in.wait()
        return prompt

    box = await sandbox(llm=together)
    assert (
        await box.text(
            "from concurrent.futures import ThreadPoolExecutor as T\nprint(len(list(T(8).map(llm_query, "
            "'abcdefgh'))))"
        )
        == "8"
    )


async def test_batch_keeps_order_and_one_failure_costs_its_own_item(sandbox: Any) -> None:
    async def fails_at_7(prompt: str) -> str:
        if prompt == "7":
            raise ModelError("the sub model is down", fault="server", model="openai/sub")
        await asyncio.sleep(0.001 * (int(prompt) % 5))
        return f"r{prompt}"

    box = await sandbox(llm=fails_at_7)
    await box.run("answers = llm_query_batched([str(i) for i in range(300)])")
    assert (
        await box.text(
            "print([a for i, a in enumerate(answers) if i != 7] == [f'r{i}' for i in range(300) if i != 7])"
        )
        == "True"
    )
    assert (
        await box.text("print(bool(answers[7]), answers[7])")
        == "False <CallFailed LLMError: the sub model is down>"
    )


async def test_refusal_for_budget_raises_in_the_cell(sandbox: Any) -> None:
    async def refuse(prompt: str) -> str:
        raise BudgetExceeded("The limit of calls is reached: 5 of 5 used.", limit="calls")

    box = await sandbox(llm=refuse)
    for code in ("llm_query('x')", "llm_query_batched(['x', 'y'])"):
        result = await box.run(code)
        assert result.outputs[-1]["ename"] == "BudgetExceeded"
        assert "5 of 5" in result.outputs[-1]["evalue"]


async def test_interrupted_cell_cancels_its_calls_on_the_host(sandbox: Any) -> None:
    cancelled = 0

    async def hang(prompt: str) -> str:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return ""

    box = await sandbox(llm=hang, cell_timeout=1)
    assert (await box.run("llm_query_batched(list('abcdefghij'))")).status == "timeout"
    assert cancelled == 10
    box.kernel._cell_timeout = 60  # on a busy machine a second is too short for any cell
    assert await box.text("print('next')") == "next"


DELIVERED: list[tuple[str, dict[str, Any]]] = [
    ("FINAL('plain')", {"text": "plain"}),
    ("FINAL(42)", {"text": "42", "value": 42}),
    ("FINAL(None)", {"text": "None", "value": None}),
    ("FINAL([1, {'a': None}])", {"value": [1, {"a": None}]}),
    ("x = 'in a variable'; FINAL_VAR('x')", {"text": "in a variable"}),
    ("x = ' '.join(['by', 'value']); FINAL_VAR(x)", {"text": "by value"}),
    ("answer['content'] = 'by dict'; answer['ready'] = True", {"text": "by dict"}),
    ("FINAL('long ' * 1_000_000)", {"text": "long " * 1_000_000}),
    (
        "try:\n    FINAL('not held up')\nexcept Exception:\n    pass\nprint('unreached')",
        {"text": "not held up"},
    ),
    (
        "import asyncio\nasync def f(): FINAL('from a task')\nawait asyncio.gather(f())",
        {"text": "from a task"},
    ),
]


async def test_an_answer_is_delivered_in_each_way_and_the_cell_counts_as_ok(sandbox: Any) -> None:
    box = await sandbox()
    for code, delivered in DELIVERED:
        result = await box.run(code)
        assert (result.status, result.outputs) == ("ok", []), code
        assert box.answers[-1] == delivered, code


async def test_final_var_of_an_unknown_name_says_which_there_are(sandbox: Any) -> None:
    box = await sandbox()
    await box.run("total_count = 3")
    result = await box.run("FINAL_VAR('total_cuont')")
    assert "Did you mean total_count?" in result.outputs[0]["evalue"]
    result = await box.run("kind = 'Paris'; FINAL_VAR('Paris')")
    assert "FINAL(value) delivers a value" in result.outputs[0]["evalue"]
    assert box.answers == []


async def test_overwritten_context_is_restored_with_a_note(sandbox: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("input")
    box = await sandbox(files=[path])
    await box.kernel.set_up("setup", f"load_files([{str(path)!r}])")
    assert "Use another name" in await box.text("context = 'mine'")
    assert (await box.text("print(context)")).startswith("input\nNote: `context` is the session's here")
    assert await box.text("print(context)") == "input"


async def test_show_vars_lists_what_code_made(sandbox: Any) -> None:
    box = await sandbox()
    await box.run("names = ['a', 'b']")
    assert await box.text("print(SHOW_VARS())") == "{'names': 'list, 2 long'}"


STRAGGLER = """
import threading, time
seen = []
def late():
    time.sleep(1)
    try:
        llm_query("late")
    except Exception as error:
        seen.append(error)
straggler = threading.Thread(target=late)
straggler.start()
"""


async def test_call_between_cells_is_refused(sandbox: Any) -> None:
    box = await sandbox()
    await box.run(STRAGGLER)
    await until(lambda: box.broker.refused["cell"] > 0)
    assert "only while the model's cell runs" in await box.text("straggler.join(); print(seen[0])")
    assert box.prompts == []


def _write_files(folder: Path) -> dict[str, str]:
    """Files of every kind, and a piece of text that each must give."""
    (folder / "a.docx").write_bytes(word(f"<w:p>{run('from ')}<w:ins>{run('docx')}</w:ins></w:p>"))
    (folder / "a.zip").write_bytes(zipped({"inner/one.txt": b"from zip"}))
    (folder / "a.tgz").write_bytes(gzip.compress(tarred({"one.html": b"<p>from <b>t</b>ar"})))
    (folder / "a.log.zst").write_bytes(zstandard.ZstdCompressor().compress(b"from zstandard"))
    (folder / "a.rtf").write_bytes(rb"{\rtf1 from {\b rtf}}")
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"from gzip"))
    (folder / "a.txt").write_text("from txt")
    (folder / "latin.txt").write_bytes("Käse und Brötchen, größer als früher".encode("latin-1"))
    (folder / "wide.txt").write_bytes("from utf-16 ä".encode("utf-16"))
    (folder / "a.csv").write_text("name,n\nfrom csv,1\n")
    (folder / "a.jsonl").write_text('{"from": "jsonl"}\n')
    (folder / "a.md").write_text("# from md")
    (folder / "a.html").write_text("<html><script>no()</script><p>from html</p></html>")
    cell = {"cell_type": "code", "source": ["from", " ipynb"]}
    (folder / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    (folder / "a.pdf").write_bytes(pdf("from pdf"))
    writer = pypdf.PdfWriter(clone_from=folder / "a.pdf")
    writer.encrypt("", "owner", algorithm="AES-256")
    writer.write(folder / "aes.pdf")
    a_book = workbook({"S": sheet_rows([["from", "n"], ["xlsx", 1]])})
    (folder / "a.xlsx").write_bytes(a_book)
    (folder / "a.pptx").write_bytes(slides(shape("from pptx")))
    (folder / "a.epub").write_bytes(book({"a.xhtml": "<p>from epub</p>"}, spine=["a.xhtml"]))
    (folder / "a.parquet").write_bytes(parquet({"from": Array(["parquet"], DataType.utf8())}))
    database(folder / "a.db", "CREATE TABLE t (a)", "INSERT INTO t VALUES ('from sqlite')")
    (folder / "a.eml").write_bytes(b"From: a\nSubject: =?utf-8?q?from_=C3=A9ml?=\n\nx")
    (folder / "a.mbox").write_bytes(b"From a Mon Jan  1 00:00:00 2024\nFrom: a\n\nfrom mbox\n")
    return {
        "a.docx": "from docx", "a.zip": "from zip", "a.txt.gz": "from gzip", "a.txt": "from txt", "latin.txt": "Käse und Brötchen",
        "wide.txt": "from utf-16 ä", "a.csv": "from csv", "a.jsonl": "jsonl", "a.md": "from md", "a.html": "from html",
        "a.ipynb": "from ipynb", "a.pdf": "from pdf", "aes.pdf": "from pdf", "a.tgz": "from tar", "a.log.zst": "from zstandard",
        "a.rtf": "from rtf", "a.xlsx": "from,n\nxlsx,1", "a.pptx": "from pptx", "a.epub": "from epub",
        "a.parquet": "from\nparquet", "a.db": "from sqlite", "a.eml": "from éml", "a.mbox": "from mbox",
    }  # fmt: skip


async def test_every_kind_of_file_is_read_and_binary_refused_by_name(sandbox: Any, tmp_path: Path) -> None:
    expected = _write_files(tmp_path)
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "empty.txt").touch()
    far = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    (tmp_path / "two.xlsx").write_bytes(
        workbook({"Far": far, "B": sheet_rows([["id", "n"], ["x", 1], ["y", 2]])})
    )
    box = await sandbox(files=[tmp_path])
    for name, text in expected.items():
        loaded = await box.text(f"print(load_file({str(tmp_path / name)!r}))")
        assert text in loaded, name
    assert await box.text("csv.field_size_limit() > 1 << 30") == "True"
    assert "no()" not in await box.text(f"print(load_file({str(tmp_path / 'a.html')!r}))")
    assert "binary" in await box.text(f"load_file({str(tmp_path / 'a.bin')!r})")
    # A sheet that takes more memory than the container has costs itself, and the kernel lives on.
    two = await box.text(f"load_file({str(tmp_path / 'two.xlsx')!r}); print(records('two.xlsx/B'))")
    assert "[{'id': 'x', 'n': 1}, {'id': 'y', 'n': 2}]" in two
    assert "1 of 2 tables in it left out (Far: it takes more memory than there is" in two
    folder = await box.text(f"load_files([{str(tmp_path)!r}])")
    assert (
        f"{len(expected) + 2} files loaded; left out: 1 binary or unreadable files (the first: a.bin)"
        in folder
    )
    assert await box.text(f"print(repr(load_file({str(tmp_path / 'empty.txt')!r})))") == "''"


async def test_folder_becomes_a_dict_of_its_text_files(sandbox: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("two\nneedle here")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.bin").write_bytes(bytes(range(256)))
    box = await sandbox(files=[tmp_path])
    said = await box.text(f"load_files([{str(tmp_path)!r}])")
    assert "2 files loaded; left out: 1 binary or unreadable files (the first: c.bin)" in said
    assert await box.text("print(context)") == "{'a.txt': 'one', 'sub/b.txt': 'two\\nneedle here'}"
    assert await box.text("print(grep('needle'))") == "[sub/b.txt:2: needle here]"
    assert (
        await box.text(
            "print(grep('needle', context) == grep('needle'), grep('e$', context['a.txt'] + chr(10)))"
        )
        == "True [text:1: one]"
    )
    assert "no file named 'missing'" in await box.text("grep('x', 'missing')")
    info = await box.kernel.describe()
    assert (info.kind, info.item_count, info.total_chars, info.head) == ("dict", 2, 18, "one")
    assert (
        await box.text("switch_to('a.txt'); print(context, list(chunks(2)), peek(1))") == "one ['on', 'e'] ne"
    )
