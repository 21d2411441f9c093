"""The check before the first step: images are decoded, empty classes are named, and what 255 was taken for."""

import numpy as np
import pytest
from dataset_files import refused, save
from PIL import Image

import hardy
from hardy.data.check import SAMPLE, Counts, check_labels, count_labels, gaps
from hardy.data.datasets.folder import Folder
from hardy.data.sources import domains
from hardy.engine.protocol import Split, checked
from hardy.recipe import Data

COUNT = 3 * SAMPLE


@pytest.fixture
def vessels(tmp_path):
    """A folder of images with binary masks of 0 and 255, where 255 was meant as the class ``vessel``."""
    for number in range(COUNT):
        image = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        save(tmp_path / "images" / "eye" / f"{number:02}.png", image)
        save(tmp_path / "masks" / "eye" / f"{number:02}.png", np.where(image[..., 0] > 191, 255, 0).astype(np.uint8))
    (tmp_path / "classes.yaml").write_text("- {name: background}\n- {name: vessel}\n")
    return tmp_path


def found(root):
    (domain,) = domains(["folder"], root=root)
    return [(domain, domain.items())], domain.dataset.label_space


def test_a_class_without_a_pixel_is_named_and_what_255_was_taken_for(vessels, caplog):
    check_labels(*found(vessels))
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(
        "folder/eye: no pixel is labelled vessel; a class without labels does not count in the mIoU; "
    )
    assert " % of the pixels are ignored (255, or declared so in " in line
    assert line.endswith("classes.yaml; give a class `id: 255` if it has that id)")
    (vessels / "classes.yaml").write_text("- {name: background}\n- {name: vessel, id: 255}\n")
    caplog.clear()
    assert check_labels(*found(vessels)).min() > 0
    assert not caplog.records


def test_training_names_the_part_that_lacks_a_class(vessels, caplog):
    data, labels = found(vessels)
    ((domain, items),) = data
    full = vessels / "masks" / "eye" / "00.png"
    save(full, np.where(np.array(Image.open(full)) == 255, 1, 0).astype(np.uint8))
    network = hardy.create("tiny", classes=labels)

    def warned(**parts):
        caplog.clear()
        whole = {"train": data, "val": data, "unseen": data, **parts}
        checked(Split(**{name: tuple(part) for name, part in whole.items()}), network, Data())
        return [record.getMessage().partition(": no pixel is labelled vessel; ")[0] for record in caplog.records]

    without = [(domain, items[1:])]
    assert warned() == []
    assert warned(train=without) == ["folder/eye (training images)"]
    assert warned(val=without) == ["folder/eye (validation images)"]
    assert warned(unseen=without) == ["folder/eye (unseen images)"]


def test_what_is_known_to_lack_and_what_is_drawn_is_not_named(vessels, monkeypatch):
    data, labels = found(vessels)
    empty = Counts(np.array([9, 0]), 0)
    assert gaps(data, labels, empty).endswith("does not count in the mIoU")
    monkeypatch.setattr(Folder, "never", ("vessel",))
    assert gaps(data, labels, empty) == ""
    monkeypatch.setattr(Folder, "never", ())
    monkeypatch.setattr(Folder, "drawn", True)
    assert gaps(data, labels, empty) == ""


def test_pictures_without_a_class(vessels, monkeypatch):
    monkeypatch.setattr(Folder, "image_level", True)
    assert gaps(*found(vessels), Counts(np.array([9, 0]), 0)) == "folder/eye: no image is labelled vessel"


def spoil(path):
    """Damage the pixels of a PNG and leave its end as it is."""
    whole = bytearray(path.read_bytes())
    place = whole.index(b"IDAT") + 20
    whole[place : place + 60] = bytes(60)
    path.write_bytes(whole)


def test_a_sample_of_the_images_is_decoded_or_all(vessels):
    data, labels = found(vessels)
    spoil(vessels / "images" / "eye" / "01.png")  # not one of the sample
    count_labels(data, labels)
    count_labels(data, labels, decode="sample")
    refused("images/eye/01.png: damaged or not an image", lambda: count_labels(data, labels, decode="all"))
    spoil(vessels / "images" / "eye" / f"{COUNT - 1}.png")
    refused(f"eye/{COUNT - 1}.png: damaged or not an image", lambda: count_labels(data, labels, decode="sample"))


def test_every_truncated_image_is_found_whatever_the_sample(vessels):
    path = vessels / "images" / "eye" / "01.png"
    path.write_bytes(path.read_bytes()[:-80])
    refused("eye/01.png: damaged or not an image", lambda: count_labels(*found(vessels), decode="sample"))


def test_pictures_with_one_class_are_decoded_too(tmp_path):
    for number in range(COUNT):
        save(tmp_path / "photo" / "dog" / f"{number:02}.jpg", np.zeros((8, 8, 3), dtype=np.uint8))
    path = tmp_path / "photo" / "dog" / "01.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (domain,) = domains(["pacs"], root=tmp_path)
    data = [(domain, domain.items())]
    assert count_labels(data, domain.dataset.label_space).classes.sum() == COUNT
    refused(
        "dog/01.jpg: damaged or not an image", lambda: count_labels(data, domain.dataset.label_space, decode="sample")
    )


def test_a_turned_photograph_needs_a_turned_mask(vessels):
    image, mask = (vessels / kind / "eye" / "00.png" for kind in ("images", "masks"))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(image).save(image, exif=exif)
    data, labels = found(vessels)
    line = r"00.png: mask is 12x16 but its image .* is 16x12 .*; one of them is rotated: check its EXIF orientation"
    for decode in ("none", "all"):
        refused(line, lambda decode=decode: count_labels(data, labels, decode=decode))
    straight = np.array(Image.open(mask))
    Image.open(mask).save(mask, exif=exif)
    count_labels(data, labels, decode="all")
    np.testing.assert_array_equal(data[0][0].dataset.read_label(data[0][1][0]), np.rot90(straight))
