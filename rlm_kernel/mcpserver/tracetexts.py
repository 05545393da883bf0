"""The traces of a client's runs, as texts of bounded size."""

from __future__ import annotations

from pathlib import Path

from rlm_kernel.errors import UsageError
from rlm_kernel.mcpserver.clients import Client

SCHEME = "rlm-trace:///"
MARKDOWN, NOTEBOOK = "text/markdown", "application/x-ipynb+json"
MAX_MARKDOWN, MAX_NOTEBOOK = 2_000_000, 16_000_000
"""Characters, and bytes, of a trace that is given."""


def trace_of(client: Client, name: str) -> Path:
    """The trace of one of the client's runs. Raises UsageError."""
    try:
        return client.traces[name]
    except KeyError:
        raise UsageError(
            "None of your runs has a trace with this name.", hint="Each answer names its trace."
        ) from None


def shown(client: Client, name: str, cell: str | None = None) -> str:
    """A trace as markdown, or one of its cells in full. Blocking. Raises UsageError, TraceError."""
    from rlm_kernel.report.markdown import markdown
    from rlm_kernel.report.text import Paint, one_cell
    from rlm_kernel.trace.reader import read_trace

    trace = read_trace(trace_of(client, name))
    if cell is None:
        return _bounded(markdown(trace))
    for one in trace.cells:
        if one.id == cell:
            return _bounded("\n".join(one_cell(one, Paint())))
    ids = ", ".join(one.id for one in trace.cells[:50])
    raise UsageError("The trace has no cell with this id.", hint=f"Its cells: {ids}")


def resource(client: Client, uri: str) -> tuple[str, str]:
    """A resource's kind and text. Blocking. Raises UsageError, TraceError."""
    name = uri.removeprefix(SCHEME)
    if not uri.startswith(SCHEME):
        raise UsageError(f"Resources of this server begin with {SCHEME}.")
    if not name.endswith(".ipynb"):
        return MARKDOWN, shown(client, name)
    path = trace_of(client, name.removesuffix(".ipynb"))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_NOTEBOOK + 1)
    except OSError as error:
        raise UsageError(f"The trace cannot be read: {error.strerror or error}.") from None
    if len(raw) > MAX_NOTEBOOK:
        raise UsageError(
            f"The notebook has more than {MAX_NOTEBOOK:,} bytes.",
            hint=f"Read it as markdown: {SCHEME}{path.stem}",
        )
    return NOTEBOOK, raw.decode("utf-8", "replace")


def _bounded(text: str) -> str:
    return (
        text if len(text) <= MAX_MARKDOWN else f"{text[:MAX_MARKDOWN]}\n\n[cut: the notebook has all of it]"
    )
