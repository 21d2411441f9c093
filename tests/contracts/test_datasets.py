"""What holds for every dataset of the registry, on tiny folders with each one's real layout."""

import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hardy.data.check import check_labels
from hardy.data.label_spaces import LabelSpace
from hardy.data.loader import evaluation_batches
from hardy.data.sources import domains
from hardy.errors import InputError
from hardy.registry import DATASETS

SHAPE = (6, 8)


def save(path, value, shape=SHAPE):
    """An image, or a mask where ``value`` is a class id, beside which some pixels are ignored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path.name))).integers(0, 256, (*shape, 3), dtype=np.uint8)
    if value is not None:
        pixels = np.full(shape, value, dtype=np.uint8)
        pixels[0] = 255
    Image.fromarray(pixels).save(path)


def camvid(root):
    for split, name in (("train", "0001TP_1"), ("train", "0006R0_1"), ("val", "0006R0_2"), ("test", "0001TP_2")):
        save(root / "camvid" / "CamVid" / split / f"{name}.png", None)
        save(root / "camvid" / "CamVid" / f"{split}annot" / f"{name}.png", 3)


def corrupted(root):
    for name in ("0001TP_1", "0006R0_1"):
        save(root / "camvid" / "CamVid" / "train" / f"{name}.png", None, (32, 40))
        save(root / "camvid" / "CamVid" / "trainannot" / f"{name}.png", 3, (32, 40))


def cityscapes(root):
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau")):
        for frame in ("000000_000019", "000001_000019"):
            folder = root / "cityscapes"
            save(folder / "leftImg8bit" / split / city / f"{city}_{frame}_leftImg8bit.png", None)
            save(folder / "gtFine" / split / city / f"{city}_{frame}_gtFine_labelIds.png", 7)


def idd(root):
    for split in ("train", "val"):
        save(root / "idd" / "leftImg8bit" / split / "7" / "01_image.jpg", None)
        save(root / "idd" / "gtFine" / split / "7" / "01_label.png", 0)


def kitti(root):
    for frame in ("000000_10.png", "000001_10.png"):
        save(root / "kitti" / "data_semantics" / "training" / "image_2" / frame, None)
        save(root / "kitti" / "data_semantics" / "training" / "semantic" / frame, 7)


def pacs(root):
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        for name in ("dog", "person"):
            save(root / "pacs" / "kfold" / domain / name / "1.png", None)


def folder(root):
    for domain in ("day", "night"):
        save(root / "folder" / "images" / domain / "1.jpg", None)
        save(root / "folder" / "masks" / domain / "1.png", 1)
    (root / "folder" / "classes.yaml").write_text("- {name: road}\n- {name: sky}\n")


def acdc(root):
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            place = f"{condition}/{split}/GOPR0475/GOPR0475_frame_000041"
            save(root / "acdc" / "rgb_anon" / f"{place}_rgb_anon.png", None)
            save(root / "acdc" / "gt" / f"{place}_gt_labelTrainIds.png", 5)


def c_driving(root):
    for place in ("compound/cloudy", "compound/rainy", "compound/snowy", "open/overcast"):
        save(root / "c_driving" / "val" / place / "0a-1.jpg", None)
        save(root / "c_driving" / "val" / place / "0a-1_train_id.png", 5)


def shift(root):
    front = root / "shift" / "discrete" / "images" / "val" / "front"
    for sequence in ("01a", "02b"):
        save(front / "img" / sequence / "00000000_img_front.jpg", None)
        save_wide(front / "semseg" / sequence / "00000000_semseg_front.png", 7)
    text = "view,video,shift_type,start_weather_coarse,start_timeofday_coarse\n"
    text += "front,01a,no,rainy,night\nfront,02b,no,clear,daytime\n"
    (front / "seq.csv").write_text(text)


def save_wide(path, value):
    """A mask whose class id is in the red channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SHAPE, 3), (value, 3, 9), dtype=np.uint8)).save(path)


def bdd100k(root):
    for split in ("train", "val"):
        save(root / "bdd100k" / "images" / "10k" / split / "0004a4c0-d4dff0ad.jpg", None)
        save(root / "bdd100k" / "labels" / "sem_seg" / "masks" / split / "0004a4c0-d4dff0ad.png", 18)


def gta5(root):
    for number in range(1, 6):
        save(root / "gta5" / "images" / f"{number:05}.png", None)
        save(root / "gta5" / "labels" / f"{number:05}.png", 33)


def mapillary(root):
    for split in ("training", "validation"):
        save(root / "mapillary" / split / "images" / "__CRyFzoDOXn6unQ6a3DnQ.jpg", None)
        save(root / "mapillary" / split / "v1.2" / "labels" / "__CRyFzoDOXn6unQ6a3DnQ.png", 13)


def retina(root):
    for domain in ("drive", "hrf", "les_av"):
        for name in ("test_01", "train_02", "train_03"):
            save(root / "retina" / "images" / domain / f"{name}.jpg", None)
            save(root / "retina" / "masks" / domain / f"{name}.png", 1)
    (root / "retina" / "classes.yaml").write_text("- {name: background}\n- {name: vessel}\n")


def synthia(root):
    for number in range(4):
        save(root / "synthia" / "RAND_CITYSCAPES" / "RGB" / f"{number:07}.png", None)
        path = root / "synthia" / "RAND_CITYSCAPES" / "GT" / "LABELS" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], 16, 2, 0, 0, 0)
        rows = zlib.compress((b"\0" + struct.pack(">HHH", 3, 7, 0) * SHAPE[1]) * SHAPE[0])
        parts = (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


LAYOUTS = {
    make.__name__: make
    for make in (
        acdc,
        bdd100k,
        c_driving,
        camvid,
        cityscapes,
        corrupted,
        folder,
        gta5,
        idd,
        kitti,
        mapillary,
        pacs,
        retina,
        shift,
        synthia,
    )
}
"""The files of each dataset that reads files; one that is not here must need none."""


OPTIONS = {"streets": {"size": (32, 64)}}
"""Of a dataset that makes its images: small ones."""


@pytest.fixture(params=DATASETS.names())
def name(request):
    return request.param


@pytest.fixture
def root(name, tmp_path):
    LAYOUTS.get(name, lambda _: None)(tmp_path)
    return tmp_path


@pytest.fixture
def dataset(name, root):
    return DATASETS.build(name, {"root": root}, **OPTIONS.get(name, {}))


def listed(dataset, most=2):
    return [item for splits in dataset.index().values() for items in splits.values() for item in items[:most]]


def test_index_is_full_and_the_same_every_time(name, root, dataset):
    index = dataset.index()
    again = DATASETS.build(name, {"root": root}).index()
    assert index
    for domain, splits in index.items():
        assert splits, domain
        assert list(splits) == list(again[domain])
        assert all(len(items) for items in splits.values())
        assert all(list(items) == list(again[domain][split]) for split, items in splits.items())
    assert list(index) == list(again)


def test_items_are_hashable_pickle_and_occur_once(dataset):
    items = [item for splits in dataset.index().values() for items in splits.values() for item in items]
    assert len(set(items)) == len(items)
    assert pickle.loads(pickle.dumps(items)) == items
    assert all(dataset.name_of(item) for item in items[:3])


def test_images_and_labels_have_their_form(dataset):
    assert isinstance(dataset.label_space, LabelSpace)
    for item in listed(dataset):
        image, label = dataset.read(item)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        if dataset.image_level:
            assert (label.shape, label.dtype) == ((), np.int64)
        else:
            assert (label.shape, label.dtype) == (image.shape[:2], np.uint8)
        assert set(np.unique(label)) <= {*range(len(dataset.label_space)), 255}


def test_reading_is_repeatable_and_survives_pickling(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    for item in listed(dataset, most=1):
        image, label = dataset.read(item)
        again, label_again = copy.read(item)
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(label, label_again)
        np.testing.assert_array_equal(dataset.read_label(item), label)


def test_it_serves_the_check_and_the_loader(name, root):
    found = domains([name], root=root, options={name: OPTIONS.get(name, {})})
    assert all(domain.name.startswith(f"{name}/") for domain in found)
    data = [(domain, domain.items()[:2]) for domain in found]
    label_space = found[0].dataset.label_space
    read = [domain.dataset.read_label(item) for domain, items in data for item in items]
    assert check_labels(data, label_space).sum() == sum(int((label != 255).sum()) for label in read)
    assert any((label != 255).any() for label in read)
    batch = next(evaluation_batches(data, label_space, batch=2))
    assert batch.images.dtype.is_floating_point
    assert 0 <= batch.images.min() <= batch.images.max() <= 1


def test_a_missing_folder_is_one_line(name, tmp_path):
    if name not in LAYOUTS:
        DATASETS.build(name, {"root": tmp_path / "nowhere"})
        return
    with pytest.raises(InputError) as error:
        DATASETS.build(name, {"root": tmp_path / "nowhere"})
    assert "nowhere" in str(error.value)
    assert "\n" not in str(error.value)
