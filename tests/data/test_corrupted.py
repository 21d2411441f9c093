"""The data set `corrupted`: another data set's images, corrupted by a package, the same at every reading."""

import sys

import numpy as np
import pytest
from PIL import Image

from hardy.data.datasets import corrupted
from hardy.data.datasets.corrupted import KINDS, Corrupted
from hardy.data.sources import domains
from hardy.errors import InputError

STREETS = {"of": "streets", "options": {"size": (48, 64), "train": 2, "val": 0, "test": 1}}


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("imagecorruptions")


def made(**options):
    return Corrupted(".", **{**STREETS, **options})


def test_a_domain_for_each_corruption_and_strength():
    one = made(only=["fog", "sim"], kinds=["fog", "contrast"], strengths=[1, 5])
    assert list(one.index()) == [
        f"{domain}-{kind}-{strength}"
        for strength in (1, 5)
        for kind in ("fog", "contrast")
        for domain in ("sim", "fog")
    ]
    assert one.label_space.name == "cityscapes19"
    assert {split: len(items) for split, items in one.index()["sim-fog-1"].items()} == {"train": 2, "val": 0, "test": 1}


def test_two_copies_of_a_data_set_have_the_same_images(package, tmp_path):
    """Whatever folder they are in."""
    seen = []
    for place in (tmp_path / "a", tmp_path / "b" / "c"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (place / kind / "day").mkdir(parents=True)
            Image.new(mode, (40, 40)).save(place / kind / "day" / "1.png")
        (place / "classes.yaml").write_text("- {name: road}\n")
        one = Corrupted(place, of="folder", kinds=["gaussian_noise"], strengths=[3])
        ((item,),) = one.index()["day-gaussian_noise-3"].values()
        seen.append(one.read(item)[0])
    np.testing.assert_array_equal(*seen)


@pytest.mark.costly
def test_every_corruption_is_the_packages_own_and_repeats_with_its_seed(package):
    one = made(only=["day"], kinds=KINDS, strengths=[3])
    assert set(KINDS) == {*package.get_corruption_names("all")} - {"glass_blur", "impulse_noise"}
    for name, splits in one.index().items():
        item = splits["test"][0]
        clean, label = one.of.read(item[0])
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        image, same = one.read(item)
        assert (np.random.get_state()[1] == state).all(), "the global generator changed"  # noqa: NPY002
        np.testing.assert_array_equal(label, same)
        np.testing.assert_array_equal(image, one.read(item)[0], err_msg=name)
        assert image.shape == clean.shape
        assert (image != clean).any(), name
    np.random.seed(7)  # noqa: NPY002
    image = np.full((40, 40, 3), 100, np.uint8)
    wanted = package.corrupt(image, severity=2, corruption_name="gaussian_noise")
    with corrupted._drawing(7):
        np.testing.assert_array_equal(package.corrupt(image, severity=2, corruption_name="gaussian_noise"), wanted)


def test_what_is_drawn_depends_on_image_and_seed(package):
    one = made(only=["day"], kinds=["gaussian_noise"], strengths=[3])
    first, second = one.index()["day-gaussian_noise-3"]["train"]

    def noise(data, item):
        return data.read(item)[0].astype(int) - data.of.read(item[0])[0]

    other = made(only=["day"], kinds=["gaussian_noise"], strengths=[3], seed=1)
    assert (noise(one, first) != noise(one, second)).mean() > 0.9
    assert (noise(one, first) != noise(other, first)).mean() > 0.9


def test_strength_is_strength(package):
    """Contrast, by the package: each channel moves to its mean, to 0.4 of the distance at strength 1, to 0.05 at 5."""
    one = made(only=["day"], kinds=["contrast"], strengths=[1, 5])
    (weak,), (strong,) = (one.index()[f"day-contrast-{s}"]["test"] for s in (1, 5))
    clean = one.of.read(weak[0])[0]
    spread = [one.read(item)[0].std(axis=(0, 1)) / clean.std(axis=(0, 1)) for item in (weak, strong)]
    np.testing.assert_allclose(spread[0], 0.4, atol=0.02)
    np.testing.assert_allclose(spread[1], 0.05, atol=0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ["gausian_noise"]}, "no corruption 'gausian_noise'; did you mean 'gaussian_noise'"),
        ({"kinds": ["glass_blur"]}, "no corruption 'glass_blur'"),
        ({"strengths": [0]}, "Corrupted.strengths"),
        ({"strengths": [6]}, "Corrupted.strengths"),
        ({"kinds": []}, "at least one corruption"),
        ({"only": ["dya"]}, "streets has no domain 'dya'; did you mean 'day'"),
        ({"of": "corrupted"}, "is this data set itself"),
        ({"of": "stretes", "options": {}}, "did you mean 'streets'"),
        ({"options": {"sise": (48, 64)}}, "sise"),
    ],
)
def test_what_cannot_be_is_one_line(options, said):
    with pytest.raises(InputError) as error:
        made(**options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_package_reading_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    one = made(only=["day"])
    with pytest.raises(InputError, match=r"pip install 'hardy\[corrupt\]'"):
        one.read(one.index()["day-contrast-2"]["test"][0])


def test_an_image_that_is_too_small_is_named(tmp_path):
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / kind / "day").mkdir(parents=True)
        Image.new(mode, (40, 31)).save(tmp_path / kind / "day" / "1.png")
    (tmp_path / "classes.yaml").write_text("- {name: road}\n")
    (domain,) = domains(
        ["corrupted/day-contrast-2"], root=tmp_path, options={"corrupted": {"of": "folder", "options": {}}}
    )
    with pytest.raises(InputError, match=r"1.png \(contrast 2\): 31x40 pixels"):
        domain.dataset.read(domain.items()[0])
