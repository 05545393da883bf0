"""The help of a command: its options in groups, the most used first. Plain text, so that it reads the same in a pipe."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from rlm_kernel.cli.options import PANELS

_OTHERS = "Options"
_FIRST_COLUMN = 25


class GroupedCommand(TyperCommand):
    """Writes a section for each `rich_help_panel` of its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """As click calls it."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *PANELS, _OTHERS)}
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                argument = param.param_type_name == "argument"
                groups["Arguments" if argument else getattr(param, "rich_help_panel", None) or _OTHERS].append(row)
        longest = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(min(longest, _FIRST_COLUMN)), text) for name, text in rows], _FIRST_COLUMN)
