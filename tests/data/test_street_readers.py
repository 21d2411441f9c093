"""The readers of photographed streets in 19 classes: layouts, splits, the label of every raw id, on tiny folders."""

import numpy as np
import pytest
from dataset_files import names, only_item, refused, row_of, save, save_mask

from hardy.data.datasets.acdc import ACDC
from hardy.data.datasets.bdd100k import BDD100K
from hardy.data.datasets.cityscapes import Cityscapes
from hardy.data.datasets.gta5 import GTA5
from hardy.data.datasets.mapillary import Mapillary
from hardy.data.datasets.synthia import Synthia

RGB = np.random.default_rng(0).integers(0, 256, (2, 40, 3), dtype=np.uint8)
VOID = np.full((2, 40), 255, dtype=np.uint8)

# The class id of each raw id, as the specification lists them.
OPENSEG_TEXT = """
    255 255 1 4 255 255 3 0 0 1 0 1 255 0 0 1 255 2 255 11 12 12 12 0 0 255 255 10 255 9 8
    255 255 255 255 255 255 255 255 255 255 255 255 255
    5 5 7 5 6 7 7 255 18 255 15 13 255 17 16 255 255 14 255 255 255 255
"""
OPENSEG = [int(word) for word in OPENSEG_TEXT.split()]
ROBUSTNET = [0 if i == 41 else 255 if i in (7, 8, 9, 10, 11, 14, 23, 44, 46, 49) else c for i, c in enumerate(OPENSEG)]


# -------------------------------------------------------------------------------------------- bdd100k, mapillary


@pytest.mark.parametrize(
    ("images", "masks", "ending"),
    [
        ("bdd100k/images/10k", "bdd100k/labels/sem_seg/masks", ".png"),
        ("bdd100k/seg/images", "bdd100k/seg/labels", "_train_id.png"),
        ("bdd-100k/images", "bdd-100k/labels", "_train_id.png"),
    ],
)
def test_bdd100k_in_the_layout_of_each_release(tmp_path, images, masks, ending):
    raw = row_of([*range(19), 255], width=40)
    for split, stem in (("train", "0a0a0b1a"), ("train", "0b"), ("val", "7d15b18b")):
        save(tmp_path / images / split / f"{stem}.jpg", RGB)
        save_mask(tmp_path / masks / split / f"{stem}{ending}", raw)
    save(tmp_path / images / "test" / "ac.jpg", RGB)
    dataset = BDD100K(tmp_path)
    assert names(dataset) == {"10k": {"train": ["0a0a0b1a", "0b"], "val": ["7d15b18b"]}}
    assert dataset.read(only_item(dataset))[1].tolist() == raw.tolist()
    save_mask(tmp_path / masks / "train" / f"0a0a0b1a{ending}", np.full_like(raw, 19))
    refused(f"0a0a0b1a{ending}: id 19 on 80 pixels", dataset.read, only_item(dataset))
    (tmp_path / masks / "val" / f"7d15b18b{ending}").unlink()
    refused("val/7d15b18b.jpg: image without mask", BDD100K, tmp_path)


@pytest.mark.parametrize("masks", ["labels", "v1.2/labels"])
@pytest.mark.parametrize(("name", "table"), [("openseg", OPENSEG), ("robustnet", ROBUSTNET)])
def test_mapillary_has_both_maps_and_both_layouts(tmp_path, masks, name, table):
    root = tmp_path / "mapillary"
    raw = row_of(range(66))
    for split in ("training", "validation"):
        save(root / split / "images" / "a_-b.jpg", RGB[:1].repeat(2, 0).repeat(2, 1)[:, :66])
        save_mask(root / split / masks / "a_-b.png", raw)
        if masks == "v1.2/labels":  # version 2.0 lies beside it, with ids of its own
            save_mask(root / split / "v2.0" / "labels" / "a_-b.png", np.full_like(raw, 123))
    (root / "testing" / "images").mkdir(parents=True)
    dataset = Mapillary(tmp_path, labels=name)
    assert names(dataset) == {"v1.2": {"train": ["a_-b"], "val": ["a_-b"]}}
    image, label = dataset.read(only_item(dataset))
    assert image.shape == (2, 66, 3)
    assert label.tolist() == [table, table[::-1]]
    save_mask(root / "training" / masks / "a_-b.png", np.full_like(raw, 66))
    refused("a_-b.png: id 66 on 132 pixels", dataset.read, only_item(dataset))


def test_the_maps_of_mapillary_differ_where_the_specification_says():
    assert len(OPENSEG) == len(ROBUSTNET) == 66
    differ = [i for i in range(66) if OPENSEG[i] != ROBUSTNET[i]]
    assert differ == [7, 8, 9, 10, 11, 14, 23, 41, 44, 46, 49]


def test_mapillary_with_a_map_that_does_not_exist(tmp_path):
    refused(
        "Mapillary.labels is 'openseq'; it is one of: openseg, robustnet", lambda: Mapillary(tmp_path, labels="openseq")
    )


# ------------------------------------------------------------------------------------------- acdc and cityscapes


def test_acdc_has_a_domain_per_condition(tmp_path):
    raw = row_of([*range(19), 255], width=40)
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val", "test", "train_ref"):
            stem = f"{condition}/{split}/GOPR0475/GOPR0475_{split}"
            save(tmp_path / "acdc" / "rgb_anon" / f"{stem}_rgb_anon.png", RGB)
            if split in ("train", "val"):
                save_mask(tmp_path / "acdc" / "gt" / f"{stem}_gt_labelTrainIds.png", raw)
                save_mask(tmp_path / "acdc" / "gt" / f"{stem}_gt_labelIds.png", VOID)
                save(tmp_path / "acdc" / "gt" / f"{stem}_gt_labelColor.png", RGB)
    dataset = ACDC(tmp_path)
    splits = {"train": ["GOPR0475_train_rgb_anon"], "val": ["GOPR0475_val_rgb_anon"]}
    assert names(dataset) == dict.fromkeys(("fog", "night", "rain", "snow"), splits)
    assert dataset.read(only_item(dataset))[1].tolist() == raw.tolist()
    (tmp_path / "acdc/gt/rain/val/GOPR0475/GOPR0475_val_gt_labelTrainIds.png").unlink()
    refused("rgb_anon/rain/val/GOPR0475/GOPR0475_val_rgb_anon.png: image without mask", ACDC, tmp_path)


def test_cityscapes_as_one_domain(tmp_path):
    for split, city in (("train", "ulm"), ("train", "aachen"), ("val", "lindau")):
        save(tmp_path / "leftImg8bit" / split / city / f"{city}_1_leftImg8bit.png", RGB)
        save_mask(tmp_path / "gtFine" / split / city / f"{city}_1_gtFine_labelIds.png", VOID)
    train = ["aachen_1_leftImg8bit", "ulm_1_leftImg8bit"]
    assert names(Cityscapes(tmp_path, domains="all")) == {"all": {"train": train, "val": ["lindau_1_leftImg8bit"]}}


@pytest.mark.parametrize("kind", [ACDC, BDD100K, GTA5, Mapillary, Synthia])
def test_a_folder_without_the_dataset(tmp_path, kind):
    refused("no .* here; it has", kind, tmp_path)
    refused("nowhere: no .* here; it has", kind, tmp_path / "nowhere")
