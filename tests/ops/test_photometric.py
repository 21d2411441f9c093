"""Colour changes against torchvision's, and hue by turns that permute the channels."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from hardy.ops.photometric import photometric, recolour

NEUTRAL = {
    "brightness": torch.ones(2),
    "contrast": torch.ones(2),
    "saturation": torch.ones(2),
    "hue": torch.zeros(2),
    "gain": torch.ones(2, 3),
    "offset": torch.zeros(2, 3),
}


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_neutral_values_change_nothing(images):
    torch.testing.assert_close(recolour(images, **NEUTRAL), images)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("brightness", F.adjust_brightness), ("contrast", F.adjust_contrast), ("saturation", F.adjust_saturation)],
)
def test_factors_are_torchvisions(images, name, reference):
    """Which has 0.2989 where the standard has 0.299."""
    made = recolour(images, **{**NEUTRAL, name: torch.tensor([0.5, 1.4])})
    expected = torch.stack([reference(images[0], 0.5), reference(images[1], 1.4)])
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-4)


def test_a_third_of_a_turn_permutes_the_channels(images):
    made = recolour(images, **{**NEUTRAL, "hue": torch.tensor([1 / 3, -1 / 3])})
    torch.testing.assert_close(made[0], images[0][[2, 0, 1]])  # green is what red was
    torch.testing.assert_close(made[1], images[1][[1, 2, 0]])


def test_all_at_once_is_one_after_the_other(images):
    images = 0.4 + 0.2 * images  # so that nothing is cut off on the way
    steps = {
        "brightness": torch.tensor([0.9, 1.2]),
        "contrast": torch.tensor([0.7, 1.3]),
        "saturation": torch.tensor([0.2, 1.4]),
        "hue": torch.tensor([0.1, -0.2]),
    }
    expected = images
    for name, values in steps.items():
        expected = recolour(expected, **{**NEUTRAL, name: values})
    torch.testing.assert_close(recolour(images, **{**NEUTRAL, **steps}), expected)


def test_gain_and_offset_come_last_and_the_rest_is_cut_off(images):
    options = {
        "brightness": torch.tensor([0.8, 1.1]),
        "contrast": torch.tensor([0.7, 1.2]),
        "saturation": torch.tensor([0.0, 1.3]),
        "hue": torch.tensor([0.1, 0.0]),
    }
    gain, offset = torch.tensor([[0.7, 1.0, 1.3], [1.0, 1.2, 0.9]]), torch.tensor([[0.1, -0.1, 0.0], [0.0, 0.9, -0.9]])
    before = recolour(images, **{**NEUTRAL, **options})
    made = recolour(images, **options, gain=gain, offset=offset)
    expected = (before * gain.view(2, 3, 1, 1) + offset.view(2, 3, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(made, expected)
    assert made[1].max() == 1
    assert made[1].min() == 0


def test_draws_come_from_the_generator_and_differ_by_image(images):
    same = images[:1].expand(4, -1, -1, -1)
    torch.manual_seed(3)
    first = photometric(same)
    torch.manual_seed(3)
    assert torch.equal(photometric(same), first)
    assert not torch.equal(photometric(same), first)
    assert len({float(image.sum()) for image in first}) == 4
    assert first.min() >= 0
    assert first.max() <= 1
    torch.testing.assert_close(photometric(images, 0.0), images)
