"""Pictures for a model: whatever code has as one becomes a PNG or JPEG file.

It is upright, has no metadata, and is no larger than what models look at.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_contract import MAX_ALL_PICTURES, MAX_PICTURE, MAX_PICTURES, MAX_PREVIEW, PREVIEW_SIDE

from rlm_runtime import files, wire
from rlm_runtime.picturefile import SCALED, Picture, begins_picture, bounded, opened
from rlm_runtime.unpacking import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDES = (32, 4000)
"""Pixels of the longer side that can be asked for. If nothing is said it is 1,568: larger pictures cost more,
and most models see no more of them.
"""
DISPLAYED = 2000
"""Pixels of a side of what a cell displays: a root model may be shown no larger ones."""
LEAST = 32
"""Pixels of the shorter side at least: some models refuse less."""
_PNG_MOST = 1_000_000
"""Bytes beyond which a picture is sent as JPEG."""
_QUALITIES = (90, 80, 65, 45, 25)
_LIGHT = 224
"""Mean brightness of what is drawn on a transparent ground from which on this is shown black, not white."""
_LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF"})
_DATA = re.compile(r"\s*data:image/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\r\n]{60,}+\Z", re.ASCII)


@dataclass(frozen=True)
class Encoded:
    """A picture as it is sent, and a preview of it for the trace."""

    data: bytes
    preview: bytes

    @property
    def digest(self) -> str:
        return sha256(self.data).hexdigest()


def listed(images: Any) -> list[Any]:
    """The pictures that were given to a call: a list of them, one alone, or a dict of name to picture.

    Files are found now, for which the host may have to be asked; in the place of one that is not there is the
    exception that says so.
    """
    if images is None:
        return []
    if isinstance(images, Mapping):
        images = images.values()
    many = isinstance(images, (list, tuple, Iterator, ValuesView))
    return list(map(_found, images)) if many else [_found(images)]


def encoded(images: list[Any], side: int) -> list[Encoded]:
    """The pictures of one call, as `listed` has them, as they are sent.

    Raises PictureError, which says which of them is wrong, and what to do.
    """
    if len(images) > MAX_PICTURES:
        raise wire.PictureError(
            f"{len(images):,} pictures, and a call takes {MAX_PICTURES}: make several calls, with "
            "llm_query_batched(prompts, images=[[…], […]])"
        )
    check_side(side, "image_side")
    made: list[Encoded] = []
    room = MAX_ALL_PICTURES
    for number, given in enumerate(images, 1):
        most = min(MAX_PICTURE, room // (len(images) - number + 1))
        try:
            made.append(_encoded(given, side, most))
        except Exception as error:  # what code gave may raise anything as it is drawn
            if isinstance(error, wire.HostCallError) and not isinstance(error, wire.FileRefused):
                raise
            which = f"picture {number} of {len(images)}" if len(images) > 1 else "the picture"
            name = f" ({given.name})" if isinstance(given, Path) else ""
            raise wire.PictureError(f"{which}{name} cannot be sent: {_why(error)}") from None
        room -= len(made[-1].data)
    return made


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is too little memory for it"
    known = isinstance(error, (ValueError, OSError, wire.FileRefused))
    return str(error) if known else f"{type(error).__name__}: {error}"


def displayed(shown: str | bytes, most: int) -> tuple[str, str] | None:
    """A displayed picture of more than `DISPLAYED` pixels a side, or `most` characters of base64, in the size
    of those that models are shown: its kind, and it in base64. None for one that is not so large.
    """
    try:
        data = base64.b64decode(shown) if isinstance(shown, str) else shown
        with opened(io.BytesIO(data)) as image:
            if max(image.size) <= DISPLAYED and 4 * len(data) <= 3 * most:
                return None
        made = _encoded(data, 1568, MAX_PICTURE).data
    except Exception:  # as of `encoded`: the picture stays as it is
        return None
    return _kind(made), base64.b64encode(made).decode()


def shown(picture: Picture, *_: object, **__: object) -> dict[str, Any]:
    """A loaded picture as IPython displays it."""
    told: dict[str, Any] = {"text/plain": repr(picture)}
    try:
        data = encoded(listed(picture), 1568)[0].data
    except wire.PictureError:
        return told
    return told | {_kind(data): data}


def _kind(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def check_side(side: int, name: str) -> None:
    """Raises PictureError for what is no number of pixels that a picture may have."""
    if type(side) is not int or not _SIDES[0] <= side <= _SIDES[1]:
        raise wire.PictureError(f"{name} is a number of pixels from {_SIDES[0]} to {_SIDES[1]:,}")


def _encoded(given: Any, side: int, most: int) -> Encoded:
    image = _image(given)
    try:
        flat = _flat(_scaled(_upright(image, side, own=image is not given), side))
    finally:
        if image is not given:
            image.close()
    return Encoded(_packed(flat, most, lossy=image.format in _LOSSY), _preview(flat))


def _packed(image: Image, most: int, *, lossy: bool) -> bytes:
    """The picture as a file of at most so many bytes."""
    if not lossy and len(data := _saved(image, "PNG")) <= min(most, _PNG_MOST):
        return data
    for _ in range(8):
        for quality in _QUALITIES:
            if len(data := _saved(image, "JPEG", quality=quality)) <= most:
                return data
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
    raise ValueError("it cannot be made small enough")


def _preview(image: Image) -> bytes:
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    for quality in (70, 50, 30, 10):
        if len(data := _saved(small, "JPEG", quality=quality)) <= MAX_PREVIEW:
            return data
    return b""


def _saved(image: Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _image(given: Any) -> Image:
    """What code has, as a picture. Raises Unreadable, ValueError, OSError."""
    from PIL import Image

    if isinstance(given, Image.Image):
        return given
    if isinstance(given, Exception):
        raise given
    if isinstance(given, Path):
        return opened(given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        return opened(io.BytesIO(given))
    if hasattr(given, "get_fignums") and hasattr(given, "gcf"):  # pyplot itself
        if not given.get_fignums():
            raise ValueError("there is no figure: draw it in the same cell")
        return _figure(given.gcf())
    if hasattr(given, "savefig"):
        return _figure(given)
    if hasattr(getattr(given, "figure", None), "savefig"):  # axes
        return _figure(given.figure)
    if hasattr(given, "__array__"):
        return _array(given)
    if callable(getattr(given, "read", None)):
        return opened(io.BytesIO(given.read()))
    if (found := _representation(given)) is not None:
        return opened(io.BytesIO(found))
    raise ValueError(
        f"a {type(given).__name__} is no picture: give a path, bytes, a PIL image, a matplotlib figure, "
        "an array, or pdf_page(path, number)"
    )


def _found(given: Any) -> Any:
    """In place of a file's name where it is in the container, or why it is not there; all else as it is."""
    try:
        return located(given) if isinstance(given, (str, Path)) else given
    except (ValueError, wire.HostCallError) as error:
        return error


def located(given: str | Path) -> bytes | Path:
    """Where a file is in the container: of a loaded one by its name too, and of one that the user named by
    its path on the host. The bytes of base64. Raises ValueError, HostCallError.
    """
    if isinstance(given, Picture):
        return Path(given)
    text = str(given)
    if isinstance(given, str) and (data := _base64(text)) is not None:
        return data
    if re.match(r"https?://", text, re.IGNORECASE):
        raise ValueError("the kernel has no network: only files that the user named, and what code makes")
    if isinstance(loaded := files.files.get(text), Picture):
        return Path(loaded)
    if path := files.path_of(text):
        return Path(wire.call("file", {"path": path})["inside"])
    if "\0" in text or len(text) > 4096:
        raise ValueError("a text is no picture: give a path, bytes or a PIL image")
    if (path_here := Path(text)).exists():
        return path_here
    if Path(text).is_absolute() or re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return Path(wire.call("file", {"path": text})["inside"])
    raise ValueError(
        f"there is no file {text[:200]!r}, and no loaded one of that name: list_files() has them"
    )


def _base64(text: str) -> bytes | None:
    """The bytes of a data: address, and of base64 that is none; with "data:" twice, or line breaks, too."""
    bare = text
    while found := _DATA.match(bare):
        bare = bare[found.end() :]
    said = bare is not text
    if not said and not _BASE64.match(text):
        return None
    try:
        data = base64.b64decode("".join(bare.split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if said and not data:
        raise ValueError("the base64 of this data: address is damaged")
    return data if said or begins_picture(data) else None


def _figure(figure: Any) -> Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    return opened(file)


def _representation(given: Any) -> bytes | None:
    """What an object shows of itself in a notebook."""
    for name in ("_repr_png_", "_repr_jpeg_"):
        shown = getattr(given, name, None)
        value = shown() if callable(shown) else None
        value = value[0] if isinstance(value, tuple) else value
        if value:
            return base64.b64decode(value) if isinstance(value, str) else bytes(value)
    data = getattr(given, "data", None)  # IPython's Image of another kind
    return data if isinstance(data, bytes) else None


def _array(given: Any) -> Image:
    """Rows of pixels: grey (H x W), or with 3 or 4 channels last (H x W x 3)."""
    import numpy
    from PIL import Image

    pixels = numpy.asarray(given)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or not pixels.size:
        more = (
            " Put the channels last: array.transpose(1, 2, 0)."
            if pixels.ndim == 3 and len(pixels) in (1, 3, 4)
            else ""
        )
        raise ValueError(f"an array of shape {pixels.shape} is no picture: H x W, or H x W x 3 or 4.{more}")
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"an array of {pixels.dtype} has no pixels: make it uint8")
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and low >= 0 and high <= 1):
        pixels = pixels * 255.0
    elif not (low >= 0 and high <= 255):  # false for NaN, too
        raise ValueError(
            f"its values go from {low} to {high}: scale them to 0 to 255, as uint8 (or to 0 to 1, as float)"
        )
    return Image.fromarray(
        numpy.ascontiguousarray(pixels.round() if pixels.dtype.kind == "f" else pixels).astype("uint8")
    )


def _upright(image: Image, side: int, *, own: bool) -> Image:
    """Decoded, its first frame, and turned as its camera was held. `own`: nobody else has it."""
    from PIL import ImageOps

    if own and image.format in SCALED:  # decoded at no more than twice what is wanted
        scale = min(1.0, 2 * side / max(image.size))
        image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    if not all(image.size):
        raise ValueError("it has no pixels")
    bounded(image)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers may raise anything
        raise Unreadable(f"it is damaged or cut off: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(image)
    except Exception:  # of metadata that is damaged: the picture is as it is
        return image


def _scaled(image: Image, side: int) -> Image:
    """No larger than `side`, and no smaller than models take."""
    from PIL.Image import Resampling

    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "L" if image.mode == "1" else "RGB")
    elif image.mode != "RGBA" and image.has_transparency_data:
        image = image.convert("RGBA")
    width, height = image.size
    if max(width, height) > side:
        scale = side / max(width, height)
        return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Resampling.LANCZOS)
    times = min(-(-LEAST // min(width, height)), side // max(width, height))
    return image.resize((width * times, height * times), Resampling.NEAREST) if times > 1 else image


def _eight_bits(image: Image) -> Image:
    """Grey of more than eight bits: of 16 by as many as are used, of other numbers from the least to the
    largest.
    """
    import numpy
    from PIL import Image

    pixels = numpy.asarray(image)
    if image.mode.startswith("I;16"):
        low, high = 0.0, float((1 << max(8, int(pixels.max()).bit_length())) - 1)
    else:
        pixels = numpy.nan_to_num(pixels.astype("float64"))
        low, high = float(pixels.min()), float(pixels.max())
    return Image.fromarray(((pixels - low) * (255.0 / ((high - low) or 1.0))).round().astype("uint8"))


def _flat(image: Image) -> Image:
    """Without transparency, without metadata, and no narrower than models take."""
    from PIL import Image, ImageStat

    ground = "white"
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and alpha.getbbox() and ImageStat.Stat(image.convert("L"), alpha).mean[0] > _LIGHT:
        ground = "black" if alpha.getextrema()[0] < 128 else "white"
    size = max(image.width, LEAST), max(image.height, LEAST)
    flat = Image.new("L" if image.mode == "L" else "RGB", size, ground)
    flat.paste(image.convert(flat.mode), (0, 0), alpha)
    return flat


def parts(pictures: Iterable[Encoded]) -> dict[str, Any]:
    """What they are in the body of a call."""
    made = list(pictures)
    if not made:
        return {}
    return {
        "images": [one.data for one in made],
        "previews": [base64.b64encode(one.preview).decode() for one in made],
    }
