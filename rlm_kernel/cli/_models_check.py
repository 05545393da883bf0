"""`rlm models --check`: what came of asking each configured model for one token, as a table or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from rlm_kernel.cli._text import json_line
from rlm_kernel.errors import ConfigError, SetupError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.cli.options import SettingsOptions
    from rlm_kernel.models.checking import Checked

_HEAD = ("model", "as", "answer", "$ in", "$ cached", "$ out", "window", "caching", "schemas", "pictures")


def check_and_report(options: SettingsOptions, *, as_json: bool) -> None:
    """Ask the models of the settings, and print a row for each.

    Raises typer.Exit with code 3 if one does not answer, ConfigError if none is configured.
    """
    from rlm_kernel.config import load_api_keys
    from rlm_kernel.loops import run
    from rlm_kernel.models.checking import check_models

    load_api_keys()
    settings = options.settings()
    rows = run(check_models(settings, lambda line: typer.echo(printable(f"rlm: {line}"), err=True)))
    if not rows:
        raise ConfigError(
            "No model is configured.", hint="Name one with -m, in RLM_MODEL, or in config.json."
        )
    if as_json:
        typer.echo(json_line({"ok": _ok(rows), "cost": _cost(rows), "models": [_plain(row) for row in rows]}))
    else:
        for line in _table(rows):
            typer.echo(printable(line))
    if not _ok(rows):
        raise typer.Exit(SetupError.exit_code)


def _ok(rows: Sequence[Checked]) -> bool:
    return all(row.error is None for row in rows)


def _cost(rows: Sequence[Checked]) -> float | None:
    """US dollars; None if a part is not known."""
    costs = [row.cost for row in rows]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _plain(row: Checked) -> dict[str, Any]:
    error = row.error and {"message": row.error.message, "hint": row.error.hint}
    return {
        "model": row.model,
        "roles": list(row.roles),
        "ok": row.error is None,
        "seconds": row.seconds,
        "cost": row.cost,
        **asdict(row.facts),
        "error": error,
    }


def _table(rows: Sequence[Checked]) -> Iterator[str]:
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    for line, row in zip(lines, (None, *rows), strict=True):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        if row is not None and row.error is not None:
            yield f"  {row.error.message}"
            yield from (f"  → {line}" for line in row.error.hint.splitlines())
    cost = _cost(rows)
    yield "Prices are US dollars per million tokens; ? means not known."
    yield f"This check cost {f'${cost:.6f}' if cost is not None else 'an unknown amount'}."


def _cells(row: Checked) -> tuple[str, ...]:
    facts = row.facts
    return (
        row.model,
        ", ".join(row.roles),
        "FAILED" if row.error is not None else f"{row.seconds or 0:.2f} s",
        *map(_price, (facts.input_price, facts.cached_price, facts.output_price)),
        "?" if facts.window is None else f"{facts.window:,}",
        *map(_yes, (facts.caching, facts.schemas, facts.pictures)),
    )


def _price(price: float | None) -> str:
    return "?" if price is None else f"{price:g}"


def _yes(known: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[known]
