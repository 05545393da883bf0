"""Pages of PDF files as pictures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_runtime import pictures, wire

if TYPE_CHECKING:
    from PIL.Image import Image

_pdfium = threading.Lock()
"""PDFium works for one thread at a time."""


def pdf_page(file: Any, page: int = 1, *, side: int = 1568) -> Image:
    """A page of a PDF as a picture (PIL). Pages count from 1, as in the text of the file.

    `file`: the name of a loaded file, a path, or bytes; `side`: pixels of the page's longer side. Raises
    PictureError.
    """
    import pypdfium2

    pictures.check_side(side, "side")
    with _pdfium:
        return _drawn(pypdfium2, file, page, side)


def _drawn(pypdfium2: Any, file: Any, page: int, side: int) -> Image:
    try:
        document = pypdfium2.PdfDocument(pictures.located(file) if isinstance(file, (str, Path)) else file)
    except (pypdfium2.PdfiumError, OSError, ValueError, TypeError, wire.FileRefused) as error:
        raise wire.PictureError(f"this PDF cannot be opened: {error}") from None
    try:
        if type(page) is not int or not 1 <= page <= len(document):
            raise wire.PictureError(f"this PDF has pages 1 to {len(document):,}, and no page {page!r}")
        found = document[page - 1]
        scale = side / max(1.0, *found.get_size())
        image: Image = found.render(scale=scale).to_pil().convert("RGB")
        return image
    except pypdfium2.PdfiumError as error:
        raise wire.PictureError(f"page {page} of this PDF cannot be drawn: {error}") from None
    finally:
        document.close()
