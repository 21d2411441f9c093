"""Masks on disk are the network's classes, in the label space's colours, one whole file per image."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hardy.engine import videos
from hardy.engine.classify import best, classes
from hardy.engine.drawing import mask_image
from hardy.engine.predict import predict, predict_all
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap


class Brightest(nn.Module):
    """Class 0, 1 or 2 where red, green or blue is strongest."""

    def forward(self, x):
        return torch.cat([x, x.new_full((len(x), 8, *x.shape[-2:]), -9.0)], 1)


@pytest.fixture
def network():
    return wrap(Brightest(), "camvid11", mean=(0, 0, 0), std=(1, 1, 1))


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def test_a_folder_of_images_of_several_sizes(network, tmp_path):
    images = {
        name: save(tmp_path / "photos" / f"{name}.png", photo(*size, seed))
        for seed, (name, size) in enumerate({"a": (5, 7), "b": (5, 7), "c": (5, 7), "sub/d": (9, 4)}.items())
    }
    written = predict(network, tmp_path / "photos", tmp_path / "masks", batch=2)
    assert written == [tmp_path / "masks" / f"{name}.png" for name in images]
    for name, path in zip(images, written, strict=True):
        with Image.open(path) as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), images[name].argmax(2))
            colours = np.array(mask.getpalette()).reshape(-1, 3)
        assert tuple(colours[1]) == network.label_space.colours[1]
    assert sorted(path.name for path in (tmp_path / "masks").rglob("*")) == ["a.png", "b.png", "c.png", "d.png", "sub"]


def test_ids_keep_their_number_and_the_ignored_are_black():
    label_space = create("tiny", "camvid11").label_space
    ids = np.array([[0, 10, 255]], dtype=np.uint8)
    image = mask_image(ids, label_space)
    assert np.array_equal(np.array(image), ids)
    assert [image.convert("RGB").getpixel((x, 0)) for x in range(3)] == [
        label_space.colours[0],
        label_space.colours[10],
        (0, 0, 0),
    ]


def test_an_array_and_a_file(network, tmp_path):
    image = save(tmp_path / "one.png", photo(6, 8))
    assert predict(network, image, tmp_path / "x") == [tmp_path / "x" / "image.png"]
    assert predict(network, tmp_path / "one.png", tmp_path / "x") == [tmp_path / "x" / "one.png"]
    masks = [np.array(Image.open(tmp_path / "x" / f"{name}.png")) for name in ("image", "one")]
    assert np.array_equal(*masks)
    assert np.array_equal(masks[0], image.argmax(2))


def test_the_mask_has_the_size_of_the_image_whatever_the_network_sees(network, tmp_path):
    seen = []
    network.module.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[:, :15, 0], image[:, 15:, 2] = 200, 200
    # Images of different sizes share a batch when the network sees all at one size.
    save(tmp_path / "in" / "a.png", image)
    save(tmp_path / "in" / "b.png", image[:10])
    masks = predict(network, tmp_path / "in", tmp_path / "out", size=(10, 16), batch=2)
    assert seen == [(2, 3, 10, 16)]
    for path, height in zip(masks, (20, 10), strict=True):
        with Image.open(path) as mask:
            ids = np.array(mask)
        assert ids.shape == (height, 30)
        assert (ids[:, :14] == 0).all()
        assert (ids[:, 16:] == 2).all()


def test_overlays_are_half_image_half_colour(network, tmp_path):
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[..., 1] = 100
    predict(network, image, tmp_path, overlay=True)
    with Image.open(tmp_path / "overlays" / "image.png") as overlay:
        red, green, blue = network.label_space.colours[1]
        assert overlay.getpixel((0, 0)) == (red // 2, (green + 100) // 2, blue // 2)


def test_masks_of_an_earlier_run_below_the_source_are_not_images(network, tmp_path):
    save(tmp_path / "a.png", photo(4, 4))
    for _ in range(2):
        assert predict(network, tmp_path, tmp_path / "masks") == [tmp_path / "masks" / "a.png"]


def test_the_network_stays_in_training_mode(tmp_path):
    network = create("tiny", "camvid11").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict(network, photo(32, 32), tmp_path)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_torn_image_is_named_and_leaves_no_torn_mask(network, tmp_path):
    save(tmp_path / "in" / "a.png", photo(64, 64))
    save(tmp_path / "in" / "b.png", photo(64, 64))
    whole = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.png"):
        predict(network, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "b.png").exists()


def test_a_disk_that_is_full_leaves_nothing_half_written(network, tmp_path, monkeypatch):
    def full(self, file, **_):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"image\.png: cannot be written: No space left"):
        predict(network, photo(4, 4), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_target_that_is_a_file_is_refused(network, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        predict(network, photo(4, 4), tmp_path / "out")


def test_bad_sources_are_refused_before_anything_is_written(network, tmp_path):
    target = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    save(tmp_path / "twins" / "a.png", photo(4, 4))
    save(tmp_path / "twins" / "a.bmp", photo(4, 4))
    save(tmp_path / "photos" / "a.png", photo(4, 4))
    for source, where, message in (
        (tmp_path / "empty", target, "holds no images"),
        (tmp_path / "missing", target, "missing"),
        (tmp_path / "twins", target, "same name"),
        (tmp_path / "photos", tmp_path / "photos", "overwrite"),
        (np.zeros((4, 4), dtype=np.uint8), target, "uint8"),
    ):
        with pytest.raises(InputError, match=message):
            predict(network, source, where)
    assert not target.exists()


def test_bad_arguments_are_refused(network, tmp_path):
    tiny = create("tiny", "camvid11")
    with pytest.raises(InputError, match=r"image: 8x40 pixels, but Tiny needs at least 16"):
        predict(tiny, photo(8, 40), tmp_path)
    with pytest.raises(InputError, match="size"):
        predict(tiny, photo(32, 32), tmp_path, size=(8, 8))
    with pytest.raises(InputError, match="batch 0"):
        predict(network, photo(4, 4), tmp_path, batch=0)
    with pytest.raises(InputError, match="one class per image"):
        predict(wrap(nn.Flatten(), "pacs7", image_level=True), photo(4, 4), tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- skipped, kept, drawn, found, moving


def test_what_cannot_be_read_is_skipped_and_the_rest_goes_on(network, tmp_path):
    for name in "abcd":
        save(tmp_path / "in" / f"{name}.png", photo(8, 8, ord(name)))
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "d.png").write_text("no image")
    found = predict_all(network, tmp_path / "in", tmp_path / "out", batch=2)
    assert found.masks == [tmp_path / "out" / f"{name}.png" for name in "ac"]
    assert list(found.skipped) == [str(tmp_path / "in" / f"{name}.png") for name in "bd"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    with pytest.raises(InputError, match=r"b\.png: damaged or not an image .*2 images were skipped"):
        predict(network, tmp_path / "in", tmp_path / "out")


@pytest.mark.costly
def test_images_that_pillow_reads_in_other_ways(network, tmp_path):
    """CMYK becomes RGB; 16 bits, animations and sizes beyond the bound are skipped and named."""
    image = photo(8, 9)
    (tmp_path / "in").mkdir()
    Image.fromarray(image).convert("CMYK").save(tmp_path / "in" / "cmyk ü.jpg")
    Image.fromarray(image[..., 0].astype(np.uint16)).save(tmp_path / "in" / "deep.png")
    frames = [Image.fromarray(photo(8, 9, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "in" / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "in" / "wide.png")
    found = predict_all(network, tmp_path / "in", tmp_path / "out dir")
    assert found.masks == [tmp_path / "out dir" / "cmyk ü.png"]
    reasons = [*found.skipped.values()]
    for reason, line in zip(reasons, ("grey image of more than 8 bits", "holds 3 images", "megapixels"), strict=True):
        assert line in reason


def test_a_second_call_writes_what_is_missing_or_has_changed(network, tmp_path):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", photo(8, 8, ord(name)))
    predict(network, tmp_path / "in", tmp_path / "out")
    seen = []
    network.module.register_forward_hook(lambda *_: seen.append(1))
    found = predict_all(network, tmp_path / "in", tmp_path / "out")
    assert (len(found.masks), found.kept, len(seen)) == (3, 3, 0)
    (tmp_path / "out" / "a.png").unlink()
    new = save(tmp_path / "in" / "b.png", photo(8, 8, 7))
    whole = (tmp_path / "out" / "c.png").read_bytes()
    (tmp_path / "out" / "c.png").write_bytes(whole[:20])
    found = predict_all(network, tmp_path / "in", tmp_path / "out")
    assert (found.masks, found.kept, len(seen)) == ([tmp_path / "out" / f"{n}.png" for n in "abc"], 0, 3)
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "b.png")), new.argmax(2))
    assert predict_all(network, tmp_path / "in", tmp_path / "out", size=(8, 8)).kept == 0
    assert predict_all(network, tmp_path / "in", tmp_path / "out", overlay=True).kept == 0
    assert predict_all(network, tmp_path / "in", tmp_path / "out", adapt="source").kept == 0


def test_another_network_writes_its_own_masks(tmp_path):
    image = photo(32, 32)
    torch.manual_seed(0)
    one, other = create("tiny", "camvid11"), create("tiny", "camvid11")
    predict(one, image, tmp_path)
    assert predict_all(other, image, tmp_path).kept == 0
    assert predict_all(other, image, tmp_path).kept == 1


def test_everything_that_is_drawn(network, tmp_path):
    image = np.zeros((10, 200, 3), dtype=np.uint8)
    image[..., 1], image[:, 150:, 2] = 100, 200
    predict(network, image, tmp_path, draw=["confidence", "coloured", "overlay"])
    ids = np.array(Image.open(tmp_path / "image.png"))
    colours = np.array(network.label_space.colours)
    assert np.array_equal(np.array(Image.open(tmp_path / "coloured" / "image.png")), colours[ids])
    logits = np.full(11, -9.0)
    logits[:3] = 0, 100 / 255, 0
    sure = np.exp(logits).max() / np.exp(logits).sum()
    confidence = Image.open(tmp_path / "confidence" / "image.png")
    assert confidence.size == (200, 10)
    assert confidence.getpixel((0, 0)) == round(255 * sure)
    overlay = np.array(Image.open(tmp_path / "overlays" / "image.png"))
    assert overlay.shape[0] > 10
    legend = overlay[10:].reshape(-1, 3)
    for place, shown in ((1, True), (2, True), (5, False)):
        assert (legend == colours[place]).all(1).any() == shown
    with pytest.raises(InputError, match="draw 'edges': there are overlay, coloured, confidence"):
        predict(network, image, tmp_path, draw=["edges"])


def test_confidence_of_resized_logits_and_of_windows():
    torch.manual_seed(0)
    logits = torch.randn(5, 7, 9)
    larger = nn.functional.interpolate(logits[None], size=(20, 31), mode="bilinear", align_corners=False)[0]
    _, sure = best(logits, (20, 31), confidence=True)
    torch.testing.assert_close(sure, larger.softmax(0).amax(0))
    pointwise = wrap(nn.Conv2d(3, 11, 1), "camvid11", mean=(0, 0, 0), std=(1, 1, 1)).eval()
    image, cpu = photo(40, 50), torch.device("cpu")
    (_, whole), (_, parts) = (
        next(classes(pointwise, pointwise, [image], None, window, cpu, confidence=True)) for window in (None, (16, 16))
    )
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_a_pattern_names_images_at_any_depth(network, tmp_path):
    for name in ("a.png", "b.bmp", "sub/c.png", "sub/[x].png"):
        save(tmp_path / "photos" / name, photo(4, 4))
    found = predict(network, tmp_path / "photos" / "**" / "*.png", tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in found] == ["a.png", "sub/[x].png", "sub/c.png"]
    assert len(predict(network, tmp_path / "photos" / "sub" / "[x].png", tmp_path / "one")) == 1
    with pytest.raises(InputError, match=r"\*\.jpg: holds no images"):
        predict(network, tmp_path / "photos" / "*.jpg", tmp_path / "out")


def test_an_error_of_the_network_stops_everything(network, tmp_path):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", photo(8, 8, ord(name)))

    def broken(*_):
        raise RuntimeError("out of luck")

    network.module.register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        predict(network, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def film(tmp_path):
    """``film(name, count)``: a video of 64x48 pixels whose frames turn from black to white."""
    av = pytest.importorskip("av", reason="videos need PyAV: pip install 'hardy[video]'")

    def write(name, count):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            draw = np.random.default_rng(0)
            for number in range(count):
                pixels = np.full((48, 64, 3), 200 * number // count, dtype=np.uint8)
                pixels[:, :, 1] += draw.integers(0, 50, (48, 64), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / name

    return write


def test_frames_of_a_video(network, film, tmp_path):
    video = film("trip.mp4", 6)
    masks = predict(network, video, tmp_path / "out", batch=4)
    assert masks == [tmp_path / "out" / "trip" / f"{number:06}.png" for number in range(6)]
    assert Image.open(masks[3]).size == (64, 48)
    assert predict_all(network, video, tmp_path / "out").kept == 6
    assert len(predict(network, video, tmp_path / "two", frames=2)) == 2
    with pytest.raises(InputError, match="is no video or camera"):
        predict(network, tmp_path, tmp_path, frames=2)


def test_a_video_that_breaks_off_keeps_its_frames(network, film, tmp_path):
    video = film("long.mkv", 30)
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    found = predict_all(network, video, tmp_path / "out")
    assert 0 < len(found.masks) < 30
    assert "breaks off after" in found.skipped[str(video)]
    video.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a video"):
        predict(network, video, tmp_path / "out")
    with pytest.raises(InputError, match="there is no such video"):
        predict(network, tmp_path / "gone.mp4", tmp_path / "out")


def test_a_camera_by_a_stand_in_of_the_system(network, film, tmp_path, monkeypatch):
    monkeypatch.setitem(videos._DEVICES, sys.platform, ("testsrc=size=64x48:rate=5", "lavfi"))
    assert len(predict(network, "camera:0", tmp_path / "out", frames=3)) == 3
    assert (tmp_path / "out" / "camera0" / "000002.png").exists()


def test_without_its_package_a_video_names_the_extra(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"pip install 'hardy\[video\]'"):
        predict(network, tmp_path / "a.mp4", tmp_path / "out")
