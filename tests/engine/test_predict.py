"""Masks on disk are the network's classes, in the label space's colours, one whole file per image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hardy.engine.predict import mask_image, predict
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
        assert tuple(colours[1]) == network.labels.colours[1]
    assert sorted(path.name for path in (tmp_path / "masks").rglob("*")) == ["a.png", "b.png", "c.png", "d.png", "sub"]


def test_ids_keep_their_number_and_the_ignored_are_black():
    labels = create("tiny", "camvid11").labels
    ids = np.array([[0, 10, 255]], dtype=np.uint8)
    image = mask_image(ids, labels)
    assert np.array_equal(np.array(image), ids)
    assert [image.convert("RGB").getpixel((x, 0)) for x in range(3)] == [
        labels.colours[0],
        labels.colours[10],
        (0, 0, 0),
    ]


def test_an_array_and_a_file(network, tmp_path):
    image = save(tmp_path / "one.png", photo(6, 8))
    assert predict(network, image, tmp_path / "x") == [tmp_path / "x" / "image.png"]
    assert predict(network, tmp_path / "one.png", tmp_path / "x") == [tmp_path / "x" / "one.png"]
    assert (tmp_path / "x" / "image.png").read_bytes() == (tmp_path / "x" / "one.png").read_bytes()


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
        red, green, blue = network.labels.colours[1]
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
