"""An image too large to be decoded at once: the same mask, from rows that are read as they are needed."""

import numpy as np
import pytest
import torch
from PIL import Image

from hardy.data import decoding
from hardy.data import parts as module
from hardy.data.decoding import read_image
from hardy.data.parts import Parts
from hardy.engine import classify, pictures, predictor
from hardy.engine.predict import predict, predict_all
from hardy.errors import InputError
from hardy.networks.building.create import create

pytest.importorskip("pyvips", reason="parts need pyvips: pip install 'hardy[large]'")
ALL = slice(0, 10**9)


def photo(height, width, seed=0):
    draw = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(draw.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11").eval()


@pytest.fixture
def small_bound(monkeypatch):
    """As if 3999 pixels were the most that are predicted, and decoded, at once."""
    monkeypatch.setattr(predictor, "MOST_PIXELS", 3999)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 3999)
    monkeypatch.setattr(classify, "MOST_PIXELS", 3999)


def turned(place):
    exif = Image.Exif()
    exif[0x0112] = place
    return exif


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("jpg", {}), ("tif", {"compression": "tiff_lzw"})])
def test_the_pixels_are_those_of_decoding_at_once(tmp_path, mode, ending, options):
    if ending == "jpg" and mode in ("1", "P"):
        pytest.skip("JPEG has no such mode")
    file = tmp_path / f"a.{ending}"
    Image.fromarray(photo(150, 90)).convert(mode).save(file, **options)
    parts = Parts(file)
    found = [parts.take(slice(top, top + 60), slice(0, 90)).copy() for top in (0, 40, 80, 90)]
    whole = read_image(file)
    for top, rows in zip((0, 40, 80, 90), found, strict=True):
        assert np.array_equal(rows, whole[top : top + 60])
    assert parts.most_held <= 2 * 60 * 90


@pytest.mark.parametrize("place", range(2, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_turned_image_is_upright(tmp_path, place, ending):
    file = tmp_path / f"a.{ending}"
    Image.fromarray(photo(70, 90)).save(file, exif=turned(place))
    parts = Parts(file)
    assert np.array_equal(parts.take(ALL, ALL), read_image(file))


def test_the_mask_and_the_confidence_have_the_same_bytes(network, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(photo(100, 80, ord(name))).save(tmp_path / "in" / f"{name}.png")
    options = {"window": (32, 48), "draw": ["confidence"]}
    whole = predict(network, tmp_path / "in", tmp_path / "whole", **options)
    monkeypatch.setattr(predictor, "MOST_PIXELS", 3999)
    held = []
    take = Parts.take

    def watched(self, *region):
        found = take(self, *region)
        held.append(self.most_held)
        return found

    monkeypatch.setattr(Parts, "take", watched)
    parts = predict(network, tmp_path / "in", tmp_path / "parts", batch=2, **options)
    assert 0 < max(held) <= 2 * 32 * 80
    for one, other in zip(whole, parts, strict=True):
        assert one.read_bytes() == other.read_bytes()
        sure, again = (path.parent / "confidence" / path.name for path in (one, other))
        assert sure.read_bytes() == again.read_bytes()
    left = sorted(path.name for path in (tmp_path / "parts").rglob("*"))
    assert left == ["a.png", "a.png", "b.png", "b.png", "confidence"]
    assert predict_all(network, tmp_path / "in", tmp_path / "parts", **options).kept == 2


def test_what_cannot_be_read_in_parts_is_named(network, tmp_path, small_bound):
    image = Image.fromarray(photo(80, 60))
    place = tmp_path / "in"
    place.mkdir()
    image.save(place / "a.png")
    image.save(place / "b.jpg", progressive=True)
    image.save(place / "c.bmp")
    image.convert("CMYK").save(place / "d.jpg")
    image.putalpha(7)
    image.save(place / "e.png")
    Image.fromarray(np.zeros((80, 60), dtype=np.uint16)).save(place / "f.png")
    whole = (place / "a.png").read_bytes()
    (place / "g.png").write_bytes(whole[: len(whole) // 2])
    found = predict_all(network, place, tmp_path / "out", window=(32, 32))
    assert [path.name for path in found.masks] == ["a.png"]
    lines = (
        "a progressive JPEG cannot be read in parts",
        "BMP cannot be read in parts",
        "its colours are cmyk",
        "transparent pixels",
        "more than 8 bits per channel",
        "damaged or not an image",
    )
    for reason, line in zip(found.skipped.values(), lines, strict=True):
        assert line in reason
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_parts_need_windows_and_no_drawings(network, tmp_path, small_bound, monkeypatch):
    Image.fromarray(photo(80, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "MOST_PIXELS", 3999)
    for options, line in (
        ({}, "80x60 pixels .* give a window such as 1024x1024"),
        ({"window": (32, 32), "overlay": True}, "80x60 pixels .* leave out overlay and coloured"),
    ):
        with pytest.raises(InputError, match=line):
            predict(network, tmp_path / "a.png", tmp_path / "out", **options)
    monkeypatch.setattr(module, "MOST_PIXELS", 4000)
    with pytest.raises(InputError, match="80x60 pixels are more than"):
        predict(network, tmp_path / "a.png", tmp_path / "out", window=(32, 32))


def test_without_the_package_the_extra_is_named(network, tmp_path, small_bound, monkeypatch):
    def missing(name):
        raise ImportError(name)

    Image.fromarray(photo(80, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'hardy\[large\]'"):
        predict(network, tmp_path / "a.png", tmp_path / "out", window=(32, 32))
