"""The joint transforms: geometry against formulas, randomness from one generator only, colours within bounds."""

import numpy as np
import pytest
import torch

from hardy.data.transforms import PictureAugmentation, SceneAugmentation, at_size, evaluation, training
from hardy.errors import InputError
from hardy.seed import seeded

H, W = 24, 36
ROWS, COLUMNS = np.mgrid[:H, :W].astype(np.uint8)
IMAGE = np.stack([ROWS, COLUMNS, ROWS + COLUMNS], axis=-1)
"""Each pixel says where it was."""


def drawn(transform, seed, image=IMAGE, label=COLUMNS):
    with seeded(seed):
        return transform(image, label)


def test_nothing_to_do_changes_nothing():
    image, label = SceneAugmentation((H, W), scale=(1, 1), flip=0, photometric=0)(IMAGE, COLUMNS)
    assert (image.dtype, label.dtype) == (torch.float32, torch.int64)
    torch.testing.assert_close(image.double() * 255, torch.from_numpy(IMAGE).permute(2, 0, 1).double())
    np.testing.assert_array_equal(label, COLUMNS)


def test_flip_turns_image_and_mask():
    image, label = SceneAugmentation((H, W), scale=(1, 1), flip=1, photometric=0)(IMAGE, COLUMNS)
    np.testing.assert_array_equal(label, COLUMNS[:, ::-1])
    np.testing.assert_array_equal((image[1] * 255).round(), COLUMNS[:, ::-1])


def test_a_crop_takes_image_and_mask_from_one_place_and_reaches_every_corner():
    transform = SceneAugmentation((10, 12), scale=(1, 1), flip=0.5, photometric=0)
    corners = set()
    for seed in range(300):
        image, label = drawn(transform, seed)
        np.testing.assert_array_equal((image[1] * 255).round(), label)
        corners.add((int((image[0] * 255).round().min()), int(label.min())))
    assert {top for top, _ in corners} == set(range(H - 10 + 1))
    assert {left for _, left in corners} == set(range(W - 12 + 1))


@pytest.mark.parametrize("factor", [0.5, 0.75])
def test_what_is_smaller_than_the_crop_is_padded_with_ignored_pixels(factor):
    image, label = SceneAugmentation((H, W), scale=(factor, factor), flip=0, photometric=0)(IMAGE, COLUMNS)
    assert image.shape == (3, H, W)
    h, w = int(H * factor), int(W * factor)
    assert (label[:h, :w] < W).all()
    assert (label[h:] == 255).all()
    assert (label[:, w:] == 255).all()
    torch.testing.assert_close(image[:, -1, -1] * 255, torch.tensor([124.0, 116.0, 104.0]))


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_a_scaled_mask_stays_on_its_image(scale):
    """Image and mask both say the column; a mask sampled off the cell's centre would be biased against the image."""
    wide = np.tile(np.arange(200, dtype=np.uint8), (40, 1))
    transform = SceneAugmentation((20, 100), scale=(scale, scale), flip=0, photometric=0)
    errors = []
    for seed in range(20):
        image, label = drawn(transform, seed, np.stack([wide] * 3, axis=-1), wide)
        inside = label != 255
        inside[:, :3] = inside[:, -3:] = False
        errors.append((label.double() - image[0].double() * 255)[inside].mean())
    assert abs(np.mean(errors)) < 0.1


def test_at_size_follows_the_formula_of_the_centre():
    image, mask = at_size(IMAGE, COLUMNS, (H, 20))
    expected = np.floor((np.arange(20) + 0.5) * W / 20)
    np.testing.assert_array_equal(mask, np.tile(expected, (H, 1)))
    assert (image.shape, image.dtype, mask.dtype) == ((H, 20, 3), np.uint8, np.uint8)
    unchanged = at_size(IMAGE, COLUMNS, (H, W))
    np.testing.assert_array_equal(unchanged[0], IMAGE)
    np.testing.assert_array_equal(at_size(IMAGE, np.array(3), (5, 5))[1], 3)


@pytest.mark.parametrize("transform", [SceneAugmentation((16, 16)), PictureAugmentation((16, 16))])
def test_randomness_comes_from_torchs_generator_alone(transform):
    label = COLUMNS if isinstance(transform, SceneAugmentation) else np.array(3)
    first = drawn(transform, 1, label=label)
    again = drawn(transform, 1, label=label)
    other = drawn(transform, 2, label=label)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_colours_leave_the_mask_and_the_range_alone():
    bright = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    transform = SceneAugmentation((H, W), scale=(1, 1), flip=0)
    means = []
    for seed in range(100):
        image, label = drawn(transform, seed, bright)
        assert 0 <= image.min() <= image.max() <= 1
        assert image.is_contiguous()
        np.testing.assert_array_equal(label, COLUMNS)
        means.append(float(image.mean()))
    assert min(means) < 0.25  # dusk
    assert max(means) > 0.7  # glare


def test_strength_scales_the_colour_changes():
    bright = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    plain = torch.from_numpy(bright).permute(2, 0, 1) / 255
    change = [
        np.mean(
            [
                float((drawn(SceneAugmentation((H, W), (1, 1), 0, strength), seed, bright)[0] - plain).abs().mean())
                for seed in range(30)
            ]
        )
        for strength in (0.0, 0.1, 1.0)
    ]
    assert change[0] < 1e-6
    assert 0.005 < change[1] < change[2] / 3


def test_pictures_keep_their_class():
    image, label = drawn(training((20, 30), image_level=True), 0, label=np.array(5, dtype=np.int64))
    assert image.shape == (3, 20, 30)
    assert (label.shape, label.dtype, int(label)) == ((), torch.int64, 5)


def test_evaluation_resizes_the_image_and_never_the_mask():
    image, label = evaluation((12, 18))(IMAGE, COLUMNS)
    assert image.shape == (3, 12, 18)
    np.testing.assert_array_equal(label, COLUMNS)
    image, _ = evaluation()(IMAGE, COLUMNS)
    assert image.shape == (3, H, W)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "size"),
        ({"size": (4, 4), "scale": (2, 1)}, "scale"),
        ({"size": (4, 4), "scale": (0, 1)}, "scale"),
        ({"size": (4, 4), "flip": 1.5}, "flip"),
        ({"size": (4, 4), "photometric": -1}, "photometric"),
        ({"size": (4, 4), "scale": (0.5, 2), "image_level": True}, "at most 1.0 of the area"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        training(**options)
