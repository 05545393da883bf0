"""What models write for a script, a terminal or a notebook, in a real kernel.

One container runs many cells: each is a habit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MAIN = "async def main():\n    return await asyncio.gather(*(allm_query(f'q{i}') for i in range(2)))\n"
LOOPS = [
    "print(await main())",
    "print(asyncio.run(main()))",
    "print(asyncio.get_event_loop().run_until_complete(main()))",
    "loop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)\nprint(loop.run_until_complete(main()))\n"
    "loop.close()",
    "import nest_asyncio\nnest_asyncio.apply()\nprint(asyncio.run(main()))",
    "if __name__ == '__main__':\n    print(asyncio.run(main()))",
    "with asyncio.Runner() as runner:\n    print(runner.run(main()))",
    "loop = asyncio.get_event_loop()\ntasks = [loop.create_task(allm_query(f'q{i}')) for i in range(2)]\n"
    "print(loop.run_until_complete(asyncio.gather(*tasks)))\nloop.stop()\nloop.close()",
    "async def outer():\n    return asyncio.run(main())\nprint(await outer())",
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(1) as pool:\n    print(pool.submit(asyncio.run, main()).result())",
]


async def test_event_loops_run_in_cells_however_they_are_asked_for(sandbox: Any) -> None:
    box = await sandbox()
    await box.run(f"import asyncio\n{MAIN}")
    for code in LOOPS:
        assert await box.text(code) == "['echo q0', 'echo q1']", code
    delivering = (
        "async def deliver():\n    await asyncio.sleep(0)\n    FINAL('from a loop')\nasyncio.run(deliver())"
    )
    result = await box.run(delivering)
    assert (result.status, result.outputs, box.answers) == ("ok", [], [{"text": "from a loop"}])
    assert "RuntimeError: own" in await box.text(
        "async def fail(): raise RuntimeError('own')\nasyncio.run(fail())"
    )
    assert "`await` it" in await box.text("main()")


ENDS = {
    "exit()": "ok",
    "exit": "ok",
    "quit(1)": "ok",
    "def stop(): exit()\nstop()": "ok",
    "import sys\nsys.exit()": "ok",
    "sys.exit(0)": "ok",
    "raise SystemExit": "ok",
    "sys.exit('no data')": "error",
    "sys.exit(2)": "error",
    "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n    "
    "sys.exit(3)": "error",
    "async def leave(): sys.exit(4)\nimport asyncio\nasyncio.run(leave())": "error",
}


async def test_what_ends_a_script_ends_the_cell_and_the_kernel_lives_on(sandbox: Any) -> None:
    box = await sandbox()
    await box.run("kept = 42")
    for code, status in ENDS.items():
        result = await box.run(code)
        assert result.status == status, code
        assert "The kernel and its variables live on" in await box.text(code)
    assert await box.text("print(kept)") == "42"


PROCESSES = """
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
def square(x): return x * x
for method in (None, "spawn", "forkserver", "fork"):
    with mp.get_context(method).Pool(2) as pool: print(pool.map(square, [1, 2]))
    with ProcessPoolExecutor(2, mp_context=mp.get_context(method)) as pool: print(list(pool.map(llm_query, ["a", "b"])))
mp.set_start_method("spawn", force=True)
with mp.Pool(1) as pool: print(pool.map(square, [3]))
child = mp.Process(target=print, args=("from a child",))
child.start(); child.join()
with mp.Manager() as manager: print(manager.list([1]))
"""


async def test_processes_of_any_start_method_have_the_functions_of_the_cells(sandbox: Any) -> None:
    box = await sandbox()
    for end, status in {
        "sys.exit(0)": 0,
        "sys.exit(3)": 3,
        "sys.exit('no')": 1,
        "pass": 0,
        "1 / 0": 1,
    }.items():
        fork = (
            f"import os, sys\nchild = os.fork()\nif child == 0:\n    {end}\nelse:\n    print('ended', "
            "os.waitpid(child, 0)[1] >> 8)"
        )
        said = await box.text(fork)
        assert f"ended {status}" in said, end
        assert "live on" not in said, end
    wanted = "[1, 4]\n['echo a', 'echo b']\n" * 4 + "[9]\nfrom a child\n[1]"
    assert await box.text(PROCESSES) == wanted


async def test_the_sessions_names_are_its_own_again_and_values_are_kept(sandbox: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("alpha 1\nbeta 2\n")
    box = await sandbox(files=[path])
    await box.kernel.set_up("setup", f"load_files([{str(path)!r}])")
    said = await box.text(
        "chunks = list(chunks(10))\ngrep = grep('beta')\nllm_query = llm_query('x')\nre = 5\ncontext = "
        "context.upper()"
    )
    assert "`llm_query_`" in said
    assert await box.text(
        "print(len(list(chunks(5))), len(grep('a')), llm_query('y'), chunks_, context_)"
    ) == ("3 2 echo y ['alpha 1\\nbe', 'ta 2\\n'] ALPHA 1\nBETA 2")
    assert "`chunks_`" in await box.text("for piece in chunks: print(piece)")
    assert "chunks_" in await box.text("print(SHOW_VARS())")
    await box.run("FINAL_VAR('chunks')")
    assert 'answer["content"]' in await box.text("answer = 42")
    await box.run("FINAL(answer)")
    await box.run("answer = 'in this cell'\nFINAL(answer)")
    await box.run("answer = 'by name'\nFINAL_VAR('answer')")
    assert [answer.get("value", answer.get("text")) for answer in box.answers] == [
        ["alpha 1\nbe", "ta 2\n"], 42, "in this cell", "by name"
    ]  # fmt: skip
    box.answers.clear()
    for empty in (
        "answer['content'] = None\nFINAL(answer)",
        "FINAL_VAR('answer')",
        "answer['ready'] = True",
        "FINAL(str(answer))",
    ):
        assert "nothing was put into `answer`" in await box.text(empty), empty
    for ruin in (
        "globals().clear()",
        "%reset -f",
        "del context, peek",
        "import builtins\nbuiltins.print = builtins.len = None",
    ):
        await box.run(ruin)
        assert await box.text("print(len(context), len(peek()), answer['ready'])") == "15 15 False", ruin
    assert "`del list`" in await box.text("list = [1]\nlist((1, 2))")
    assert box.answers == []


async def test_a_cell_inside_of_a_cell_is_a_part_of_it(sandbox: Any) -> None:
    box = await sandbox()
    assert await box.text("%%capture caught\nprint(llm_query('x'))") == ""
    assert (await box.text("print(caught.stdout)")).strip() == "echo x"
    assert (
        await box.text(
            "get_ipython().run_cell('print(1)')\nget_ipython().run_cell('')\nprint(llm_query('y'))"
        )
        == "1\necho y"
    )
    assert "what an earlier cell assigned to it is in `files_`" in (
        await box.text("files = ['a']")
    ) + await box.text("print(files)")
    for code, told in {
        "x = “a”": "U+201C",
        "x\u00a0= 5": "U+00A0",
        "return 5": "FINAL(value)",
        "%pip install x": "no network",
    }.items():
        assert told in await box.text(code), code
    assert await box.text("!python -c 'print(5)'") == "5"


SHOWN = {
    "import pandas as pd\npd.DataFrame({'a': [1.26], 'b': ['x']}).style.format(precision=1)": "| a | b\n0 | "
    "1.3 | x",
    "from IPython.display import *\ndisplay(Markdown('# title'), JSON({'a': 1}), "
    "HTML('<p>one<p>two'))": '# title\n{"a": 1}\none\ntwo',
    "%%html\n<b>bold</b>": "bold",
    "for i in range(3):\n    clear_output(wait=True)\n    print('step', i)": "step 2",
    "shown = display('one', display_id=True)\nshown.update('two')": "'two'",
    "import sys\nprint('a'); print('b', file=sys.stderr); print('c')": "a\nb\nc",
    "print('name\\rbob\\reve')": "name␍\nbob␍\neve",
    "for i in range(101):\n    print(f'\\r{i}%|' + '#' * (i // 10), end='')": "100%|##########",
    "for i in range(3):\n    print(i, end='\\r')": "2",
    "import subprocess\nprint('first', flush=True)\nfinished = subprocess.run('echo from a process; echo "
    "told >&2', shell=True)": None,
    "!echo from the shell": "from the shell",
    "import io\nsys.stdout = io.StringIO()\nprint('caught')": None,
    "sys.stdout.close()": "",
    "print('still here')": "still here",
    "sys.stdout = sys.stderr = None": None,
    "print('and here')": "and here",
    "import logging\nlogging.warning('once')": "WARNING:root:once",
    "print(pd.DataFrame({'a': [1]}).to_markdown())": "|    |   a |\n|---:|----:|\n|  0 |   1 |",
}

BAR = (
    "import tqdm.notebook\nfrom tqdm.auto import tqdm as bar\nfor i in tqdm.notebook.tqdm(bar(range(3))): "
    "pass"
)


async def test_what_a_person_would_see_the_model_sees_as_text(sandbox: Any) -> None:
    box = await sandbox()
    seen = {code: await box.text(code) for code in [*SHOWN, "len?", BAR]}
    for code, text in SHOWN.items():
        if text is not None:
            assert seen[code] == text, code
    process = seen[next(code for code in SHOWN if "subprocess" in code)]
    assert process.startswith("first")
    assert "from a process" in process
    assert "told" in process
    assert seen["import io\nsys.stdout = io.StringIO()\nprint('caught')"].startswith(
        "caught\nNote: this cell replaced sys.stdout"
    )
    assert "replaced sys.stderr" in seen["sys.stdout = sys.stderr = None"]
    assert "Return the number of items" in seen["len?"]
    assert "100%" in seen[BAR]
    picture = await box.text("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()")
    assert "[image/png, " in picture
    assert "Nobody can type here" in await box.text("input('Continue? ')")


TABLES = {
    "df": ("| name | n | when |\n| --- | --- | --- |\n| a | 1 | 2024-05-01T00:00:00 |\n| b |  |  |",
           [{"name": "a", "n": 1.0, "when": "2024-05-01T00:00:00"}, {"name": "b", "n": None, "when": None}]),
    "df.set_index('name')['n']": ("| name | n |\n| --- | --- |\n| a | "
                                  "1.0 |\n| b |  |", {"a": 1.0, "b": None}),
    "df['name'].value_counts().sort_index()": ("| name | count |\n| --- | --- |\n| a | 1 "
                                               "|\n| b | 1 |", {"a": 1, "b": 1}),
    "df.groupby('name')[['n']].sum()": (
        "| name | n |\n| --- | --- |\n| a | 1.0 "
        "|\n| b | 0.0 |", [{"name": "a", "n": 1.0}, {"name": "b", "n": 0.0}]),
    "df['name']": (None, ["a", "b"]),
    "df.columns": (None, ["name", "n", "when"]),
    "pd.DataFrame([[1, 2]], columns=['a', 'a'])": ("| a | a.1 |\n| --- | --- "
                                                   "|\n| 1 | 2 |", [{"a": 1, "a.1": 2}]),
    "df.style": ("| name | n | when |\n| --- | --- | --- |\n| a | 1 | 2024-05-01T00:00:00 "
                 "|\n| b |  |  |", None),
    "{'t': df[['name']], 'now': pd.Timestamp('2024-05-01'), 'gone': pd.NA, 'none': pd.NaT}": (
        None, {"t": [{"name": "a"}, {"name": "b"}], "now": "2024-05-01T00:00:00", "gone": None, "none": None}),
}  # fmt: skip


async def test_tables_are_delivered_whole(sandbox: Any) -> None:
    box = await sandbox()
    await box.run(
        "import pandas as pd\n"
        "df = pd.DataFrame({'name': ['a', 'b'], 'n': [1, None], 'when': pd.to_datetime(['2024-05-01', "
        "None])})\n"
        "large = pd.DataFrame({'i': range(200_000), 'name': 'x'})"
    )
    for code, (text, value) in TABLES.items():
        result = await box.run(f"FINAL({code})")
        assert result.status == "ok", (code, result.outputs)
        delivered = box.answers.pop()
        assert delivered.get("text", "").replace("1.0", "1") == (text or "").replace("1.0", "1"), code
        assert value is None or delivered["value"] == value, code
    await box.run("FINAL(large)")
    delivered = box.answers.pop()
    assert delivered["text"].startswith("i,name\n0,x\n")
    assert delivered["text"].count("\n") == 200_000
    assert "a picture cannot be delivered" in await box.text(
        "import matplotlib.pyplot as plt\nFINAL(plt.figure())"
    )
    await box.run(
        "expect_answer({'type': 'array', 'items': {'type': 'object', 'required': ['name']}})\n"
        "FINAL(df[['name']])"
    )
    assert box.answers == [{"value": [{"name": "a"}, {"name": "b"}]}]


async def test_a_large_file_that_is_truncated_is_an_error_and_variables_are_kept(
    sandbox: Any, tmp_path: Path
) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"2024-05-01 INFO all is well here and there\n" * 1_500_000)
    box = await sandbox(files=[path], memory="256m")
    await box.kernel.set_up("setup", f"load_files([{str(path)!r}])")
    assert (
        await box.text("kept = 42\nprint(type(context).__name__, len(grep('well', limit=3)))") == "LazyText 3"
    )
    os.truncate(path, 4096)
    for code in (
        "grep('well')",
        "context.count('INFO')",
        "context[-100:]",
        "list(records())[:1]",
        "sum(map(len, chunks(100_000)))",
    ):
        assert "shrank from 64,500,000 to 4,096 bytes" in await box.text(code), code
    assert await box.text(f"print(kept, len(load_file({str(path)!r}, replace_all=True)))") == "42 4096"


async def test_what_cells_show_is_not_kept_in_the_kernels_memory(sandbox: Any) -> None:
    box = await sandbox()
    await box.run(
        "import os\nprint('x' * 1_000_000)\nos.write(1, b'y' * 1_000_000)\ndisplay('z' * 1_000_000)\n'w' * "
        "1_000_000"
    )
    await box.run("1 / 0")
    assert await box.text("print(dict(get_ipython().history_manager.outputs))") == "{}"


async def test_tables_and_arrays_are_shown_whole_as_far_as_lines_go(sandbox: Any) -> None:
    """Whoever reads a value without its end, or a table without its columns, takes it for all there is."""
    box = await sandbox()
    assert "pandas" not in await box.text(
        "import sys\nprint([m for m in ('pandas', 'numpy') if m in sys.modules])"
    )
    made = (
        "import pandas as pd, numpy as np\n"
        "wide = pd.DataFrame({f'column_{n}': [n * 1000] for n in range(30)})\n"
        "long = pd.DataFrame({'n': [1], 'text': ['s' * 190], 'more': ['t' * 300]})"
    )
    await box.run(made)
    for shown in ("wide", "print(wide)", "display(wide)"):
        text = await box.text(shown)
        assert all(f"column_{number}" in text for number in range(30)), shown
        assert max(map(len, text.splitlines())) <= 250
    text = await box.text("print(long)")
    assert "s" * 190 in text
    assert "t" * 195 in text
    assert "t" * 200 not in text
    assert "t..." in text, "and it says that there is more"
    text = await box.text("print(pd.DataFrame({'n': range(1000)}))")
    assert len(text.splitlines()) == 24, "ten rows of each end, and what there is"
    assert "[1000 rows x 1 columns]" in text
    assert max(map(len, (await box.text("print(np.arange(60) * 1000)")).splitlines())) > 200
    await box.run("pd.set_option('display.width', 60)")
    assert max(map(len, (await box.text("print(wide)")).splitlines())) <= 60, "code may set them"
    assert "__init__.py" in await box.text("print(pd.__loader__.get_filename('pandas'))"), "its own loader"


async def test_who_comes_from_an_earlier_rlm_finds_its_helpers(sandbox: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0123456789" * 10)
    box = await sandbox(files=[path])
    await box.run(f"load_files([{str(path)!r}])")
    assert await box.text("print(buffers, SHOW_VARS())") == "[] {}"
    assert await box.text("print(chunk_indices(40, 10))") == "[(0, 40), (30, 70), (60, 100)]"
    code = (
        "for start, end in chunk_indices(60):\n    add_buffer(llm_query(context[start:end], 'Sum this up.'))"
    )
    await box.run(code)
    await box.run("buffers.append('three')")
    asked = f"echo Sum this up.\n\n{'0123456789' * 4}"
    assert await box.text("print(len(buffers), repr(buffers[1]))") == f"3 {asked!r}"
    assert "'buffers': 'list, 3 long, " in await box.text("print(SHOW_VARS())")
    assert "2 files are in /tmp/parts" in await box.text("paths = write_chunks('parts', 60)")
    assert (
        await box.text("print(open(paths[1]).read() == context[60:], paths[1])")
        == "True /tmp/parts/chunk_0001.txt"
    )
    await box.run("def chunk_indices(text):\n    return [len(text)]")
    assert await box.text("print(chunk_indices('abc'))") == "[3]", "a function of the code's own stays"
    await box.run("buffers = []")
    assert await box.text("add_buffer('x')\nprint(buffers)") == "['x']"


async def test_a_comparison_that_no_record_can_fulfil_is_told_below_the_cell(
    sandbox: Any, tmp_path: Path
) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("path,status\n/a,404\n/b,200\n")
    box = await sandbox(files=[path])
    await box.run(f"load_files([{str(path)!r}])")
    said = await box.text("rows = records()\nprint(sum(row['status'] == '404' for row in rows))")
    assert said.startswith("0\nNote: No value in the column 'status' is '404': it holds numbers.")
    assert await box.text("print(sum(row['status'] == 404 for row in rows))") == "1"
    assert "`in` looks for parts" not in await box.text("[row for row in rows if row['path'] == '/c'][0]")
