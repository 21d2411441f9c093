"""Decoding every kind of image and mask, and a folder of the user's own that holds them."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from dataset_files import GREY, RGB, counts, only_item, refused, save
from PIL import Image

from hardy.data.datasets.folder import Folder
from hardy.data.decoding import read_image, read_mask

# ------------------------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_images_of_every_8_bit_kind_become_rgb(tmp_path, mode):
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), RGB, mode)
    found = read_image(path)
    assert (found.shape, found.dtype) == ((2, 3, 3), np.uint8)
    if mode in ("RGB", "RGBA", "P"):
        np.testing.assert_array_equal(found, RGB if mode != "P" else np.array(Image.open(path).convert("RGB")))


def test_images_that_would_be_changed_silently_are_refused(tmp_path):
    refused("more than 8 bits", read_image, save(tmp_path / "deep.png", GREY.astype(np.uint16) * 256))
    clear = np.dstack([RGB, np.full((2, 3), 255, np.uint8)])
    clear[0, 0, 3] = 0
    refused("transparent", read_image, save(tmp_path / "clear.png", clear))
    refused("transparent", read_mask, save(tmp_path / "mask.png", clear))


def test_masks_keep_ids_of_8_and_16_bits_palettes_and_colours(tmp_path):
    np.testing.assert_array_equal(read_mask(save(tmp_path / "l.png", GREY)), GREY)
    deep = GREY.astype(np.uint16) + 1000
    np.testing.assert_array_equal(read_mask(save(tmp_path / "i.png", deep)), deep)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "1.png", GREY > 100)), GREY > 100)
    palette = Image.new("P", (3, 2))
    palette.putpalette([90, 90, 90, 1, 2, 3, 200, 0, 0, 7, 7, 7, 8, 8, 8, 9, 9, 9])
    palette.putdata((GREY // 40).ravel().tolist())
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), GREY // 40)
    opaque = np.dstack([RGB, np.full((2, 3), 255, np.uint8)])
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", opaque)), RGB)


def test_a_16_bit_colour_mask_is_refused(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "synthia.png"
    body = zlib.compress(bytes([0, 0, 3, 0, 9, 0, 0]))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    refused("8-bit RGB image", read_mask, path)


def test_torn_missing_and_foreign_files(tmp_path):
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    torn = tmp_path / "torn.png"
    torn.write_bytes(whole.read_bytes()[:-800])
    empty = tmp_path / "empty.png"
    empty.touch()
    for reader in (read_image, read_mask):
        refused("torn.png: damaged or not an image", reader, torn)
        refused("empty.png: damaged or not an image", reader, empty)
        refused("none.png: there is no such file", reader, tmp_path / "none.png")


# ------------------------------------------------------------------------------------------------ a user's folder

CLASSES = "- {name: road, colour: [128, 64, 128]}\n- {name: sky, colour: [70, 130, 180], id: 23}\n"


@pytest.fixture
def town(tmp_path):
    (tmp_path / "classes.yaml").write_text(CLASSES)
    for domain in ("day", "night/rain"):
        save(tmp_path / "images" / domain / "a.jpg", RGB)
        save(tmp_path / "masks" / domain / "a.png", np.array([[0, 23, 255]] * 2, dtype=np.uint8))
    return tmp_path


def test_sub_folders_are_domains(town):
    dataset = Folder(town)
    assert counts(dataset) == {"day": {"all": 1}, "night/rain": {"all": 1}}
    assert dataset.label_space.classes == ("road", "sky")
    image, label = dataset.read(only_item(dataset))
    assert image.shape == (2, 3, 3)
    assert label.tolist() == [[0, 1, 255]] * 2
    assert dataset.name_of(only_item(dataset)).endswith("images/day/a.jpg")


def test_a_flat_folder_is_one_domain_and_may_lie_below(town):
    shutil.move(town / "images" / "day" / "a.jpg", town / "images" / "b.jpg")
    shutil.move(town / "masks" / "day" / "a.png", town / "masks" / "b_mask.png")
    shutil.rmtree(town / "images" / "night")
    shutil.rmtree(town / "masks" / "night")
    refused("image without mask", Folder, town)
    assert counts(Folder(town, mask_ending="_mask")) == {"all": {"all": 1}}
    shutil.copytree(town, town / "data" / "folder")
    assert counts(Folder(town / "data", mask_ending="_mask")) == {"all": {"all": 1}}


def test_rgb_masks_are_decided_file_by_file(town):
    colours = np.array([[[128, 64, 128], [70, 130, 180], [70, 130, 180]]] * 2, dtype=np.uint8)
    save(town / "masks" / "night" / "rain" / "a.png", colours)
    dataset = Folder(town)
    labels = [dataset.read(splits["all"][0])[1].tolist() for splits in dataset.index().values()]
    assert labels == [[[0, 1, 255]] * 2, [[0, 1, 1]] * 2]
    (town / "classes.yaml").write_text("- {name: road}\n- {name: sky, id: 23}\n")
    dataset = Folder(town)
    refused("an RGB mask, but its classes have no colours", dataset.read, dataset.index()["night/rain"]["all"][0])


def test_what_a_folder_may_lack(town, tmp_path_factory):
    (town / "masks" / "day" / "b.png").touch()
    refused(r"masks/day/b.png: mask without image \(1 such", Folder, town)
    for name in ("c.jpg", "d.jpg"):
        save(town / "images" / "day" / name, RGB)
    refused(r"images/day/c.jpg: image without mask \(2 such", Folder, town)
    save(town / "images" / "day" / "c.png", RGB)
    refused("in the same folder has the same name", Folder, town)
    shutil.rmtree(town / "masks")
    (town / "images" / "day" / "c.png").unlink()
    refused("masks: there is no such folder", Folder, town)
    bare = tmp_path_factory.mktemp("bare")
    refused("classes.yaml: there is no such file", Folder, bare)
    (bare / "classes.yaml").write_text(CLASSES)
    refused("images: there is no such folder", Folder, bare)
    (bare / "images").mkdir()
    (bare / "masks").mkdir()
    refused("images: it holds no images", Folder, bare)


def test_size_mismatch_and_foreign_id_name_the_mask(town):
    mask = town / "masks" / "day" / "a.png"
    dataset = Folder(town)
    item = dataset.index()["day"]["all"][0]
    save(mask, np.zeros((2, 4), dtype=np.uint8))
    for read in (dataset.read, dataset.read_label):
        refused(r"day/a.png: mask is 2x4 but its image .*a.jpg is 2x3", read, item)
    save(mask, np.array([[0, 9, 9], [9, 9, 0]], dtype=np.uint8))
    for read in (dataset.read, dataset.read_label):
        refused("day/a.png: id 9 on 4 pixels is outside the label map", read, item)
