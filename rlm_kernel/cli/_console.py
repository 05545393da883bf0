"""jupyter_console on a kernel that is not to be trusted, and that a model uses at the same time.

Differences to the stock console: nothing of the kernel's reaches the terminal unfiltered or is opened on the
host, leaving never ends the kernel, a kernel that is busy with the model's cell is waited for, and the end of
the run ends the console, whatever it is at. `python -m rlm_kernel.cli._console CONNECTION_FILE`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path
from queue import Empty
from typing import Any

import zmq
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.consoleapp import JupyterConsoleApp
from jupyter_client.session import Session
from jupyter_console.app import ZMQTerminalIPythonApp
from jupyter_console.completer import ZMQCompleter
from jupyter_console.ptshell import ZMQTerminalInteractiveShell

from rlm_kernel.checked import Told
from rlm_kernel.cli.attach import CANCELLED, ENDED_BY_ITSELF
from rlm_kernel.errors import InternalError, KernelError
from rlm_kernel.printable import printable
from rlm_kernel.sandbox import kernel_says
from rlm_kernel.sandbox.channels import MAX_IOPUB
from rlm_kernel.sandbox.rundir import is_owned
from rlm_kernel.system import bound_memory

MAX_MEMORY = 1 << 30
"""Bytes that the console may take."""
_MAX_DEPTH = 50
_FIELDS: dict[str, type[Told]] = {
    "stream": kernel_says.Stream,
    "error": kernel_says.Raised,
    "clear_output": kernel_says.Clear,
    "status": kernel_says.Status,
    "execute_input": kernel_says.Input,
    "execute_reply": kernel_says.Reply,
}
_BEAT = 0.2
"""Seconds between two looks at whether the run goes on."""
_SILENT = 10.0
"""Seconds without a heartbeat after which the kernel has ended: a run that ends takes a while to close."""
_LEAVE = ("exit", "exit()", "quit", "quit()", "%exit", "%quit")


class PlainSession(Session):
    """Takes out of every message what moves the cursor or changes the terminal, and has in it what the stock
    console takes for granted.
    """

    def deserialize(self, msg_list: Sequence[Any], content: bool = True, copy: bool = True) -> dict[str, Any]:
        """A message; one that is malformed, or not signed, as an empty one that answers nobody.

        Not as the stock session does it, which raises, and looks for dates in all texts of the headers.
        """
        frames = [bytes(frame if copy else frame.bytes) for frame in msg_list[:5]]
        signed = len(frames) == 5 and compare_digest(frames[0], self.sign(frames[1:]))
        _, header, parent, _, told = frames if signed else [b""] * 5
        read = kernel_says.Message.parse(header, parent, told)
        answers = {
            name: value for name, value in (("msg_id", read.request), ("session", read.session)) if value
        }
        return {
            "header": {"msg_type": read.kind},
            "msg_type": read.kind,
            "parent_header": answers,
            "metadata": {},
            "content": _plain(_complete(read)),
            "buffers": [],
        }


def _complete(message: kernel_says.Message) -> dict[Any, Any]:
    """The content with all fields that its kind has, as they should be."""
    content = dict(message.content)
    if message.kind in _FIELDS:
        content |= _FIELDS[message.kind].part(content).model_dump(exclude={"user_expressions"})
    elif message.kind in ("display_data", "update_display_data", "execute_result"):
        shown = kernel_says.Display.part(content)
        content |= {"data": {part.kind: part.value for part in shown.data}, "metadata": shown.metadata}
        content["execution_count"] = shown.execution_count
    if "execution_count" in content:
        content["execution_count"] = content["execution_count"] or 0
    return content


def _plain(value: Any, depth: int = _MAX_DEPTH) -> Any:
    if isinstance(value, str):
        return printable(value)
    if depth and isinstance(value, dict):
        return {printable(str(name)): _plain(part, depth - 1) for name, part in value.items()}
    if depth and isinstance(value, list):
        return [_plain(part, depth - 1) for part in value]
    return None if isinstance(value, dict | list) else value


class Life(threading.Thread):
    """Whether there still is a run with this kernel: `over` is set once there is not.

    The run's folder tells. The kernel's heartbeat alone does not: it stops before the run has closed all, and
    where the run goes on with another kernel.
    """

    def __init__(self, connection: Path, client: BlockingKernelClient) -> None:
        super().__init__(name="life-of-the-run", daemon=True)
        self.over = threading.Event()
        self._connection = connection
        self._client = client

    def run(self) -> None:
        silent_since: float | None = None
        while is_owned(self._connection.parent):
            now = time.monotonic()
            silent_since = None if self._client.hb_channel.is_beating() else silent_since or now
            if silent_since is not None and now - silent_since > _SILENT:
                break
            time.sleep(_BEAT)
        self.over.set()

    def settle(self) -> None:
        """The kernel has ended: wait until it is known whether the run has, too."""
        while not self.over.wait(_BEAT) and not self._client.hb_channel.is_beating():
            pass
        self.over.set()


class Client(BlockingKernelClient):
    life: Life | None = None

    def is_alive(self) -> bool:
        """Whether there is anything to wait for."""
        return not (self.life and self.life.over.is_set()) and bool(super().is_alive())

    def _context_default(self) -> zmq.Context[Any]:
        context: zmq.Context[Any] = super()._context_default()
        context.setsockopt(zmq.MAXMSGSIZE, MAX_IOPUB)
        return context


class Completer(ZMQCompleter):  # type: ignore[misc]
    timeout = 1.0

    def complete_request(self, code: str, cursor_pos: int) -> Any:
        try:
            return super().complete_request(code, cursor_pos)
        except Empty:  # the kernel is busy
            return {"matches": [], "cursor_start": 0, "cursor_end": 0, "metadata": {}}


class Shell(ZMQTerminalInteractiveShell):  # type: ignore[misc]
    banner = "You share this kernel with the model. Ctrl-D leaves.\n"
    image_handler = None  # pictures would be decoded and shown by programs of the host
    running = False
    """Whether the kernel has taken up what was asked of it last."""

    def init_kernel_info(self) -> None:
        """Wait for the kernel as long as the model's cell runs."""
        self.client.hb_channel.unpause()
        asked, said = self.client.kernel_info(), False
        while True:
            try:
                reply = self.client.get_shell_msg(timeout=1)
            except Empty:
                if not self.client.is_alive():
                    self.client.life.settle()
                    raise KernelError("The kernel does not answer; it has just ended.") from None
                if not said:
                    print(
                        "The model's cell is running; the console opens when it ends. Ctrl-C cancels.",
                        file=sys.stderr,
                    )
                said = True
            else:
                if reply["parent_header"].get("msg_id") == asked:
                    self.kernel_info = reply["content"]
                    return

    def init_completer(self) -> None:
        self.Completer = Completer(self, self.client)

    def check_complete(self, code: str) -> tuple[bool, str]:
        """Whether more lines are to come. Not asked of the kernel, which may be busy."""
        status, indent = TransformerManager().check_complete(code)  # type: ignore[no-untyped-call]
        return status == "incomplete", " " * (indent or 0)

    def run_cell(self, cell: str, store_history: bool = True) -> None:
        if cell.strip() in _LEAVE:  # run in the kernel, these would end it
            self.ask_exit()
            return
        self.running = False
        super().run_cell(cell, store_history)
        if not self.client.is_alive():
            self.client.life.settle()
            self.ask_exit()

    async def interact(self, loop: Any = None, display_banner: Any = None) -> None:
        leaving = asyncio.create_task(self._leave_with_the_run())
        try:
            await super().interact(loop, display_banner)
        finally:
            leaving.cancel()

    async def _leave_with_the_run(self) -> None:
        """End the prompt, with whatever was typed at it, once there is no run any more."""
        while True:
            await asyncio.sleep(_BEAT)
            if self.client.life.over.is_set():
                self.ask_exit()
                with suppress(Exception):  # it is not at the prompt at this moment, or just leaves it
                    self.pt_cli.app.exit(exception=EOFError)

    def mainloop(self) -> None:
        try:
            while True:
                try:
                    asyncio.run(self._main_task())
                    break
                except KeyboardInterrupt:
                    print()
        finally:
            if not self.client.life.over.is_set():
                print("keeping kernel alive: the run continues")

    def include_output(self, msg: dict[str, Any]) -> Any:
        if msg["msg_type"] == "execute_input" and self.from_here(msg):
            self.running = True
        return super().include_output(msg)

    def handle_input_request(self, msg_id: str, timeout: float = 0.1) -> None:
        """input() has no keyboard in this kernel, and nothing else in there may ask for one."""
        time.sleep(timeout)
        raise Empty

    def ask_exit(self) -> None:
        self.keepkernel = True  # code that calls `exit` asks for the contrary
        super().ask_exit()


class Console(ZMQTerminalIPythonApp):  # type: ignore[misc]
    kernel_client_class = Client
    shell = None

    def _session_default(self) -> Session:
        return PlainSession(parent=self)

    @property
    def config_file_paths(self) -> list[str]:
        """Without the current folder, which may hold what somebody else wrote."""
        return [path for path in super().config_file_paths if path != os.getcwd()]

    def init_shell(self) -> None:
        JupyterConsoleApp.initialize(self)
        self.kernel_client.allow_stdin = False
        self.kernel_client.life = Life(Path(self.connection_file), self.kernel_client)
        self.kernel_client.life.start()
        signal.signal(signal.SIGINT, self.handle_sigint)
        self.shell = Shell.instance(
            parent=self, manager=None, client=self.kernel_client, confirm_exit=self.confirm_exit
        )

    def handle_sigint(self, *args: Any) -> None:
        """Ctrl-C stops the person's cell, and never the model's."""
        if self.shell is None or not self.shell._executing:
            raise KeyboardInterrupt
        if self.shell.running:
            self.kernel_client.control_channel.send(self.session.msg("interrupt_request", {}))
        else:
            print("Your cell waits for the model's cell and cannot be cancelled.", file=sys.stderr)


def main() -> None:
    # libzmq keeps whatever the kernel sends: a flood is to end this console, and not to fill the machine's
    # memory.
    bound_memory(MAX_MEMORY)
    try:
        Console.launch_instance(argv=["--existing", sys.argv[1], "--no-confirm-exit"])
    except KernelError:
        sys.exit(ENDED_BY_ITSELF)
    except KeyboardInterrupt:
        sys.exit(CANCELLED)
    except Exception as error:
        if os.environ.get("RLM_DEBUG"):
            raise
        sys.exit(
            f"rlm: {printable(InternalError.of(error).message)}\nThe run continues. `rlm attach` opens a "
            "console again."
        )
    shell = Console.instance().shell
    if shell is not None and shell.client.life.over.is_set():
        sys.exit(ENDED_BY_ITSELF)


if __name__ == "__main__":
    main()
