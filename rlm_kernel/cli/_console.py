"""jupyter_console on a kernel that is not to be trusted, and that a model uses at the same time.

Differences to the stock console: nothing of the kernel's reaches the terminal unfiltered or is opened on the
host, leaving never ends the kernel, and a kernel that is busy with the model's cell is waited for. `python -m
rlm_kernel.cli._console CONNECTION_FILE`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from hmac import compare_digest
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
from rlm_kernel.errors import InternalError, KernelError
from rlm_kernel.printable import printable
from rlm_kernel.sandbox import kernel_says
from rlm_kernel.sandbox.channels import MAX_IOPUB
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


class Client(BlockingKernelClient):
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
                    raise KernelError(
                        "The kernel does not answer; it has just ended.", hint="Type `rlm attach` again."
                    ) from None
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
            print(
                "The kernel has ended. If the run continues, `rlm attach` finds its new kernel.",
                file=sys.stderr,
            )
            self.ask_exit()

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
    except KernelError as error:
        sys.exit(f"rlm: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("RLM_DEBUG"):
            raise
        sys.exit(
            f"rlm: {printable(InternalError.of(error).message)}\nThe run continues. `rlm attach` opens a "
            "console again."
        )


if __name__ == "__main__":
    main()
