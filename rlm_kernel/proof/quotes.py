"""Whether a quotation stands where it is said to: the host reads the file's bytes and compares them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from rlm_kernel import system
from rlm_kernel.engine.protocols import Evidence
from rlm_kernel.errors import UsageError

LONGEST = 16_000
"""Bytes of a quotation."""


class QuoteDiffers(UsageError):
    """A quotation does not stand where it is said to. The message begins with its mark."""


def check(evidence: Evidence, place: Path) -> Evidence:
    """The evidence with the verdict `verbatim`, if `place` has exactly the quotation at its bytes; in
    characters of a reader's text it stays `unread`: only a kernel can make that text. Blocking.

    Raises QuoteDiffers, also where there is nothing that can be read.
    """
    if evidence.unit != "bytes":
        return replace(evidence, verdict="unread")
    where = (
        f"[{evidence.mark}] does not stand at bytes {evidence.start:,} to {evidence.end:,} of {evidence.path}"
    )
    if not 0 < evidence.end - evidence.start <= LONGEST:
        raise QuoteDiffers(f"{where}: its span cannot be.")
    try:
        file = system.open_plain(os.path.realpath(place))
        with os.fdopen(file, "rb") as stream:
            stream.seek(evidence.start)
            found = stream.read(evidence.end - evidence.start).decode(evidence.encoding)
    except (OSError, ValueError, LookupError) as error:
        raise QuoteDiffers(f"{where}: the file cannot be read: {error}.") from None
    if found != evidence.quote:
        raise QuoteDiffers(f"{where}: there stands {found[:60]!r}.")
    return replace(evidence, verdict="verbatim")
