"""The container's locks and the kernel's deaths, against real containers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.sandbox import docker_host
from rlm_kernel.sandbox.rundir import RunDir, container_ids
from rlm_kernel.sandbox.syscalls import security_options


async def test_every_default_lock_is_on(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox()
    host = docker_client.containers.get(box.container).attrs["HostConfig"]
    config = docker_client.containers.get(box.container).attrs["Config"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == security_options(tight=True)
    assert host["Memory"] == host["MemorySwap"] == 1 << 30
    assert host["NanoCpus"] == 2_000_000_000
    assert host["PidsLimit"] == 256
    assert not host["Init"]  # the first process is ours
    assert host["LogConfig"]["Type"] == "none"
    assert config["OpenStdin"] is config["StdinOnce"] is True
    assert host["Privileged"] is False
    uid, gid = container_ids()
    assert config["User"] == f"{uid}:{gid}"
    assert uid != 0
    names, *more = host["Mounts"]
    assert (names["Target"], names["Type"], names["ReadOnly"], more) == ("/etc/hosts", "bind", True, [])


async def test_there_is_no_network_but_the_loopback_device_of_its_own(sandbox: Any) -> None:
    box = await sandbox()
    told = await box.text(
        "import os, socket\n"
        "print(os.listdir('/sys/class/net'), os.readlink('/proc/self/ns/net'))\n"
        "print(open('/proc/net/route').read().count('\\n'), open('/etc/resolv.conf').read())\n"
        "print(open('/etc/hosts').read())\n"
    )
    devices, routes, *names = told.splitlines()
    assert devices.startswith("['lo'] net:[")
    assert os.readlink("/proc/self/ns/net") not in devices
    assert routes.split() == ["1"], "a head without routes, and no name server"
    assert names[:2] == ["127.0.0.1 localhost", "::1 localhost"]


async def test_an_engine_that_does_not_see_this_machines_files_gives_a_network_of_none(
    sandbox: Any, docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = RunDir.show
    monkeypatch.setattr(docker_host, "_facts", {})
    monkeypatch.setattr(RunDir, "show", lambda run, *given: shown(run, *given).with_name("not-hosts-there"))
    box = await sandbox()
    attributes = docker_client.containers.get(box.container).attrs
    assert attributes["HostConfig"]["NetworkMode"] == "none"
    assert not attributes["HostConfig"].get("Mounts")
    assert await box.text("import socket; print(socket.gethostbyname('localhost'))") == "127.0.0.1"


async def test_code_has_the_modules_that_the_kernel_starts_without(sandbox: Any) -> None:
    box = await sandbox()
    told = await box.text(
        "import gc, debugpy, dateutil.parser, dateutil.tz, jupyter_client, packaging.version\n"
        "print(gc.isenabled(), jupyter_client.KernelManager.__name__, dateutil.tz.tzlocal.__name__)\n"
        "print(dateutil.parser.parse('1 May 2020').year, packaging.version.Version('1.2').minor)\n"
        "from jupyter_client import *\n"
        "print(KernelManager is jupyter_client.manager.KernelManager, debugpy.__version__[:2])\n"
    )
    assert told == "True KernelManager tzlocal\n2020 2\nTrue 1."


async def test_labels_name_session_owner_and_folder(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox()
    labels = docker_client.containers.get(box.container).labels
    assert labels["rlm-kernel.session"] == box.run_dir.session_id
    assert labels["rlm-kernel.owner"] == str(os.getpid())
    assert labels["rlm-kernel.folder"] == str(box.run_dir.path)


async def test_user_inside_is_unprivileged_and_without_capabilities(sandbox: Any) -> None:
    box = await sandbox()
    status = await box.text("import os; print(os.getuid()); print(open('/proc/self/status').read())")
    assert int(status.split()[0]) != 0
    for line in (
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ):
        assert line in status


async def test_no_network_leaves_the_container(sandbox: Any) -> None:
    box = await sandbox()
    assert await box.text("import os; print(os.listdir('/sys/class/net'))") == "['lo']"
    for address in ("1.1.1.1", "169.254.169.254", "172.17.0.1"):
        assert "unreachable" in await box.text(
            f"import socket; socket.create_connection(({address!r}, 80), 3)"
        )
    assert "Errno" in await box.text("socket.getaddrinfo('example.com', 80)")
    assert "refused" in await box.text("socket.create_connection(('127.0.0.1', 22), 3)")


async def test_keys_and_host_files_are_not_inside(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-host-only-0123456789")
    proxies = {"default": {"httpProxy": "http://user:sk-host-only@proxy.example:3128"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    box = await sandbox()
    found = await box.text(
        "import subprocess; print(subprocess.run('env; cat /proc/*/environ; ls /rlm/run; cat "
        "/rlm/run/*.json', shell=True,"
        " capture_output=True, text=True).stdout)"
    )
    assert "session.json" in found
    assert "sk-host-only" not in found
    assert "No such file" in await box.text(f"open({str(Path(__file__))!r})")


@pytest.mark.parametrize("path", ["/etc/x", "/opt/rlm/x", "/rlm/x", "/usr/lib/x"])
async def test_nothing_is_writable_but_tmp_and_the_sockets(sandbox: Any, path: str) -> None:
    box = await sandbox()
    text = await box.text(f"open({path!r}, 'w')")
    assert "Read-only file system" in text or "Permission denied" in text
    assert await box.text("open('/tmp/x', 'w').write('ok'); print(open('/tmp/x').read())") == "ok"


async def test_named_files_are_read_only_and_others_refused(sandbox: Any, tmp_path: Path) -> None:
    given, other = tmp_path / "given.txt", tmp_path / "other.txt"
    given.write_text("hello")
    other.write_text("secret")
    box = await sandbox(files=[given])
    assert await box.text(f"print(load_file({str(given)!r}))") == "hello"
    for path in (other, f"{given}/../other.txt", "/etc/passwd", "/proc/self/environ"):
        assert "FileRefused" in await box.text(f"load_file({str(path)!r})")
    assert "Read-only file system" in await box.text("open('/rlm/files/0', 'w')")


@pytest.mark.skipif(
    os.getuid() != 0, reason="any other user's containers run as that user, who can read the file anyway"
)
async def test_file_that_only_root_can_read_is_handed_over(sandbox: Any, tmp_path: Path) -> None:
    path = tmp_path / "private.txt"
    path.write_text("for root")
    path.chmod(0o600)
    box = await sandbox(files=[path])
    assert await box.text(f"print(load_file({str(path)!r}))") == "for root"


async def test_python_loop_is_interrupted_and_variables_are_kept(sandbox: Any) -> None:
    box = await sandbox(cell_timeout=1)
    await box.run("kept = 42")
    result = await box.run("while True: pass")
    assert result.status == "timeout"
    assert "time-out of 1 s" in result.notices[0]
    assert result.seconds < 3
    assert await box.text("print(kept)") == "42"


WITHOUT_END = [
    "import time; time.sleep(99)",
    "import asyncio; await asyncio.sleep(99)",
    "async def spin():\n    while True: pass\nasyncio.run(spin())",
    "async def wait(): await asyncio.sleep(99)\nasyncio.run(wait())",
    "asyncio.get_event_loop().run_until_complete(wait())",
    "llm_query('never')",
    "asyncio.run(allm_query('never'))",
    "re.search(r'(a+)+$', 'a' * 40 + 'b')",  # compiled code that holds the GIL, and looks for signals
    "grep(r'^(\\w+\\s?)*$', 'word ' * 60 + '!\\n')",
    "import os; os.system('sleep 99')",
    "import subprocess; subprocess.run(['sleep', '99'])",
    "!sleep 99",
    "import multiprocessing\nwith multiprocessing.Pool(2) as pool: pool.map(time.sleep, [99, 99])",
    "while True:\n    try: time.sleep(1)\n    except: pass",
    "while True:\n    try: llm_query('never')\n    except BaseException as error: str(error)",
]


@pytest.mark.hostile
async def test_cells_without_end_are_interrupted_and_variables_are_kept(sandbox: Any) -> None:
    never = asyncio.Event()

    async def hang(prompt: str) -> str:
        await never.wait()
        return ""

    box = await sandbox(cell_timeout=1, llm=hang)
    await box.run("kept = 42")
    for code in WITHOUT_END:
        result = await box.run(code)
        assert result.status == "timeout", code
        assert result.seconds < 6, code
    assert await box.text("print(kept)") == "42"


async def test_c_loop_that_holds_the_gil_is_killed_and_the_session_goes_on(sandbox: Any) -> None:
    box = await sandbox(cell_timeout=1, grace=2)
    await box.run("lost_one = 1")
    result = await box.run("import itertools; sum(itertools.repeat(1))")
    assert result.status == "died"
    assert "did not stop within 2 s" in result.notices[0]
    assert "lost_one" in result.notices[0]
    assert await box.text("print('alive')") == "alive"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(1)", "ended with status 1"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("x = bytearray(3 << 30)", "out of memory (its limit is 1 GiB)"),
        # The cell must not have ended before the container does.
        ("import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()", "killed by signal 15"),
    ],
)
async def test_death_is_noticed_told_and_survived(
    sandbox: Any, tmp_path: Path, code: str, reason: str
) -> None:
    path = tmp_path / "input.txt"
    path.write_text("the input")
    box = await sandbox(files=[path])
    await box.kernel.set_up("setup", f"load_files([{str(path)!r}])")
    await box.run("lost_one = 1")
    started = time.monotonic()
    result = await box.run(code)
    assert result.status == "died"
    assert reason in result.notices[0]
    assert "lost_one" in result.notices[0]
    assert time.monotonic() - started < 15
    assert await box.text("print(context)") == "the input"


async def test_a_kernel_that_dies_before_its_input_is_loaded_is_replaced(
    sandbox: Any, tmp_path: Path, docker_client: Any
) -> None:
    path = tmp_path / "input.txt"
    path.write_text("the input")
    box = await sandbox(files=[path])
    container = docker_client.containers.get(box.container)
    container.pause()  # it takes the cell no more, and nobody has heard of its end
    loading = asyncio.create_task(box.kernel.set_up("setup", f"load_files([{str(path)!r}])"))
    await asyncio.sleep(0)
    await asyncio.to_thread(container.kill)
    assert (await loading).status == "ok"
    assert await box.text("print(context)") == "the input"


async def test_output_before_death_is_kept(sandbox: Any) -> None:
    box = await sandbox()
    assert "seen" in await box.text(
        "import sys, os; print('seen', flush=True); sys.stdout.flush(); import time; time.sleep(.5); "
        "os._exit(1)"
    )


FORK_BOMB = """
import os, time
children = []
try:
    for _ in range(1000):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(type(error).__name__, len(children) < 64)
for pid in children:
    os.kill(pid, 9)
"""


async def test_fork_bomb_stays_within_its_limit(sandbox: Any) -> None:
    box = await sandbox(pids=64)
    result = await box.run(FORK_BOMB)
    assert "BlockingIOError True" in str(result.outputs)


async def test_output_flood_is_capped_with_both_ends_kept(sandbox: Any) -> None:
    box = await sandbox()
    result = await box.run("print('start'); print('x' * 50_000_000); print('end')")
    text = result.outputs[0]["text"]
    assert result.status == "ok"
    assert len(text) < 1_000_000
    assert text.startswith("start\n")
    assert text.rstrip().endswith("end")
    assert "left out" in text
    large = await box.run("'y' * 50_000_000")
    assert len(large.outputs[0]["data"]["text/plain"]) < 1_000_000


_EVERY_WRITER = """
import subprocess, threading
from IPython.display import display
for n in range({number}, {number} + 2):
    print("out", n)
    thread = threading.Thread(target=print, args=("thread", n)); thread.start(); thread.join()
    display(n)
    print("err", n, file=__import__("sys").stderr)
if not {number} % 10: _ = subprocess.run(["echo", "process {number}"])
"""


async def test_quick_cells_have_all_their_outputs_in_order_whoever_wrote_them(sandbox: Any) -> None:
    box = await sandbox()
    for number in range(40):
        process = f"process {number}" if not number % 10 else ""
        expected = [f"{who}{n}" for n in (number, number + 1) for who in ("out ", "thread ", "", "err ")]
        said = (await box.text(_EVERY_WRITER.format(number=number))).split("\n")
        assert [line for line in said if line] == [*expected, *([process] if process else [])], number


async def test_interrupt_from_outside_ends_the_cell(sandbox: Any) -> None:
    box = await sandbox()
    running = asyncio.create_task(box.run("print('on', flush=True)\nimport time\ntime.sleep(60)"))
    await box.printed.wait()
    await box.kernel.interrupt()
    result = await asyncio.wait_for(running, 5)
    assert result.status == "error"
    assert "KeyboardInterrupt" in str(result.outputs)


async def test_pictures_tables_and_display_updates(sandbox: Any) -> None:
    box = await sandbox()
    picture = await box.run("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
    assert picture.outputs[0]["data"]["image/png"]
    table = await box.run("import pandas as pd; pd.DataFrame({'a': [1]})")
    assert "<table" in table.outputs[0]["data"]["text/html"]
    updated = await box.run(
        "from IPython.display import display\nh = display('old', display_id=True)\nh.update('new')"
    )
    assert [o["data"]["text/plain"] for o in updated.outputs] == ["'new'"]
    cleared = await box.run(
        "from IPython.display import clear_output\nprint('gone'); clear_output(); print('stays')"
    )
    assert [o["text"] for o in cleared.outputs] == ["stays\n"]


OWNER = """
import asyncio, sys
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.image import find_image
from tests.support.sandbox import Sandbox

async def main():
    box = Sandbox(find_image(connect()), cell_timeout=None)
    await box.start()
    running = asyncio.create_task(box.run(sys.argv[1]))
    await box.printed.wait()
    print(box.container, box.run_dir.path, flush=True)
    await running

asyncio.run(main())
"""


# The host call lets the kernel's output thread have the GIL before it is held for ever.
@pytest.mark.parametrize(
    "code",
    [
        "print(1, flush=True)\nimport time; time.sleep(999)",
        "import itertools\ndisplay(1)\nllm_query('x')\nsum(itertools.repeat(1))",
    ],
)
def test_container_ends_with_its_owner_even_by_sigkill(
    kernel_image: Any, docker_client: Any, code: str
) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, code], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        name, folder = owner.stdout.readline().split()
        container = docker_client.containers.get(name)
        owner.kill()
        started = time.monotonic()
        container.wait(condition="removed", timeout=30)
        assert time.monotonic() - started < 30
    assert name not in [left.name for left in docker_client.containers.list(ignore_removed=True, all=True)]
    subprocess.run(["rm", "-r", folder], check=True)


async def test_what_can_hardly_be_meant_as_an_answer_is_asked_about(sandbox: Any) -> None:
    box = await sandbox()
    for code, told in {
        "result = 12\nFINAL('result')": "FINAL(result) delivers the variable",
        "FINAL(n for n in [1])": "got a generator",
        "FINAL(len)": "got a builtin_function_or_method",
        "FINAL(map(str, [1]))": "got a map",
    }.items():
        assert told in await box.text(code)
    assert box.answers == []
    await box.run("FINAL('result')")
    await box.run("fruit = 'apple'\napple = 12\nFINAL_VAR('fruit')")
    await box.run("def done(): ...\nFINAL('done')")  # a text like any other: no function can be delivered
    assert [answer["text"] for answer in box.answers] == ["result", "apple", "done"]
