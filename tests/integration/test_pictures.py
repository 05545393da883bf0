"""Pictures from a real kernel to the sub model: of every kind that code has, recorded, and replayed offline."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Completion, Message, Picture
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask
from rlm_kernel.session.replay import replay
from rlm_kernel.session.resume import fork
from rlm_kernel.trace.reader import read_trace
from tests.support.filekinds import pdf
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("files")]
SHOW = """
import matplotlib.pyplot as plt
from PIL import Image
plt.plot([1, 2])
plt.show()
display(files["alpha.png"])
Image.effect_noise((4000, 3000), 50).convert("RGB")
"""
CODE = """
import io, asyncio
import numpy as np
import matplotlib.pyplot as plt
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
photo, scan = files["photo.jpg"], files["alpha.png"]
figure, axes = plt.subplots()
axes.plot([1, 2])
buffer = io.BytesIO()
Image.new("CMYK", (50, 50), (255, 0, 0, 0)).save(buffer, "TIFF")
Image.new("RGB", (30, 30), "red").save("/tmp/made.webp")
page = pdf_page("two.pdf", 2)
seen = {"opened": Image.open(photo).size}
seen["kinds"] = llm_query("kinds", images=[
    photo, "alpha.png", "HERE/pictures/photo.jpg", "HERE/beside.png", "/tmp/made.webp", buffer.getvalue(),
    Image.open("/tmp/made.webp"), figure, axes, plt, np.zeros((40, 60, 3)), page, photo.open()])
seen["batch"] = llm_query_batched(["b", "c", "d"], images=[photo, [scan, photo], None])
seen["failed"] = [type(item).__name__ for item in llm_query_batched(["b", "c"], images=["/nowhere.png", photo])]
seen["async"] = await asyncio.gather(*(allm_query("a", images=[picture]) for picture in (photo, scan)))
with ThreadPoolExecutor(4) as pool:
    seen["threads"] = list(pool.map(lambda side: llm_query("t", images=[photo], image_side=side), [100, 200, 100]))
seen["value"] = llm_query("v", images=photo, schema=int)
seen["large"] = llm_query("größer " * 100_000, images=[np.random.default_rng(0).integers(0, 255, (1500, 1500, 3))] * 4)[:20]
errors = []
for wrong in (["notes.txt"], ["two.pdf"], ["/etc/passwd"], [photo] * 21, [3], ["nothing.png"]):
    try:
        llm_query("wrong", images=wrong)
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
print(*errors, sep="\\n")
print(list_files())
FINAL(seen)
"""


class Seeing(ScriptedModels):
    """Sub models that say which pictures they were shown."""

    def __init__(self, root: Any) -> None:
        super().__init__(root)
        self.shown: list[Sequence[Picture]] = []
        self.roots: list[Message] = []

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        if options["role"] == "root":
            assert len(self.roots) < 2, messages[-1]["content"]
            self.roots.append(messages[-1])
            return await super().complete(messages, **options)
        pictures = messages[-1].get("images", ())
        self.shown.append(pictures)
        prompt = messages[-1]["content"]
        sizes = [f"{picture.width}x{picture.height}" for picture in pictures]
        text = str(len(pictures)) if prompt.startswith("v") else f"{prompt[:6]} {' '.join(sizes)}".strip()
        return Completion(text, "scripted/sub", cost=0.0)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


async def test_pictures_of_every_kind_reach_the_sub_model_are_recorded_and_replay_offline(
    isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    given: Mapping[str, bytes] = {
        "photo.jpg": saved(Image.new("RGB", (3000, 2000), "red"), "JPEG", exif=exif),
        "alpha.png": saved(Image.new("RGBA", (100, 60), (0, 0, 255, 128)), "PNG"),
        "two.pdf": pdf("first", "second"),
        "notes.txt": b"a picture of the pump",
        "broken.png": b"\x89PNG\r\n\x1a\n",
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }
    for name, data in given.items():
        (folder / name).write_bytes(data)
    (tmp_path / "beside.png").write_bytes(given["alpha.png"])
    models = Seeing([repl(SHOW), repl(CODE.replace("HERE", str(tmp_path)))])
    trace = tmp_path / "t.ipynb"
    settings = load_settings(overrides={"sandbox.memory": "1g", "prompt.images": True})
    result = await ask(
        f"What is in them, and in {tmp_path}/beside.png?",
        [folder],
        settings=settings,
        trace=trace,
        models=models,
    )

    assert result.answer is not None, read_trace(trace)
    seen = json.loads(result.answer)
    first = models.roots[0]["content"]
    assert [(one.width, one.height) for one in models.roots[1]["images"]][1:] == [(100, 60), (1568, 1176)]
    assert "You see 3 pictures of the output above" in models.roots[1]["content"]
    assert seen["opened"] == [3000, 2000]
    photo, alpha = "1045x1568", "100x60"
    assert seen["kinds"].split()[1:6] == [photo, alpha, photo, alpha, "60x60"]
    assert seen["kinds"].split()[6:] == [
        "50x50", "60x60", "640x480", "640x480", "640x480", "60x40", "1568x784", photo,
    ]  # fmt: skip
    assert seen["batch"] == [f"b {photo}", f"c {alpha} {photo}", "d"]
    assert seen["failed"] == ["CallFailed", "str"]
    assert seen["async"] == [f"a {photo}", f"a {alpha}"]
    assert seen["threads"] == ["t 67x100", "t 133x200", "t 67x100"]
    assert seen["value"] == 1
    assert seen["large"].startswith("größe")
    assert "photo.jpg (JPEG picture, 3,000 x 2,000 pixels)" in first
    assert "alpha.png (PNG picture, 100 x 60 pixels)" in first
    assert "broken.png: left out" in first
    assert "HEIC is not read here: save it as JPEG" in first

    written = read_trace(trace)
    cell, shown = (
        next(one for one in written.cells if one.id == name) for name in ("turn-02-a", "turn-02-a-pictures")
    )
    sent_once = {picture.digest for pictures in models.shown for picture in pictures}
    assert shown.source.count("](attachment:") == len(sent_once)
    told = "".join(output.get("text", "") for output in cell.outputs)
    for words in (
        "PictureError: the picture (notes.txt) cannot be sent: it is no picture that can be read here",
        "it is a PDF: give a page of it",
        "21 pictures, and a call takes 20",
        "a int is no picture",
        "there is no file 'nothing.png', and no loaded one",
    ):
        assert words in told
    calls = [call for call in cell.meta.calls if call.kind == "llm_query"]
    noted = [image for call in calls for image in call.images]
    sent = [picture for pictures in models.shown for picture in pictures]
    assert {image.digest for image in noted} == {picture.digest for picture in sent}
    assert len(noted) == len(sent)
    previewed = [image.digest for image in noted if image.preview]
    assert sorted(previewed) == sorted(sent_once)
    assert len(trace.read_bytes()) < 2_000_000

    again = await replay(trace)
    assert again.same, again

    forking = Seeing([repl("FINAL(len(context))")])
    changes = {"sandbox.memory": "1g", "prompt.images": True}
    forked = await fork(trace, at="turn-01-a", out=tmp_path / "f.ipynb", changes=changes, models=forking)
    assert forked.answer == "4"
    assert forking.roots[0]["images"] == models.roots[1]["images"]
