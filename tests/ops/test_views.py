"""Views: geometry that is undone exactly, photometric changes in their ranges, all draws from the CPU generator."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from hardy.ops.views import (
    CLASSIFICATION,
    COTTA,
    LIGHT,
    Colours,
    View,
    blurred,
    classification_view,
    draw_views,
    jittered,
    mean_probabilities,
    moved,
    noisy,
    recoloured,
)

NEUTRAL = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}


def pictures(count=2, height=12, width=20):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_cotta_has_seven_sizes_mirrored_or_not_and_the_image_itself_is_the_fifth():
    assert len(COTTA) == 14
    assert COTTA[4] == View(1.0, flip=False) == LIGHT[0]
    assert [view.scale for view in COTTA[::2]] == [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert [view.flip for view in COTTA] == [False, True] * 7
    assert LIGHT[1] == View(1.0, flip=True)


@pytest.mark.parametrize("view", COTTA)
def test_geometry_is_undone(view):
    """A ramp is linear, so that a bilinear resize and its inverse keep its inside; its mirror image would not do."""
    ramp = torch.linspace(0, 1, 20).expand(1, 3, 12, 20)
    seen = view.of(ramp)
    assert seen.shape[-2:] == (round(12 * view.scale), round(20 * view.scale))
    assert bool(seen[..., 0].mean() > seen[..., -1].mean()) == view.flip
    torch.testing.assert_close(view.undo(seen, (12, 20))[..., 2:-2], ramp[..., 2:-2])


def test_a_view_may_have_a_least_size_and_logits_of_images_stay():
    assert View(0.5).of(pictures(), least=8).shape[-2:] == (8, 10)
    assert View(0.5).of(pictures(), least=15).shape[-2:] == (12, 15)
    assert View(0.01).of(pictures()).shape[-2:] == (1, 1)
    logits = torch.rand(2, 5)
    assert View(2.0, flip=True).undo(logits, (12, 20)) is logits


def test_the_mean_is_one_of_probabilities_at_their_places():
    """A network that works pixel by pixel gives a mirror image the same logits, mirrored."""
    images = pictures()
    torch.testing.assert_close(mean_probabilities(lambda x: 3 * x, images, LIGHT), (3 * images).softmax(1))
    doubled = mean_probabilities(lambda x: 3 * x, images, [View(), View(2.0)])
    bigger = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
    back = torch.nn.functional.interpolate(3 * bigger, size=(12, 20), mode="bilinear")
    torch.testing.assert_close(doubled, ((3 * images).softmax(1) + back.softmax(1)) / 2)
    by_image = mean_probabilities(lambda x: torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1]], 1), images, LIGHT)
    ends = images[:, 0, 0, [0, -1]]
    torch.testing.assert_close(by_image, (ends.softmax(1) + ends.flip(1).softmax(1)) / 2)


def test_drawn_views_have_all_scales_and_both_sides():
    torch.manual_seed(0)
    drawn = draw_views(60, scales=(0.5, 2.0))
    assert {(view.scale, view.flip) for view in drawn} == {(0.5, False), (0.5, True), (2.0, False), (2.0, True)}


@pytest.mark.parametrize(
    ("ranges", "change"),
    [
        ({"brightness": (1.3, 1.3)}, lambda x: vision.adjust_brightness(x, 1.3)),
        ({"contrast": (0.6, 0.6)}, lambda x: vision.adjust_contrast(x, 0.6)),
        ({"saturation": (0.5, 0.5)}, lambda x: vision.adjust_saturation(x, 0.5)),
        ({"hue": (0.1, 0.1)}, lambda x: vision.adjust_hue(x, 0.1)),
        ({"gamma": (0.7, 0.7)}, lambda x: x**0.7),
    ],
)
def test_each_range_is_of_its_own_change(ranges, change):
    images = pictures()
    made = recoloured(images, Colours(**{**NEUTRAL, "gamma": (1.0, 1.0), **ranges}))
    expected = torch.stack([change(image) for image in images])
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5)


def test_the_order_of_the_changes_is_drawn():
    """Gamma 2 and brightness 2 of 0.5: doubled first it is white, else 0.5 again."""
    ranges = Colours(**{**NEUTRAL, "gamma": (2.0, 2.0), "brightness": (2.0, 2.0)})
    torch.manual_seed(0)
    found = {round(float(recoloured(torch.full((1, 3, 2, 2), 0.5), ranges)[0, 0, 0, 0]), 4) for _ in range(20)}
    assert found == {1.0, 0.5}


def test_blur_has_the_deviation_asked_for_and_fits_tiny_images():
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    weights = torch.exp(-torch.arange(-2.0, 3.0).square() / (2 * 0.8**2))
    made = blurred(point, (0.8, 0.8))[0, 0, 4]
    torch.testing.assert_close(made[2:7], weights / weights.sum() * (1 / weights.sum()))
    assert made[1] == made[7] == 0
    torch.testing.assert_close(blurred(point, (0.001, 0.001)), point)
    for size in ((1, 1), (1, 7), (2, 3)):
        assert blurred(torch.rand(1, 3, *size), (0.5, 1.0)).shape[-2:] == size


def test_noise_has_its_deviation_and_is_cut_off():
    torch.manual_seed(0)
    grey = torch.full((1, 3, 100, 100), 0.5)
    assert float((noisy(grey, 0.005) - grey).std()) == pytest.approx(0.005, rel=0.02)
    white = noisy(torch.ones(1, 3, 9, 9), 0.1)
    assert white.max() == 1
    assert white.min() < 1


def test_moved_takes_each_pixel_from_where_the_map_of_its_draws_says():
    images = pictures(3, 24, 40)
    torch.manual_seed(4)
    made = moved(images)
    torch.manual_seed(4)
    draws = torch.rand(4, 3)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    places = torch.stack([columns - 19.5, rows - 11.5], -1)  # from the centre, in pixels
    for index, image in enumerate(images):
        turn, scale, across, down = draws[:, index].tolist()
        angle = math.radians(15 * (2 * turn - 1))
        rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = torch.tensor([40 / 8 * (2 * across - 1), 24 / 8 * (2 * down - 1)])
        taken = (places - shift) @ torch.linalg.inv((0.9 + 0.2 * scale) * rotation).T
        wide = vision.pad(image, [20, 12], padding_mode="edge")[None]
        expected = torch.nn.functional.grid_sample(wide, (taken / torch.tensor([40, 24]))[None], align_corners=False)
        torch.testing.assert_close(made[index], expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(moved(images, degrees=0, shift=0, scale=(1, 1)), images)


@pytest.mark.parametrize("view", [jittered, classification_view])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (32, 48)])
def test_photometric_views_stay_in_range_differ_by_image_and_repeat(view, size):
    images = pictures(1, *size).repeat(3, 1, 1, 1)
    kept = images.clone()
    torch.manual_seed(1)
    first = view(images)
    torch.manual_seed(1)
    assert torch.equal(view(images), first)
    assert not torch.equal(view(images), first)
    assert torch.equal(images, kept)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first[0], first[1])


def test_the_ranges_are_those_of_the_papers():
    assert Colours() == Colours((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), (0.7, 1.3), (0.15, 1.3), 0.005)
    assert Colours((0.6, 1.4), (0.7, 1.3), (0.5, 1.5), (-0.06, 0.06), (0.7, 1.3), (0.001, 0.5), 0.005) == CLASSIFICATION


def test_views_may_carry_gradients():
    logits = torch.rand(1, 4, 6, 10, requires_grad=True)
    View(0.5, flip=True).undo(logits, (12, 20)).sum().backward()
    assert math.isclose(float(logits.grad.sum()), 4 * 12 * 20, rel_tol=1e-5)
