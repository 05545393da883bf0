"""Prints docs/cli.md, the reference of the `rlm` command made from its own help: `python
scripts/cli_reference.py > docs/cli.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from rlm_kernel.cli import app

WIDTH = 100
"""Columns of the help texts, whatever the terminal's."""

INTRO = """\
# The command line

The help texts of `rlm` and its commands, and what all commands have in common. `scripts/cli_reference.py` prints this page.

**Output.** Only the answer goes to stdout. Progress, the account of the run and the trace's path go to stderr. Without a terminal,
plain lines replace the live view ([subcalls.md](subcalls.md#see-it-happen)).

**`--json`** prints one object to stdout: `answer`, `trace`, `turns`, `calls`, `children`, `child_turns`, `stored`, `failed`, `tokens`
(`prompt`, `completion`, `cached`, `written`, `reasoning`), `cost` (null if unknown), `known_cost`, `seconds`, `models` (calls, tokens and cost by model),
`stop_reason`, `forced`.
[subcalls.md](subcalls.md#the-numbers) defines them. `rlm run` and `rlm chat` print it before the summary for the [memory](memory.md), so
its figures cover only the question.

| exit code | meaning |
| --- | --- |
| 0 | answered, or a best-effort answer where a limit was reached |
| 1 | no answer, or the run failed: model, kernel, trace; or the output could not be written to stdout |
| 2 | the request is wrong: option, setting, file |
| 3 | the installation is incomplete: no Docker, no image, no key, unknown model, no weights |
| 130 | interrupted |

**Ctrl-C** (or SIGTERM, or SIGHUP) stops the running cell, removes the container and closes the trace. The last line says what was done,
what it cost and how to continue. A second one ends the process at once, and the container with it.

**The answer comes first.** rlm prints it, and writes it into the trace, as soon as it is ready, before it removes the container and
cleans up. After that a signal ends the command sooner and changes nothing: the exit code is 0. Cleaning up may take about ten seconds.
After that, rlm stops waiting for an engine that does not answer, and its container ends by itself.

**Errors** take one or two lines, which say what to type next. A bug in rlm_kernel itself is reported in the same way, as a bug; the
trace is closed in any case. `--debug` before the command (`rlm --debug ask …`) shows the traceback.

**Standard streams** may be closed, full, without a reader, or in an encoding that lacks characters. The run continues to its end, and the
answer is in the trace. If rlm could not write everything to stdout, the exit code is 1, and stderr says why. rlm escapes characters that
the encoding of stdout lacks (`\\xe9`; with `--json` as JSON does), and says so on stderr.

`rlm ask` builds the kernel image if it is missing. `--trace` replaces an existing file. `--set section.key=value` changes any setting
([configuration.md](configuration.md#--set)).

## Shell completion

`rlm --install-completion` installs completion for your shell: bash, zsh or fish. Open a new terminal after it. Tab then completes
commands, options, files and folders, and

- sessions (`--session`), runs in progress (`rlm attach`), traces (`rlm replay`, `resume`, `fork`) and their cells (`--at`, `--until`);
- models (`-m`, `--sub-model`): first the provider, then its models as litellm's table has them; providers (`rlm auth add`);
- settings and their values (`--set`).

It reads files, and asks neither Docker nor a model. `rlm --show-completion` prints the script.
"""  # noqa: E501


def commands(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """(full name, command, context at the fixed width) of a command and all below it."""
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, **command.context_settings
    )
    yield context.command_path, command, context
    for child_name, child in getattr(command, "commands", {}).items():
        yield from commands(child, child_name, context)


def page() -> str:
    """The whole page."""
    parts = [INTRO]
    for path, command, context in commands(get_command(app), "rlm"):
        parts.append(f"## {path}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
