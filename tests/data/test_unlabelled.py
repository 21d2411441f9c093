"""Folders of images without labels: what is found, what is refused, and which of them a step takes."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hardy.data import unlabelled
from hardy.data.label_spaces import find_label_space, read_classes
from hardy.data.loader import Unlabelled, _unlabelled_slots, training_batches
from hardy.data.sources import domains
from hardy.data.transforms import training
from hardy.errors import InputError
from hardy.types import IGNORE


def drawn(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        pixels = np.full((40, 56, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def source(folder: Path, *, image_level: bool = False):
    space = find_label_space("camvid11")
    return unlabelled.source(unlabelled.find([str(folder)], folder), space, image_level=image_level)


def batches(town: Path, folder: Path | None, start: int = 0, many: int | None = None, **more):
    space = read_classes(town / "classes.yaml").space
    data = [(domain, domain.items()) for domain in domains(["folder"], root=town)]
    transform = training((32, 32), scale=(0.9, 1.1))
    if folder is not None:
        found = unlabelled.find([str(folder)], town)
        more["unlabelled"] = Unlabelled(*unlabelled.source(found, space, image_level=False), many)
    return training_batches(data, space, transform, batch=4, seed=3, start=start, **more)


def test_images_are_found_at_any_depth_and_below_the_root(tmp_path):
    drawn(tmp_path / "a" / "deep", 2)
    drawn(tmp_path / "b", 1, 5)
    found = unlabelled.find(["a", str(tmp_path / "b")], tmp_path)
    assert [(name, [path.name for path in images]) for name, images in found] == [
        ("a", ["00.png", "01.png"]),
        (str(tmp_path / "b"), ["05.png"]),
    ]


def test_what_cannot_be_used_is_refused_by_name(tmp_path):
    drawn(tmp_path / "a" / "deep", 2)
    (tmp_path / "empty").mkdir()
    for folders, said in (
        (["none"], r"data\.unlabelled: none: there is no such folder"),
        (["empty"], r"data\.unlabelled: .*empty contains no images"),
        (["a", "a/deep"], r"data\.unlabelled: .*00\.png is in a and in a/deep; name one"),
    ):
        with pytest.raises(InputError, match=said):
            unlabelled.find(folders, tmp_path)
    (tmp_path / "a" / "deep" / "01.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(InputError, match=r"01\.png"):
        unlabelled.check_images(unlabelled.find(["a"], tmp_path), every=False)


def test_an_unseen_image_is_refused_and_a_held_out_one_left_out(tmp_path):
    folders = unlabelled.find([str(drawn(tmp_path / "a", 3))], tmp_path)
    first, second, third = folders[0][1]
    left = unlabelled.without(folders, [(second, tmp_path / "mask.png"), ("sim", 4)], [("streets/night", ("night", 1))])
    assert left[0][1] == (first, third)
    with pytest.raises(InputError, match=r"00\.png is an image of the unseen domain folder/night \(1 such"):
        unlabelled.without(folders, [], [("folder/night", (first, tmp_path / "mask.png"))])
    with pytest.raises(InputError, match=r"every image in .* is held out"):
        unlabelled.without(folders, [(path, None) for path in folders[0][1]], [])


def test_labels_are_ignored_everywhere(tmp_path):
    for image_level, shape in ((False, (40, 56)), (True, ())):
        domain, items = source(drawn(tmp_path / "a", 2), image_level=image_level)
        image, label = domain.dataset.read(items[1])
        assert image.shape == (40, 56, 3)
        assert label.shape == shape
        assert (label == IGNORE).all()


def test_they_follow_the_labelled_images_whose_bits_stay(town, tmp_path):
    folder = drawn(tmp_path / "a", 3)
    for plain, mixed in islice(zip(batches(town, None), batches(town, folder), strict=True), 3):
        assert mixed.domains.tolist() == [0, 0, 1, 1, -1, -1], "as many as one of two domains has"
        assert torch.equal(mixed.images[:4], plain.images)
        assert torch.equal(mixed.labels[:4], plain.labels)
        assert (mixed.labels[4:] == IGNORE).all()


def test_each_epoch_shows_each_of_them_once(town, tmp_path):
    _, items = source(drawn(tmp_path / "a", 6))
    assert [len(batch) for batch in islice(batches(town, tmp_path / "a", many=3), 2)] == [7, 7]
    slots = [slot.item for step in range(4) for slot in _unlabelled_slots(len(items), 3, 3, step, 4, 2)]
    assert sorted(slots[:6]) == sorted(slots[6:]) == list(range(6))
    assert slots[:6] != slots[6:]


@pytest.mark.slow
def test_a_later_start_and_workers_give_the_same_bits(town, tmp_path):
    folder = drawn(tmp_path / "a", 5)
    whole = list(islice(batches(town, folder), 4))
    for others in (batches(town, folder, start=2), batches(town, folder, start=2, workers=2, cache=True)):
        for later, wanted in zip(islice(others, 2), whole[2:], strict=True):
            assert torch.equal(later.images, wanted.images)
            assert torch.equal(later.domains, wanted.domains)


def test_ranks_share_a_step(town, tmp_path):
    folder = drawn(tmp_path / "a", 5)
    (whole,) = islice(batches(town, folder, many=2), 1)
    parts = [next(batches(town, folder, many=2, rank=rank, processes=2)) for rank in range(2)]
    assert all(part.domains.tolist() == [0, 1, -1] for part in parts)
    assert torch.equal(torch.stack([part.images for part in parts], 1).flatten(0, 1), whole.images)
    with pytest.raises(InputError, match=r"data\.unlabelled_batch: 3 is not a multiple of 2 processes"):
        next(batches(town, folder, many=3, processes=2))
