"""The standard streams of `rlm` as they are on bad days: closed, full, without a reader, in an old encoding.

Real processes.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_kernel.cli import main

ROOT = Path(__file__).parents[3]
RLM = f"{shlex.quote(sys.executable)} -P -m rlm_kernel"
COMMANDS = ["ask -h", "config show --json", "ask Q -m openai/x -f missing.txt"]
"""Two that print, by Typer and by ourselves, and one that fails."""
FAILING = COMMANDS[-1:]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | env,
        stdin=subprocess.PIPE,
    )
    out, err = (
        done.stdout.decode("utf-8", "backslashreplace"),
        done.stderr.decode("utf-8", "backslashreplace"),
    )
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def code_of(command: str, otherwise: int) -> int:
    return 2 if command in FAILING else otherwise


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (">&-", "it was closed"),
        ("> /dev/full", "No space left on device"),
        (">&- <&-", "it was closed"),
        ("| true", "its reader has closed it"),
    ],
)
def test_what_stdout_does_not_take_is_told_and_seen_by_the_exit_code(place: str, why: str) -> None:
    for command in COMMANDS:
        # The reader is gone for certain before anything is written.
        done = shell(
            f"{{ sleep 0.3; {RLM} {command}; }} {place}"
            if place.startswith("|")
            else f"{RLM} {command} {place}"
        )
        assert done.returncode == code_of(command, 1), (command, done.stderr)
        if command not in FAILING:
            assert f"rlm: the output could not be written completely: {why}." in done.stderr, command


@pytest.mark.parametrize("place", ["2>&-", "2> /dev/full", "2> >(true)"])
def test_without_stderr_all_else_is_as_ever(place: str) -> None:
    for command in COMMANDS:
        done = shell(f"{RLM} {command} {place}")
        assert done.returncode == code_of(command, 0), command
        assert bool(done.stdout) is (command not in FAILING), command


@pytest.mark.parametrize("place", [">&- 2>&-", ">&- 2>&- <&-", "> /dev/full 2>&1", "2>&1 | true"])
def test_with_no_stream_left_the_exit_code_still_tells(place: str) -> None:
    for command in COMMANDS:
        wait = "sleep 0.3; " if "|" in place else ""
        assert shell(f"{{ {wait}{RLM} {command}; }} {place}").returncode == code_of(command, 1), command


def test_what_goes_to_both_streams_comes_in_its_order_also_where_python_does_not_buffer() -> None:
    program = (
        "import sys; from rlm_kernel.cli._streams import make_safe; make_safe(); print('answer'); "
        "print('account', file=sys.stderr)"
    )
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} 2>&1", PYTHONUNBUFFERED="1")
    assert done.stdout == "answer\naccount\n"


def test_files_that_are_opened_do_not_become_a_closed_stream() -> None:
    """A trace that is opened as number 1 would get what is printed."""
    probe = """
import os, sys
from rlm_kernel.cli._streams import make_safe
make_safe()
with open("opened", "w") as file:
    assert file.fileno() > 2
    print("lost")
    print("lost", file=sys.stderr)
    os.system("echo lost; echo lost >&2")
"""
    shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(probe)} >&- 2>&- <&-")
    assert Path("opened").read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "cp037", "utf-16"])
def test_any_encoding_of_stdout_takes_any_text(encoding: str) -> None:
    probe = """
import sys
from rlm_kernel.cli._streams import make_safe, settle
from rlm_kernel.cli._text import json_line
make_safe()
text = "caf\\xe9 \\u20ac \\U0001f600 \\ud800 \\0"
print(json_line(text) if sys.argv[1:] else text)
sys.exit(settle(0))
"""
    text, name = "caf\xe9 \u20ac \U0001f600 \ud800 \0", encoding.partition(":")[0]
    for options in ("", "--json"):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        command = [sys.executable, "-c", probe, *options.split()]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        shown = done.stdout.decode(name)
        told = done.stderr.decode(name)
        assert "Traceback" not in told
        if options:
            assert json.loads(shown) == text
        else:
            assert shown == text.encode(name, "backslashreplace").decode(name) + "\n"
            assert ("PYTHONIOENCODING=utf-8" in told) is not name.startswith("utf"), (
                "characters that were escaped are told"
            )


def test_bytes_in_names_and_the_c_locale_are_no_trouble() -> None:
    for environment in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.UTF-8"},
        {"LC_ALL": "C.UTF-8"},
    ):
        done = shell(f"{RLM} ask $'caf\\xe9 \\xc3\\xa9?' -m openai/x -f $'n\\xf6.txt'", **environment)
        assert done.returncode == 2
        assert "cannot be read: No such file" in done.stderr


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    """Some programs set their pipes so; a full one then refuses for the moment."""
    probe = """
from rlm_kernel.cli._streams import make_safe, settle
import sys
make_safe()
print("x" * 1_000_000)
sys.exit(settle(0))
"""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with (
        subprocess.Popen([sys.executable, "-c", probe], stdout=write) as running,
        os.fdopen(read, "rb") as pipe,
    ):
        os.close(write)
        assert len(pipe.read()) == 1_000_001
    assert running.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_ends_it_without_a_traceback(signum: signal.Signals) -> None:
    command = [sys.executable, "-P", "-m", "rlm_kernel", "doctor"]
    for moment in (0.15, 0.3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            try:
                running.wait(moment)
            except subprocess.TimeoutExpired:
                running.send_signal(signum)
            _, err = running.communicate(timeout=30)
        # -signum: Python itself was still starting. -SIGINT, which a shell tells as 130: Python ends itself
        # so, in spite of the exit code, where the interrupt fell into code that is made of a text, as in the
        # midst of an import.
        assert running.returncode in (0, 3, 130, -signum, -signal.SIGINT)
        assert b"Traceback" not in err or running.returncode == -signum


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("aks Q", "Did you mean 'ask'?"),
        ("'How many lines are there?'", 'rlm ask "How many …?" -f FILE'),
        ("ask Q --modle x", "Did you mean --model?"),
        ("ask How many lines?", "Put quotes around"),
        ("ask '-1 or 1?'", "-- TEXT"),
        ("ask", "Missing argument 'QUESTION'"),
        ("ask Q -m openai/x -f notes", "Did you mean notes.txt?"),
        ("ask Q -m openai/x -f flodr/a.txt", "Did you mean folder/a.txt?"),
        ("ask '' -m openai/x", "The question is empty"),
        ("status --session defualt", "Start one: rlm init"),
        ("models serve lokal", "Did you mean local?"),
        ("replay notes.txt", "notes.txt"),
    ],
)
def test_what_is_almost_right_is_understood_as_what_was_meant(
    arguments: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("x")
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("x")
    monkeypatch.setattr(sys, "argv", ["rlm", *shlex.split(arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code in (1, 2)
    assert told in err
    assert err.startswith("rlm: ")
    assert out == ""


def test_a_folder_that_was_deleted_is_told() -> None:
    for command in ("config show", "status", "ask Q -m openai/x"):
        done = shell(f"mkdir -p gone; cd gone; rmdir ../gone; {RLM} {command}")
        assert (done.returncode, done.stderr.startswith("rlm: The current folder no longer exists")) == (
            2,
            True,
        ), done.stderr


def test_every_command_has_its_help_by_either_option() -> None:
    assert shell(f"{RLM} image build -h").stdout == shell(f"{RLM} image build --help").stdout != ""


def test_modules_in_the_current_folder_are_not_imported() -> None:
    for name in ("json", "docker", "tokenize", "typer"):
        Path(f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    for start in (RLM, f"{shlex.quote(sys.executable)} -m rlm_kernel"):
        done = shell(f"{start} doctor", PYTHONPATH="")
        assert "imported from the current folder" not in done.stderr
