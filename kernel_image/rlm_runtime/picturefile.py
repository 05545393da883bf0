"""Picture files as an input: opened here, in the container, and looked at no further than their headers."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_runtime import memory
from rlm_runtime.unpacking import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

_BYTES_PER_PIXEL = 32
"""Of memory, for each pixel of the largest picture that is decoded: several copies of four bytes."""
_STARTS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a.{0,4000}?\0|RIFF....WEBP|....ftyp(?:avif|avis|hei[cxfs]|hev[cx]|mif1|msf1)",
    re.DOTALL,
)
_HEIF = re.compile(rb"....ftyp(?!avi[fs])", re.DOTALL)
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg\b",
    re.DOTALL,
)
SCALED = ("JPEG", "MPO")
"""Formats that can be decoded at a smaller scale."""
HEAD = 4096
"""Bytes that tell what a file is."""


class Picture(str):
    """A loaded picture: the path of its file in the container, for PIL and whatever else reads files, and for
    `images=[...]` of `llm_query`. As the value of a cell it is displayed.
    """

    name: str
    kind: str
    width: int
    height: int

    @classmethod
    def read(cls, path: Path, name: str) -> Picture:
        """The picture in a file. Raises Unreadable."""
        with opened(path) as image:
            kind, (width, height) = str(image.format), image.size
        made = cls(path)
        made.name, made.kind, made.width, made.height = name, kind, width, height
        return made

    def about(self) -> str:
        """What it is, in a few words."""
        return f"{self.kind} picture, {self.width:,} x {self.height:,} pixels"

    def open(self) -> Image:
        """The picture, for PIL. Raises Unreadable."""
        return opened(Path(self))

    def __repr__(self) -> str:
        return f"<{self.name}: {self.about()}>" if hasattr(self, "name") else super().__repr__()


def begins_picture(head: bytes) -> bool:
    """Whether a file that begins so is a picture, whatever its name says."""
    return _STARTS.match(head) is not None


def opened(source: Any) -> Image:
    """A file (a path, or an open one) as a picture that is not decoded yet.

    Raises Unreadable, which says what to do.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted here, and of odd metadata
            image = Image.open(source)
            # A JPEG can be decoded at an eighth of its size.
            return bounded(image, 8 if image.format in SCALED else 1)
    except Image.DecompressionBombError:
        raise Unreadable(f"it has too many pixels to be decoded. {_CUT}") from None
    except UnidentifiedImageError:
        raise Unreadable(_no_picture(_head(source))) from None
    except (Unreadable, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # Pillow's readers may raise anything on a damaged file
        raise Unreadable(f"it is damaged: {error}. {_ANEW}") from None


_CUT = (
    "Scale it down where it comes from, or cut parts out of it by code "
    "(PIL.Image.MAX_IMAGE_PIXELS = None, then Image.open(path).crop(box)) and give these."
)
_ANEW = "Save it anew as PNG or JPEG."


def most_pixels() -> int:
    """Pixels of the largest picture that is decoded here."""
    return memory.total() // _BYTES_PER_PIXEL


def bounded(image: Image, scale: int = 1) -> Image:
    """The picture, if it can be decoded at so small a scale. Raises Unreadable."""
    if image.width * image.height > most_pixels() * scale * scale:
        size = f"{image.width:,} x {image.height:,}"
        image.close()
        raise Unreadable(f"it has {size} pixels, too many to be decoded in this kernel's memory. {_CUT}")
    return image


def _head(source: Any) -> bytes:
    try:
        if isinstance(source, (str, Path)):
            with open(source, "rb") as file:
                return file.read(HEAD)
        source.seek(0)
        return bytes(source.read(HEAD))
    except OSError:
        return b""


def _no_picture(head: bytes) -> str:
    """What is no picture that can be read here."""
    if head.startswith(b"%PDF-"):
        return "it is a PDF: give a page of it, images=[pdf_page(path, 1)]"
    if _HEIF.match(head) and begins_picture(head):
        return "HEIC is not read here: save it as JPEG"
    if _SVG.match(head):
        return "SVG is text, which a model reads as such: give it in the prompt, or save it as PNG"
    if not head:
        return "it is empty"
    begins = head[:40].decode("ascii", "replace")
    return f"it is no picture that can be read here (it begins {begins!r}). Save it as PNG or JPEG"
