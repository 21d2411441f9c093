"""PIDNet's blocks by the paper's equations."""

import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.bag import Bag
from hardy.blocks.dappm import scaled
from hardy.blocks.light_bag import LightBag
from hardy.blocks.pag import Pag
from hardy.blocks.pappm import PAPPM

KEEP = (1 + 1e-5) ** -0.5
"""A fresh norm divides by sqrt(1 + eps)."""


def maps(count: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 4, 6, 8, dtype=torch.float64) for _ in range(count)]


def up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, (6, 8), mode="bilinear", align_corners=False)


def test_pag_takes_the_context_where_the_two_agree() -> None:
    block = Pag(4, 3).double().eval()
    (x,) = maps(1)
    y = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    asked, answer = F.conv2d(x, block.f_x[0].weight) * KEEP, up(F.conv2d(y, block.f_y[0].weight) * KEEP)
    share = torch.sigmoid(torch.einsum("bchw,bchw->bhw", asked, answer)).unsqueeze(1)
    torch.testing.assert_close(block(x, y), (1 - share) * x + share * up(y))


def test_pag_of_opposites_keeps_the_detail() -> None:
    block = Pag(4, 4).eval()
    for layers, sign in ((block.f_x, 30.0), (block.f_y, -30.0)):
        layers[0].weight.data = sign * torch.eye(4).view(4, 4, 1, 1)
    x = torch.ones(1, 4, 6, 8)
    torch.testing.assert_close(block(x, x[..., :3, :4]), x)
    torch.testing.assert_close(block(x, -5 * x[..., :3, :4]), -5 * x)


def test_bag_takes_detail_at_a_boundary_and_context_elsewhere() -> None:
    block = Bag(4).double().eval()
    detail, context, boundary = maps(3)
    s = torch.sigmoid(boundary)
    mixed = torch.relu((s * detail + (1 - s) * context) * KEEP)
    torch.testing.assert_close(block(detail, context, boundary), F.conv2d(mixed, block.mix[2].weight, padding=1))
    for sign, expected in ((1, detail), (-1, context)):
        only = block(detail, context, torch.full_like(boundary, sign * 1e3))
        torch.testing.assert_close(only, block.mix(expected))


def test_light_bag_by_its_equation() -> None:
    block = LightBag(4).double().eval()
    detail, context, boundary = maps(3)
    s = torch.sigmoid(boundary)
    first = F.conv2d((1 - s) * context + detail, block.detail[0].weight)
    second = F.conv2d(context + s * detail, block.context[0].weight)
    torch.testing.assert_close(block(detail, context, boundary), (first + second) * KEEP)


def test_pappm_refines_each_scale_by_itself() -> None:
    torch.manual_seed(0)
    pooling = PAPPM(6, 2, 5).double().eval()
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)

    def unit(layers: nn.Sequential, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        weight = layers[2].weight if weight is None else weight
        return F.conv2d(torch.relu(x * KEEP), weight, padding=weight.shape[-1] // 2)

    narrow = unit(pooling.narrow, x)
    parts = [narrow]
    for index, level in enumerate(scaled(x, pooling.scales)):
        weight = pooling.refine[2].weight[2 * index : 2 * index + 2]
        parts.append(unit(pooling.refine, level + narrow, weight))
    expected = unit(pooling.join, torch.cat(parts, 1)) + unit(pooling.shortcut, x)
    torch.testing.assert_close(pooling(x), expected)
    assert pooling.refine[2].weight.shape == (8, 2, 3, 3)
