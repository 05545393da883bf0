"""What people type into a chat that is no question: how they leave other programs, and commands of the
shell.
"""

from __future__ import annotations

from rlm_kernel.errors import UsageError
from rlm_kernel.system import quoted

LEAVE, HELP, STOP = "/quit", "/help", "/stop"
_MEANT = {
    **dict.fromkeys(
        ("/exit", "/q", "/bye", "exit", "exit()", "quit", "quit()", "q", ":q", ":q!", ":wq", ":x", "logout"),
        LEAVE,
    ),
    **dict.fromkeys(("/h", "/?", "help", "help()", "?", "-h", "--help", ":h", ":help"), HELP),
    "stop": STOP,
}
COMMANDS = frozenset(
    {
        "apply",
        "ask",
        "attach",
        "auth",
        "batch",
        "bench",
        "cache",
        "chat",
        "config",
        "diff",
        "doctor",
        "export",
        "fork",
        "gc",
        "image",
        "init",
        "kernelspec",
        "mcp",
        "models",
        "open",
        "replay",
    }
    | {"resume", "run", "serve", "show", "status", "stop", "test", "tools", "traces", "verify"}
)
"""The commands of `rlm`."""
_SAME_HERE = {"status": "/status", "stop": STOP, "help": HELP, "--help": HELP, "-h": HELP}
"""Commands of `rlm` that the chat has as well, where nothing follows them."""


def meant(message: str) -> str:
    """The chat's command that a message means, or the message.

    Raises UsageError for a command of the shell's, which is neither run here nor sent to a model.
    """
    if (command := _MEANT.get(message.lower())) is not None:
        return command
    words = message.split()
    if words[0] != "rlm" or len(words) == 1 or "\n" in message or words[1] not in {*COMMANDS, *_SAME_HERE}:
        return message
    if len(words) == 2 and words[1] in _SAME_HERE:
        return _SAME_HERE[words[1]]
    raise UsageError(
        f"`{message}` is a shell command. It was not sent to a model.", hint=_instead(words[1], message)
    )


def _instead(command: str, message: str) -> str:
    if command in ("ask", "run", "chat", "fork", "resume"):
        return "Type a question here as it is, without `rlm` and without quotes."
    return (
        f"To run it, leave with Ctrl-D and type it in the shell. To send it as a question: {quoted(message)}"
    )
