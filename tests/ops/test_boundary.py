"""Boundaries drawn by hand, and their loss by its formula."""

import math

import pytest
import torch
from torch.nn import functional as F

from hardy.ops.boundary import balanced_loss, boundaries


def picture(*rows: str) -> torch.Tensor:
    """Labels (1, H, W) from digits; a dot is ignored."""
    return torch.tensor([[255 if mark == "." else int(mark) for mark in row] for row in rows]).unsqueeze(0)


def marked(found: torch.Tensor) -> list[str]:
    """A (1, H, W) bool map as rows of ``#`` and ``-``."""
    return ["".join("#" if cell else "-" for cell in row) for row in found[0].tolist()]


def test_both_sides_of_an_edge_are_its_boundary() -> None:
    labels = picture("0000", "0110", "0110", "0000")
    assert marked(boundaries(labels, width=2, frame=0)) == ["-##-", "####", "####", "-##-"]


def test_an_ignored_pixel_makes_no_boundary() -> None:
    assert marked(boundaries(picture("00.11", "00011"), width=2, frame=0)) == ["-----", "--##-"]
    assert not boundaries(picture("0.1.", ".2.3"), frame=0).any()


def test_a_straight_boundary_has_its_width() -> None:
    labels = picture(*["0000011111"] * 3)
    assert marked(boundaries(labels, width=4, frame=0)) == ["---####---"] * 3
    assert marked(boundaries(labels, width=6, frame=0)) == ["--######--"] * 3


def test_the_frame_of_the_image_makes_none_but_may_be_reached_into() -> None:
    labels = picture(*["01" + "0" * 10] * 5, *["0" * 5 + "1" * 7] * 7)
    inner = boundaries(labels, width=2, frame=3)
    for frame in (inner[:, :3], inner[:, -3:], inner[..., :3], inner[..., -3:]):
        assert not frame.any()
    assert inner[0, 5].tolist() == [False] * 4 + [True] * 5 + [False] * 3
    assert bool(boundaries(labels, width=4, frame=3)[0, -3, 4])
    assert not boundaries(labels, frame=6).any()


def test_each_side_weighs_as_much_as_the_other() -> None:
    logits = torch.tensor([[[0.5, -1.0, 2.0, 0.0, 9.0]]], dtype=torch.float64)
    targets = torch.tensor([[[True, False, False, False, True]]])
    counted = torch.tensor([[[True, True, True, True, False]]])

    def cost(z: float, y: int) -> float:
        s = 1 / (1 + math.exp(-z))
        return -math.log(s if y else 1 - s)

    expected = (0.75 * cost(0.5, 1) + 0.25 * (cost(-1.0, 0) + cost(2.0, 0) + cost(0.0, 0))) / 4
    assert balanced_loss(logits, targets, counted).item() == pytest.approx(expected, rel=1e-12)
    even = torch.full((1, 1, 5), 0.3, dtype=torch.float64, requires_grad=True)
    balanced_loss(even, targets, counted).backward()
    pulled = even.grad[0, 0]
    s = 1 / (1 + math.exp(-0.3))
    assert pulled.tolist() == pytest.approx([0.75 * (s - 1) / 4, *[0.25 * s / 4] * 3, 0.0])


@pytest.mark.parametrize(("target", "counted"), [(False, True), (True, True), (False, False), (True, False)])
def test_one_side_alone_or_nothing_gives_zero(target: bool, counted: bool) -> None:
    logits = torch.full((1, 2, 2), 200.0, requires_grad=True)
    loss = balanced_loss(logits, torch.full((1, 2, 2), target), torch.full((1, 2, 2), counted))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(1, 2, 2))


def test_half_precision_is_summed_in_float32() -> None:
    logits = torch.zeros(1, 400, 400, dtype=torch.float16)
    targets = torch.zeros(1, 400, 400, dtype=torch.bool)
    targets[:, :200] = True
    loss = balanced_loss(logits, targets, torch.ones_like(targets))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5 * F.softplus(torch.tensor(0.0)).item())
