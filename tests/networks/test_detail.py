import math

import pytest
import torch

from hardy.networks.parts.detail import detail_losses, detail_targets
from hardy.types import IGNORE


def details_of(rows: list[list[int]]) -> list[list[int]]:
    return detail_targets(torch.tensor([rows]))[0].int().tolist()


def test_by_hand() -> None:
    rows = [[0] * 4 + [7] * 4] * 4
    fine = [0, 0, 0, 0, 1, 0, 0, 0]  # the side of the higher id, at stride 1
    half = [0, 0, 0, 0, 1, 1, 0, 0]  # sampled at column 4, spread over two
    assert details_of(rows) == [half] * 4
    rows = [[0] * 3 + [7] * 5] * 4
    assert details_of(rows) == [[0, 0, 0, 1, 0, 0, 0, 0]] * 4  # column 3 is sampled at stride 1 alone
    assert fine != half


def test_an_edge_at_stride_4_alone_is_too_weak() -> None:
    edges = torch.zeros(1, 8, 8, dtype=torch.int64)
    edges[0, 4, 4] = 1
    found = detail_targets(edges)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4:6, 4:6] = True  # strides 1 and 2; stride 4 marks rows and columns 4 to 7
    assert torch.equal(found, expected)


def test_it_is_the_published_pyramid_where_nothing_is_ignored() -> None:
    """As released, on the inside: convolutions of stride 1, 2 and 4, nearest neighbours, weights and threshold."""
    labels = torch.randint(0, 3, (2, 6, 8), generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 1)
    labels = labels.repeat_interleave(4, 2)
    kernel = -torch.ones(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 8
    levels = []
    for stride in (1, 2, 4):
        found = torch.nn.functional.conv2d(labels[:, None].float(), kernel, stride=stride, padding=1)
        levels.append(torch.nn.functional.interpolate((found > 0.1).float(), (24, 32), mode="nearest"))
    expected = (0.6 * levels[0] + 0.3 * levels[1] + 0.1 * levels[2])[:, 0] > 0.15
    inside = (slice(None), slice(4, -4), slice(4, -4))  # the release takes the outside for class 0
    assert torch.equal(detail_targets(labels)[inside], expected[inside])
    assert 0.05 < expected.float().mean() < 0.6


def test_ignored_pixels_and_the_outside_are_no_class() -> None:
    assert not detail_targets(torch.full((1, 9, 13), 5)).any()
    labels = torch.full((1, 8, 8), 3)
    labels[0, 2:5, 3:7] = IGNORE
    assert not detail_targets(labels).any()
    assert not detail_targets(torch.full((1, 8, 8), IGNORE)).any()
    labels[0, :, 4:] = 1  # an edge beside ignored pixels is still one
    labels[0, 2:5, 3:7] = IGNORE
    found = detail_targets(labels)[0]
    assert found[0, 3]
    assert found[7, 3]
    assert not found[2:5, 3:7].any()


def test_what_ignored_pixels_say_counts_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 9, 11), generator=generator)
    labels[:, 3:6, 2:5] = IGNORE
    logits = torch.randn(2, 1, 9, 11, generator=generator)
    other = torch.where((labels == IGNORE)[:, None], 40.0, logits)
    for name, value in detail_losses(logits, labels).items():
        assert detail_losses(other, labels)[name] == value


def test_losses_by_hand() -> None:
    labels = torch.tensor([[[0, 9, 9, 9]]])
    assert detail_targets(labels).tolist() == [[[False, True, False, False]]]
    logits = torch.zeros(1, 1, 1, 4)
    losses = detail_losses(logits, labels)
    assert losses["detail_bce"].item() == pytest.approx(math.log(2))
    assert losses["detail_dice"].item() == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))
    perfect = torch.tensor([-40.0, 40, -40, -40]).reshape(1, 1, 1, 4)
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in detail_losses(perfect, labels).values())


def test_nothing_labelled_gives_a_loss_and_a_gradient_of_zero() -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    losses = detail_losses(logits, torch.full((1, 4, 4), IGNORE))
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert not logits.grad.any()
