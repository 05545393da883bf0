"""Help in groups, the most used first: the options of a command, the commands of `rlm`.

Plain text, so that it reads the same in a pipe.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from rlm_kernel.cli.options import PANELS

_OTHERS = "Options"
ASK, SESSIONS, TRACES, TOOLS = "Ask", "Sessions", "Traces", "Setup and tools"
"""The groups of commands."""
_FIRST_COLUMN = 25


class GroupedCommand(TyperCommand):
    """Writes a section for each `rich_help_panel` of its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """As click calls it."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *PANELS, _OTHERS)}
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                argument = param.param_type_name == "argument"
                groups[
                    "Arguments" if argument else getattr(param, "rich_help_panel", None) or _OTHERS
                ].append(row)
        longest = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name.ljust(min(longest, _FIRST_COLUMN)), text) for name, text in rows],
                        _FIRST_COLUMN,
                    )


class GroupedCommands(TyperGroup):
    """Writes a section for each `rich_help_panel` of its commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """As click calls it."""
        longest = max(map(len, self.commands), default=0)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            text = command.get_short_help_str(formatter.width - 6 - longest)
            groups.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append(
                (name.ljust(longest), text)
            )
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)
