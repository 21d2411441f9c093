"""The readers of GTA5 and SYNTHIA: layouts, splits, and the label of every raw id, on tiny folders."""

import logging

import numpy as np
import pytest
from dataset_files import names, only_item, refused, row_of, save, save_mask
from PIL import Image

from hardy.data.datasets.gta5 import GTA5
from hardy.data.datasets.synthia import Synthia
from hardy.data.datasets.synthia import _first_channel as first_channel

RGB = np.random.default_rng(0).integers(0, 256, (2, 40, 3), dtype=np.uint8)
VOID = np.full((2, 40), 255, dtype=np.uint8)

# Raw id -> class id as the specification lists them; what is not there is 255.
CITYSCAPES = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
SYNTHIA = dict(zip((3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11), range(19), strict=True))


def expected(raw, table):
    return [[table.get(int(i), 255) for i in line] for line in raw]


# --------------------------------------------------------------------------------------------------------- gta5


@pytest.fixture
def gta5(tmp_path):
    for number in range(1, 9):
        save(tmp_path / "gta5" / "images" / f"{number:05}.png", RGB)
        save_mask(tmp_path / "gta5" / "labels" / f"{number:05}.png", VOID)
    return tmp_path / "gta5"


def test_gta5_reads_the_index_of_a_palette_as_the_id_of_cityscapes(gta5):
    raw = row_of([*range(35), 255], width=40)
    save_mask(gta5 / "labels" / "00002.png", raw)
    dataset = GTA5(gta5.parent)
    image, label = dataset.read(only_item(dataset))
    np.testing.assert_array_equal(image, RGB)
    assert label.tolist() == expected(raw, CITYSCAPES)
    assert dataset.read_label(only_item(dataset)).tolist() == label.tolist()
    save_mask(gta5 / "labels" / "00002.png", np.where(raw == 34, 35, raw).astype(np.uint8))
    refused("labels/00002.png: id 35 on 2 pixels is outside the label map", dataset.read, only_item(dataset))
    save(gta5 / "labels" / "00002.png", RGB)
    refused("labels/00002.png: an RGB mask", dataset.read, only_item(dataset))


def test_gta5_without_lists_says_what_its_splits_are(gta5, caplog):
    save_mask(gta5 / "labels" / "00001_labelTrainIds.png", VOID)  # written by a converter, not by the authors
    with caplog.at_level(logging.WARNING, "hardy"):
        dataset = GTA5(gta5)
    val = ["00001", "00005"]
    train = ["00002", "00003", "00004", "00006", "00007", "00008"]
    assert names(dataset) == {"all": {"train": train, "val": val}}
    assert list(names(dataset)["all"]) == ["train", "val"]
    (message,) = caplog.messages
    assert "no lists gtav_split_{train,val}.txt" in message
    assert "first 1 of every 4 images" in message


@pytest.mark.parametrize("place", [".", "split_data"])
def test_gta5_follows_the_lists(gta5, caplog, place):
    folder = gta5 / place
    folder.mkdir(exist_ok=True)
    for split, listed in (("train", "00003.png\n00002.png\n"), ("val", "00005.png\n\n"), ("test", "00008.png")):
        (folder / f"gtav_split_{split}.txt").write_text(listed)
    dataset = GTA5(gta5)
    assert names(dataset) == {"all": {"train": ["00003", "00002"], "val": ["00005"], "test": ["00008"]}}
    assert not caplog.messages
    (folder / "gtav_split_val.txt").write_text("00005.png\n00010.png\n00011.png\n")
    refused(r"gtav_split_val.txt: it names 00010, which is not in .*images \(2 such\)", GTA5, gta5)


def test_gta5_in_the_folders_of_robustnet(gta5):
    for number, split in enumerate(("train", "valid", "test", "train"), start=1):
        for kind in ("images", "labels"):
            (gta5 / kind / split / "folder").mkdir(parents=True, exist_ok=True)
            (gta5 / kind / f"{number:05}.png").rename(gta5 / kind / split / "folder" / f"{number:05}.png")
    refused(r"images/00005.png: it is in none of the folders train, val and test \(4 such\)", GTA5, gta5)
    for number in range(5, 9):
        for kind in ("images", "labels"):
            (gta5 / kind / f"{number:05}.png").unlink()
    assert names(GTA5(gta5)) == {"all": {"train": ["00001", "00004"], "val": ["00002"], "test": ["00003"]}}


def test_gta5_leaves_out_and_counts_images_whose_label_has_another_size(gta5, caplog):
    save_mask(gta5 / "labels" / "00002.png", VOID[:, :30])
    save_mask(gta5 / "labels" / "00005.png", VOID[:1])
    (gta5 / "gtav_split_train.txt").write_text("00001.png\n00002.png\n")
    (gta5 / "gtav_split_val.txt").write_text("00005.png\n00006.png\n")
    with caplog.at_level(logging.WARNING, "hardy"):
        dataset = GTA5(gta5)
    assert names(dataset) == {"all": {"train": ["00001"], "val": ["00006"]}}
    (message,) = caplog.messages
    assert "2 images are left out because their labels have another size, such as 00002.png" in message
    for number in range(1, 9):
        save_mask(gta5 / "labels" / f"{number:05}.png", VOID[:1])
    refused("labels/00001.png: no label has the size of its image", GTA5, gta5)


# ------------------------------------------------------------------------------------------------------ synthia


@pytest.fixture
def synthia(tmp_path, save_png16):
    root = tmp_path / "synthia" / "RAND_CITYSCAPES"
    for number in range(12):
        save(root / "RGB" / f"{number:07}.png", RGB)
        save_png16(root / "GT" / "LABELS" / f"{number:07}.png", np.zeros((2, 40, 3), dtype=np.uint16))
    return root


def test_synthia_reads_the_class_from_the_first_of_three_channels_of_16_bits(synthia, save_png16):
    raw = row_of(range(23), width=40)
    pixels = np.zeros((2, 40, 3), dtype=np.uint16)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = raw, 1000 + raw.astype(np.uint16), 3
    save_png16(synthia / "GT" / "LABELS" / "0000003.png", pixels)
    dataset = Synthia(synthia.parent.parent)
    item = dataset.index()["rand-cityscapes"]["train"][0]
    image, label = dataset.read(item)
    np.testing.assert_array_equal(image, RGB)
    assert label.tolist() == expected(raw, SYNTHIA)
    assert dataset.read_label(item).tolist() == label.tolist()

    pixels[0, :2, 0] = 256 + 3  # road in the low byte: the high byte counts too
    save_png16(synthia / "GT" / "LABELS" / "0000003.png", pixels)
    refused("LABELS/0000003.png: id 259 on 2 pixels is outside the label map", dataset.read_label, item)


def test_every_sample_of_16_bits_survives(tmp_path, save_png16):
    pixels = np.random.default_rng(1).integers(0, 2**16, (10, 12, 3), dtype=np.uint16)
    np.testing.assert_array_equal(first_channel(save_png16(tmp_path / "a.png", pixels)), pixels[..., 0])


def test_synthia_refuses_labels_of_another_kind(synthia, save_png16):
    dataset = Synthia(synthia)
    item = dataset.index()["rand-cityscapes"]["train"][0]
    for pixels, said in ((VOID, "L"), (RGB, "RGB")):
        Image.fromarray(pixels).save(item[1])
        refused(f"0000003.png: it stores {said}, but labels of SYNTHIA are 16-bit RGB", dataset.read, item)
    save_png16(item[1], np.zeros((2, 40, 1), dtype=np.uint16))
    refused("0000003.png: it stores I;16B, but labels of SYNTHIA are 16-bit RGB", dataset.read, item)
    save_png16(item[1], np.zeros((2, 39, 3), dtype=np.uint16))
    refused("mask is 2x39 but its image .* is 2x40", dataset.read_label, item)
    save_png16(item[1], RGB.astype(np.uint16))
    item[1].write_bytes(item[1].read_bytes()[:100])
    refused("0000003.png: damaged or not an image", dataset.read, item)
    item[1].unlink()
    refused("0000003.png: there is no such file", dataset.read, item)


def test_synthia_splits(synthia, caplog):
    save_mask(synthia / "GT" / "LABELS" / "0000000_labelTrainIds.png", VOID)
    with caplog.at_level(logging.WARNING, "hardy"):
        found = names(Synthia(synthia))["rand-cityscapes"]
    assert [int(stem) for stem in found["val"]] == [0, 1, 2, 10, 11]
    assert [int(stem) for stem in found["train"]] == [3, 4, 5, 6, 7, 8, 9]
    assert "no lists synthia_split_{train,val}.txt" in caplog.text
    (synthia / "synthia_split_train.txt").write_text("0000001.png\n0000004.png\n")
    (synthia / "synthia_split_val.txt").write_text("0000000.png\n")
    assert names(Synthia(synthia)) == {"rand-cityscapes": {"train": ["0000001", "0000004"], "val": ["0000000"]}}


def test_the_classes_that_synthia_never_has_are_those_of_no_raw_id_in_use():
    absent = {Synthia.label_space.index(name) for name in Synthia.never}
    assert absent == {SYNTHIA[16], SYNTHIA[18], SYNTHIA[20]}
