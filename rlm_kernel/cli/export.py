"""`rlm export`: a trace as another file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rlm_kernel.cli import _complete
from rlm_kernel.cli._trace import chosen as named
from rlm_kernel.cli.options import OUTPUT, TRACE_OR_LAST, SettingsOptions, option, with_options
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.trace.reader import TraceFile

_READ_UNASKED = 256_000_000
"""Bytes of a trace's files that are read for the sources though nobody asked for these."""


@with_options
def export(
    trace: TRACE_OR_LAST = None,
    jsonl: Annotated[
        bool,
        option(OUTPUT, "--jsonl", help="Write JSON Lines: each model call, with its messages and its reply."),
    ] = False,
    html: Annotated[
        bool, option(OUTPUT, "--html", help="Write one self-contained web page with a search box.")
    ] = False,
    md: Annotated[bool, option(OUTPUT, "--md", help="Write one Markdown document.")] = False,
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--output",
            "-o",
            metavar="FILE",
            help="Write to this file. Default: stdout.",
            autocompletion=_complete.files,
        ),
    ] = None,
    only: Annotated[
        str | None,
        option(
            OUTPUT, "--only", metavar="root|sub", help="With --jsonl: only calls of this model, root or sub."
        ),
    ] = None,
    children: Annotated[
        bool,
        option(OUTPUT, "--children/--no-children", help="With --jsonl: include the traces of child RLMs."),
    ] = True,
    sources: Annotated[
        bool | None,
        option(
            OUTPUT,
            "--sources/--no-sources",
            help="With --html or --md: show where the answer comes from. This reads the trace's files. "
            "Default: yes, if they have at most 256 MB.",
        ),
    ] = None,
    *,
    options: SettingsOptions,
) -> None:
    """Write a trace as a web page, as Markdown, or as JSON Lines.

    JSON Lines have each model call as training data: `messages` as OpenAI's chat format has them, with
    the reply, model, tokens and cost. Where the full prompts are missing, "complete" is false.
    """
    from rlm_kernel.trace.reader import read_trace

    chosen = [name for name, wanted in (("jsonl", jsonl), ("html", html), ("md", md)) if wanted]
    if len(chosen) != 1:
        raise UsageError("Choose one format: --jsonl, --html or --md.")
    which = _only(only)
    if chosen != ["jsonl"] and which is not None:
        raise UsageError("--only works only with --jsonl.")
    found = read_trace(named(trace, options.settings))
    if out is not None and _same_file(out, found):
        raise UsageError(
            "-o names the trace itself, which rlm does not overwrite.", hint="Name another file with -o."
        )
    if chosen == ["jsonl"]:
        _write(out, _lines(found, which, children=children, escaped=out is None))
    else:
        if out is None and sys.stdout.isatty():
            raise UsageError(
                "rlm does not print a whole document to a terminal.", hint="Name a file with -o."
            )
        from rlm_kernel.session import documents
        from rlm_kernel.session.sources import shown_with

        origin = shown_with(found, say=_say) if _wanted(found, sources) else None
        _write(out, [documents.html(found, origin) if html else documents.markdown(found, origin)])


def _wanted(trace: TraceFile, sources: bool | None) -> bool:
    """Whether the sources are looked for: as was asked, else where the files are not large."""
    size = sum(file.size for file in trace.meta.files)
    if sources is None and size > _READ_UNASKED:
        _say(
            "the export does not show where the answer comes from, because the files have "
            f"{size / 1e6:,.0f} MB. To include it: --sources"
        )
        return False
    return sources is not False


def _say(text: str) -> None:
    print(f"rlm: {text}", file=sys.stderr)


def _only(text: str | None) -> Literal["root", "sub"] | None:
    if text in (None, "root", "sub"):
        return text  # type: ignore[return-value]
    raise UsageError(f"--only takes root or sub, not {text}.")


def _same_file(out: Path, trace: TraceFile) -> bool:
    beside = [trace.path, *([trace.path.with_name(trace.meta.prompts)] if trace.meta.prompts else [])]
    with contextlib.suppress(OSError, ValueError):
        return out.exists() and any(path.exists() and out.samefile(path) for path in beside)
    return False


def _lines(
    top: TraceFile, only: Literal["root", "sub"] | None, *, children: bool, escaped: bool
) -> Iterator[str]:
    """The calls as lines; what is missing is told at their end."""
    import json

    from rlm_kernel.cli._text import json_line
    from rlm_kernel.session import documents

    partly = total = 0
    lost: list[str] = []
    for record in documents.records(top, only, lost.append, children=children):
        total += 1
        partly += not record["complete"]
        text = json_line(record) if escaped else json.dumps(record, ensure_ascii=False)
        yield f"{text}\n"
    for why in lost:
        print(f"rlm: {printable(why)}", file=sys.stderr)
    if partly:
        print(
            f"rlm: {partly:,} of {total:,} calls have only the beginning of their prompt: the trace does "
            'not keep the rest ("complete": false).',
            file=sys.stderr,
        )


def _write(out: Path | None, parts: Iterable[str]) -> None:
    """Print it, or put it in the file's place when all of it is there. Raises UsageError."""
    if out is None:
        for part in parts:
            sys.stdout.write(part)
        return
    made = out.with_name(f".{out.name}.{os.urandom(4).hex()}.tmp")
    try:
        with made.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        made.replace(out)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written: {error.strerror or error}.", hint="Name another file with -o."
        ) from error
    finally:
        made.unlink(missing_ok=True)
    print(f"rlm: wrote {printable(str(out))}", file=sys.stderr)
