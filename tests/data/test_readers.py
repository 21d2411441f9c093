"""The readers of published datasets: what they find in each layout and what they refuse; counts of the real ones."""

import numpy as np
import pytest
from dataset_files import GREY, RGB, counts, only_item, refused, save
from PIL import Image

from hardy.data.datasets.camvid import CamVid
from hardy.data.datasets.cityscapes import Cityscapes
from hardy.data.datasets.idd import IDD
from hardy.data.datasets.kitti import KITTI
from hardy.data.datasets.pacs import PACS
from hardy.data.datasets.retina import Retina

# ---------------------------------------------------------------------------------------------- published layouts


def test_camvid(tmp_path):
    for split, name in (("train", "0001TP_1"), ("train", "0006R0_2"), ("test", "0001TP_3")):
        save(tmp_path / "CamVid" / split / f"{name}.png", RGB)
        save(tmp_path / "CamVid" / f"{split}annot" / f"{name}.png", np.array([[0, 10, 11]] * 2, dtype=np.uint8))
    dataset = CamVid(tmp_path)
    assert counts(dataset) == {"0001TP": {"train": 1, "test": 1}, "0006R0": {"train": 1}}
    assert counts(CamVid(tmp_path / "CamVid")) == counts(dataset)
    assert counts(CamVid(tmp_path, domains="all")) == {"all": {"train": 2, "test": 1}}
    assert dataset.read(only_item(dataset))[1].tolist() == [[0, 10, 255]] * 2
    save(tmp_path / "CamVid" / "trainannot" / "0001TP_1.png", np.full((2, 3), 12, dtype=np.uint8))
    refused("trainannot/0001TP_1.png: id 12 on 6 pixels", dataset.read, only_item(dataset))


def test_cityscapes(tmp_path):
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("test", "berlin")):
        stem = f"{city}/{city}_000000_000019"
        save(tmp_path / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", RGB)
        save(tmp_path / "gtFine" / split / f"{stem}_gtFine_labelIds.png", np.array([[7, 0, 33]] * 2, dtype=np.uint8))
        save(tmp_path / "gtFine" / split / f"{stem}_gtFine_color.png", RGB)
    dataset = Cityscapes(tmp_path)
    assert counts(dataset) == {"aachen": {"train": 1}, "lindau": {"val": 1}, "ulm": {"train": 1}}
    assert dataset.read(only_item(dataset))[1].tolist() == [[0, 255, 18]] * 2


def test_idd_lite(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / "leftImg8bit" / split / "7" / "024541_image.jpg", RGB)
        save(tmp_path / "gtFine" / split / "7" / "024541_label.png", np.array([[0, 6, 255]] * 2, dtype=np.uint8))
        save(tmp_path / "gtFine" / split / "7" / "024541_inst_label.png", GREY)
    dataset = IDD(tmp_path)
    assert counts(dataset) == {"lite": {"train": 1, "val": 1}}
    assert dataset.read(only_item(dataset))[1].tolist() == [[0, 6, 255]] * 2


def test_idd_full_sends_each_third_level_id_to_its_first_level(tmp_path):
    image = tmp_path / "leftImg8bit" / "train" / "0" / "f1_leftImg8bit.png"
    save(image, np.zeros((1, 27, 3), dtype=np.uint8))
    truth = tmp_path / "gtFine" / "train" / "0"
    (truth).mkdir(parents=True)
    refused("no \\*_gtFine_labellevel3Ids.png", IDD, tmp_path)
    save(truth / "f1_gtFine_labellevel3Ids.png", np.array([[*range(26), 255]], dtype=np.uint8))
    dataset = IDD(tmp_path)
    assert counts(dataset) == {"full": {"train": 1}}
    expected = [0, 0, 1, 1, 2, 2, *[3] * 7, *[4] * 9, 5, 5, 5, 6, 255]
    assert dataset.read(only_item(dataset))[1].tolist() == [expected]


@pytest.mark.parametrize(("height", "width", "fits"), [(2, 3, True), (7, 21, True), (7, 3, False), (6, 20, False)])
def test_kitti_cuts_a_mask_that_is_larger_by_its_margin_and_no_other(tmp_path, height, width, fits):
    mask = np.full((height, width), 23, dtype=np.uint8)
    mask[-2:, -3:] = [[7, 8, 11], [12, 13, 17]]
    save(tmp_path / "training" / "image_2" / "000000_10.png", RGB)
    save(tmp_path / "training" / "semantic" / "000000_10.png", mask)
    dataset = KITTI(tmp_path)
    assert counts(dataset) == {"karlsruhe": {"train": 1}}
    if fits:
        assert dataset.read(only_item(dataset))[1].tolist() == [[0, 1, 2], [3, 4, 5]]
    else:
        refused("semantic/000000_10.png: mask is", dataset.read, only_item(dataset))


@pytest.fixture
def pictures(tmp_path):
    for domain in ("photo", "sketch"):
        for name in ("dog", "person"):
            save(tmp_path / "kfold" / domain / name / "1.png", RGB)
    return tmp_path


def test_pacs(pictures):
    dataset = PACS(pictures)
    assert counts(dataset) == {"photo": {"all": 2}, "sketch": {"all": 2}}
    labels = [dataset.read(item)[1] for item in dataset.index()["photo"]["all"]]
    assert [int(label) for label in labels] == [0, 6]
    assert all(label.shape == () and label.dtype == np.int64 for label in labels)
    (pictures / "kfold" / "photo" / "dog").rename(pictures / "kfold" / "photo" / "dogs")
    refused("folder 'dogs' is not a class of PACS; did you mean 'dog'", PACS, pictures)


def test_pacs_official_lists(pictures):
    splits = pictures / "splits"
    splits.mkdir()
    for domain in ("photo", "sketch"):
        (splits / f"{domain}_train_kfold.txt").write_text(f"{domain}/person/1.png 7\n")
        (splits / f"{domain}_crossval_kfold.txt").write_text(f"{domain}/dog/1.png 1\n")
    dataset = PACS(pictures)
    assert counts(dataset) == {"photo": {"train": 1, "val": 1}, "sketch": {"train": 1, "val": 1}}
    assert int(dataset.read_label(dataset.index()["photo"]["train"][0])) == 6
    (splits / "photo_train_kfold.txt").write_text("photo/person/1.png 1\n")
    refused("has label 1; its folder says 7", PACS, pictures)
    (splits / "photo_train_kfold.txt").write_text("photo/person/2.png 7\n")
    refused("names no picture", PACS, pictures)


@pytest.mark.parametrize("kind", [CamVid, Cityscapes, IDD, KITTI, PACS])
def test_a_folder_without_the_dataset(tmp_path, kind):
    refused("no .* here; it has", kind, tmp_path)
    refused("no .* here; it has", kind, tmp_path / "nowhere")


def test_a_split_without_images(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    refused("train: it holds no images", CamVid, tmp_path)


def retina(root, names, classes="- {name: background}\n- {name: vessel}\n- {name: outside, id: 255, ignore: true}\n"):
    for name in names:
        save(root / "images" / f"{name}.png", RGB)
        save(root / "masks" / f"{name}.png", np.array([[0, 1, 255]] * 2, dtype=np.uint8))
    (root / "classes.yaml").write_text(classes)


def test_retina_has_the_published_test_images_and_a_stated_validation_split(tmp_path):
    names = [f"drive/test_{n:02}" for n in range(3)] + [f"drive/train_{n:02}" for n in range(11)] + ["hrf/train_1"]
    retina(tmp_path / "retina", names)
    dataset = Retina(tmp_path)
    assert counts(dataset) == {"drive": {"train": 8, "val": 3, "test": 3}, "hrf": {"val": 1}}
    assert [item[0].stem for item in dataset.index()["drive"]["val"]] == ["train_00", "train_05", "train_10"]
    assert [item[0].stem for item in dataset.index()["drive"]["test"]] == ["test_00", "test_01", "test_02"]
    assert counts(Retina(tmp_path / "retina")) == counts(dataset)
    item = dataset.index()["hrf"]["val"][0]
    assert dataset.read(item)[1].tolist() == dataset.read_label(item).tolist() == [[0, 1, 255]] * 2
    assert dataset.label_space.classes == ("background", "vessel")


def test_retina_does_not_take_another_folder_for_its_own(tmp_path):
    retina(tmp_path / "folder", ["drive/1"])
    refused("no retina here", Retina, tmp_path)
    retina(tmp_path / "retina", ["drive/1"], "- {name: road}\n- {name: sky}\n- {name: void, id: 255, ignore: true}\n")
    refused("retina/classes.yaml: it has the classes road, sky", Retina, tmp_path)


# ------------------------------------------------------------------------------------------------------ real data


def test_real_camvid(real_data):
    dataset = CamVid(real_data)
    assert counts(dataset) == {
        "0001TP": {"train": 62, "test": 62},
        "0006R0": {"train": 101},
        "0016E5": {"train": 204, "val": 101},
        "Seq05VD": {"test": 171},
    }
    image, label = dataset.read(only_item(dataset))
    assert image.shape == (360, 480, 3)
    assert label.shape == (360, 480)
    assert label[:20].max() <= 5  # sky, building and tree fill the top of the first dusk frame


def test_real_kitti_masks_are_cut_to_their_images(real_data):
    dataset = KITTI(real_data)
    items = dataset.index()["karlsruhe"]["train"]
    assert len(items) == 5
    for item in items:
        image, label = dataset.read(item)
        assert image.shape == (*label.shape, 3) == (370, 1224, 3)
    raw = np.array(Image.open(items[0][1]))
    road = dataset.read(items[0])[1] == dataset.label_space.index("road")
    np.testing.assert_array_equal(road, raw[5:375, 18:1242] == 7)


def test_real_pacs(real_data):
    dataset = PACS(real_data)
    expected = {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}
    assert counts(dataset) == {domain: {"all": count} for domain, count in expected.items()}
    assert dataset.read(only_item(dataset))[0].shape == (128, 128, 3)


def test_real_retina(real_data):
    dataset = Retina(real_data)
    assert counts(dataset) == {
        "drive": {"train": 16, "val": 4, "test": 20},
        "hrf": {"train": 19, "val": 5, "test": 21},
        "les_av": {"train": 8, "val": 3, "test": 11},
    }
    image, mask = dataset.read(dataset.index()["drive"]["val"][0])
    assert image.shape == (*mask.shape, 3)
    assert image.shape[1] == 540
    vessel, field = (mask == 1).sum(), (mask < 255).sum()
    assert set(np.unique(mask)) == {0, 1, 255}
    assert 0.08 < vessel / field < 0.16
