"""Evidence of an answer: code cites passages in a real container, and the host reads them as they are
delivered.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.engine.protocols import Evidence
from rlm_kernel.proof.quotes import check
from rlm_kernel.session.result import Result
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import EvidenceMeta
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.story import repl

LOG = "".join(f"{n:04d} INFO all is well\n" for n in range(500)) + "0500 ERROR the pump broke\n"
pytestmark = pytest.mark.usefixtures("kernel_image")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text(LOG)
    return path


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Result]:
    def ask(context: Any, *cells: str, **options: Any) -> Result:
        models = ScriptedModels([repl(cell) if "\n" not in cell[:3] else cell for cell in cells])
        return RLM(models=models).ask("Why?", context, trace=tmp_path / "t.ipynb", **options)

    return ask


def outputs(trace: Path) -> str:
    """All that cells have printed or raised."""
    cells = nbformat.read(trace, 4).cells
    return json.dumps([cell.outputs for cell in cells if cell.cell_type == "code"])


def there(one: Evidence) -> str:
    return Path(one.path).read_bytes()[one.start : one.end].decode(one.encoding)


def test_a_hit_and_a_text_are_given_with_the_answer_and_stand_in_the_trace(
    asked: Callable[..., Result], log: Path, tmp_path: Path
) -> None:
    code = """FINAL(f"It broke {cite(grep('ERROR')[0])}, after {cite('0499 INFO')}.")"""
    found = asked(log, code)
    assert found.answer == "It broke [1], after [2]."
    first, second = found.evidence
    assert (first.quote, first.line, first.verdict) == ("0500 ERROR the pump broke", 501, "verbatim")
    assert there(first) == first.quote
    assert there(second) == "0499 INFO"
    (answer,) = [cell for cell in read_trace(found.trace).cells if cell.kind == "answer"]
    assert answer.meta is not None
    assert [one.evidence() for one in answer.meta.evidence] == [first, second]
    notebook = nbformat.read(found.trace, 4)
    nbformat.validate(notebook)
    for name in ("title", "answer"):
        source = next(cell.source for cell in notebook.cells if cell.id == name)
        assert "<summary>Evidence: 2 passages</summary>" in source
        assert "app.log:501" in source
        assert "<pre>0500 ERROR the pump broke</pre>" in source


def test_of_two_places_the_model_is_asked_which_and_can_say(asked: Callable[..., Result], log: Path) -> None:
    log.write_text("twice\nother\ntwice\n")
    found = asked(log, 'FINAL(cite("twice"))', 'FINAL(cite("twice", name="app.log:3"))')
    assert [one.start for one in found.evidence] == [12]
    assert "stands at 2 places: app.log:1, app.log:3" in outputs(found.trace)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF16_LE + "Größe 🙂\r\nZeile zwei\r\n".encode("utf-16-le"),
        "\ufeffGröße 🙂\r\nZeile zwei\r\n".encode(),
    ],
)
def test_a_file_in_any_encoding_with_any_line_ends(
    asked: Callable[..., Result], tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    found = asked(path, 'FINAL(cite("🙂\\nZeile"))')
    (one,) = found.evidence
    assert (there(one), one.line, one.verdict) == ("🙂\r\nZeile", 1, "verbatim")


def test_a_gigabyte_and_a_folder(asked: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "small.txt").write_text("a small passage\n")
    with (folder / "big.log").open("wb") as file:
        file.write(b"first line\n" * 10)
        file.truncate(1 << 30)
        file.seek(1 << 30)
        file.write(b"\n0815 ERROR at the very end\n")
    code = 'print(type(files["big.log"]))\nFINAL([cite("0815 ERROR at"), cite("small passage")])'
    big, small = asked(folder, code).evidence
    assert (big.start, big.line, there(small)) == ((1 << 30) + 1, 12, "small passage")
    assert small.path == str(folder / "small.txt")


def test_a_pdf_is_cited_by_characters_and_not_read_by_the_host(
    asked: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    code = """one = cite("The pump broke")
from rlm_runtime import citing
given = citing.evidence(one)[0]
print("stands:", citing.stands(given["path"], given["start"], given["end"], given["quote"]))
FINAL(one)"""
    found = asked(path, code)
    (one,) = found.evidence
    assert (one.quote, one.unit, one.verdict, one.line) == ("The pump broke", "characters", "unread", 0)
    assert "stands: True" in outputs(found.trace)


def test_an_object_from_python_is_cited_in_the_file_beside_the_trace(asked: Callable[..., Result]) -> None:
    found = asked('He said "no".\nThen he left.', """FINAL(cite('"no".\\nThen'))""")
    (one,) = found.evidence
    assert one.path == str(found.trace.with_suffix(".context.json"))
    assert there(one) == '\\"no\\".\\nThen'
    assert one.verdict == "verbatim"


FORGED = """from rlm_runtime import wire
def forge(**changes):
    one = {"mark": 1, "path": paths[0], "start": 0, "end": 9, "quote": "0000 INFO", "unit": "bytes",
           "encoding": "utf-8"} | changes
    try:
        wire.call("final", {"text": "forged", "evidence": [one]})
    except wire.HostCallError as refused:
        print("refused:", str(refused)[:300])
    else:
        print("TAKEN", changes)
"""
FORGERIES = [
    'start=10, end=19',
    'quote="0000 WARN"',
    'start=-1, end=8',
    'start=10**30, end=10**30 + 9',
    'start=2**62, end=2**62 + 9',
    'path="/etc/passwd"',
    'path=paths[0] + "\\0"',
    'path=paths[0] + "/../app.log"',
    'path="/proc/self/environ"',
    'path=7',
    'path="/rlm/files/0"',
    'encoding="rot13"',
    'encoding="zlib"',
    'encoding="utf-7"',
    'encoding="utf-16-le"',
    'unit="lines"',
    'quote="x" * 5000, end=5000',
    'quote="", end=0',
    'quote=" " * 9',
    'mark=0',
    'mark="1"',
    'end=10**9',
    'unit="characters", path="/etc/passwd"',
]  # fmt: skip


def test_forged_evidence_is_refused(asked: Callable[..., Result], log: Path) -> None:
    attempts = "\n".join(f"forge({one})" for one in FORGERIES)
    more = """
for odd in (7, "x", {}, [7], [None], [[]], [{}] * 2000):
    try:
        wire.call("final", {"text": "forged", "evidence": odd})
    except wire.HostCallError as refused:
        print("refused:", str(refused)[:200])
    else:
        print("TAKEN", odd)
"""
    found = asked(log, FORGED + attempts + more + '\nFINAL("honest")')
    told = outputs(found.trace)
    assert "TAKEN" not in told
    assert told.count("refused:") == len(FORGERIES) + 7
    assert (found.answer, found.evidence) == ("honest", ())


def test_a_file_that_changed_meanwhile_is_refused_and_can_be_cited_anew(tmp_path: Path, log: Path) -> None:
    def speak(messages: Any) -> str:
        if len(messages) == 2:
            return repl('mark = cite("0500 ERROR"); print(mark)')
        if log.read_text() == LOG:
            log.write_text("another line at the beginning\n" + LOG)
            return repl('FINAL(f"It broke {mark}")')
        return repl("""load_file(paths[0]); FINAL(f"It broke {cite('0500 ERROR')}")""")

    models = ScriptedModels(speak)
    found = RLM(models=models).ask("Why?", log, trace=tmp_path / "t.ipynb")
    assert "does not stand at bytes" in outputs(found.trace)
    assert found.answer == "It broke [2]"
    assert [one.line for one in found.evidence] == [502]


def test_an_answer_in_words_has_its_evidence(asked: Callable[..., Result], log: Path) -> None:
    found = asked(log, 'mark = cite("0500 ERROR")\nprint(mark)', "\n\nFINAL(It broke at 0500 [1].)")
    assert found.answer == "It broke at 0500 [1]."
    assert [one.quote for one in found.evidence] == ["0500 ERROR"]


def test_evidence_that_is_asked_for_is_asked_for_once(asked: Callable[..., Result], log: Path) -> None:
    found = asked(log, "FINAL(42)", """FINAL(f"42 {cite('0042 INFO')}")""", cite=True)
    assert [one.quote for one in found.evidence] == ["0042 INFO"]
    assert "cites nothing" in outputs(found.trace)
    found = asked(log, "FINAL(42)", "FINAL(42)", "FINAL(42)", cite=True)
    assert (found.answer, found.evidence) == ("42", ())


def test_an_answer_at_a_limit_needs_none(log: Path, tmp_path: Path) -> None:
    models = ScriptedModels([repl("print(1)"), "FINAL(what I know)"])
    limited = RLM(models=models, options={"limits.turns": 1})
    found = limited.ask("Why?", log, trace=tmp_path / "t.ipynb", cite=True)
    assert (found.answer, found.forced) == ("what I know", True)


def test_a_replay_gives_the_same_and_a_fork_keeps_it(asked: Callable[..., Result], log: Path) -> None:
    found = asked(log, "FINAL(42)", """FINAL(f"42 {cite('0042 INFO')}")""", cite=True)
    before = found.trace.read_bytes()
    replayed = RLM().replay(found.trace)
    assert [verdict.verdict for verdict in replayed.verdicts] == ["same"] * len(replayed.verdicts)
    assert found.trace.read_bytes() == before
    forked = RLM(models=ScriptedModels([repl('FINAL(cite("0043 INFO"))')])).fork(found.trace, "And then?")
    assert [one.mark for one in forked.evidence] == [2]
    answers = [cell for cell in read_trace(forked.trace).cells if cell.kind == "answer"]
    assert [[one.quote for one in cell.meta.evidence] for cell in answers if cell.meta] == [
        ["0042 INFO"],
        ["0043 INFO"],
    ]


def test_what_a_child_cites_is_in_its_own_trace_alone(log: Path, tmp_path: Path) -> None:
    def speak(messages: Any) -> str:
        if "inner" in messages[1]["content"]:
            return repl("""FINAL(f"It broke {cite('0500 ERROR')}.")""")
        return repl(
            """told = rlm_query("the inner question", context)\nFINAL(f"{told} {cite('0001 INFO')}")"""
        )

    found = RLM(models=ScriptedModels(speak)).ask("outer", log, trace=tmp_path / "t.ipynb")
    assert found.answer == "It broke. [1]"
    assert [one.quote for one in found.evidence] == ["0001 INFO"]
    (child,) = (path for path in tmp_path.rglob("*.ipynb") if path != found.trace)
    (meta,) = [cell.meta for cell in read_trace(child).cells if cell.kind == "answer" and cell.meta]
    assert [one.quote for one in meta.evidence] == ["0500 ERROR"]


def test_the_commands_show_it_and_stdout_is_the_answer_alone(
    rlm: Rlm, openai_env: ModelServer, log: Path
) -> None:
    openai_env.root = [repl("""FINAL(f"It broke {cite('0500 ERROR the pump broke')}")""")] * 2
    done = rlm("ask", "Why?", "--cite", "-m", "openai/root", "-f", str(log), "--trace", "t.ipynb")
    assert (done.stdout, done.returncode) == ("It broke [1]\n", 0)
    assert '[1] app.log:501 "0500 ERROR the pump broke"' in done.stderr
    shown = rlm("show", "t.ipynb")
    assert '[1] app.log:501 "0500 ERROR the pump broke"' in shown.stdout
    told = json.loads(rlm("show", "t.ipynb", "--json").stdout)
    (one,) = told["evidence"]
    assert EvidenceMeta(**one).evidence().quote == "0500 ERROR the pump broke"
    page = Path("t.html")
    rlm("export", "t.ipynb", "--html", "-o", str(page))
    assert '<a href="#t0-answer-evidence-1">[1]</a>' in page.read_text()
    done = rlm("ask", "Why?", "-m", "openai/root", "-f", str(log), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["evidence"][0]["line"] == 501


def test_the_same_function_checks_it_without_a_kernel(asked: Callable[..., Result], log: Path) -> None:
    (one,) = asked(log, 'FINAL(cite("0500 ERROR"))').evidence
    assert check(one, log).verdict == "verbatim"


async def test_a_new_kernel_says_whether_a_quotation_stands_in_what_it_reads(
    sandbox: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "a 'b\" {c}.pdf"
    path.write_bytes(PDF)
    box = await sandbox(files=[path])
    await box.kernel.set_up("setup", f"load_files([{str(path)!r}])")
    start = int(await box.text('print(context.index("The pump"))'))
    one = Evidence(1, str(path), start, start + 14, "The pump broke", "characters")
    assert await box.kernel.stands(one)
    assert not await box.kernel.stands(replace(one, quote="The pump breaks", end=start + 15))
    assert not await box.kernel.stands(replace(one, start=start + 1, end=start + 15))
    assert not await box.kernel.stands(replace(one, path="/etc/passwd"))


def _pdf() -> bytes:
    """A small PDF with one line of text."""
    stream = b"BT /F1 24 Tf 72 700 Td (The pump ) Tj (broke at noon.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return out + end % (table, len(out))


PDF = _pdf()
