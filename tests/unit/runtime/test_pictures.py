"""Pictures for a model: what code can have as one, and what is made of it."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import pickle
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from rlm_contract import MAX_ALL_PICTURES, MAX_PICTURE, MAX_PREVIEW, PREVIEW_SIDE
from rlm_runtime import files, picturefile, pictures, wire
from rlm_runtime.formats import read_file
from rlm_runtime.handover import Handover
from rlm_runtime.pdfpages import pdf_page
from rlm_runtime.picturefile import Picture
from rlm_runtime.unpacking import Unreadable

from rlm_kernel.engine.pictures import read
from tests.support.filekinds import pdf

ORIENTATION = 0x0112
SIDE = 1568


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def encoded(images: Any, side: Any = SIDE) -> list[pictures.Encoded]:
    return pictures.encoded(pictures.listed(images), side)


def sent(picture: Any, side: int = SIDE) -> Image.Image:
    """A picture as the model gets it, which the host takes."""
    (made,) = encoded([picture], side)
    taken = read(made.data)
    shown = Image.open(io.BytesIO(made.data))
    shown.load()
    assert (taken.width, taken.height) == shown.size
    assert max(shown.size) <= side
    assert not shown.getexif()
    assert not {"icc_profile", "exif", "comment", "xmp", "Software"} & set(shown.info)
    small = read(made.preview, most=MAX_PREVIEW, side=PREVIEW_SIDE)
    assert small.media_type == "image/jpeg"
    return shown.convert("RGB")


def halves(mode: str = "RGB", size: tuple[int, int] = (80, 40)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "red")
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, *size), "blue")
    return image.convert(mode)


def near(colour: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 40 for one, other in zip(colour, wanted, strict=True))


RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "ICO"])
def test_a_file_of_each_usual_format_is_sent_as_it_looks(form: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(saved(halves(size=(128, 64)), form))
    for source in (
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
    ):
        shown = sent(source)
        assert near(shown.getpixel((5, 20)), RED)
        assert near(shown.getpixel((shown.width - 5, 20)), BLUE)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV", "PA"]
)
def test_a_picture_of_each_mode_of_pil_is_sent(mode: str) -> None:
    image = Image.new("L", (80, 40), 0)
    ImageDraw.Draw(image).rectangle((40, 0, 80, 40), 255)
    if mode == "I;16":
        image = Image.fromarray(numpy.asarray(image).astype("uint16") * 257)
    elif mode == "HSV":
        image = image.convert("RGB").convert("HSV")
    else:
        image = image.convert(mode)
    shown = sent(image)
    assert near(shown.getpixel((5, 20)), BLACK)
    assert near(shown.getpixel((75, 20)), WHITE)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_was_held(turn: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image = halves()
    stored = image.transpose(Image.Transpose(undo[turn])) if turn > 1 else image
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        shown = sent(saved(stored, form, exif=exif))
        assert shown.size == (80, 40), form
        assert near(shown.getpixel((5, 20)), RED), form
        assert near(shown.getpixel((75, 20)), BLUE), form


def test_damaged_exif_costs_the_picture_nothing() -> None:
    data = saved(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))
    assert near(sent(data).getpixel((5, 20)), RED)


def test_what_is_transparent_is_white_and_what_is_drawn_in_white_can_be_seen() -> None:
    clear = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((0, 0, 30, 60), (255, 0, 0, 255))
    assert near(sent(clear).getpixel((50, 30)), WHITE)
    for form in ("PNG", "GIF", "WEBP"):
        assert near(sent(saved(clear, form)).getpixel((50, 30)), WHITE), form
    palette = clear.quantize(8)
    assert near(sent(saved(palette, "PNG")).getpixel((50, 30)), WHITE)
    light = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    ImageDraw.Draw(light).rectangle((0, 0, 30, 60), (255, 255, 255, 255))
    shown = sent(light)
    assert near(shown.getpixel((10, 30)), WHITE)
    assert near(shown.getpixel((50, 30)), BLACK)
    grey = Image.new("L", (40, 40), 7)
    assert near(sent(saved(grey, "PNG", transparency=7)).getpixel((5, 5)), WHITE)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (1568, 1176)),
        ((30_000, 10), (1568, 32)),
        ((3, 5000), (32, 1568)),
        ((1, 1), (32, 32)),
        ((20, 10), (80, 40)),
        ((1568, 1568), (1568, 1568)),
        ((40, 40), (40, 40)),
    ],
)
def test_a_picture_is_no_larger_and_no_smaller_than_models_take(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    for form in ("PNG", "JPEG"):
        assert sent(saved(Image.new("RGB", size, "red"), form)).size == expected
    assert near(sent(Image.new("RGB", (1, 1), "red")).getpixel((31, 31)), RED)


def test_the_longer_side_can_be_chosen() -> None:
    image = Image.new("RGB", (6000, 3000), "red")
    assert sent(image, 3000).size == (3000, 1500)
    for wrong in (0, 5000, 1.5, "large", True):
        with pytest.raises(wire.PictureError, match="image_side is a number of pixels from 32 to 4,000"):
            encoded([image], wrong)  # type: ignore[arg-type]


def test_what_no_format_makes_small_is_sent_at_a_lower_quality_and_all_together_fit() -> None:
    noise = Image.frombytes("RGB", (1500, 1500), random.Random(1).randbytes(6_750_000))
    made = encoded([noise] * 20, 1500)
    assert sum(len(one.data) for one in made) <= MAX_ALL_PICTURES
    assert all(len(one.data) <= MAX_PICTURE for one in made)
    assert all(len(one.preview) <= MAX_PREVIEW for one in made)


def test_the_same_picture_gives_the_same_bytes() -> None:
    data = saved(halves(size=(900, 700)), "JPEG")
    (first,), (second,) = encoded([data]), encoded([data])
    assert first.digest == second.digest


def test_the_first_frame_of_an_animation_is_sent() -> None:
    frames = [halves(), Image.new("RGB", (80, 40), "white")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        assert near(sent(data).getpixel((5, 20)), RED), form


def test_grey_of_few_bits_in_sixteen_is_not_black() -> None:
    twelve = numpy.full((40, 40), 4095, "uint16")
    assert near(sent(Image.fromarray(twelve)).getpixel((5, 5)), WHITE)


@pytest.mark.parametrize(
    "array",
    [
        numpy.full((40, 50, 3), 255, "uint8"),
        numpy.full((40, 50), 255, "uint8"),
        numpy.full((40, 50, 1), 255, "int64"),
        numpy.ones((40, 50, 3), "float32"),
        numpy.ones((40, 50), bool),
        numpy.full((40, 50, 4), 255.0),
    ],
)
def test_an_array_of_pixels_is_a_picture(array: Any) -> None:
    shown = sent(array)
    assert shown.size == (50, 40)
    assert near(shown.getpixel((5, 5)), WHITE)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (numpy.zeros((3, 40, 50)), r"channels last: array.transpose\(1, 2, 0\)"),
        (numpy.zeros((2, 3, 4, 5)), "shape"),
        (numpy.zeros((0, 5)), "shape"),
        (numpy.full((40, 40), 1000), "scale them to 0 to 255"),
        (numpy.full((40, 40), -1.0), "scale them"),
        (numpy.full((40, 40), numpy.nan), "scale them"),
        (numpy.full((40, 40), "a"), "no pixels: make it uint8"),
    ],
)
def test_an_array_that_is_none_is_told_why(array: Any, told: str) -> None:
    with pytest.raises(wire.PictureError, match=told):
        encoded([array])


def test_figures_axes_and_pyplot_are_pictures() -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.close("all")
    with pytest.raises(wire.PictureError, match="no figure: draw it in the same cell"):
        encoded([pyplot])
    figure, axes = pyplot.subplots()
    axes.plot([1, 2, 3])
    sizes = {sent(given).size for given in (figure, axes, pyplot)}
    pyplot.close("all")
    assert sizes == {(640, 480)}


def test_what_an_object_shows_in_a_notebook_is_a_picture() -> None:
    from IPython.display import Image as Shown

    data = saved(halves(), "PNG")
    assert near(sent(Shown(data=data)).getpixel((5, 20)), RED)
    assert near(sent(Shown(data=saved(halves(), "JPEG"), format="jpeg")).getpixel((5, 20)), RED)

    class Drawn:
        def _repr_png_(self) -> str:
            return base64.b64encode(data).decode()

    assert near(sent(Drawn()).getpixel((5, 20)), RED)


def test_base64_is_taken_however_it_was_made() -> None:
    plain = base64.b64encode(saved(halves(), "PNG")).decode()
    wrapped = base64.encodebytes(saved(halves(), "PNG")).decode()
    for text in (
        plain,
        wrapped,
        f"data:image/png;base64,{plain}",
        f"data:image/jpg;charset=utf-8;base64,{wrapped}",  # what it is said to be counts for nothing
        f"data:image/png;base64,data:image/png;base64,{plain}",
    ):
        assert near(sent(text).getpixel((5, 20)), RED)
    with pytest.raises(wire.PictureError, match="base64 of this data: address is damaged"):
        encoded([f"data:image/png;base64,{plain[:-3]}%%"])


PNG = saved(halves(), "PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_of(width: int, height: int) -> bytes:
    """A small file that claims to have so many pixels."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return PNG[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (b"hello", r"no picture that can be read here \(it begins 'hello'\). Save it as PNG or JPEG"),
        (b"%PDF-1.7\n", r"it is a PDF: give a page of it, images=\[pdf_page\(path, 1\)\]"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read here: save it as JPEG"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"></svg>', "SVG is text"),
        (b"\xef\xbb\xbf<svg/>", "SVG is text"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(30), "it is damaged: could not create decoder"),
        (b"<html>502 Bad Gateway</html>", "it begins '<html>502"),
        (PNG[:60], "damaged or cut off"),
        (saved(halves(size=(400, 400)), "JPEG")[:700], "damaged or cut off"),
        (png_of(12_000, 12_000), "12,000 x 12,000 pixels, too many to be decoded"),
        (png_of(60_000, 60_000), "too many pixels to be decoded. Scale it down"),
        (png_of(0, 10), "picture cannot be sent"),
    ],
)
def test_what_is_no_picture_is_told_what_to_do(
    data: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picturefile.memory, "total", lambda: 2 << 30)
    with pytest.raises(wire.PictureError, match=told):
        encoded([data])


def test_a_wide_photograph_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picturefile.memory, "total", lambda: 64 << 20)  # room for 2 million pixels
    data = saved(Image.new("RGB", (30_000, 2_000), "red"), "JPEG")
    assert sent(data).size == (1568, 105)


def test_which_picture_is_wrong_is_told() -> None:
    with pytest.raises(
        wire.PictureError, match=r"picture 2 of 3 cannot be sent: there is no file 'nowhere.png'"
    ):
        encoded([PNG, Path("nowhere.png"), PNG])
    with pytest.raises(wire.PictureError, match="a call takes 20: make several calls"):
        encoded([PNG] * 21)
    for wrong in (None, 3, object(), {"a"}):
        with pytest.raises(wire.PictureError, match="is no picture: give a path, bytes"):
            encoded([wrong])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://example.com/a.png", "no network"),
        ("no-such.png", "no file 'no-such.png', and no loaded one"),
        ("long " * 2000, "a text is no picture"),
        ("nul\0.png", "a text is no picture"),
    ],
)
def test_a_text_that_names_no_picture_is_told_why(text: str, told: str) -> None:
    with pytest.raises(wire.PictureError, match=told):
        encoded([text])


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", *[saved(halves(), form)[:200] for form in ("PNG", "JPEG", "GIF", "WEBP")]]),
)
def test_bytes_of_any_kind_are_a_picture_or_told(tail: bytes, head: bytes) -> None:
    with contextlib.suppress(wire.PictureError):
        encoded([head + tail])


def test_pictures_are_given_as_a_list_or_one_or_under_names() -> None:
    assert pictures.listed(None) == []
    assert pictures.listed(1) == [1]
    assert pictures.listed((1, 2)) == [1, 2]
    assert pictures.listed({"x": 1}) == [1]
    assert pictures.listed(iter([1, 2])) == [1, 2]


def test_a_page_of_a_pdf_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("first", "second"))
    for source in (path, str(path), path.read_bytes()):
        page = pdf_page(source, 2)
        assert max(page.size) == SIDE
        assert max(sent(page).size) == SIDE
    assert max(pdf_page(path, side=400).size) == 400
    for wrong in (0, 3, "1"):
        with pytest.raises(wire.PictureError, match="pages 1 to 2, and no page"):
            pdf_page(path, wrong)  # type: ignore[arg-type]
    with pytest.raises(wire.PictureError, match="cannot be opened"):
        pdf_page(b"hello")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(halves(size=(640, 480)), "JPEG"))
    return path


def test_a_picture_file_is_read_as_a_path_that_knows_what_it_is(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_file(photo, "photo.jpg")
    assert isinstance(read.text, Picture)
    assert read.text == str(photo)  # for Image.open, and for all else that reads files
    assert repr(read.text) == "<photo.jpg: JPEG picture, 640 x 480 pixels>"
    shown = pictures.shown(read.text)
    assert list(shown) == ["text/plain", "image/jpeg"]
    assert pickle.loads(pickle.dumps(read.text)).about() == read.text.about()
    assert copy.copy(read.text) == str(photo)
    with read.text.open() as image:
        assert image.size == (640, 480)
    assert sent(read.text).size == (640, 480)
    monkeypatch.setattr(files, "files", {"photo.jpg": read.text})
    assert sent("photo.jpg").size == (640, 480)  # by its name, too


def test_a_picture_is_known_by_its_content_where_its_name_says_nothing(photo: Path, tmp_path: Path) -> None:
    for name in ("photo", "photo.txt", "photo.dat"):
        assert isinstance(read_file(photo, name).text, Picture)
    text = tmp_path / "a.txt"
    text.write_text("GIF89a is how a GIF file begins.")
    assert read_file(text, "a.txt").text == "GIF89a is how a GIF file begins."


def test_a_file_that_is_no_picture_whatever_its_name_says_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("<html>not found</html>")
    with pytest.raises(Unreadable, match="it begins '<html>not found"):
        read_file(path, "a.png")


Loaded = Callable[[dict[str, Any]], None]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    def load(texts: dict[str, Any]) -> None:
        monkeypatch.setattr(files, "_active", [texts])
        monkeypatch.setattr(files, "files", texts)

    return load


def test_pictures_beside_texts_are_described_and_not_searched(photo: Path, loaded: Loaded) -> None:
    loaded({"photo.jpg": read_file(photo, "photo.jpg").text, "notes.txt": "a picture of the pump"})
    told = files.describe()
    assert told["pictures"] == [["photo.jpg", "JPEG picture, 640 x 480 pixels"]]
    assert [hit.file for hit in files.grep("picture")] == ["notes.txt"]
    assert list(files.chunks(100)) == ["a picture of the pump"]
    assert files.list_files()[0] == "photo.jpg: JPEG picture, 640 x 480 pixels"


def test_a_picture_of_the_users_own_stays_as_it_is(photo: Path) -> None:
    with Image.open(photo) as image:
        sent(image, 100)
        assert image.size == (640, 480)


@pytest.mark.parametrize("encode", [lambda data: data, lambda data: base64.encodebytes(data).decode()])
def test_what_a_cell_displays_is_scaled_where_it_is_large(encode: Callable[[bytes], Any]) -> None:
    from rlm_runtime.display import _scaled

    small = {"image/png": encode(saved(Image.effect_noise((300, 200), 50), "PNG")), "text/plain": "<Figure>"}
    assert _scaled(small) == small
    large = _scaled(
        {"image/png": encode(saved(Image.effect_noise((4000, 3000), 50), "PNG")), "text/plain": "x"}
    )
    assert list(large) == ["text/plain", "image/jpeg"]
    assert Image.open(io.BytesIO(base64.b64decode(large["image/jpeg"]))).size == (1568, 1176)
    drawing = _scaled({"image/png": encode(saved(halves(size=(9000, 2001)), "PNG"))})
    assert list(drawing) == ["image/png"]
    broken = {"image/png": encode(b"no picture" * 1000), "image/jpeg": 7}
    assert _scaled(broken) == broken


def test_a_picture_is_handed_to_a_child_as_its_file_and_not_as_a_text(
    photo: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = read_file(photo, "photo.jpg").text
    loaded({"photo.jpg": picture})
    monkeypatch.setattr(files, "path_of", {"photo.jpg": "/home/me/photo.jpg"}.get)
    assert Handover(picture).given == {"files": ["/home/me/photo.jpg"]}
    with pytest.raises(TypeError, match=r"llm_query\(question, images=\[picture\]\)"):
        Handover(picture, by_name=False)


def test_what_raises_as_it_is_drawn_is_told_and_costs_its_own_item() -> None:
    class Broken:
        def _repr_png_(self) -> bytes:
            raise ZeroDivisionError("no plot")

    with pytest.raises(wire.PictureError, match="cannot be sent: ZeroDivisionError: no plot"):
        encoded([Broken()])
    with pytest.raises(wire.PictureError, match="it has no pixels"):
        encoded([Image.new("RGB", (0, 0))])
    with pytest.raises(wire.Cancelled):
        encoded([wire.Cancelled("the host has gone")])
