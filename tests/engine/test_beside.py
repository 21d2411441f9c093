"""What several networks make of one image: the masks that predicting writes, and their classes."""

import numpy as np
import pytest
from PIL import Image

import hardy
from hardy.engine.beside import look
from hardy.errors import InputError


@pytest.fixture(scope="module")
def networks():
    return {name: hardy.create("tiny", classes="camvid11", width=width).eval() for name, width in (("a", 8), ("b", 16))}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [None, (32, 64)])
def test_each_overlay_is_the_one_that_predicting_writes(networks, image, size, tmp_path):
    looks = look(networks, image, size=size)
    assert [one.name for one in looks] == ["a", "b"]
    for one in looks:
        hardy.predict(networks[one.name], image, tmp_path / one.name, size=size, draw=["overlay"])
        (written,) = (tmp_path / one.name / "overlays").iterdir()
        assert np.array_equal(np.asarray(one.overlay), np.asarray(Image.open(written)))
        ids = np.asarray(Image.open(tmp_path / one.name / "image.png"))
        names = networks[one.name].label_space.classes
        shares = {names[place]: (ids == place).mean() for place in np.unique(ids)}
        assert one.shares == pytest.approx(shares)
        assert list(one.shares.values()) == sorted(one.shares.values(), reverse=True)
        assert one.milliseconds > 0


def test_an_image_that_is_too_small_has_a_reason_and_the_others_are_shown(networks):
    looks = look(networks, np.zeros((1, 9, 3), dtype=np.uint8))
    assert all(one.overlay is None and one.reason.startswith("1x9 pixels, but Tiny needs at least") for one in looks)


def test_a_network_without_masks_is_refused(image):
    classifier = hardy.create("classifier", classes="pacs7", encoder="mobilenetv3_small_100")
    with pytest.raises(InputError, match="predicts one class per image"):
        look({"one": classifier}, image)
