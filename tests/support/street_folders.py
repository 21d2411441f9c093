"""Tiny street data sets in real layouts: sky over road, with the raw ids of each, and a column of a third class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def street_folders(root: Path, save_png16: Callable[[Path, np.ndarray], object]) -> Path:
    """Write GTA5, SYNTHIA, Cityscapes, BDD100K, Mapillary and ACDC below ``root``, which is returned."""
    draw = np.random.default_rng(0)

    def save(image, mask, sky, road, column):
        ids = np.array([[sky], [road]], dtype=np.uint8).repeat(16, 0).repeat(48, 1)
        ids[:, 20:28] = column
        pixels = np.where(ids[..., None] == sky, 200, 60) + draw.integers(0, 40, (32, 48, 3))
        for path in (root / image, root / mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / image)
        if mask.startswith("synthia"):
            save_png16(root / mask, np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint16))
        else:
            Image.fromarray(ids).save(root / mask)

    for number in range(8):
        save(f"gta5/images/{number:05}.png", f"gta5/labels/{number:05}.png", 23, 7, 22)
        place = "synthia/RAND_CITYSCAPES/{}/" + f"{number:07}.png"
        save(place.format("RGB"), place.format("GT/LABELS"), 1, 3, 8)
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("val", "munster")):
        place = f"{split}/{city}/{city}_0_0"
        save(
            f"cityscapes/leftImg8bit/{place}_leftImg8bit.png",
            f"cityscapes/gtFine/{place}_gtFine_labelIds.png",
            23,
            7,
            22,
        )
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            place = f"{condition}/{split}/drive/drive_frame_000001"
            save(f"acdc/rgb_anon/{place}_rgb_anon.png", f"acdc/gt/{place}_gt_labelTrainIds.png", 10, 0, 9)
    for split, long in (("train", "training"), ("val", "validation")):
        masks = f"bdd100k/labels/sem_seg/masks/{split}/a.png"
        save(f"bdd100k/images/10k/{split}/a.jpg", masks, 10, 0, 9)
        save(f"mapillary/{long}/images/a.jpg", f"mapillary/{long}/v1.2/labels/a.png", 27, 13, 7)
    return root
